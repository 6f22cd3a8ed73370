"""A small real server that speaks the daemon's HTTP contract, for tests of the client and the command line.

It runs in a thread with its own event loop, over TCP (where it wants the token) and over a unix socket (where it does
not). Flows: ``hello`` ends well, ``reports/daily`` too, ``broken`` fails with a traceback, ``slow`` ends when
``finish`` is called, ``bad`` cannot run. ``drop_after`` breaks streams, ``refuse_once`` breaks answers.
"""

import asyncio
import contextlib
import json
import threading
from pathlib import Path

from aiohttp import web

TOKEN = "hr_contract_token"
COMMIT = "1a2b3c4d5e6f708192a3b4c5d6e7f80911223344"
ENDED = ("ENDED_SUCCESS", "ENDED_ERROR", "ENDED_CANCELLED")


def flow(name, **fields):
    return {
        "id": f"id-{name}", "name": name, "path": f"{name}.py", "commit": COMMIT, "runnable": True, "broken": None,
        "webhook": None, "description": "", "timeout_s": None,
        "dependencies": None, "venv": "", **fields,
    }  # fmt: skip


def syntax_error(file):
    return {"reason": "SyntaxError: '(' was never closed", "file": file, "line": 12, "commit": COMMIT, "key": ""}


FLOWS = [
    flow("hello", description="Says hello", webhook={"name": "hello", "auth": "key", "methods": ["POST"]}),
    flow("reports/daily", description="Sums up the day", timeout_s=60.0),
    flow("broken", description="Always fails"),
    flow("slow", commit="0f0f0f0f0f", broken=syntax_error("slow.py")),
    flow("bad", runnable=False, commit="", broken=syntax_error("bad.py")),
]
TASK = {
    "name": "REST", "aliases": ["HTTP"], "summary": "One HTTP request", "description": "Sends a request.\nWaits.",
    "inputs": {
        "$ref": "#/$defs/RestInputs",
        "$defs": {"RestInputs": {
            "type": "object", "required": ["url"],
            "properties": {
                "url": {"type": "string", "description": "where to"},
                "method": {"enum": ["GET", "POST"], "default": "GET"},
                "port": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
                "tls": {"$ref": "#/$defs/Tls"},
            },
        }, "Tls": {"type": "boolean", "description": "whether to trust"}},
    },
    "output": {"type": "object", "properties": {"status_code": {"type": "integer"}}},
}  # fmt: skip
SYNC = {
    "source": "ssh://git@forge.example/ops/flows.git", "ref": "main", "commit": COMMIT,
    "published_at": "2026-11-23T20:00:00.000000+00:00", "state": "idle", "doing": "",
    "last_attempt_at": "2026-11-23T20:01:00.000000+00:00", "last_success_at": "2026-11-23T20:01:00.000000+00:00",
    "error": "", "flows": 5, "warnings": {"odd.py": "line 3: not a flow"},
    "broken": [{"name": "bad", **syntax_error("bad.py")}],
}  # fmt: skip


def problem(status, detail, hint=""):
    body = {"type": "about:blank", "title": "no", "status": status, "detail": detail, "hint": hint}
    return web.Response(status=status, text=json.dumps(body), content_type="application/problem+json")


class ContractServer:
    """Start it with ``with``; ``url`` and ``state`` (a directory holding ``daemon.sock``) say where it is."""

    def __init__(self, state: Path):
        self.state = state
        self.url = ""
        self.executions = {}
        self.logs = {}
        self.keys = {}
        self.sync = dict(SYNC)
        self.seen = []  # (method, path with query, headers)
        self.drop_after = []  # for each stream in turn: break the connection after so many events
        self.refuse_once = []  # for each answer in turn: break the connection after the request was carried out
        self._loop = asyncio.new_event_loop()
        self._changed = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="contract-server")

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def create(self, flow_name="hello", *, status="ENDED_SUCCESS", parent="", kind="FLOW", **fields):
        number = len(self.executions) + 1
        id_ = f"{number:04x}beef-0000-4000-8000-{number:012x}"
        error = {
            "type": "ValueError", "message": "no luck", "file": f"{flow_name}.py", "line": 3,
            "traceback": f'Traceback (most recent call last):\n  File "{flow_name}.py", line 3\nValueError: no luck',
        }  # fmt: skip
        self.executions[id_] = {
            "id": id_, "name": flow_name, "type": kind, "status": status, "message": "", "reason": "",
            "flow_id": f"id-{flow_name}", "flow_name": flow_name, "task": "", "commit": COMMIT, "input_value": {},
            "output_value": None, "parent_execution_id": parent, "created_by": "admin",
            "created_at": f"2026-11-23T20:{number:02}:00.000000+00:00",
            "started_at": f"2026-11-23T20:{number:02}:00.100000+00:00",
            "ended_at": f"2026-11-23T20:{number:02}:01.350000+00:00" if status in ENDED else None,
            "attempt": 1, "generation": 1, "divergence": None, "cancel_requested": False,
            "error": error if status == "ENDED_ERROR" else None,
            "waiting_for": [], **fields,
        }  # fmt: skip
        self.logs[id_] = []
        return id_

    def log(self, id_, text, level="INFO", stream=""):
        line = {
            "seq": 100 + len(self.logs[id_]), "at": "2026-11-23T20:00:00.123456+00:00", "level": level,
            "args": [text], "kwargs": {}, "text": text, "stream": stream,
        }  # fmt: skip
        self.logs[id_].append(line)

    def finish(self, id_, status="ENDED_SUCCESS", **fields):
        """End an execution; may be called from any thread."""

        def do():
            self.executions[id_] |= {"status": status, "ended_at": "2026-11-23T20:59:59.000000+00:00", **fields}
            self._notify()

        self._loop.call_soon_threadsafe(do)

    def paths(self):
        return [f"{method} {path}" for method, path, _ in self.seen]

    def _notify(self):
        self._changed.set()
        self._changed = asyncio.Event()

    def _main(self):
        asyncio.set_event_loop(self._loop)
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self):
        self._stop, self._changed = asyncio.Event(), asyncio.Event()
        runner = web.AppRunner(self._app(), shutdown_timeout=0.1)
        await runner.setup()
        tcp = web.TCPSite(runner, "127.0.0.1", 0)
        await tcp.start()
        self.url = f"http://127.0.0.1:{tcp._server.sockets[0].getsockname()[1]}"
        if len(str(self.state)) < 90:
            await web.UnixSite(runner, str(self.state / "daemon.sock")).start()
        self._ready.set()
        await self._stop.wait()
        self._notify()
        await runner.cleanup()

    def _app(self):
        app = web.Application(middlewares=[self._outer])
        api = "/api/v1"
        app.add_routes([
            web.get(f"{api}/flows", self._flows),
            web.get(f"{api}/flows/{{name}}", self._flow),
            web.post(f"{api}/flows/{{name}}/run", self._run),
            web.get(f"{api}/executions", self._list),
            web.get(f"{api}/executions/{{id}}", self._execution),
            web.get(f"{api}/executions/{{id}}/log", self._log),
            web.get(f"{api}/executions/{{id}}/events", self._events),
            web.post(f"{api}/executions/{{id}}/cancel", self._cancel),
            web.get(f"{api}/tasks", self._tasks),
            web.get(f"{api}/tasks/{{type}}", self._task),
            web.get(f"{api}/sync", self._sync),
            web.post(f"{api}/sync", self._sync),
        ])  # fmt: skip
        return app

    async def _ok(self, body, status=200, headers=None):
        return web.json_response(body, status=status, headers=headers)

    @web.middleware
    async def _outer(self, request, handler):
        self.seen.append((request.method, request.raw_path.removeprefix("/api/v1"), dict(request.headers)))
        by_socket = request.transport.get_extra_info("peername") in ("", None)
        if not by_socket and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "a token is needed", "set HEADRACE_TOKEN")
        try:
            answer = await handler(request)
        except web.HTTPNotFound:
            answer = problem(404, "no such route")
        if self.refuse_once and self.refuse_once.pop(0):
            request.transport.abort()
        return answer

    async def _flows(self, request):
        return await self._ok({"items": FLOWS})

    async def _tasks(self, request):
        return await self._ok({"items": [TASK]})

    async def _sync(self, request):
        return await self._ok(self.sync)

    async def _flow(self, request):
        found = next((f for f in FLOWS if f["name"] == request.match_info["name"]), None)
        if found is None:
            return problem(404, f"there is no flow {request.match_info['name']!r}", "did you mean hello?")
        return await self._ok(found | {"script": "def handler(system, this, inputs):\n    return this.success()\n"})

    async def _run(self, request):
        name, body = request.match_info["name"], await request.json()
        found = next((f for f in FLOWS if f["name"] == name), None)
        if found is None:
            return problem(404, f"there is no flow {name!r}", "did you mean hello?")
        if not found["runnable"]:
            return problem(422, f"{name} cannot run: SyntaxError", "mend bad.py")
        key = request.headers.get("Idempotency-Key")
        if key not in self.keys:
            self.keys[key] = self._begin(name, body["inputs"])
        execution = await self._waited(self.executions[self.keys[key]], request)
        headers = {"Location": f"/api/v1/executions/{execution['id']}"}
        return await self._ok(
            execution, 200 if execution["status"] in ENDED and "wait" in request.query else 202, headers
        )

    def _begin(self, name, inputs):
        status = {"broken": "ENDED_ERROR", "slow": "RUNNING"}.get(name, "ENDED_SUCCESS")
        output = {"greeting": f"hello {inputs.get('name', 'world')}"} if status == "ENDED_SUCCESS" else None
        id_ = self.create(
            name, status=status, input_value=inputs, output_value=output, message="all done" if output else ""
        )
        self.log(id_, f"hello from {name}")
        self.log(id_, "printed\n", stream="stdout")
        return id_

    async def _waited(self, execution, request):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(request.query.get("wait", 0))):
                while execution["status"] not in ENDED and not self._stop.is_set():
                    await self._changed.wait()
        return self.executions[execution["id"]]

    async def _list(self, request):
        query = request.query
        found = [e for e in reversed(self.executions.values()) if self._matches(e, query)]
        begin, limit = int(query.get("cursor", 0)), int(query.get("limit", 50))
        page = [{k: v for k, v in e.items() if k not in ("input_value", "output_value", "error")} for e in found]
        following = str(begin + limit) if begin + limit < len(page) else None
        return await self._ok({"items": page[begin : begin + limit], "next": following})

    def _matches(self, execution, query):
        return (
            query.get("flow", execution["flow_name"]) == execution["flow_name"]
            and query.get("type", execution["type"]) == execution["type"]
            and query.get("parent", execution["parent_execution_id"]) == execution["parent_execution_id"]
            and execution["status"] in query.getall("status", [execution["status"]])
            and execution["created_at"] >= query.get("since", "")
        )

    def _find(self, request):
        return self.executions.get(request.match_info["id"])

    def _missing(self, request):
        return problem(404, f"there is no execution {request.match_info['id']!r}", "`headrace executions` lists them")

    async def _execution(self, request):
        found = self._find(request)
        return await self._ok(await self._waited(found, request)) if found else self._missing(request)

    async def _cancel(self, request):
        found = self._find(request)
        if found is None:
            return self._missing(request)
        if found["status"] in ENDED:
            return problem(409, f"{found['id']} has already ended", "")
        found["cancel_requested"] = True
        self.finish(found["id"], "ENDED_CANCELLED")
        return await self._ok(found, 202)

    async def _task(self, request):
        if request.match_info["type"].upper() != "REST":
            return problem(404, "there is no such task type", "did you mean REST?")
        return await self._ok(TASK)

    async def _log(self, request):
        found = self._find(request)
        if found is None:
            return self._missing(request)
        if request.headers["Accept"] == "text/event-stream":
            return await self._stream(request, found["id"], lambda line: "log")
        text = "".join(json.dumps(line) + "\n" for line in self.logs[found["id"]])
        return web.Response(text=text, content_type="application/x-ndjson")

    async def _events(self, request):
        found = self._find(request)
        if found is None:
            return self._missing(request)
        if request.headers["Accept"] == "text/event-stream":
            return await self._stream(request, found["id"], lambda line: "log.written")
        return await self._ok({"items": self.logs[found["id"]]})

    async def _stream(self, request, id_, event_name):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        await response.write(b": heartbeat\n\n")
        after = int(request.headers.get("Last-Event-ID", 0))
        drop_after = self.drop_after.pop(0) if self.drop_after else None
        for count, line in enumerate(line for line in self.logs[id_] if line["seq"] > after):
            if count == drop_after:
                await response.write(f"id: {line['seq']}\nevent: {event_name(line)}\ndata: {{".encode())
                request.transport.abort()
                return response
            data = json.dumps(line)
            await response.write(f"id: {line['seq']}\nevent: {event_name(line)}\ndata: {data}\n\n".encode())
        while self.executions[id_]["status"] not in ENDED and not self._stop.is_set():
            await self._changed.wait()
        await response.write(f"event: end\ndata: {json.dumps({'status': self.executions[id_]['status']})}\n\n".encode())
        return response
