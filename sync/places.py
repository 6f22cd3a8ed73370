"""Which path of a repository is what: a flow, or the declaration of a record. By names alone, pure.

Owns: the folders of declarations and how a path below them becomes a record's name. Refuses: folders that lie in each
other or leave the repository. Used by ``source`` (settings), ``catalogue``, ``declarations`` and ``write_back``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

import msgspec

from ..engine import errors
from . import check

#: Folder → type of the records declared in it. People may give the folders other names.
FOLDERS = {
    "settings": "setting",
    "files": "file",
    "connections": "connection",
    "webhooks": "webhook",
    "schedules": "schedule",
    "vault_configs": "vault_config",
}
_SUFFIXES = (".yaml", ".yml")
#: A setting of that name publishes a webhook; its file may lie beside the webhooks or at the top.
_PUBLISHING = "client.webhook."
#: Git keeps no empty folders, so people put this into them; it says nothing.
_PLACEHOLDER = ".gitkeep"


class Place(msgspec.Struct, frozen=True):
    """The record that a file declares."""

    type: str
    name: str


class Places(msgspec.Struct, frozen=True):
    """The folders of one source, path → type."""

    types: Mapping[str, str]

    @classmethod
    def named(cls, names: Mapping[str, str]) -> Places:
        """Return the usual places with other folder names for some, ``{"settings": "config"}``; raises if unfit."""
        if unknown := sorted(names.keys() - FOLDERS.keys()):
            raise errors.ConfigurationInvalid(
                f"folders names {', '.join(unknown)}", hint=f"there are {', '.join(FOLDERS)}"
            )
        types = {_checked(names.get(folder, folder)): type_ for folder, type_ in FOLDERS.items()}
        inside = [(one, two) for one in types for two in types if one != two and f"{one}/".startswith(f"{two}/")]
        if len(types) < len(FOLDERS) or inside:
            raise errors.ConfigurationInvalid(
                "two kinds of records are declared in one folder", hint="give each a folder of its own"
            )
        return cls(types)

    def of(self, path: str) -> Place | None:
        """Return the record that the file at ``path`` declares, if it is in a place to declare one."""
        name = path.rpartition("/")[2]
        folder, type_ = next(((f, t) for f, t in self.types.items() if path.startswith(f"{f}/")), ("", ""))
        if type_ == "file":
            return Place(type_, path.removeprefix(f"{folder}/")) if name != _PLACEHOLDER else None
        stem, dot, suffix = path.rpartition(".")
        if dot + suffix not in _SUFFIXES or any(part.startswith(".") for part in path.split("/")):
            return None
        if name.startswith(_PUBLISHING) and (type_ == "webhook" or path == name):
            return Place("setting", stem.rpartition("/")[2])
        return Place(type_, stem.removeprefix(f"{folder}/")) if type_ else None

    def may_be_flow(self, path: str) -> bool:
        """Return whether the file at ``path`` can be a flow: files for flows to read never are."""
        return check.may_be_flow(path) and not any(
            path.startswith(f"{folder}/") for folder, type_ in self.types.items() if type_ == "file"
        )

    @property
    def rules(self) -> str:
        """What of the places decides over a catalogue, as a text to compare; empty for the usual ones."""
        return "" if list(self.types) == list(FOLDERS) else "|".join(self.types)


def _checked(folder: str) -> str:
    path = PurePosixPath(folder)
    if not folder.isprintable() or path.is_absolute() or ".." in path.parts or not path.parts:
        raise errors.ConfigurationInvalid(f"the folder {folder!r} cannot be used", hint="name a folder below the flows")
    return path.as_posix()


USUAL = Places(FOLDERS)
