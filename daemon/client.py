"""The daemon as other programs see it: a synchronous client of its HTTP interface, on the standard library alone.

    client = Client.find()
    execution = client.wait(client.run("reports/daily", {"day": "monday"})["id"])

It owns where the daemon is found, its routes, and patience: waiting and following outlive a restart of the daemon
without a gap. It knows nothing of terminals. Called by the command line, and by whoever imports it; because a command
line must start quickly, nothing heavy is imported here.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..engine import errors
from . import logins, origin, submissions, upkeep, written
from .endpoint import (
    ANSWER_S,
    Endpoint,
    Interrupted,
    NotFound,
    Refused,
    ServerEvent,
    Unavailable,
    Unreachable,
    parse_events,
)

JSON = dict[str, Any]

ENDED = frozenset({"ENDED_SUCCESS", "ENDED_ERROR", "ENDED_CANCELLED"})

_SILENCE_S = 60.0  # how long a stream may be silent; the daemon's heartbeat comes far more often
_WAIT_SLICE_S = 20.0  # one waiting request; short enough for every proxy
_LIVELY_SLICE_S = 0.5  # the same when somebody watches
_PATIENCE_S = 60.0  # how long a restarting daemon is waited for
_RECENT_MAX = 1000  # executions among which an abbreviated id is looked for
_PAGE = 1000  # entries asked for at a time of a list that is wanted whole

#: All segments may have to be read.
_PRUNING_S = 1800.0


class _Patience:
    """How long to go on trying after contact was lost, and how long to rest between two attempts."""

    def __init__(self, *, in_contact: bool) -> None:
        self._in_contact = in_contact
        self._until: float | None = None
        self._rest_s = 0.1

    def contact(self) -> None:
        self._in_contact = True
        self._until = None

    def progress(self) -> None:
        self._rest_s = 0.1

    def rest(self, error: errors.HeadraceError) -> None:
        """Sleep before the next attempt, or raise ``error`` when it was long enough (or there never was contact)."""
        if not self._in_contact:
            raise error
        if self._until is None:
            self._until = time.monotonic() + _PATIENCE_S
        if time.monotonic() >= self._until:
            raise error
        time.sleep(self._rest_s)
        self._rest_s = min(self._rest_s * 2, 2.0)


class Client(submissions.Submissions, origin.Origin, upkeep.Upkeep):
    """One daemon. Every method is one request unless it says otherwise, and raises ``Refused`` or ``Unreachable``."""

    def __init__(self, endpoint: Endpoint, token: str = "") -> None:
        self.endpoint = endpoint
        self.token = token

    @classmethod
    def find(cls, url: str = "", token: str = "", state: str = "", environ: Mapping[str, str] = os.environ) -> Client:
        """Return the client of the daemon meant: ``url``, ``$HEADRACE_URL``, else the one of the state directory.

        A ``state`` that is named overrules ``$HEADRACE_URL``, else it is ``$STATE_DIRECTORY`` or ``./.headrace``. Where
        none of that names or has a daemon, it is the one that ``headrace login`` was last given.

        The token is ``token``, ``$HEADRACE_TOKEN``, the one in the state directory's ``client.json``, which is sent to
        no other daemon than the one that wrote it, else that of the login. The unix socket needs none."""
        url = url or ("" if state else environ.get("HEADRACE_URL", ""))
        token = token or environ.get("HEADRACE_TOKEN", "")
        folder = Path(state or written.state_directory(environ)).absolute()
        theirs = _client_file(folder / "client.json")
        known = logins.Logins.of(environ)
        own = Endpoint.parse(theirs["url"]) if theirs.get("url") else None
        has_socket = (folder / "daemon.sock").exists()
        if not url and not state and own is None and not has_socket and "STATE_DIRECTORY" not in environ:
            url = known.current
        if url:
            endpoint = Endpoint.parse(url)
        elif own is not None and not has_socket:
            endpoint = own
        else:
            endpoint = Endpoint("unix", "localhost", 0, str(folder / "daemon.sock"))
        if not token and own is not None and endpoint.same_daemon(own):
            token = theirs.get("token", "")
        return cls(endpoint, token or known.tokens.get(str(endpoint), ""))

    def flows(self, tag: str = "") -> list[JSON]:
        """Return the catalogue; with ``tag`` the flows that have it."""
        return self._every("/flows", [("tag", tag)] if tag else [])

    def flow(self, name: str) -> JSON:
        """Return one flow with its script."""
        return self._json("GET", f"/flows/{_segment(name)}")

    def flow_with_tag(self, name: str) -> tuple[JSON, str]:
        """Return the same and its ETag, with which ``save_flow`` knows whether it is still like that."""
        with self._answer("GET", f"/flows/{_segment(name)}") as response:
            return self._object(response.read()), response.headers.get("ETag", "")

    def save_flow(self, name: str, script: str, *, message: str = "", tag: str = "") -> JSON:
        """Make ``script`` the flow's text, by a commit; raises ``Conflict`` if it is not any more what ``tag`` says."""
        headers, body = {"If-Match": tag} if tag else {}, {"script": script, "message": message}
        return self._json("PUT", f"/flows/{_segment(name)}", body=body, headers=headers)

    def rename_flow(self, name: str, new_name: str, *, message: str = "") -> JSON:
        """Give a flow another name, by a commit."""
        return self._json("PATCH", f"/flows/{_segment(name)}", body={"name": new_name, "message": message})

    def delete_flow(self, name: str, *, message: str = "") -> None:
        """Remove a flow, by a commit."""
        self._done("DELETE", f"/flows/{_segment(name)}?{urllib.parse.urlencode({'message': message})}")

    def wait(
        self, execution_id: str, timeout_s: float | None = None, on_unended: Callable[[JSON], None] | None = None
    ) -> JSON:
        """Return the execution when it has ended, or as it is after ``timeout_s``; bridges restarts of the daemon.

        Asks as often as needed and hands each answer that is not the end to ``on_unended``."""
        slice_s = _LIVELY_SLICE_S if on_unended else _WAIT_SLICE_S
        until = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
        patience = _Patience(in_contact=True)
        while True:
            asked_at = time.monotonic()
            left_s = max(0.0, until - asked_at)
            try:
                execution = self.execution(execution_id, wait_s=min(slice_s, left_s))
            except (Unreachable, Unavailable) as error:
                if left_s <= 0:
                    raise
                patience.rest(error)
                continue
            patience.contact()
            patience.progress()
            if execution["status"] in ENDED or left_s <= 0:
                return execution
            if on_unended:
                on_unended(execution)
            if time.monotonic() - asked_at < slice_s / 2 and left_s > slice_s:
                time.sleep(0.2)  # a daemon that stops answers early; do not press it

    def executions(self, *, limit: int = 50, cursor: str = "", **filters: str | Sequence[str]) -> JSON:
        """Return one page, newest first: ``items`` and ``next``, the cursor of the following page or None.

        ``filters``: flow, status (one or several), type, parent (an id, or none), since, until, q."""
        query: list[tuple[str, str]] = [("limit", str(limit))]
        for name, value in (filters | {"cursor": cursor}).items():
            query += [(name, each) for each in ([value] if isinstance(value, str) else value) if each]
        return self._json("GET", "/executions", query=query)

    def all_executions(self, *, limit: int, **filters: str | Sequence[str]) -> list[JSON]:
        """Return up to ``limit`` executions, newest first; asks for as many pages as that takes."""
        found: list[JSON] = []
        cursor: str | None = ""
        while cursor is not None and len(found) < limit:
            page = self.executions(limit=min(200, limit - len(found)), cursor=cursor, **filters)
            found += page["items"]
            cursor = page.get("next")
        return found

    def execution(self, execution_id: str, wait_s: float = 0) -> JSON:
        """Return one execution, after waiting up to ``wait_s`` for its end."""
        query = [("wait", f"{wait_s:g}")] if wait_s > 0 else []
        return self._json("GET", f"/executions/{_segment(execution_id)}", query=query, timeout_s=ANSWER_S + wait_s)

    def execution_id(self, text: str) -> str:
        """Return the id that ``text`` means: itself, the ``latest``, or the recent one beginning or ending so.

        ``latest`` is the newest that somebody asked for: children do not count."""
        if text == "latest":
            for recent in self.all_executions(limit=_RECENT_MAX, type="FLOW"):
                if not recent["parent_execution_id"]:
                    return str(recent["id"])
            raise errors.NotFound("nothing has been run yet", hint="`headrace run FLOW` runs a flow")
        try:
            return str(self.execution(text)["id"])
        except NotFound:
            near = self._near(text)
            if not near:
                raise
        if len(near) > 1:
            raise errors.InvalidRequest(
                f"several executions begin or end with {text!r}: {', '.join(near[:5])}", hint="give more of the id"
            )
        return near[0]

    def _near(self, text: str) -> list[str]:
        # Ids begin with their time, so what tells two of them apart at a glance is the end.
        recent = self.all_executions(limit=_RECENT_MAX)
        return [each["id"] for each in recent if each["id"].startswith(text) or each["id"].endswith(text)]

    def log(self, execution_id: str) -> Iterator[JSON]:
        """Yield the lines of the log as it is now."""
        with self._answer("GET", f"/executions/{_segment(execution_id)}/log") as response:
            for line in response:
                yield json.loads(line)
            if response.length:  # a body that ends early is not an error to http.client
                raise Interrupted(f"{self.endpoint} broke off in the middle of the log")

    def follow_log(self, execution_id: str, last_event_id: str = "") -> Iterator[ServerEvent]:
        """Yield log lines after ``last_event_id`` as they come, then ``end`` with the status; bridges restarts."""
        return self._follow(f"/executions/{_segment(execution_id)}/log", last_event_id)

    def events(self, execution_id: str, last_event_id: str = "") -> Iterator[ServerEvent]:
        """Yield the record's events after ``last_event_id`` as they come, then ``end``; bridges restarts."""
        return self._follow(f"/executions/{_segment(execution_id)}/events", last_event_id)

    def record(self, execution_id: str) -> list[JSON]:
        """Return the record's events as they are now."""
        return _items(self._json("GET", f"/executions/{_segment(execution_id)}/events"))

    def export(self, execution_id: str) -> Iterator[bytes]:
        """Yield the lines of its export. Whether it is complete its last line tells."""
        with self._answer("GET", f"/executions/{_segment(execution_id)}/export") as response:
            yield from response

    def cancel(self, execution_id: str) -> JSON:
        """Ask for it to end and return it; raises ``Conflict`` if it has ended already."""
        return self._json("POST", f"/executions/{_segment(execution_id)}/cancel")

    def pause(self, execution_id: str) -> JSON:
        """Ask for it to stand still and return it; raises ``Conflict`` if it has ended already."""
        return self._json("POST", f"/executions/{_segment(execution_id)}/pause")

    def resume(self, execution_id: str, *, restart: bool = False) -> JSON:
        """Let it go on and return it; raises ``Conflict`` if it is not paused.

        ``restart``: from the beginning of its flow, instead of where it was."""
        query = [("restart", "true")] if restart else []
        return self._json("POST", f"/executions/{_segment(execution_id)}/resume", query=query)

    def acknowledge(self, execution_id: str) -> JSON:
        """Say that somebody saw that it failed, and return it; raises ``Conflict`` if it did not."""
        return self._json("POST", f"/executions/{_segment(execution_id)}/acknowledge")

    def bulk(self, action: str, **said: Any) -> JSON:
        """Do ``rerun``, ``cancel`` or ``acknowledge`` to many: those in ``executions``, or that ``filter`` finds.

        Returns ``items``, each with its ``rerun`` or its ``error``, and ``more``; see docs/http.md."""
        return self._json("POST", "/executions/bulk", body={"action": action, **said})

    def timetable(self, count: int = 5) -> list[JSON]:
        """Return every schedule with its next ``count`` ticks."""
        return self._every("/timetable", [("count", str(count))])

    def openapi(self) -> JSON:
        """Return the description of the API (OpenAPI 3.1)."""
        with self.endpoint.ask("GET", "/openapi.json") as response:
            return self._object(response.read())

    def kept(self, plural: str) -> list[JSON]:
        """Return all ``settings``, ``files``, ``connections``, ``webhooks``, ``schedules`` or ``vault_configs``."""
        return self._every(f"/{plural}")

    def kept_one(self, plural: str, name: str) -> JSON:
        """Return one of them; of a file its content is ``file``."""
        return self._json("GET", f"/{plural}/{_segment(name)}")

    def keep(self, plural: str, name: str, fields: JSON) -> JSON:
        """Make one, or change those ``fields`` of it."""
        return self._json("PUT", f"/{plural}/{_segment(name)}", body=fields)

    def drop(self, plural: str, name: str) -> None:
        """Delete one."""
        self._done("DELETE", f"/{plural}/{_segment(name)}")

    def webhook_auth(self, name: str) -> str:
        """Return how the webhook of that name recognises its senders; raises ``NotFound``."""
        for record in self.kept("webhooks"):
            if record["name"] == name:
                return str(record["auth"])
        for flow in self.flows():
            if flow["webhook"] and flow["webhook"]["name"] == name:
                return str(flow["webhook"]["auth"])
        raise errors.NotFound(
            f"there is no webhook {name!r}", hint="`headrace webhooks` and `headrace flows` list them"
        )

    def deliver(self, name: str, body: bytes, headers: Mapping[str, str], *, method: str = "POST") -> JSON:
        """Send a delivery to a webhook, without a token of ours, and return what it answered once it was taken.

        It is asked not to wait for the end: the answer has the ``id`` of the execution."""
        target = f"/webhook/{_segment(name)}?async=1"
        with self.endpoint.ask(method, target, body, headers) as response:
            return self._object(response.read())

    def file(self, path: str) -> bytes:
        """Return the content of a file."""
        with self._answer("GET", f"/files/{_segment(path)}") as response:
            return response.read()

    def save_file(self, path: str, content: bytes) -> JSON:
        """Make ``content`` that of the file."""
        headers = {"Content-Type": "application/octet-stream"}
        with self._answer("PUT", f"/files/{_segment(path)}", content, headers) as response:
            return self._object(response.read())

    def workers(self) -> JSON:
        """Return the machines that flow processes run on, and what runs there."""
        return self._json("GET", "/workers")

    def locks(self) -> list[JSON]:
        """Return the locks that are taken, with who has them and who waits."""
        return self._every("/locks")

    def release_lock(self, name: str) -> None:
        """Take a lock from whoever has it."""
        self._done("DELETE", f"/locks/{_segment(name)}")

    def messages(self, *, pending: bool) -> list[JSON]:
        """Return messages, newest first; with ``pending`` those that wait for an answer."""
        return self._every("/messages", [("pending", "true")] if pending else [])

    def message(self, message_id: str) -> JSON:
        """Return one message with its form."""
        return self._json("GET", f"/messages/{_segment(message_id)}")

    def answer(self, message_id: str, response: JSON) -> JSON:
        """Answer it; raises ``Invalid`` for what does not fit its form, ``Conflict`` if somebody answered before."""
        return self._json("POST", f"/messages/{_segment(message_id)}/response", body=response)

    def me(self) -> JSON:
        """Return whom the credentials stand for: ``name``, ``scopes``, ``flows``."""
        return self._json("GET", "/me")

    def tokens(self) -> list[JSON]:
        """Return every token there is, without its secret."""
        return self._every("/tokens")

    def create_token(self, name: str, scopes: Sequence[str], *, flows: Sequence[str] = (), valid: str = "") -> JSON:
        """Make a token of these scopes or roles; its secret is ``token`` in what this returns, and nowhere else.

        ``flows`` are patterns of the flows it is limited to, ``valid`` how long it is good, such as ``90d``."""
        body = {"name": name, "scopes": list(scopes), "flows": list(flows), "valid": valid}
        return self._json("POST", "/tokens", body=body)

    def revoke_token(self, name: str) -> None:
        """Take a token, by its name or id, from whoever has it."""
        self._done("DELETE", f"/tokens/{_segment(name)}")

    def audit(self, limit: int = 100) -> list[JSON]:
        """Return the latest lines of the audit log, newest first."""
        return _items(self._json("GET", "/audit", query=[("limit", str(limit))]))

    def tasks(self) -> list[JSON]:
        """Return every task type with its inputs and output."""
        return _items(self._json("GET", "/tasks"))

    def task(self, name: str) -> JSON:
        """Return one task type."""
        return self._json("GET", f"/tasks/{_segment(name)}")

    def prune(self, *, keep_s: float | None = None, dry_run: bool = False) -> JSON:
        """Have records forgotten that were kept long enough, their disk freed; returns how much went (or would go)."""
        asked: JSON = {"dry_run": dry_run} if keep_s is None else {"dry_run": dry_run, "keep_s": keep_s}
        return self._json("POST", "/records/prune", body=asked, timeout_s=_PRUNING_S)

    def _every(self, path: str, query: Sequence[tuple[str, str]] = ()) -> list[JSON]:
        """Return the entries of all pages of a list."""
        found: list[JSON] = []
        cursor: str | None = ""
        while cursor is not None:
            more = [*query, ("limit", str(_PAGE)), *([("cursor", cursor)] if cursor else [])]
            page = self._json("GET", path, query=more)
            found += page["items"]
            cursor = page.get("next")
        return found

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: JSON | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_S,
    ) -> JSON:
        target = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        try:
            text = None if body is None else json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise errors.InvalidRequest(f"the inputs cannot be written as JSON: {error}") from error
        with self._answer(method, target, text, headers or {}, timeout_s) as response:
            return self._object(response.read())

    def _done(self, method: str, target: str) -> None:
        with self._answer(method, target) as response:
            response.read()

    def _object(self, raw: bytes) -> JSON:
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Unavailable(502, {"detail": f"{self.endpoint} did not answer as a headrace daemon does"})
        return answer

    def _answer(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_S,
    ) -> AbstractContextManager[http.client.HTTPResponse]:
        own = {"Content-Type": "application/json"} if body is not None else {}
        if self.token:
            own["Authorization"] = f"Bearer {self.token}"
        return self.endpoint.ask(method, f"/api/v1{target}", body, {**own, **(headers or {})}, timeout_s)

    def _follow(self, target: str, last_event_id: str) -> Iterator[ServerEvent]:
        patience = _Patience(in_contact=False)
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
            try:
                with self._answer("GET", target, headers=headers, timeout_s=_SILENCE_S) as response:
                    if response.headers.get_content_type() != "text/event-stream":
                        raise Refused(response.status, {"detail": f"{self.endpoint} does not offer a live stream here"})
                    patience.contact()
                    for event in parse_events(response):
                        last_event_id = event.id or last_event_id
                        patience.progress()
                        yield event
                        if event.event == "end":
                            return
                raise Interrupted(f"{self.endpoint} closed the stream before its end")
            except (Unreachable, Unavailable) as error:
                patience.rest(error)


def _client_file(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):  # none, not ours to read, or being written: then it says nothing
        return {}
    return content if isinstance(content, dict) else {}


def _segment(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _items(answer: JSON) -> list[JSON]:
    items: list[JSON] = answer["items"]
    return items
