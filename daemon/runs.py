"""The HTTP API that sets executions going: run a flow or a script, run again what ran before.

    POST /api/v1/flows/{name}/run        the flow of the address
    POST /api/v1/executions              the flow, or the text of a script, in the body
    POST /api/v1/executions/{id}/rerun   what that execution ran, with its inputs or with others
    POST /executions/{id}/rerun          the same with its inputs, from its page

Each records the request, waits as long as its sender wants, and shows the execution. An ``Idempotency-Key`` makes it
safe to ask again, a ``traceparent`` says which trace the execution belongs to. Called by ``app`` for the route table.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
from aiohttp import web

from ..engine import errors, events, model, policy, traces, values
from ..engine.running import dispatcher, views
from ..sync import sources
from . import answers, operations, reach, routes, run_inputs, shapes, templates
from .reach import Reach

#: Inputs of a run; larger data belongs into files.
BODY_BYTES_MAX = values.VALUE_BYTES_MAX
_KEY_CHARACTERS_MAX = 200
_NAME_CHARACTERS_MAX = 200


class RunRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a run request. ``ref`` is a commit that is still kept, or a branch or tag that may be run from;
    without it what is published now runs."""

    inputs: msgspec.Raw = events.EMPTY_OBJECT
    name: str = ""
    ref: str = ""


class ExecutionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /executions``: a flow's name, or the text of a script that is no flow of the repository."""

    flow: str = ""
    script: str = ""
    inputs: msgspec.Raw = events.EMPTY_OBJECT
    name: str = ""
    ref: str = ""


class RerunRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a rerun: inputs that are otherwise, and which version of the flow."""

    inputs: msgspec.Raw = events.EMPTY_OBJECT
    name: str = ""
    version: Literal["latest", "same"] = "latest"


class Runs:
    """The handlers, who runs, where flows come from, and what is whose."""

    def __init__(self, work: dispatcher.Dispatcher, origin: sources.Sources, subjects: reach.Subjects) -> None:
        self._work = work
        self._origin = origin
        self._subjects = subjects

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        route, v1 = routes.Route, "/api/v1"

        def tells(body: type) -> operations.Operation:
            return operations.Operation(
                takes=body,
                gives=shapes.Execution,
                statuses=(202, 200),
                query=(operations.WAIT,),
                headers=(operations.PREFER, operations.IDEMPOTENCY_KEY, operations.TRACEPARENT),
            )

        return [
            route(
                *("POST", v1 + "/flows/{name}/run", "run", self.run_flow, "run a flow"),
                touches=Reach.FLOW,
                tells=tells(shapes.RunBody),
            ),
            route(
                *("POST", f"{v1}/executions", "run", self.create_execution, "run the flow or script in the body"),
                touches=Reach.FILTERED,
                tells=tells(shapes.ExecutionBody),
            ),
            route(
                *("POST", v1 + "/executions/{id}/rerun", "run", self.rerun, "run again what it ran"),
                touches=Reach.EXECUTION,
                tells=tells(shapes.RerunBody),
            ),
            route(
                *("POST", "/executions/{id}/rerun", "run", self.rerun_from_page, "run it again from its page"),
                touches=Reach.EXECUTION,
                page=True,
            ),
        ]

    async def run_flow(self, request: web.Request) -> web.Response:
        """Record the request, then answer; with ``wait``, when it has ended or the time is over."""
        body = await answers.json_of(request, BODY_BYTES_MAX)
        asked = answers.decoded(body, RunRequest)
        flow = request.match_info["name"]
        inputs = answers.checked_inputs(bytes(asked.inputs))
        commit = await self._origin.commit(flow, asked.ref)
        wanted = self._declared(model.Submission(flow=flow, commit=commit, inputs=inputs, name=asked.name))
        return await self._run(request, wanted, flow, body)

    async def create_execution(self, request: web.Request) -> web.Response:
        """The same, with the flow named in the body."""
        body = await answers.json_of(request, BODY_BYTES_MAX)
        asked = answers.decoded(body, ExecutionRequest)
        if bool(asked.flow) == bool(asked.script):
            raise errors.InvalidRequest("give either `flow`, the name of a flow, or `script`, the text of one")
        if asked.script:
            self._check_script(request)
        else:
            self._subjects.check_flow(request[routes.PRINCIPAL], asked.flow)
        wanted = model.Submission(
            flow=asked.flow,
            script=asked.script,
            commit=await self._origin.commit(asked.flow, asked.ref),
            inputs=answers.checked_inputs(bytes(asked.inputs)),
            name=asked.name,
        )
        if asked.flow:
            wanted = self._declared(wanted)
        return await self._run(request, wanted, asked.flow, body)

    def _declared(self, wanted: model.Submission) -> model.Submission:
        """Return the run with what its flow declares secret protected; raises ``InputsUnfit``."""
        protect = run_inputs.check(self._origin.flows.find(wanted.flow, wanted.commit), wanted.inputs)
        return msgspec.structs.replace(wanted, protect_inputs=protect)

    async def rerun(self, request: web.Request) -> web.Response:
        """The same flow or script again. What came in through a webhook stays as little trusted as it was."""
        body = await answers.json_of(request, BODY_BYTES_MAX)
        asked = answers.decoded(body, RerunRequest)
        before = await self._work.load(request.match_info["id"])
        return await self._run(request, await self.wanted_again(request, before, asked), before.id, body)

    async def rerun_from_page(self, request: web.Request) -> web.Response:
        """Run it again with the same inputs and go there; a button that is pressed twice does so once."""
        form = await answers.form_of(request)
        version: Literal["latest", "same"] = "same" if form.get("version") == "same" else "latest"
        before = await self._work.load(request.match_info["id"])
        wanted = await self.wanted_again(request, before, RerunRequest(version=version))
        who, key = request[routes.PRINCIPAL].name, form.get("key", "")[:40]
        signed = msgspec.structs.replace(
            wanted,
            created_by=who,
            key=f"page:{who}:{key}" if key else "",
            key_digest=hashlib.sha256(f"{before.id} {version}".encode()).hexdigest() if key else "",
        )
        return templates.redirect(f"/executions/{(await self._work.submit(signed)).execution}")

    async def wanted_again(
        self, request: web.Request, before: model.Execution, asked: RerunRequest
    ) -> model.Submission:
        """Return the run that repeats ``before``; raises ``Conflict`` where there is none, ``NotAllowed``."""
        if before.type == "TASK":
            raise errors.Conflict("a task cannot be run again alone", hint="rerun the flow that asked for it")
        script = ""
        if before.script is not None:
            self._check_script(request)
            script = values.decode(await self._work.ledger.contents.true(before.script))
        elif not before.flow_id:
            raise errors.Conflict(f"execution {before.id} has no flow")
        return model.Submission(
            flow="" if script else self._flow_of(request, before),
            script=script,
            commit=before.commit if asked.version == "same" else "",
            inputs=await self._merged(before, bytes(asked.inputs)),
            name=asked.name or before.name,
            webhook=before.webhook,
            outside=before.outside,
            protect_inputs=before.protect_inputs,
            protect_outputs=before.protect_outputs,
            terms=policy.Terms(rerun_of=before.id, rerun_trace=traces.onward(before.traceparent, before.id)),
        )

    def _flow_of(self, request: web.Request, before: model.Execution) -> str:
        """The flow may have another name by now, and who may see the old execution need not be allowed to run it."""
        self._subjects.check_flow(request[routes.PRINCIPAL], before.flow_id)
        return before.flow_id

    async def _merged(self, before: model.Execution, given: bytes) -> bytes:
        """The inputs as they truly were, with those that are given instead."""
        inputs = values.decode(await self._work.ledger.contents.true(before.inputs))
        otherwise = values.decode(msgspec.Raw(answers.checked_inputs(given)))
        return answers.checked_inputs(values.encode(inputs | otherwise))

    def _check_script(self, request: web.Request) -> None:
        who = request[routes.PRINCIPAL]
        if "edit" not in who.scopes or who.limited:
            raise errors.NotAllowed("running a script of one's own needs the scope 'edit' for all flows")

    async def _run(self, request: web.Request, wanted: model.Submission, about: str, body: bytes) -> web.Response:
        """Submit and answer. ``about`` and ``body`` are what two requests with the same key must agree in."""
        wait_s = answers.wait_s(request)
        who = request[routes.PRINCIPAL].name
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > _KEY_CHARACTERS_MAX:
            raise errors.InvalidRequest(f"an Idempotency-Key may have {_KEY_CHARACTERS_MAX} characters")
        signed = msgspec.structs.replace(
            wanted,
            name=wanted.name[:_NAME_CHARACTERS_MAX],
            created_by=who,
            key=f"api:{who}:{key}" if key else "",
            key_digest=hashlib.sha256(about.encode("utf-8", "surrogatepass") + b"\0" + body).hexdigest() if key else "",
            traceparent=traces.accepted(request.headers.get("traceparent", "")),
        )
        accepted = await self._work.submit(signed)
        state, request[answers.CONFIRM] = await self._work.ends.foresee(accepted.execution, wait_s or 0)
        headers = {"Location": f"/api/v1/executions/{state.id}"}
        if accepted.repeated:
            headers["Idempotency-Replayed"] = "true"
        shown = await views.for_people(self._work.ledger, state)
        shown["held"] = self._work.why(state)
        status = 200 if wait_s is not None and state.status.ended else 202
        return answers.json_answer(shown, status=status, headers=headers)
