"""docs/replay.md: what it shows is what appears, and what it lists is what there is."""

import re
from pathlib import Path

import pytest

from headrace.daemon.cli import replay
from headrace.engine.records import exports
from tests.support.daemons import Daemon
from tests.support.replays import headrace

DOCUMENT = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()
FILES = dict(re.findall(r"^```python\n# ([\w]+\.py)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL))
SHOWN = re.findall(r"^```console\n\$ headrace (.*?)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    home = tmp_path_factory.mktemp("docs")
    for folder in ("flows", "changed"):
        (home / folder).mkdir()
        for name, text in FILES.items():
            (home / folder / name).write_text(f"{text}")
    changed = FILES["orders.py"].replace("> 5", "> 9").replace("'packs', what='an", "'wraps', what='an")
    (home / "changed" / "orders.py").write_text(changed)
    daemon = Daemon(home / "s", home / "flows").start()
    daemon.run("orders", number=7)
    yield daemon
    assert daemon.stop() == 0


@pytest.mark.parametrize(("typed", "shown"), SHOWN, ids=[typed for typed, _ in SHOWN])
def test_a_command_shows_what_stands_there(daemon, typed, shown):
    words = [str(daemon.state.parent / word) if word == "changed" else word for word in typed.split()]
    _, out, _ = headrace("--state", daemon.state, *words)
    ids = re.compile(r"\b01[0-9a-z]{24}\b")
    assert ids.sub("ID", out) == ids.sub("ID", shown)


def test_the_outcomes_and_lines_listed_are_those_there_are():
    table = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", DOCUMENT, re.MULTILINE))
    known = {verdict.value: str(status) for verdict, status in replay.STATUS.items()}
    known.pop("left")  # the debugger, that is
    assert table == known
    assert f'{{"format":"{exports.FORMAT}","version":{exports.VERSION},…}}' in DOCUMENT
