"""Requests from outside: each becomes an execution that is durable before it is acknowledged, and one with a key once.

A key is a webhook's delivery id or an Idempotency-Key. The latest are remembered here, older ones found in the
index; of two requests with the same key at the same time the second waits for what becomes of the first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from .. import errors, events, model, ports, values
from ..records import index
from . import child_calls, lanes, live, terms

#: Keys of the latest requests, kept until the index surely knows them.
_RECENT_KEYS_MAX = 10_000


class Accepted(msgspec.Struct, frozen=True):
    """The answer to a request: the execution, and whether an earlier request with the same key had made it."""

    execution: str
    repeated: bool


class Reception:
    """Where requests arrive. ``enqueue`` lets an execution run when there is room."""

    def __init__(
        self,
        ledger: live.Ledger,
        archive: index.Index,
        flows: ports.Flows,
        new_id: Callable[[], str],
        enqueue: Callable[[live.Live], None],
        room: lanes.Lanes,
    ) -> None:
        self._ledger = ledger
        self._archive = archive
        self._flows = flows
        self._new_id = new_id
        self._enqueue = enqueue
        self._lanes = room
        self._arriving: dict[str, asyncio.Future[None]] = {}  # until it is durable, or given up
        self._keys: OrderedDict[str, tuple[str, str]] = OrderedDict()  # key → execution, digest

    async def take(self, request: model.Submission) -> Accepted:
        """Record the request, unless one with its key was; on return it is durable. Raises as ``Dispatcher.submit``."""
        if not request.key:
            return Accepted(await self._create(request), repeated=False)
        if (first := self._arriving.get(request.key)) is not None:
            await asyncio.shield(first)
        if (known := self._keys.get(request.key)) is not None:
            execution, digest = known
        elif (found := self._archive.find_key(request.key)) is not None:
            execution, digest, _at = found
        else:
            return Accepted(await self._create_once(request), repeated=False)
        if digest != request.key_digest:
            raise errors.Conflict(f"the key {request.key!r} was used before with another body")
        return Accepted(execution, repeated=True)

    async def _create_once(self, request: model.Submission) -> str:
        """Create, making everybody with the same key wait for the same execution."""
        promise: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arriving[request.key] = promise
        try:
            execution = await self._create(request)
        except BaseException as error:
            given_up = errors.NotAccepting("an earlier request with this key was given up before it was recorded")
            promise.set_exception(error if isinstance(error, errors.HeadraceError) else given_up)
            promise.exception()  # retrieved here, for nobody may be waiting
            raise
        finally:
            del self._arriving[request.key]
        self._keys[request.key] = (execution, request.key_digest)
        promise.set_result(None)
        while len(self._keys) > _RECENT_KEYS_MAX:
            self._keys.popitem(last=False)
        return execution

    async def _create(self, request: model.Submission) -> str:
        if scarce := self._ledger.journal.scarce:  # before its inputs take room, too
            raise errors.NotAccepting(scarce, hint="free disk space")
        execution = self._new_id()
        what = await self._of_script(request) if request.script else self._of_flow(execution, request)
        try:
            subject = await self._ledger.submit(await self._event(execution, request, what))
        finally:
            if "terms" in what:
                self._lanes.forget(execution, what["terms"])
        if request.queued:
            self._enqueue(subject)
        return execution

    async def _event(self, execution: str, request: model.Submission, what: dict[str, Any]) -> events.ExecutionCreated:
        held = await self._ledger.contents.store(request.inputs, protect=request.protect_inputs, patient=False)
        return events.ExecutionCreated(
            execution=execution,
            created_by=request.created_by,
            key=request.key,
            key_digest=request.key_digest,
            queued=request.queued,
            webhook=request.webhook,
            outside=request.webhook or request.outside,
            protect_inputs=request.protect_inputs,
            protect_outputs=request.protect_outputs,
            traceparent=request.traceparent,
            **(what | ({"name": request.name} if request.name else {})),
            **held.twins("inputs"),
        )

    def _of_flow(self, execution: str, request: model.Submission) -> dict[str, Any]:
        """What its flow says of it, a place in its lane promised; raises ``LaneFull`` too."""
        name, commit = request.flow, request.commit
        flow = self._flows.find(name, commit)
        if commit and flow.commit != commit:
            raise errors.Conflict(
                f"the commit {commit[:12]} of flow {flow.name!r} is not kept any more", hint="run the latest one"
            )
        if not flow.runnable:
            why = f": {flow.broken.reason} ({flow.broken.file}:{flow.broken.line})" if flow.broken else ""
            raise errors.Conflict(
                f"flow {flow.name!r} has no version that runs{why}", hint="push a commit that mends it"
            )
        found = terms.of_flow(flow, lambda: values.decode(msgspec.Raw(request.inputs)), request.terms)
        self._lanes.promise(execution, found["terms"], flow)
        return {"name": flow.name, **found}

    async def _of_script(self, request: model.Submission) -> dict[str, Any]:
        """A script runs as if it lay in the commit that is asked for, or else in what is published now.

        Raises ``NotFound`` for a commit that is not kept."""
        published = self._flows.current()
        if not published.commit:
            raise errors.NotAccepting("no commit is published yet")
        if request.commit:
            self._flows.snapshot(request.commit)
        blob = await child_calls.script(self._ledger.contents, request.script, patient=False)
        return {
            "type": "SCRIPT",
            "name": "script",
            "flow_id": f"script {blob.sha256}",
            "commit": request.commit or published.commit,
            "venv": published.venv,
            "script_blob": blob,
            "terms": request.terms,
        }
