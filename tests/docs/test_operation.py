"""docs/operation.md: its lists are those of the code, its commands work, and what it says of a crash is so."""

import ast
import json
import re
import shutil
import subprocess
import sys
import typing
import zlib
from pathlib import Path

import pytest

from headrace.daemon import config
from headrace.daemon.cli import unit
from headrace.engine import errors, events
from headrace.engine.records import segments
from tests.support.daemons import Daemon, until

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "operation.md").read_text()
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def table(head: str) -> list[list[str]]:
    """The cells of the table with that head, row by row."""
    rows = DOCUMENT.partition(f"| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]


def names(head: str) -> set[str]:
    return {name for row in table(head) for name in re.findall(r"`([^`]+)`", row[0])}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    home = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "flows.example", home / "flows")
    (home / "flows" / "waits.py").write_text("def handler(system, this):\n    this.log('begun')\n    this.sleep(600)\n")
    daemon = Daemon(home / "s", home / "flows").start()
    daemon.run("squares in parallel")
    daemon.run("fails on purpose")
    yield daemon
    assert daemon.stop() == 0


def test_every_journal_event_is_listed():
    kinds = [*typing.get_args(events.AnyEvent), segments.SegmentOpened, segments.SegmentSealed]
    assert names("event | says") == {kind.__struct_config__.tag for kind in kinds}


def test_every_event_of_the_log_is_listed_with_its_level():
    written: dict[str, set[str]] = {}
    for path in [path for room in ("daemon", "engine", "sync", "tasks") for path in (ROOT / room).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(ast.Name("log"), level), args=[ast.Constant(name), *_]) if (
                    level in LEVELS
                ):
                    written.setdefault(name, set()).add("error" if level == "exception" else level)
    documented: dict[str, set[str]] = {}
    for row in table("event | level | says"):
        found, levels = re.findall(r"`([^`]+)`", row[0]), row[1].split(", ")  # one for all, or one for each
        for name, level in zip(found, levels if len(levels) > 1 else levels * len(found), strict=True):
            documented[name] = set(level.split(" or "))
    assert documented == written, "describe every event of the log in docs/operation.md"


def test_every_exit_code_of_the_daemon_is_listed():
    fatal = (errors.HeadraceError, errors.ConfigurationInvalid, errors.StateInUse, errors.JournalCorrupt)
    codes = {0, *(kind.exit_code for kind in fatal), errors.HistoryLost.exit_code}
    assert {int(row[0]) for row in table("exit code | means")} == codes
    assert errors.JournalFailed.exit_code == errors.JournalCorrupt.exit_code


def test_the_state_directory_holds_what_is_listed(daemon):
    listed = {name.split("/")[0] for name in names("name | holds")}
    found = {path.name for path in daemon.state.iterdir()}
    assert found <= listed
    assert listed - found <= {"blobs", "files", "git-token", "gnupg", "sources", "spans.json", "tokens.json"}


def test_the_line_that_is_explained_is_a_real_one_and_every_field_is():
    line = re.search(r"^```json\n(.*)\n```$", DOCUMENT, re.MULTILINE)[1]
    decoded = segments.decode(line.encode() + b"\n")
    assert isinstance(decoded.event, events.ExecutionCreated)
    assert json.loads(line).keys() == names("field | is")
    assert {*json.loads(line)} - {"seq", "batch", "at", "event", "crc"} <= {*events.ExecutionCreated.__struct_fields__}


def test_the_checksum_is_what_the_document_says(daemon):
    crc = 0
    for line in next((daemon.state / "records").glob("*.jsonl")).read_bytes().splitlines():
        crc = zlib.crc32(line[: line.rindex(b',"crc":')], crc)
        assert json.loads(line)["crc"] == f"{crc:08x}"


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_jq_commands_find_something(daemon):
    commands = re.findall(r"^\$ (jq .*)$", DOCUMENT, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        found = subprocess.run(["bash", "-c", command], cwd=daemon.state, capture_output=True, text=True, check=True)
        assert len(found.stdout.splitlines()) > 0, command


def headrace(command: str, state: Path) -> subprocess.CompletedProcess:
    """Type a command of the document, with DIR for the state directory."""
    words = [sys.executable, "-m", "headrace", *command.replace("DIR", str(state)).split()[1:]]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def command(verb: str) -> str:
    return re.search(rf"^\$ (headrace records {verb} .*)$", DOCUMENT, re.MULTILINE)[1]


def test_the_records_are_checked_beside_a_running_daemon_and_not_changed_there(daemon):
    checked = headrace(command("verify"), daemon.state)
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "sound")
    for verb in ("salvage", "reindex"):
        refused = headrace(f"headrace records {verb} --state DIR", daemon.state)
        assert refused.returncode == errors.StateInUse.exit_code


def test_records_that_went_backwards_are_refused_until_the_loss_is_accepted(daemon, tmp_path):
    state = tmp_path / "s"
    first = Daemon(state, daemon.source).start()
    first.run("square", number=2)
    assert first.stop() == 0
    shutil.copytree(state / "records", tmp_path / "older")
    again = Daemon(state, daemon.source).start()
    again.run("square", number=3)
    again.kill()
    again.start()
    assert again.stop() == 0
    shutil.rmtree(state / "records")
    shutil.copytree(tmp_path / "older", state / "records")
    refused = Daemon(state, daemon.source).start(wait=False)
    assert refused.process.wait(30) == errors.HistoryLost.exit_code
    assert "history went backwards" in refused.log.read_text()
    accepted = Daemon(state, daemon.source, "--accept-loss").start()
    assert accepted.stop() == 0
    assert "history.loss_accepted" in accepted.log.read_text()
    assert Daemon(state, daemon.source).start().stop() == 0


def test_the_unit_fits_the_settings():
    unit = dict(re.findall(r"^(\w+)=(.*)$", DOCUMENT.partition("```ini")[2].partition("```")[0], re.MULTILINE))
    settings = config.load({"source.url": "/flows"}, {"STATE_DIRECTORY": "/var/lib/headrace"}, {})
    assert settings.state_directory == Path("/var/lib/headrace")
    assert int(unit["TimeoutStopSec"]) > settings.run_stop_grace_s + 30  # so long the last ones may take to be buried
    assert (unit["KillMode"], unit["StateDirectory"]) == ("mixed", "headrace")
    assert int(unit["RestartPreventExitStatus"]) == errors.ConfigurationInvalid.exit_code


def test_a_kill_a_lost_index_and_a_copy_of_the_records_go_as_described(daemon, tmp_path):
    waiting = daemon.client.run("waits")["id"]
    until(lambda: list(daemon.client.log(waiting)), "it waits")
    copy = tmp_path / "s"
    for name in ("records", "snapshots"):
        shutil.copytree(daemon.state / name, copy / name)
    daemon.kill()
    (daemon.state / "index.db").unlink()
    daemon.start()
    restored = Daemon(copy, daemon.source).start()
    for one in (daemon, restored):
        assert one.client.execution(waiting)["status"] == "WAITING"
        one.client.cancel(waiting)
        assert one.client.wait(waiting)["status"] == "ENDED_CANCELLED"
    assert restored.stop() == 0


def test_a_damaged_journal_is_refused_untouched_and_can_be_moved_aside(daemon, tmp_path):
    state = tmp_path / "s"
    shutil.copytree(daemon.state / "records", state / "records")
    segment = state / "records" / "00000001.jsonl"
    content = bytearray(segment.read_bytes())
    content[1000] ^= 1
    segment.write_bytes(content)
    refused = Daemon(state, daemon.source).start(wait=False)
    assert refused.process.wait(30) == errors.JournalCorrupt.exit_code
    assert "is damaged at byte" in refused.log.read_text()
    assert segment.read_bytes() == content
    shutil.copytree(state, tmp_path / "t")
    mended = headrace(command("salvage"), tmp_path / "t")
    assert (mended.returncode, "1 records are lost" in mended.stdout) == (0, True), mended.stdout
    assert headrace(command("verify"), tmp_path / "t").returncode == 0
    assert Daemon(tmp_path / "t", daemon.source).start().stop() == 0
    (state / "records").rename(state / "damaged")
    assert Daemon(state, daemon.source, "--accept-loss").start().stop() == 0


def test_a_taken_address_and_a_second_daemon_end_with_their_codes(daemon, tmp_path):
    second = Daemon(daemon.state, daemon.source).start(wait=False)
    assert second.process.wait(30) == errors.StateInUse.exit_code
    taken = Daemon(tmp_path / "s", daemon.source, "--listen", daemon.url.removeprefix("http://")).start(wait=False)
    assert taken.process.wait(30) == errors.ConfigurationInvalid.exit_code


def test_every_figure_is_listed_and_no_other(daemon):
    def family(name):
        return re.sub("_(total|info)$", "", name)

    with daemon.client.endpoint.ask("GET", "/metrics") as answer:
        text = answer.read().decode()
    served = {family(name) for name in re.findall(r"^# TYPE (headrace_\w+)", text, re.MULTILINE)}
    listed = {family(name) for name in names("figure | labels | is")}
    beside = {f"{name}_created" for name in listed}  # the library's: when counting began
    assert listed <= served and served - listed <= beside


def test_the_unit_is_what_headrace_prints():
    shown = re.search(r"^```ini\n(\[Unit\].*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)[1]
    assert shown == unit.text("/opt/headrace/.venv/bin/headrace")
    command = [sys.executable, "-m", "headrace", "unit", "--socket"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout in DOCUMENT
