"""What people, flows and remotes name (addresses, refs, folders, paths, commits) never becomes an option of git's.

A ``git`` that writes down how it is called and answers as if all were well stands first on the PATH.
``HEADRACE_ARGUMENTS`` says how many strings are tried.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.engine import errors
from headrace.sync import mirror, remote, versions
from headrace.sync.source import Source

COUNT = int(os.environ.get("HEADRACE_ARGUMENTS", "100"))
SHA = "5" * 40

_GIT = """#!/bin/sh
{ printf '%s\\0' "$@"; printf '\\0\\n'; } >> LOG
case " $* " in
  *" --is-bare-repository "*) echo true ;;
  *" ls-remote "*)
    dashes=; for word; do
      if test "$dashes" = 2; then printf 'TIP\\t%s\\n' "$word"; fi
      if test "$dashes" = 1; then dashes=2; fi
      if test "$word" = -- && test -z "$dashes"; then dashes=1; fi
    done ;;
  *" rev-parse "*) echo SHA ;;
  *" cat-file -s "*) echo 1 ;;
  *" merge-base "*) ;;
esac
"""

#: What an attacker would like git to read as an option, a helper, a command or another file.
TRICKS = [
    *("-", "--", "--upload-pack=touch canary", "-utouch canary", "--exec=touch canary", "-c core.pager=touch canary"),
    *("-ccore.sshCommand=touch canary", "--config=x", "--template=/tmp", "--output=canary", "-ocanary", "--no-index"),
    *("ext::sh -c 'touch canary'", "fd::7", "file://", "file:///etc", "$(touch canary)", "`touch canary`", "${IFS}"),
    *(";touch canary", "|touch canary", "&", "\n", "\r", "\0", "\t", " ", "'", '"', "\\", "*", "?", "[", "~", "^", ":"),
    *("..", "@{", "@{-1}", "HEAD", "refs/heads/", "refs/heads/-x", ".lock", "//", "/", ".", ":(exclude)", ":!", ":/"),
    *(
        "\u2010",
        "\u2013",
        "\u2212",
        "\uff0d",
        "\u202e",
        "ｈost",
        "https://",
        "ssh://",
        "git@",
        "@",
        "%0a",
        "%00",
        "main",
    ),
    *("a", "host", "x.git", "feature/x", "v1.0", "#", "=", "+", ",", "1" * 40, "-oProxyCommand=touch canary"),
]


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    log = tmp_path / "argv"
    mirror.Mirror(tmp_path / "state").ensure()
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(_GIT.replace("LOG", str(log)).replace("SHA", SHA).replace("TIP", "6" * 40))
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return log


def told(log: Path) -> list[list[str]]:
    """Return the calls so far, and forget them."""
    if not log.exists():
        return []
    calls = log.read_bytes().decode("utf-8", "surrogateescape").split("\0\0\n")[:-1]
    log.unlink()
    return [call.split("\0") for call in calls]


def options(call: list[str]) -> set[str]:
    """Return what git reads as options: everything that begins with a dash, up to ``--``."""
    until = call.index("--") if "--" in call else len(call)
    return {word for word in call[:until] if word.startswith("-")}


def command(call: list[str]) -> str:
    """Return the command: what stands first that is no option of git's and not the value of one."""
    at = 0
    while call[at] == "-c":
        at += 2
    return call[at]


def use(state: Path, where: str = "", odd: str = "", prefix: str = "") -> bool:
    """Do with a string what sync does with one that stands there; return whether the settings were let in."""
    given = {"url": "https://host/x.git", "ref": "main", "path": "flows", "flow": "a.py", "commit": SHA}
    given |= {where: prefix + odd} if where else {}
    given |= {"path": ""} if where == "flow" else {}  # nothing stands before its name then
    flow, commit = given.pop("flow"), given.pop("commit")
    try:
        made = remote.Remote(Source(**given), state)
    except errors.ConfigurationInvalid:
        return False
    former = versions.Versions(made.mirror)
    steps: list[Callable[[], object]] = []
    if where not in ("flow", "commit"):
        steps += [made.fetch, lambda: made.mirror.entries(SHA), made.tip]
    if where not in ("url", "ref", "commit"):
        steps += [lambda: former.text(flow, SHA, SHA), lambda: former.diff(flow, SHA, SHA, SHA)]
    if where not in ("url", "ref", "path", "flow"):
        steps += [lambda: former.commit(commit, SHA), lambda: made.mirror.has(commit), lambda: made.mirror.pin(commit)]
    for step in steps:
        with contextlib.suppress(errors.HeadraceError, ValueError):  # of a flow called "\0" the system says no
            step()
    return True


def test_no_string_from_outside_becomes_an_option(recorded, tmp_path, record_property):
    state = tmp_path / "state"
    assert use(state)
    assert use(state, "ref", SHA)
    assert use(state, "path", "")
    assert use(state, "ref", "")
    plain = told(recorded)
    known = set().union(*(options(call) for call in plain))
    assert {"--symref", "--no-tags", "--follow"} <= known
    commands = {command(call) for call in plain}
    assert {"ls-remote", "fetch", "ls-tree", "log", "diff", "cat-file", "update-ref"} <= commands
    chance = random.Random(11)
    record_property("tries", COUNT)
    seen = 0
    for _ in range(COUNT):
        odd = "".join(chance.choices(TRICKS, k=chance.randint(1, 3)))
        where = chance.choice(["url", "ref", "path", "flow", "commit"])
        prefix = chance.choice(["", "https://host/", "ssh://", "host:"]) if where == "url" else ""
        let_in = use(state, where, odd, prefix)
        calls = told(recorded)
        seen += len(calls)
        assert let_in or not calls, (where, odd)
        for call in calls:
            assert options(call) <= known, (where, odd, call)
            assert command(call) in commands, (where, odd, call)
        assert not (tmp_path / "canary").exists(), (where, odd)
    assert seen > COUNT
