"""Headrace: an automation daemon. Git is the stream, flows are the mill.

The repository root is this package, so its four rooms stand at the top level:

* ``daemon``  what people run and talk to: command line, configuration, wiring, HTTP API, webhooks
* ``sync``    git to catalogue: mirror, snapshots, checks, watching
* ``tasks``   what a flow may ask the world to do, one module per task type
* ``engine``  executions: life cycle, journal, index, supervision; ``engine/guest`` runs inside flow processes

Imports point one way, ``daemon -> {sync, tasks} -> engine``; ``tests/test_house.py`` enforces it.
"""

__version__ = "0.1.0"
