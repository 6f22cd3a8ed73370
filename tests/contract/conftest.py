"""One daemon for all tests of the contract, and short words for what they do with it.

``run`` and ``value`` make a flow of a handler's body and run it; the same body is the same flow, so examples of a
property test share one process.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import textwrap
import tokenize
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.loopback import Loopback
from tests.support.browser import Browser
from tests.support.daemons import Daemon, until
from tests.support.vault_server import VaultServer

#: The child that most tests run: gives back its inputs, sleeps and fails as they say.
CHILD = """
import flow_api
def handler(system, this, inputs):
    this.set_output('got', inputs)
    if inputs.get('sleep'):
        this.sleep(inputs['sleep'])
    if inputs.get('fail'):
        raise ValueError(inputs['fail'])
    return this.success('child done')
"""
#: Names the Ray cluster that flows run on, if they shall not run on this machine: the contract is the same.
CLUSTER = "HEADRACE_TEST_CLUSTER"
KEY = "the key of all webhooks here"
SHARED_SECRET = "the secret shared with all senders"


class Workshop:
    """A daemon in developer mode and the folder its flows come from."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.folder = folder
        self.address = urllib.parse.urlsplit(daemon.url)
        self.token = daemon.token()
        self._bodies: set[str] = set()

    # -- flows ------------------------------------------------------------------------------------------------------

    def write(self, path: str, text: str) -> None:
        """Write a file of the source, in one step: a sync that is under way would see it empty."""
        target, draft = self.folder / path, self.folder.with_name("draft")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(textwrap.dedent(text))
        draft.rename(target)

    def flow(self, name: str, text: str) -> str:
        """Write a flow and wait until the daemon has it; returns its name."""
        self.write(f"{name}.py", text)
        self.daemon.client.sync()
        return name

    def body(self, *bodies: str) -> list[str]:
        """Make flows of handlers' bodies, with one sync for all; returns their names."""
        names = [f"body {hashlib.sha256(body.encode()).hexdigest()[:12]}" for body in bodies]
        new = [(name, body) for name, body in zip(names, bodies, strict=True) if name not in self._bodies]
        for name, body in new:
            self.write(f"{name}.py", f"import flow_api\ndef handler(system, this, inputs):\n{_indented(body)}\n")
        if new:
            self.daemon.client.sync()
        self._bodies.update(names)
        return names

    def start(self, body: str, **inputs: Any) -> str:
        """Run a handler's body and return the execution's id at once."""
        return str(self.daemon.client.run(self.body(body)[0], inputs)["id"])

    def run(self, body: str, **inputs: Any) -> dict[str, Any]:
        """Run a handler's body and return the ended execution."""
        return self.ended(self.start(body, **inputs))

    def value(self, body: str, **inputs: Any) -> Any:
        """Run a handler's body, which has to succeed, and return its output."""
        ended = self.run(body, **inputs)
        assert ended["status"] == "ENDED_SUCCESS", (ended["error"] or {}).get("traceback") or ended["message"]
        return ended["output_value"]

    # -- executions -------------------------------------------------------------------------------------------------

    def ended(self, execution: str, timeout_s: float = 30) -> dict[str, Any]:
        """Return an execution when it has ended."""
        found = self.daemon.client.wait(execution, timeout_s)
        assert found["status"].startswith("ENDED_"), f"{found['name']} is {found['status']}: {found['waiting_for']}"
        return found

    def execution(self, execution: str) -> dict[str, Any]:
        """Return an execution as it is now."""
        return self.daemon.client.execution(execution)

    def until_status(self, execution: str, *statuses: str) -> dict[str, Any]:
        """Return an execution when it has one of these statuses."""
        return self._when(execution, lambda found: found["status"] in statuses, f"is {' or '.join(statuses)}")

    def until_output(self, execution: str, key: str) -> Any:
        """Return one key of an execution's output when it is there."""
        return self._when(execution, lambda found: key in found["output_value"], f"has the output {key}")[
            "output_value"
        ][key]

    def _when(self, execution: str, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.execution(execution)
            if condition(found):
                return found
            assert not found["status"].startswith("ENDED_"), (
                f"before it {what} it {found['status']}: {found['message']}"
            )
            return None

        return until(look, f"{execution} {what}")

    def children(self, execution: str) -> list[dict[str, Any]]:
        """Return the children of an execution, the oldest first."""
        return list(reversed(self.daemon.client.all_executions(limit=200, parent=execution)))

    def child(self, execution: str, number: int = 0) -> dict[str, Any]:
        """Return a child of an execution when it is there."""
        self._when(execution, lambda _: len(self.children(execution)) > number, f"has {number + 1} children")
        return self.children(execution)[number]

    def log(self, execution: str) -> list[dict[str, Any]]:
        """Return the lines of an execution's log."""
        return list(self.daemon.client.log(execution))

    def record(self, execution: str) -> list[dict[str, Any]]:
        """Return the events of an execution."""
        return self.daemon.client.record(execution)

    def seen_by_people(self, execution: str) -> str:
        """Return everything people can read about an execution, as one text."""
        return json.dumps([self.execution(execution), self.record(execution), self.log(execution)], ensure_ascii=False)

    # -- HTTP -------------------------------------------------------------------------------------------------------

    def http(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, *, known: bool = True
    ) -> tuple[int, Any, dict[str, str]]:
        """Make one request over TCP; returns status, parsed body (or text) and headers by lower-case name.

        ``known``: with the token. ``body``: bytes as they are, anything else as JSON."""
        own = {"Authorization": f"Bearer {self.token}"} if known else {}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None and not isinstance(body, bytes):
            own["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(self.address.hostname or "", self.address.port or 0, timeout=60)
        try:
            connection.request(method, path, data, own | (headers or {}))
            answer = connection.getresponse()
            raw = answer.read()
            found = {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()
        try:
            return answer.status, json.loads(raw), found
        except ValueError:
            return answer.status, raw.decode(errors="replace"), found

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Make a request of the API that has to succeed; returns the answer's body."""
        status, answer, _ = self.http(method, f"/api/v1{path}", body)
        assert status < 300, (method, path, status, answer)
        return answer

    def hook(
        self,
        name: str,
        body: Any = None,
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        tail: str = "",
    ) -> tuple[int, Any, dict[str, str]]:
        """Call a webhook as a stranger."""
        return self.http(method, f"/api/v1/webhook/{name}{tail}", body, headers, known=False)

    # -- messages ---------------------------------------------------------------------------------------------------

    def asked(self, execution: str) -> dict[str, Any]:
        """Return the message that an execution asks people, when it is there."""
        self._when(execution, lambda _: self._pending(execution), "asks something")
        return self._pending(execution)[0]

    def _pending(self, execution: str) -> list[dict[str, Any]]:
        pending = self.api("GET", "/messages?pending=true")["items"]
        return [message for message in pending if message["execution_id"] == execution]

    def answer(self, message: str, response: dict[str, Any]) -> tuple[int, Any]:
        """Answer a message; returns status and body."""
        return self.http("POST", f"/api/v1/messages/{message}/response", response)[:2]

    def answered(self, body: str, response: dict[str, Any], **inputs: Any) -> Any:
        """Run a body that asks one thing, answer that, and return the output."""
        execution = self.start(body, **inputs)
        status, problem = self.answer(self.asked(execution)["id"], response)
        assert status < 300, problem
        ended = self.ended(execution)
        assert ended["status"] == "ENDED_SUCCESS", ended["message"]
        return ended["output_value"]


def _indented(body: str) -> str:
    """Return a handler's body where it belongs; what stands inside of a text over several lines stays as it is."""
    body = textwrap.dedent(body).strip("\n")
    tokens = tokenize.generate_tokens(io.StringIO(f"{body}\n").readline)
    inside = {line for token in tokens for line in range(token.start[0] + 1, token.end[0] + 1)}
    lines = enumerate(body.split("\n"), start=1)
    return "\n".join(line if number in inside else f"    {line}" for number, line in lines)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A running daemon for all of these tests; it has to stop in good order."""
    home = tmp_path_factory.mktemp("w")
    folder = home / "flows"
    folder.mkdir()
    (folder / "child.py").write_text(CHILD)
    daemon = Daemon(home / "s", folder)
    daemon.environment |= {
        "HEADRACE_RUN__CANCEL_GRACE": "1s",
        "HEADRACE_RUN__STOP_GRACE": "1s",
        "CONTRACT_KEY": KEY,
        "CONTRACT_SECRET": SHARED_SECRET,
    }
    if cluster := os.environ.get(CLUSTER):
        daemon.environment["HEADRACE_RUN__EXECUTOR"] = json.dumps({"address": cluster, "lease_s": 5})
    try:
        daemon.start()
        yield Workshop(daemon, folder)
        assert daemon.stop() == 0
    finally:
        daemon.kill()


@pytest.fixture
def run(workshop: Workshop) -> Callable[..., dict[str, Any]]:
    """Run a handler's body and return the ended execution."""
    return workshop.run


@pytest.fixture
def value(workshop: Workshop) -> Callable[..., Any]:
    """Run a handler's body, which has to succeed, and return its output."""
    return workshop.value


@pytest.fixture
def refused(workshop: Workshop) -> Callable[..., str]:
    """Run a handler's body, which has to fail with one of the contract's exceptions; return its message."""

    def refused(body: str, kind: str, **inputs: Any) -> str:
        ended = workshop.run(body, **inputs)
        assert ended["status"] == "ENDED_ERROR", ended["output_value"]
        assert ended["error"]["type"] == kind, ended["error"]["traceback"]
        return str(ended["message"])

    return refused


@pytest.fixture(scope="session")
def loopback() -> Iterator[Loopback]:
    """A web server that tasks talk to."""
    with Loopback() as server:
        yield server


@pytest.fixture
def browser(workshop: Workshop) -> Browser:
    """A browser without script, logged in."""
    return Browser(workshop.daemon.url).logged_in(workshop.token)


@pytest.fixture(scope="session")
def vault() -> Iterator[VaultServer]:
    """A vault that speaks the key-value engine version 2."""
    with VaultServer() as server:
        yield server
