"""What became of a commit, told to the forge it came from: a mark beside it, green or red.

    headrace              published, with how many flows and how many of them broken, or refused and why
    headrace/<flow>       how the latest run of a flow on it went; with ``runs = true``

Owns: the words, one queue per source in which only the latest status of a context is kept, and trying again. Nothing
waits for it, and it is told from what is durable. A daemon that dies forgets what was in the queue; what is published
is told anew at the start. Refuses: sending a token anywhere but to the ``api`` of the setting.

Protocols: GitHub and Gitea, ``POST /repos/{owner}/{repo}/statuses/{sha}``; GitLab, ``POST
/projects/{id}/statuses/{sha}``. Called by ``app``.
"""

from __future__ import annotations

import asyncio
import random
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import aiohttp
import msgspec
import structlog

from ..engine import errors, events
from ..sync import forge, union
from ..sync.source import Source

log = structlog.get_logger()

State = Literal["pending", "success", "failure"]

_CONTEXT = "headrace"
_DESCRIPTION_CHARACTERS_MAX = 140
_WAITING_MAX = 1000
_ANSWER_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0
_ATTEMPTS_MAX = 12
_GITLAB_STATES = {"pending": "pending", "success": "success", "failure": "failed"}
#: An answer that another attempt would not change.
_FINAL = frozenset({400, 401, 403, 404, 405, 410, 415, 422})


class Statuses(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting ``source.statuses``. ``url`` is where people find this daemon, ``runs`` tells of each run, too.

    ``token_file`` is that of the source, or its GitHub App's, where it is not given; ``api`` and ``repository`` are
    taken from the source's address where that says them."""

    forge: forge.Kind
    token_file: str = ""
    url: str = ""
    runs: bool = False
    api: str = ""
    repository: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.token_file and not Path(self.token_file).is_file():
            raise ValueError(f"`token_file` {self.token_file!r} is not a file")
        if self.api:
            forge.check_address(self.api, "api")
        if self.url and urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError("`url` is not an address such as https://flows.example")


class Status(msgspec.Struct, frozen=True):
    """What is to be seen beside a commit. ``page`` is a path of this daemon."""

    commit: str
    context: str
    state: State
    description: str
    page: str


class Teller:
    """Tells one source's forge. ``token`` may block, and raises ``HeadraceError`` without the token in its words."""

    def __init__(self, setting: Statuses, source: Source, prefixes: Sequence[str], token: Callable[[], str]) -> None:
        """``prefixes`` are those of all sources."""
        self._setting = setting
        self._source = source
        self._prefixes = prefixes
        self._repository = forge.repository(source.url, setting.forge, setting.api, setting.repository)
        self._token = token
        self._waiting: dict[tuple[str, str], Status] = {}
        self._runs: dict[str, tuple[str, str]] = {}  # executions that are under way → commit, flow
        self._wanted = asyncio.Event()

    def start(self, published: Mapping[str, events.CommitPublished]) -> None:
        """Tell anew what is published: who died may have died before that. ``published`` is by name of the source."""
        if (last := published.get(self._source.name)) is not None:
            self._add(_published(last))

    def take(self, batch: Sequence[events.Recorded]) -> None:
        """Take what has become durable."""
        for event in (recorded.event for recorded in batch):
            match event:
                case events.CommitPublished(source=self._source.name, carried=False):
                    self._add(_published(event))
                case events.CommitRejected(source=self._source.name):
                    self._add(Status(event.commit, _CONTEXT, "failure", f"refused: {event.reason}", "/sync"))
                case events.ExecutionCreated(type="FLOW", parent="") if self._setting.runs and self._is_ours(event):
                    self._runs[event.execution] = event.commit, event.flow_name
                    self._add(_run(event.execution, event.commit, event.flow_name, "pending", "it runs"))
                case events.ExecutionEnded(execution=execution) if execution in self._runs:
                    good = event.status == "ENDED_SUCCESS"
                    said = event.message or event.reason or event.status.removeprefix("ENDED_").lower()
                    self._add(_run(execution, *self._runs.pop(execution), "success" if good else "failure", said))

    async def run(self) -> None:
        """Tell what there is to tell, for ever; until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        async with aiohttp.ClientSession(
            timeout=timeout, trust_env=True, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            while True:
                self._wanted.clear()
                while self._waiting:
                    key = next(iter(self._waiting))
                    await self._tell(session, self._waiting.pop(key))
                await self._wanted.wait()

    def _is_ours(self, event: events.ExecutionCreated) -> bool:
        return union.owner(self._prefixes, event.flow_name) == self._source.prefix

    def _add(self, status: Status) -> None:
        """Put it in line; what was in line under its context is not true any more."""
        self._waiting.pop((status.commit, status.context), None)
        self._waiting[status.commit, status.context] = status
        while len(self._waiting) > _WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]
        self._wanted.set()

    async def _tell(self, session: aiohttp.ClientSession, status: Status) -> None:
        """Send one; tries again for about half an hour while the forge does not answer, or has enough."""
        for attempt in range(_ATTEMPTS_MAX):
            if (status.commit, status.context) in self._waiting:
                return  # a newer one waits
            try:
                problem, final = await self._sent(session, status)
            except errors.ConfigurationInvalid as error:
                problem, final = error.message, True
            except (errors.HeadraceError, OSError, aiohttp.ClientError, TimeoutError) as error:
                problem, final = str(error) or type(error).__name__, False
            if not problem:
                return
            if final:
                break
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
            await asyncio.sleep(random.uniform(_FIRST_PAUSE_S, pause_s))  # noqa: S311 - spreads load, keeps no secret
        log.warning("status.not_told", source=self._source.name, commit=status.commit, reason=problem[:300])

    async def _sent(self, session: aiohttp.ClientSession, status: Status) -> tuple[str, bool]:
        """Send it and return what was wrong, and whether that is final; nothing where it is there."""
        token = await asyncio.to_thread(self._token)
        address, headers = self._address(status.commit, token)
        async with session.post(address, json=self._body(status), headers=headers, allow_redirects=False) as answer:
            said = (await answer.content.read(2000)).decode("utf-8", "replace")
        # GitLab refuses to be told twice what it knows.
        if answer.status in (200, 201) or (answer.status == 400 and "Cannot transition status" in said):
            return "", True
        return f"{urllib.parse.urlsplit(address).netloc} answered {answer.status}: {said}", answer.status in _FINAL

    def _address(self, commit: str, token: str) -> tuple[str, dict[str, str]]:
        there = self._repository
        if self._setting.forge == "gitlab":
            project = urllib.parse.quote(there.path, safe="")
            return f"{there.api}/projects/{project}/statuses/{commit}", {"PRIVATE-TOKEN": token}
        address = f"{there.api}/repos/{urllib.parse.quote(there.path)}/statuses/{commit}"
        if self._setting.forge == "gitea":
            return address, {"Authorization": f"token {token}"}
        return address, {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    def _body(self, status: Status) -> dict[str, Any]:
        at_gitlab = self._setting.forge == "gitlab"
        line = " ".join(status.description.split())
        body = {
            "state": _GITLAB_STATES[status.state] if at_gitlab else status.state,
            "name" if at_gitlab else "context": status.context[:255],
            "description": line[: _DESCRIPTION_CHARACTERS_MAX - 1] + "…"
            if len(line) > _DESCRIPTION_CHARACTERS_MAX
            else line,
        }
        if self._setting.url:
            body["target_url"] = self._setting.url.rstrip("/") + status.page
        return body


def _published(event: events.CommitPublished) -> Status:
    flows = f"{event.flows} flow{'' if event.flows == 1 else 's'}"
    if event.broken:
        return Status(event.commit, _CONTEXT, "failure", f"published: {flows}, {event.broken} broken", "/sync")
    return Status(event.commit, _CONTEXT, "success", f"published: {flows}", "/sync")


def _run(execution: str, commit: str, flow: str, state: State, said: str) -> Status:
    return Status(commit, f"{_CONTEXT}/{flow}", state, said, f"/executions/{execution}")
