"""What every task type promises when it is cut off in the middle, with a real daemon and servers that say nothing.

The calls are rows of tests/support/task_calls.py. All of them are under way at the same time: once the daemon is killed
meanwhile and started again, once they are cancelled, once their time is up. What was seen is then looked at row by row.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import dataclasses
import json
import os
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

import pytest

from headrace.tasks import registry
from tests.support.daemons import Daemon, until
from tests.support.holding import Place, held
from tests.support.task_calls import PROGRAM, PROGRAMS, ROWS, Row

#: Starts all calls at once and tells what became of each. A secret that is written out comes backwards, so that it
#: stands in no input of the flow.
CALLS = """
import json

def handler(system, this, inputs):
    children, told = {}, {}
    for name, call in inputs['calls'].items():
        given = json.dumps(call['inputs'])
        given = json.loads(given.replace(call['backwards'], call['backwards'][::-1]))
        children[name] = this.task(call['type'], given, name=name, wait=False)
    this.save(message=json.dumps({name: child.get('id') for name, child in children.items()}))
    for name, child in children.items():
        try:
            this.wait_for(child)
        except Exception as error:
            told[name] = [type(error).__name__, str(error)]
    return told
"""
#: So long may a call take to begin and to end on a busy machine.
PATIENCE_S = 60
#: A call that has this much time is in the middle when it is up.
TIMEOUT_S = 1.5
pytestmark = pytest.mark.timeout(300)
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


#: What all secrets begin with: those a call names by reference, and those that are written out.
NAMED, WRITTEN = "hush/named+of=the&tests?", "hush/written+of=the&tests?"


def secret_of(row: Row, beginning: str) -> str:
    """A secret of this row's own, which is spelled differently in addresses and in base64."""
    return f"{beginning}{ROWS.index(row):03}"


def spelled(secret: str) -> set[bytes]:
    """The secret as it might stand somewhere."""
    plain = secret.encode()
    forms = {plain, plain.hex().encode(), secret.encode("utf-16le")}
    forms |= {urllib.parse.quote(secret, safe=safe).encode() for safe in ("/", "")}
    for offset in range(3):
        for encoded in (base64.b64encode, base64.urlsafe_b64encode):
            forms.add(encoded(b"x" * offset + plain)[4:-4])
    return forms


@dataclasses.dataclass
class Seen:
    """What became of one row's calls: its executions when the daemon was killed, when cancelled, and out of time."""

    killed: dict = dataclasses.field(default_factory=dict)
    told: list = dataclasses.field(default_factory=list)  # what the flow met for that of the killed daemon
    cancelled: dict = dataclasses.field(default_factory=dict)
    late: dict = dataclasses.field(default_factory=dict)
    left: list[str] = dataclasses.field(default_factory=list)  # when a connection stayed open
    heard: bytes = b""


class Trial:
    """The daemon, the servers, and what is tried with them."""

    def __init__(self, folder: Path, places: dict[str, Place]) -> None:
        self.places = places
        self.seen: dict[str, Seen] = collections.defaultdict(Seen)
        self.found: list[str] = []  # where a secret stands
        flows, programs, self.temporary = folder / "flows", folder / "programs", folder / "tmp"
        for one in (flows, programs, self.temporary):
            one.mkdir()
        (flows / "calls.py").write_text(CALLS)
        for name in PROGRAMS:
            (programs / name).write_text(PROGRAM)
            (programs / name).chmod(0o755)
        self.daemon = Daemon(folder / "s", flows)
        self.daemon.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TMPDIR": str(self.temporary),
            "HEADRACE_TASKS__LOCAL": json.dumps({"programs": ["bash", *PROGRAMS]}),
            **{f"HUSH_{number}": secret_of(row, NAMED) for number, row in enumerate(ROWS)},
        }

    def start_calls(self, rows: Iterable[Row], beginning: str, **more: object) -> tuple[str, dict[str, str]]:
        """Start a call of each row and return the flow's execution and theirs."""
        calls = {}
        for row in rows:
            backwards = secret_of(row, WRITTEN)[::-1]
            secret = backwards if beginning == WRITTEN else f"secret.env(HUSH_{ROWS.index(row)})"
            given = row.inputs(self.places[row.name], secret) | more
            if "connect_timeout" in TYPES[row.type]:
                given["connect_timeout"] = 600
            calls[row.name] = {"type": row.type, "inputs": given, "backwards": backwards}
        flow = self.daemon.client.run("calls", {"calls": calls})["id"]
        message = until(lambda: self.execution(flow)["message"], "the calls are made", PATIENCE_S)
        return flow, json.loads(message)

    def execution(self, id_: str) -> dict:
        return self.daemon.client.execution(id_)

    def until_held(self, children: dict[str, str], before: dict[str, int], beginning: str) -> None:
        """Wait until these calls are in the middle: more than ``before`` came, or those without connections began."""
        for row in ROWS:
            if (child := children.get(row.name)) is not None:
                until(lambda: self.is_held(row, child, before, beginning), f"a server holds {row.name}", PATIENCE_S)  # noqa: B023

    def is_held(self, row: Row, child: str, before: dict[str, int], beginning: str) -> bool:
        place = self.places[row.name]
        if row.connects:
            told = not row.tells or any(form in place.heard for form in spelled(secret_of(row, beginning)))
            held = place.came > before[row.name] and bool(place.here)
        else:
            told, held = True, self.execution(child)["status"] == "RUNNING"
        if not held:
            state = self.execution(child)
            assert state["ended_at"] is None, f"{row.name} has ended: {state['message']}"
        return held and told

    def came(self) -> dict[str, int]:
        return {name: place.came for name, place in self.places.items()}

    def until_left(self, why: str, rows: Iterable[Row]) -> None:
        """Wait until nobody is connected for these rows; note where that does not come about."""
        for row in rows:
            place = self.places[row.name]
            try:
                until(lambda: not place.here, f"{row.name} is left", 20)  # noqa: B023
            except AssertionError:
                self.seen[row.name].left.append(why)
                place.here = 0

    def ended(self, children: dict[str, str]) -> dict[str, dict]:
        return {name: self.daemon.client.wait(child, PATIENCE_S) for name, child in children.items()}

    def kill(self) -> None:
        """kill -9 in the middle of all calls, and start again."""
        again = [row for row in ROWS if row.again]
        before = self.came()
        flow, children = self.start_calls(ROWS, NAMED)
        self.until_held(children, before, NAMED)
        self.daemon.kill()
        self.until_left("killed", ROWS)
        before = self.came()
        self.daemon.start()
        for row in ROWS:
            if not row.again:
                self.seen[row.name].killed = self.daemon.client.wait(children[row.name], PATIENCE_S)
        held = {row.name: children[row.name] for row in again}
        self.until_held(held, before, NAMED)
        for name, child in held.items():
            self.seen[name].killed = self.execution(child)
        self.cancel(held)
        for name, told in self.daemon.client.wait(flow, PATIENCE_S)["output_value"].items():
            self.seen[name].told = told

    def cancel(self, children: dict[str, str]) -> None:
        for child in children.values():
            self.daemon.client.cancel(child)
        for name, ended in self.ended(children).items():
            self.seen[name].cancelled = ended
        self.until_left("cancelled", [row for row in ROWS if row.name in children])

    def cancel_all(self) -> None:
        before = self.came()
        _, children = self.start_calls(ROWS, WRITTEN)
        self.until_held(children, before, WRITTEN)
        self.cancel(children)

    def let_time_pass(self) -> None:
        _, children = self.start_calls(ROWS, WRITTEN, timeout=TIMEOUT_S)
        for name, ended in self.ended(children).items():
            self.seen[name].late = ended
        self.until_left("out of time", ROWS)

    def search(self) -> None:
        """Look for every secret in the files and answers of the daemon."""
        head = {"Authorization": f"Bearer {self.daemon.token()}"}
        asked = [
            f"/api/v1/executions/{execution['id']}{tail}"
            for execution in self.daemon.client.all_executions(limit=1000)
            for tail in ("", "/log", "/events", "/export")
        ]
        texts = {path: json.dumps(self.daemon.raw("GET", path, headers=head)[1]).encode() for path in asked}
        assert self.daemon.stop() == 0
        files = [self.daemon.log, *self.daemon.state.rglob("*"), *self.temporary.rglob("*")]
        texts |= {str(path): path.read_bytes() for path in files if path.is_file()}
        for where, text in texts.items():
            # What is written out is sealed: tasks need it after a restart.
            for beginning in (NAMED,) if "/sealed/" in where else (NAMED, WRITTEN):
                if any(form in text for form in spelled(beginning)):
                    self.found.append(f"one of {beginning}… in {where}, near {near(text, beginning)}")


def near(text: bytes, beginning: str) -> str:
    """What stands around a secret, to tell whose it is."""
    at = min(place for form in spelled(beginning) if (place := text.find(form)) >= 0)
    return text[max(0, at - 200) : at + 100].decode(errors="replace")


TYPES = {one.name: one.inputs["$defs"][f"{one.inputs['$ref'].rpartition('/')[2]}"]["properties"]
         for one in registry.installed().types()}  # fmt: skip


@pytest.fixture(scope="module")
def trial(tmp_path_factory) -> Trial:
    """All that was tried."""
    places = {row.name: Place(row.says) for row in ROWS}
    with held(list(places.values())), contextlib.ExitStack() as stack:
        trial = Trial(tmp_path_factory.mktemp("t"), places)
        stack.callback(trial.daemon.kill)
        trial.daemon.start()
        trial.kill()
        trial.cancel_all()
        trial.let_time_pass()
        trial.search()
    for name, place in places.items():
        trial.seen[name].heard = place.heard
    return trial


@pytest.fixture
def seen(trial, row) -> Seen:
    """What was seen of one row."""
    return trial.seen[row.name]


def test_every_type_has_its_rows():
    missing = set(TYPES) - {row.type for row in ROWS}
    assert not missing, (
        f"no row in tests/support/task_calls.py calls {', '.join(sorted(missing))}: add one, as said there"
    )


@each
def test_killed_in_the_middle_it_is_done_again_or_reported(seen, row):
    killed, told = seen.killed, seen.told
    if row.again:
        assert killed["status"] == "RUNNING"
        assert told[0] == "DependencyFailedError" and "cancelled" in told[1]
    else:
        unknown = "interrupted: the daemon was cut off; whether it took effect is not known"
        assert (killed["status"], killed["message"]) == ("ENDED_ERROR", unknown)
        assert told[0] == "OutcomeUnknownError" and unknown in told[1]


@each
def test_cancelled_in_the_middle_it_ends(seen, row):
    assert (seen.cancelled["status"], seen.cancelled["message"]) == ("ENDED_CANCELLED", "cancelled")


@each
def test_out_of_time_it_ends_and_says_the_time(seen, row):
    late = seen.late
    assert (late["status"], late["message"]) == ("ENDED_ERROR", f"timed out after {TIMEOUT_S:g} s")


@each
def test_killed_cancelled_or_out_of_time_no_connection_stays(seen, row):
    assert seen.left == []


@pytest.mark.parametrize("row", [row for row in ROWS if row.tells], ids=lambda row: row.name)
def test_its_secret_reaches_the_server(seen, row):
    for beginning in (NAMED, WRITTEN):
        assert any(form in seen.heard for form in spelled(secret_of(row, beginning))), beginning


def test_no_secret_stands_in_a_file_or_an_answer_of_the_daemon(trial):
    assert trial.found == []
