"""The YAML documents of a repository as JSON, read by a process that may die of it.

Owns: how that process is started (Python without anything but its standard library and PyYAML), the size a document
may have, and what it says about each. Refuses: nothing; a document that cannot be used has a ``problem``. Called by
``candidate`` from a worker thread with the files that changed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import msgspec

from . import examination, tree

#: More than people write by hand; data of that size belongs into files/.
DOCUMENT_BYTES_MAX = 1024 * 1024
_NULL = msgspec.Raw(b"null")

# The child shall find PyYAML and nothing else that runs at start, so its folder is added by hand.
_START = "import runpy, sys; sys.path.append(sys.argv[2]); runpy.run_path(sys.argv[1], run_name='__main__')"
_CHILD = str(Path(__file__).with_name("read_documents.py"))


class Document(msgspec.Struct, frozen=True):
    """One file: its value and the lines its top keys stand in, or why it cannot be used."""

    value: msgspec.Raw = _NULL
    lines: dict[str, int] = {}
    problem: str = ""
    line: int = 0


def read(files: Mapping[str, bytes]) -> dict[str, Document]:
    """Return the document of each file (path → content)."""
    asked = examination.Examination(
        words=("-c", _START, _CHILD, _libraries()),
        answer=Document,
        give_up=lambda ending: Document(problem=f"cannot be read: it {ending}", line=1),
    )
    return asked.of(files)


def too_large(entry: tree.Entry) -> Document:
    """Return the document of a file that is not even opened."""
    problem = f"{entry.size:,} bytes, the limit is {DOCUMENT_BYTES_MAX:,}; put large data below files/"
    return Document(problem=problem, line=1)


def _libraries() -> str:
    found = importlib.util.find_spec("yaml")
    assert found is not None, "PyYAML is one of our dependencies"
    assert found.origin is not None
    return str(Path(found.origin).parents[1])
