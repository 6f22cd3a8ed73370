"""What a setting's value may be: how each kind is read, called and shown.

``config`` names one of these in each row. A kind's ``parse`` is a function of what was written (a TOML value, or text
from the environment) and raises ``ValueError`` with the rest of a sentence that begins with the setting: "must be …".
A feature with several values of its own is one setting whose kind is ``table``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from . import written

_SCP_STYLE = re.compile(r"[^/\s]+:.+")  # git@forge:ops/flows.git, and anything with a scheme


class Kind(msgspec.Struct, frozen=True):
    """What a value may be: its name for people, how it is read (``ValueError`` if it cannot be), how it is shown."""

    name: str
    parse: Callable[[Any], Any]
    show: Callable[[Any], Any] = lambda value: value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text in quotes")
    return value.strip()


def _source(value: object) -> str:
    text = _text(value)
    return text if not text or _SCP_STYLE.fullmatch(text) else str(Path(text).expanduser().absolute())


def _file(value: object) -> str:
    text = _text(value)
    if text and not Path(text).expanduser().is_file():
        raise ValueError("is not a file")
    return str(Path(text).expanduser().absolute()) if text else ""


def _subfolder(value: object) -> str:
    text = _text(value).strip("/")
    if ".." in text.split("/"):
        raise ValueError("must stay inside the source: .. is not allowed")
    return text


def _directory(value: object) -> Path:
    text = _text(value)
    if not text:
        raise ValueError("must name a directory")
    return Path(text).expanduser().absolute()


def _yes_or_no(value: object) -> bool:
    word = str(value).strip().lower()
    if word not in ("true", "false"):
        raise ValueError("must be true or false")
    return word == "true"


def count(least: int, most: int) -> Kind:
    def parse(value: object) -> int:
        text = str(value).strip()
        if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return Kind(f"{least}–{most}", parse)


def duration(least_s: float, most_s: float, *, or_zero: bool = False) -> Kind:
    def parse(value: object) -> float:
        seconds = written.duration_s(value)
        if not least_s <= seconds <= most_s and not (or_zero and seconds == 0):
            raise ValueError(f"must be from {least_s:g}s to {most_s:g}s{', or 0' if or_zero else ''}")
        return seconds

    return Kind("duration", parse, lambda seconds: f"{seconds:.15g}s")


def one_of(*words: str) -> Kind:
    def parse(value: object) -> str:
        word = _text(value).lower()
        if word not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return word

    return Kind(" | ".join(words), parse)


def _name(value: object) -> str:
    text = _text(value)
    if not text.isprintable():
        raise ValueError("must be printable")
    return text


def _folders(value: object) -> Mapping[str, str]:
    """Read ``settings=config, files=data``, or a table; which folders there are sync knows."""
    if isinstance(value, dict):
        return {str(folder): _text(name) for folder, name in value.items()}
    pairs = [pair.partition("=") for pair in _text(value).split(",") if pair.strip()]
    if not all(folder.strip() and name.strip() for folder, _, name in pairs):
        raise ValueError('is not a list such as "settings=config, files=data"')
    return {folder.strip(): name.strip() for folder, _, name in pairs}


def _shown_folders(value: Mapping[str, str]) -> str:
    return ", ".join(f"{folder}={name}" for folder, name in value.items())


def table(form: type[Any], none: str = "", plain: str = "") -> Kind:
    """Return the kind of a TOML table with the fields of ``form``, a frozen msgspec struct; ``none`` is None, and
    ``plain`` is one with every field as usual.

    In the environment it is written as JSON. Fields that are files or secrets check themselves in ``__post_init__``
    with a ``ValueError``."""

    def parse(value: object) -> Any:
        if value in ("", none):
            return None
        if plain and value == plain:
            return form()
        try:
            told = json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError:
            raise ValueError("must be a table, or JSON of one in the environment") from None
        try:
            return msgspec.convert(told, form)
        except msgspec.ValidationError as error:
            raise ValueError(f"cannot be used: {error}") from None

    return Kind("table", parse, _shown_table)


def _shown_table(value: Any) -> Any:
    return "" if value is None else {k: v for k, v in msgspec.to_builtins(value).items() if v not in ("", [], {})}


TEXT = Kind("text", _text)
SOURCE = Kind("text", _source, written.without_credentials)
FILE = Kind("file", _file)
SUBFOLDER = Kind("text", _subfolder)
DIRECTORY = Kind("directory", _directory, str)
YES_OR_NO = Kind("true | false", _yes_or_no)
NAME = Kind("text", _name)
FOLDERS = Kind("folder=name, …", _folders, _shown_folders)
ADDRESS = Kind("host:port", written.Address.parse, str)
