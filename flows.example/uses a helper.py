"""Modules of the repository can be imported, always as they were at the commit the execution is pinned to."""

from lib.words import initials


def handler(system, this, inputs):
    return {'initials': initials(inputs.get('name', 'Ada Lovelace'))}
