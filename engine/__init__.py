"""Executions: what they are, what happened to them, who runs them.

Floors, top to bottom: ``running`` (dispatcher, supervision, calls) over ``workers`` (flow processes), ``state``
(what flows keep) and ``records`` (the journal and what is derived from it), over ``ports``, over ``model``,
``events``, ``lifecycle`` and ``errors``. ``guest`` is the part inside flow processes and imports only the
standard library.
"""
