"""README.md: what a newcomer is told to type works. And no link of any document leads nowhere."""

import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from headrace.daemon.cli import main
from tests.support.daemons import Daemon

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "flows.example").glob("*.md")])
COMMANDS = re.findall(r"^\$ (.*?)(?:\s+#.*)?$", README, re.MULTILINE)
ADDRESS = "http://127.0.0.1:8420"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    home = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "flows.example", home / "flows")
    daemon = Daemon(home / "s", home / "flows").start()
    yield daemon
    assert daemon.stop() == 0


def headrace(daemon: Daemon, command: str) -> str:
    """Type ``command``, meant for this daemon, and return what it says."""
    words = [sys.executable, "-m", "headrace", "--state", str(daemon.state), *shlex.split(command)[1:]]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_beside_a_running_daemon_work(daemon):
    typed = [command for command in COMMANDS if command.startswith(".venv/bin/headrace")]
    flows, ran, tree = [headrace(daemon, command) for command in typed]
    assert all(path.stem in flows for path in (ROOT / "flows.example").glob("*.py"))
    assert '"total": 14' in ran
    assert tree.count("square") == 4  # the parent and its three children


def test_the_webhook_answers_and_the_records_can_be_read(daemon):
    url = next(re.search(r"'(.*)'", command)[1] for command in COMMANDS if command.startswith("curl"))
    with urllib.request.urlopen(url.replace(ADDRESS, daemon.url)) as answer:
        assert b"hello Ada" in answer.read()
    command = next(command for command in COMMANDS if command.startswith("tail"))
    command = command.replace(".headrace/", f"{shlex.quote(str(daemon.state))}/")
    assert subprocess.check_output(["bash", "-c", command]).count(b"\n") == 3


def test_the_first_flow_runs_as_soon_as_it_is_saved(daemon):
    name, text = re.search(
        r"`flows\.example/([\w]+\.py)`.*?^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
    ).groups()
    (Path(daemon.source) / name).write_text(text.replace(ADDRESS, daemon.url))
    daemon.client.sync()
    run, logs = [command for command in COMMANDS if command.startswith("headrace")]
    headrace(daemon, run)
    assert "it failed" not in headrace(daemon, logs)
    assert headrace(daemon, "headrace show latest").count("all done") == 1


def test_every_verb_of_make_exists_and_every_verb_of_the_command_line_is_named():
    typed = "\n".join(path.read_text() for path in DOCUMENTS)
    verbs = {
        verb for words in re.findall(r"^\$ make ([\w ]+?)(?:\s+#.*)?$", typed, re.MULTILINE) for verb in words.split()
    }
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"run", "test"} <= verbs <= targets
    table = README.partition("| verb | does |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(?:headrace )?([a-z-]+)", table))
    assert {*main._VERBS, "version", "completion"} <= named


def anchors(path: Path) -> set[str]:
    """The anchors that forges make of a document's headings."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if not re.match(r"[a-z]+:", link):
            file, _, anchor = link.partition("#")
            target = document.parent / file if file else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme():
    assert not [path.name for path in (ROOT / "docs").glob("*.md") if f"docs/{path.name}" not in README]
