"""Repositories that nobody makes by accident: a commit each, written object by object, past every check of git's.

``CASES`` is name → what becomes of the commit and who builds it. Beside its trap each holds ``good.py``, a flow. What
must not happen is the same for all: nothing of it runs before a flow does, and nothing is written outside.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.support.repositories import FLOW

_ABOUT = b"Eve <eve@example.org> 1700000000 +0000"


class Raw:
    """The object store of a bare repository, open to anything. ``canary`` is a file that nothing may make."""

    def __init__(self, upstream: Path, canary: Path) -> None:
        self.upstream = upstream
        self.canary = canary

    def put(self, kind: str, content: bytes) -> str:
        whole = f"{kind} {len(content)}\0".encode() + content
        sha = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
        path = self.upstream / "objects" / sha[:2] / sha[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(whole, 1))
        return sha

    def blob(self, content: bytes) -> str:
        return self.put("blob", content)

    def tree(self, *entries: tuple[bytes, bytes, str]) -> str:
        """Return a tree of (mode, name, sha) in the order given."""
        return self.put("tree", b"".join(m + b" " + n + b"\0" + bytes.fromhex(sha) for m, n, sha in entries))

    def commit(self, tree: str, *, head: bytes | None = None, message: bytes = b"x\n") -> str:
        about = b"author %s\ncommitter %s\n" % (_ABOUT, _ABOUT) if head is None else head
        return self.put("commit", b"tree %s\n%s\n%s" % (tree.encode(), about, message))

    def with_good(self, *entries: tuple[bytes, bytes, str]) -> str:
        """Return a commit of ``good.py`` and what is given, in git's order."""
        all_entries = [*entries, (b"100644", b"good.py", self.blob(FLOW.encode()))]
        return self.commit(self.tree(*sorted(all_entries, key=lambda entry: _order(entry[0], entry[1]))))

    def at(self, names: list[bytes], mode: bytes, sha: str) -> tuple[bytes, bytes, str]:
        """Return the topmost entry of a path."""
        for name in reversed(names):
            entry = (mode, name, sha)
            mode, sha = b"40000", self.tree(entry)
        return entry


def _order(mode: bytes, name: bytes) -> bytes:
    return name + b"/" if mode == b"40000" else name


Build = Callable[[Raw], str]


@dataclasses.dataclass(frozen=True)
class Case:
    """``fate``: taken (the commit is published), refused, or either: then git's or our rules may say so."""

    fate: str
    build: Build


CASES: dict[str, Case] = {}


def case(name: str, fate: str, build: Build) -> None:
    assert name not in CASES, name
    CASES[name] = Case(fate, build)


def file_case(fate: str, path: str, content: bytes | Callable[[Raw], bytes], label: str = "") -> None:
    """A commit with one more file."""

    def build(raw: Raw) -> str:
        text = content if isinstance(content, bytes) else content(raw)
        return raw.with_good(raw.at(path.encode().split(b"/"), b"100644", raw.blob(text)))

    case(f"file {label or path}", fate, build)


def evil(raw: Raw) -> bytes:
    """Python that shows itself as soon as it is imported or run."""
    return f"open({str(raw.canary)!r}, 'w').close()\n".encode()


# --- names

_GIT_NAMES = [
    *(b".git", b".GIT", b".Git", b"git~1", b"GIT~1", b".git.", b".git..", b".git ", b".git . ", b".GiT."),
    *(b".git::$INDEX_ALLOCATION", b".git:x"),
    *(f".g{sign}it".encode() for sign in "\u200c\u200d\u200e\u202a\u206a\ufeff"),
]
_CONTROL_NAMES = [b"x\r", b"x\n.py", b"\x1b[31m.py", b"x\x01", b"x\x7f.py", b"\x85\xc2", b"a\\b.py", b"..\\x.py", b"\\"]
_WRONG_NAMES = [b"..", b".", b"", b"a/b.py", b"/etc", b"../x.py", b"\xff\xfe.py", b"a" * 256, b"a" * 4096]

for _name in _GIT_NAMES:
    for _place in ("top", "below", "folder"):

        def _named(raw: Raw, name: bytes = _name, place: str = _place) -> str:
            names = {"top": [name], "below": [b"sub", name], "folder": [name, b"config"]}[place]
            return raw.with_good(raw.at(names, b"100644", raw.blob(b"[core]\n\tfsmonitor = touch x\n")))

        case(f"git's name {_name!r} {_place}", "refused", _named)

for _name in (*_CONTROL_NAMES, *_WRONG_NAMES):

    def _wrong(raw: Raw, name: bytes = _name) -> str:
        return raw.with_good(raw.at([b"sub", name], b"100644", raw.blob(FLOW.encode())))

    case(f"name {_name[:20]!r} {len(_name)}", "refused", _wrong)

for _first, _second in (
    (b"a.py", b"A.py"),
    (b"Sub", b"sub"),
    ("é.py".encode(), "e\u0301.py".encode()),
    (b"k", "\u212a".encode()),
):

    def _twins(raw: Raw, first: bytes = _first, second: bytes = _second) -> str:
        flow = raw.blob(FLOW.encode())
        return raw.with_good((b"100644", first, flow), (b"100644", second, flow))

    case(f"names {_first.decode()} and {_second.decode()!a}", "refused", _twins)

# --- what is no file

_TARGETS = [b"/etc/passwd", b"../../../../etc/passwd", b"link", b"/proc/self/environ", b".git/config", b"", b"x" * 5000]
for _target in _TARGETS:

    def _link(raw: Raw, target: bytes = _target) -> str:
        return raw.with_good((b"120000", b"link", raw.blob(target)))

    case(f"link to {_target[:20]!r} {len(_target)}", "taken", _link)


def _link_and_folder(raw: Raw) -> str:
    inner = raw.tree((b"100644", b"x.py", raw.blob(FLOW.encode())))
    return raw.commit(raw.tree((b"120000", b"a", raw.blob(b"/tmp")), (b"40000", b"a", inner)))


case("a link and a folder of one name", "refused", _link_and_folder)

_MODULES = {
    "option": b'[submodule "x"]\n\tpath = x\n\turl = -u./payload\n',
    "outside": b'[submodule "../../x"]\n\tpath = ../../x\n\turl = /x\n',
    "helper": b"[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c 'touch canary'\n",
    "carriage return": b'[submodule "x"]\n\tpath = "x\r"\n\turl = /x\n',
    "command": b'[submodule "x"]\n\tpath = x\n\turl = /x\n\tupdate = !touch canary\n',
    "garbage": b"\0[[[",
}
for _label, _modules in _MODULES.items():

    def _submodule(raw: Raw, modules: bytes = _modules) -> str:
        return raw.with_good((b"160000", b"x", "12" * 20), (b"100644", b".gitmodules", raw.blob(modules)))

    case(f"submodule {_label}", "either", _submodule)

case(
    "submodules file that is a link", "refused", lambda raw: raw.with_good((b"120000", b".gitmodules", raw.blob(b"x")))
)
for _mode in (b"100664", b"100600", b"104755", b"0100644", b"170000", b"060000", b"010644", b"1", b"-100644"):

    def _odd(raw: Raw, mode: bytes = _mode) -> str:
        return raw.with_good((mode, b"x.py", raw.blob(FLOW.encode())))

    case(f"mode {_mode.decode()}", "either", _odd)

case("a file that is a tree", "refused", lambda raw: raw.with_good((b"100644", b"x.py", raw.tree())))
case("a tree that is a file", "refused", lambda raw: raw.with_good((b"40000", b"x", raw.blob(b"x"))))
case("a file that is not there", "refused", lambda raw: raw.with_good((b"100644", b"x.py", "ab" * 20)))
case("a tree that is not there", "refused", lambda raw: raw.with_good((b"40000", b"x", "ab" * 20)))
case("a file called nothing at all", "refused", lambda raw: raw.with_good((b"100644", b"x.py", "00" * 20)))


def _twice(raw: Raw) -> str:
    flow = raw.blob(FLOW.encode())
    return raw.commit(raw.tree((b"100644", b"a.py", flow), (b"100644", b"a.py", raw.blob(b"x = (\n"))))


case("one name twice", "refused", _twice)


def _unsorted(raw: Raw) -> str:
    flow = raw.blob(FLOW.encode())
    return raw.commit(raw.tree((b"100644", b"z.py", flow), (b"100644", b"good.py", flow)))


case("names out of order", "refused", _unsorted)

# --- commits

_HEADS = {
    "no author": b"committer %s\n" % _ABOUT,
    "nobody at all": b"",
    "a parent that is not there": b"parent %s\nauthor %s\ncommitter %s\n" % (b"ab" * 20, _ABOUT, _ABOUT),
    "an author without end": b"author Eve <eve 1 +0\ncommitter %s\n" % _ABOUT,
    "a time beyond time": b"author E <e@x> 99999999999999999999 +0000\ncommitter %s\n" % _ABOUT,
    "a zone of its own": b"author E <e@x> 1 +99999\ncommitter %s\n" % _ABOUT,
    "an encoding of its own": b"author %s\ncommitter %s\nencoding ../../x\n" % (_ABOUT, _ABOUT),
    "a signature of garbage": b"author %s\ncommitter %s\ngpgsig \x1b[31m\n \0\n" % (_ABOUT, _ABOUT),
    "escapes for a terminal": b"author \x1b]0;x\x07 <e@x> 1 +0000\ncommitter %s\n" % _ABOUT,
}
for _label, _head in _HEADS.items():

    def _headed(raw: Raw, head: bytes = _head) -> str:
        return raw.commit(raw.tree((b"100644", b"good.py", raw.blob(FLOW.encode()))), head=head)

    case(f"commit with {_label}", "either", _headed)


def _words(raw: Raw) -> str:
    flow = raw.blob(FLOW.encode())
    return raw.commit(raw.tree((b"100644", b"good.py", flow)), message=b"\x1b[31m\r\n\xff" * 500_000)


case("commit with a message of megabytes", "taken", _words)
case("commit of a file", "refused", lambda raw: raw.commit(raw.blob(b"x")))

# --- too much of everything


def _bomb(raw: Raw) -> str:
    inner, kind = raw.blob(b"x"), b"100644"
    for _ in range(10):
        inner, kind = raw.tree(*((kind, b"%d" % number, inner) for number in range(10))), b"40000"
    return raw.commit(inner)


def _deep(raw: Raw) -> str:
    return raw.with_good(raw.at([b"d"] * 3000 + [b"x.py"], b"100644", raw.blob(FLOW.encode())))


def _wide(raw: Raw) -> str:
    blob = raw.blob(b"x")
    return raw.commit(raw.tree(*sorted((b"100644", b"%06d" % number, blob) for number in range(100_000))))


def _heavy(raw: Raw) -> str:
    zeros = raw.blob(bytes(31 << 20))
    return raw.with_good(*((b"100644", b"%d.bin" % number, zeros) for number in range(9)))


case("ten billion files in ten trees", "refused", _bomb)
case("three thousand folders in each other", "refused", _deep)
case("a hundred thousand files", "refused", _wide)
case("more bytes than allowed", "refused", _heavy)
file_case("taken", "zeros.bin", lambda raw: bytes(100 << 20), "of 100 MiB of zeros")
file_case("taken", "zeros.py", lambda raw: b"#" * (3 << 20), "of Python of 3 MiB")

# --- what Python, pytest or git would listen to

for _path in (
    *("sitecustomize.py", "usercustomize.py", "conftest.py", "json.py", "ast.py", "tokenize.py", "__init__.py"),
    *("encodings/__init__.py", "headrace/__init__.py", "setup.py", "__main__.py", "lib/__init__.py", "re.py"),
):
    file_case("taken", _path, evil)
file_case("taken", "evil.pth", lambda raw: b"import os; " + evil(raw))
file_case(
    "taken", "pyproject.toml", lambda raw: b'[build-system]\nrequires = []\nbackend-path = ["."]\nbuild-backend = "x"\n'
)
file_case("taken", "__pycache__/good.cpython-311.pyc", b"x")
file_case(
    "taken", ".gitattributes", b"*.py filter=evil export-subst ident text eol=crlf working-tree-encoding=UTF-16\n"
)
file_case("either", ".gitattributes", b"x" * (1 << 20) + b" text\n", "attributes with a line of a mebibyte")
file_case("taken", ".gitignore", b"*\n")
file_case("taken", ".lfsconfig", b"[lfs]\n\turl = http://127.0.0.1:1/\n")
file_case("taken", ".mailmap", b"<x> <y>\n" * 1000)
file_case("taken", "hooks/post-checkout", lambda raw: f"#!/bin/sh\ntouch {raw.canary}\n".encode())


def _bare_inside(raw: Raw) -> str:
    config = raw.blob(f"[core]\n\tbare = true\n\tfsmonitor = touch {raw.canary}\n".encode())
    names = {b"HEAD": raw.blob(b"ref: refs/heads/main\n"), b"config": config}
    folder = raw.tree(*((b"100644", name, sha) for name, sha in names.items()), (b"40000", b"objects", raw.tree()))
    return raw.with_good((b"40000", b"sub", folder))


case("a bare repository inside", "taken", _bare_inside)

# --- flows that harm whoever compiles them

_HANDLER = b"\ndef handler(system, this): ...\n"
_CODE = {
    "brackets": b"x = " + b"(" * 100_000,
    "closed brackets": b"x = " + b"[" * 5_000 + b"]" * 5_000 + _HANDLER,
    "minuses": b"x = " + b"-" * 200_000 + b"1" + _HANDLER,
    "a string to be folded": b"x = 'x' * 10**9" + _HANDLER,
    "a number to be folded": b"x = 1 << 10**9" + _HANDLER,
    "a tuple to be folded": b"x = ((1,) * 10**5,) * 10**5" + _HANDLER,
    "digits": b"x = " + b"9" * 900_000 + _HANDLER,
    "attributes": b"x" + b".x" * 100_000 + _HANDLER,
    "lambdas": b"x = " + b"lambda: " * 50_000 + b"1" + _HANDLER,
    "loops": b"".join(b" " * n + b"for x in x:\n" for n in range(200)) + _HANDLER,
    "handlers": b"def handler(system, this): ...\n" * 20_000,
    "decorators": b"@x\n" * 50_000 + b"def handler(system, this): ...\n",
    "strings of f": b"x = " + b"f'{" * 2_000 + b"1" + b"}'" * 2_000 + _HANDLER,
    "a null": b"x = 1\0" + _HANDLER,
    "UTF-16": ("\ufeff" + _HANDLER.decode()).encode("utf-16"),
    "surrogates": b"x = '\xed\xa0\x80'" + _HANDLER,
    "a line of a mebibyte": b"x = '" + b"a" * 900_000 + b"'" + _HANDLER,
    **{
        f"coding {name}": b"# coding: " + name.encode() + _HANDLER
        for name in ("hex", "bz2", "zip", "rot13", "unicode_escape", "utf-7", "idna", "undefined", "../x", "mbcs")
    },
    "a block of nothing": b"# /// script\n" * 1000 + _HANDLER,
    "a block of bombs": b"# /// script\n# x = " + b"[" * 30_000 + b"\n# ///\n" + _HANDLER,
    "a block of dots": b"# /// script\n# " + b"a." * 15_000 + b"a = 1\n# ///\n" + _HANDLER,
}
for _label, _text in _CODE.items():
    file_case("taken", "trap.py", _text, f"of code: {_label}")

# --- documents that harm whoever reads them

_LAUGHS = b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40))
_DOCUMENTS = {
    "laughs": _LAUGHS,
    "python": b"x: !!python/object/apply:os.system ['touch canary']\n",
    "a name of python": b"x: !!python/name:os.system\n",
    "brackets": b"[" * 50_000,
    "digits": b"x: " + b"9" * 500_000,
    "itself": b"&a [*a]\n",
    "a null": b"x: \0\n",
    "garbage": bytes(range(256)),
    "two documents": b"a: 1\n---\nb: 2\n",
    "sixty": b"x: " + b":".join([b"59"] * 20_000),
}
for _label, _text in _DOCUMENTS.items():
    file_case("taken", "settings/trap.yaml", _text, f"of data: {_label}")
