"""Which files are flows and what is wrong with the others, found in a process that may die of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.sync import check, compile_flows


def verdict(text: str | bytes) -> check.Verdict:
    content = text.encode() if isinstance(text, str) else text
    return check.check({"flow.py": content})["flow.py"]


@pytest.mark.parametrize(
    "text",
    [
        "def handler(system, this): ...",
        "def handler(system, this, inputs): ...",
        "def handler(system, this, inputs=None): ...",
        "def handler(*args): ...",
        "def handler(system, *rest, flag=False, **more): ...",
        "from lib.flows import handler",
        "import lib.flows as handler",
        "handler = make_handler()",
        "handler: object = make_handler()",
        "first, handler = make()",
        "class handler: ...",
        "@decorated\ndef handler(anything): ...",
        "if True:\n    def handler(system, this): ...\nelse:\n    handler = None",
        "try:\n    import x\nexcept ImportError:\n    def handler(system, this): ...",
        "match 1:\n    case 1:\n        def handler(system, this): ...",
        "def handler(x): ...\ndef handler(system, this): ...",
        "# -*- coding: latin-1 -*-\nname = '\xe4'\ndef handler(system, this): ...".encode("latin-1"),
        "\ufeffdef handler(system, this): ...",
    ],
)
def test_flows_are_recognised(text):
    found = verdict(text)
    assert (found.handler, found.reason) == (True, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def send(): ...",
        "def outer():\n    def handler(system, this): ...",
        "class Flow:\n    def handler(self, this): ...",
        "print(handler)",
        "x = [handler := 1][0] if False else 2",
    ],
)
def test_helpers_are_not_flows(text):
    assert verdict(text) == check.Verdict()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("x = 1\ndef handler(system, this)\n", 2, "syntax error: expected ':'"),
        ("def handler(system, this):\nreturn 1\n", 2, "expected an indented block"),
        ("def handler(system, this): ...\nreturn 1\n", 2, "'return' outside function"),
        ("\n\nasync def handler(system, this): ...", 3, "async def"),
        ("def handler(): ...", 1, "takes 0 arguments"),
        ("def handler(a, b, c, d): ...", 1, "takes 4 arguments"),
        ("def handler(system, this, *, key): ...", 1, "keyword argument 'key'"),
        ("def handler(system, this): ...\n\0", 1, "null bytes"),
        ("# coding: nonsense\ndef handler(system, this): ...", 1, "unknown encoding"),
        ("# /// script\n# [tool.headrace]\n# tiemout = 3\n# ///\ndef handler(system, this): ...", 3, "tiemout"),
        ("# /// script\n# [tool.headrace]\ndef handler(system, this): ...", 1, "no end"),
    ],
)
def test_broken_flows_name_line_and_reason(text, line, said):
    found = verdict(text)
    assert found.meant_as_flow
    assert found.line == line
    assert said in found.reason


@pytest.mark.parametrize(
    "bomb",
    [
        b"x = " + b"(" * 300_000,
        b"x = " + b"-" * 900_000 + b"1",
        b"x = " + b"[" * 150 + b"]" * 150 + b"\n" + b"if 1:\n" * 99,
        b"x = 1" + b"+1" * 400_000,
        b"a" + b".a" * 400_000,
        b"x = 9**9**9**9\n" + b"y = 'a' * 10**10\n",
    ],
)
def test_a_file_that_takes_the_interpreter_down_takes_only_itself(bomb):
    files = {f"{name}.py": b"def handler(system, this): ..." for name in "abcxyz"}
    found = check.check(files | {"bomb.py": b"def handler(system, this): ...\n" + bomb})
    assert len(found) == 7
    assert all(found[path].handler and not found[path].reason for path in files)


@pytest.fixture
def fragile(monkeypatch, tmp_path):
    """Have the check run by a child that a file with the text ``die`` kills, as an interpreter's defect would."""
    text = Path(compile_flows.__file__).read_text()
    marked = "        _allow(_SECONDS_PER_FILE)\n"
    assert marked in text
    child = tmp_path / "compile_flows.py"
    dies = "        content == b'die' and __import__('signal').raise_signal(11)\n"
    child.write_text(text.replace(marked, dies + marked))
    monkeypatch.setattr(compile_flows, "__file__", str(child))


def test_a_crash_is_told_and_the_other_files_are_checked(fragile):
    good = b"def handler(s, t): ..."
    found = check.check({"a.py": good, "b.py": b"die", "c.py": b"die", "d.py": good})
    assert found["b.py"].reason == found["c.py"].reason == "cannot be compiled: it takes the interpreter down (SIGSEGV)"
    assert found["a.py"].handler
    assert found["d.py"].handler


def test_a_file_that_takes_too_long_is_told_and_holds_up_no_other(fragile):
    child = Path(compile_flows.__file__)
    child.write_text(
        child.read_text()
        .replace("_SECONDS_PER_FILE = 10", "_SECONDS_PER_FILE = 0")
        .replace(
            "        _allow(_SECONDS_PER_FILE)\n",
            "        _allow(_SECONDS_PER_FILE)\n        while content == b'slow': pass\n",
        )
    )
    found = check.check({"a.py": b"slow", "b.py": b"def handler(s, t): ..."})
    assert found["a.py"].reason == "cannot be compiled: it takes too long"
    assert found["b.py"].handler


def test_a_commit_full_of_bombs_does_not_keep_the_check_busy(fragile, monkeypatch):
    monkeypatch.setattr(check, "_FATAL_FILES_MAX", 2)
    found = check.check({f"{number}.py": b"die" for number in range(9)})
    reasons = [found[f"{number}.py"].reason for number in range(9)]
    assert ["interpreter down" in reason for reason in reasons] == [True] * 2 + [False] * 7
    assert set(reasons[2:]) == {"cannot be compiled: it is one of too many that end the check"}


def test_nothing_in_a_file_is_executed(tmp_path):
    canary = tmp_path / "canary"
    verdict(f"open({str(canary)!r}, 'w')\n@open({str(canary)!r}, 'w')\ndef handler(system, this): ...")
    assert not canary.exists()


def test_many_files_are_checked_in_several_processes():
    found = check.check({f"{number}.py": b"def handler(system, this): ..." for number in range(1000)})
    assert sum(one.handler for one in found.values()) == 1000


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("a.py", True),
        ("sub dir/b.c.py", True),
        ("_private.py", True),
        ("a.txt", False),
        (".py", False),
        ("x/__init__.py", False),
        ("conftest.py", False),
        ("tests/test_a.py", False),
        ("x/tests/a.py", False),
        ("_lib/a.py", False),
        (".github/a.py", False),
    ],
)
def test_the_path_tells_what_can_be_a_flow(path, may):
    assert check.may_be_flow(path) is may
