"""DOCKER: run, enter and look after containers, through the API of Docker's engine, which Podman serves too.

A container that is run ends with the task: whatever becomes of the task, it is killed and removed. The engine is
reached over TCP, or over a socket of the daemon's machine if the operator allows that: who may use such a socket may do
anything on the machine.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import re
import ssl
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import aiohttp
import msgspec
import yarl

from ..engine import ports, values
from . import blocking, host, rest, tls, web_service
from . import definition as definitions
from .definition import invalid, missing
from .host import about

TASK = "DOCKER"
#: The newest version of the API that is asked for; an engine that is older is asked for its own.
_VERSION = (1, 47)
#: What one output of a program may take, and how much of it a failure keeps.
OUTPUT_BYTES_MAX = 16 * 1024 * 1024
_FAILURE_CHARACTERS = 1024 * 1024
#: How long a container that was run may take to be gone, when the task is over.
_REMOVE_S = 20.0
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._/:@-]{0,511}")
#: What each command needs, and what it takes beside.
_NEEDS = {"run": ("image",), "exec": ("container", "args"), "pull": ("image",), "stop": ("container",)}
_NEEDS |= {"list": (), "remove": ("container",)}
_PROGRAM = ("args", "env", "user", "working_dir")
_TAKES = {
    "run": (*_PROGRAM, "entrypoint", "options", "name", "detach", "expected_retcode"),
    "exec": (*_PROGRAM, "expected_retcode"), "list": ("all", "labels"), "pull": ("username", "password"),
    "stop": ("grace",), "remove": ("force",),
}  # fmt: skip


class DockerInputs(web_service.ServiceInputs, kw_only=True):
    """The inputs of DOCKER."""

    url: Annotated[str, about("Where the engine is: https://host:2376, or unix:///run/docker.sock.")]
    command: Annotated[
        Literal["run", "exec", "list", "pull", "stop", "remove"],
        about("run: a container to its end; exec: a program in one that runs; the others as in docker. Default: run."),
    ] = "run"
    image: Annotated[str | None, about("For run and pull: the image. Pull takes the tag latest if none is named.")] = (
        None
    )
    container: Annotated[str | None, about("For exec, stop and remove: the container's name or id.")] = None
    args: Annotated[
        list[str] | None, about("For run and exec: the program and its arguments. Default for run: the image's.")
    ] = None
    entrypoint: Annotated[list[str] | None, about("For run: what args are given to. Default: the image's.")] = None
    env: Annotated[dict[str, str] | None, about("For run and exec: variables of its environment. All secret.")] = None
    user: Annotated[str | None, about("For run and exec: the user in the container.")] = None
    working_dir: Annotated[str | None, about("For run and exec: the folder to begin in.")] = None
    options: Annotated[
        dict[str, Any] | None, about("For run: more of what the API takes to create a container, such as HostConfig.")
    ] = None
    name: Annotated[str | None, about("For run: the container's name. Default: one made of the execution's id.")] = None
    detach: Annotated[bool | None, about("For run: leave it running, and do not wait. Default: false.")] = None
    expected_retcode: Annotated[
        int | list[int] | None, about("For run and exec: statuses that count as success. Default: 0.")
    ] = None
    all: Annotated[bool | None, about("For list: also those that do not run. Default: false.")] = None
    labels: Annotated[list[str] | None, about("For list: only with these labels, each NAME or NAME=VALUE.")] = None
    username: Annotated[str | None, about("For pull: the user to log in to the registry as.")] = None
    password: Annotated[str | None, about("The user's password.")] = None
    grace: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=3600)] | None,
        about("For stop: seconds the container gets to end by itself. Default: the engine's, mostly 10."),
    ] = None
    force: Annotated[bool | None, about("For remove: also one that runs. Default: false.")] = None

    @property
    def socket(self) -> str | None:
        """The path of the engine's socket, if it is reached by one."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else None


class Container(msgspec.Struct, kw_only=True):
    """A container: ``created`` in seconds since 1970."""

    id: str
    name: str
    image: str
    state: str
    status: str
    created: int
    labels: dict[str, str]


class DockerOutput(msgspec.Struct, kw_only=True):
    """The output of DOCKER."""

    id: str | msgspec.UnsetType = msgspec.UNSET  #: with run
    retcode: int | msgspec.UnsetType = msgspec.UNSET  #: with run and exec
    stdout: str | msgspec.UnsetType = msgspec.UNSET
    stderr: str | msgspec.UnsetType = msgspec.UNSET
    containers: list[Container] | msgspec.UnsetType = msgspec.UNSET  #: with list


def _check(inputs: DockerInputs) -> None:
    if inputs.socket is None:
        web_service.check(TASK, inputs, inputs.url)
    elif not inputs.socket.startswith("/"):
        raise invalid(TASK, "url", "expected unix:// and the absolute path of a socket")
    used = {*_NEEDS[inputs.command], *_TAKES[inputs.command]}
    for name in _NEEDS[inputs.command]:
        if not getattr(inputs, name):
            raise missing(TASK, name, f"the command {inputs.command} needs it")
    for name in sorted({one for names in (*_NEEDS.values(), *_TAKES.values()) for one in names} - used):
        if getattr(inputs, name) is not None:
            raise invalid(TASK, name, f"the command {inputs.command} does not use it")
    for name in ("container", "name"):
        if not _NAME.fullmatch(getattr(inputs, name) or "x"):
            raise invalid(TASK, name, "expected the name or id of a container")
    if not _IMAGE.fullmatch(inputs.image or "x"):
        raise invalid(TASK, "image", "expected the name of an image")
    for name, value in (inputs.env or {}).items():
        if not name or "=" in name or "\0" in name + value:
            raise invalid(TASK, "env", "expected names and values of variables")
    if (inputs.username is None) != (inputs.password is None):
        raise missing(TASK, "password" if inputs.password is None else "username", "a login has both")
    if inputs.detach and inputs.expected_retcode is not None:
        raise invalid(TASK, "expected_retcode", "nobody waits for it with 'detach'")


class _Engine:
    """One task's calls of an engine. Each raises ``host.Failed``."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        trust: ssl.SSLContext | bool,
        inputs: DockerInputs,
        context: ports.TaskContext,
    ) -> None:
        self._session, self._trust, self._inputs, self._context = session, trust, inputs, context
        self._base = yarl.URL("http://engine" if inputs.socket is not None else inputs.url)
        self._version = ""

    async def run(self) -> DockerOutput:
        """Do what is asked."""
        await self._meet()
        inputs = self._inputs
        match inputs.command:
            case "run":
                return await self._run()
            case "exec":
                return await self._exec()
            case "list":
                return await self._listed()
            case "pull":
                await self._pull()
            case "stop":
                asked = {} if inputs.grace is None else {"t": str(inputs.grace)}
                await self._call("POST", f"/containers/{inputs.container}/stop", asked)
            case "remove":
                await self._remove(inputs.container or "", force=inputs.force or False)
        return DockerOutput()

    async def _meet(self) -> None:
        """Agree on a version of the API."""
        async with self._answered("GET", "/_ping", {}) as response:
            said = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", response.headers.get("Api-Version", ""))
        if said is None:
            raise host.Failed(f"{self._where} is not an engine of Docker or Podman")
        major, minor = min(_VERSION, (int(said[1]), int(said[2])))
        self._version = f"/v{major}.{minor}"

    @property
    def _where(self) -> str:
        return self._inputs.socket or f"{self._base.host}:{self._base.port}"

    @contextlib.asynccontextmanager
    async def _answered(
        self, method: str, path: str, params: dict[str, str], *, patient: bool = False, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Give a good answer; ``patient`` is for one that comes when something ends."""
        url = self._base.with_path(self._base.path.rstrip("/") + self._version + path).with_query(params)
        limits = aiohttp.ClientTimeout(
            total=None, connect=self._inputs.connect_timeout, sock_read=None if patient else self._inputs.read_timeout
        )
        try:
            async with self._session.request(
                method, url, ssl=self._trust, allow_redirects=False, timeout=limits, **more
            ) as response:
                if response.status >= 300 and response.status != 304:
                    raise await self._refusal(response)
                yield response
        except (aiohttp.ClientError, OSError) as error:
            words, passing = rest.explained(error, url, self._inputs.connect_timeout, self._inputs.read_timeout)
            if self._inputs.socket is not None:
                words = words.replace("engine:80", self._inputs.socket)
            raise host.Failed(words, passing=passing) from None

    async def _refusal(self, response: aiohttp.ClientResponse) -> host.Failed:
        body = await _bounded(response, 64 * 1024)
        try:
            said = msgspec.json.decode(body)["message"]
        except (msgspec.DecodeError, LookupError, TypeError):
            said = body.decode("utf-8", "replace")
        return host.Failed(f"status {response.status}: {host.quoted(str(said))}", passing=response.status == 503)

    async def _call(self, method: str, path: str, params: dict[str, str] | None = None, **more: Any) -> Any:
        """Return the answer's JSON, or nothing where there is none."""
        async with self._answered(method, path, params or {}, **more) as response:
            body = await _bounded(response, values.VALUE_BYTES_MAX)
        try:
            return msgspec.json.decode(body) if body.strip() else None
        except msgspec.DecodeError:
            raise self._unexpected() from None

    def _unexpected(self) -> host.Failed:
        return host.Failed(f"what {self._where} says is not what an engine says")

    async def _run(self) -> DockerOutput:
        inputs = self._inputs
        own = f"headrace-{self._context.execution_id}-{uuid.uuid4().hex[:8]}"
        #: What is to be removed: one with a name of ours also when nobody knows whether it was made.
        left = None if inputs.name else own
        try:
            made = await self._call("POST", "/containers/create", {"name": inputs.name or own}, json=self._wanted())
            left = container = _member(made, "Id", str, self._unexpected())
            await self._call("POST", f"/containers/{container}/start")
            if inputs.detach:
                left = None
                return DockerOutput(id=container)
            ended = await self._call("POST", f"/containers/{container}/wait", patient=True)
            retcode = _member(ended, "StatusCode", int, self._unexpected())
            # Followed from the start it may never end: Podman misses the end of what ends at once.
            asked = {"stdout": "true", "stderr": "true"}
            stdout, stderr = await self._streams("GET", f"/containers/{container}/logs", asked)
            return self._ended(DockerOutput(id=container, retcode=retcode, stdout=stdout, stderr=stderr))
        finally:
            if left is not None:
                await self._gone(left)

    def _wanted(self) -> dict[str, Any]:
        inputs = self._inputs
        own: dict[str, Any] = {
            "Image": inputs.image, "Cmd": inputs.args, "Entrypoint": inputs.entrypoint, "User": inputs.user,
            "WorkingDir": inputs.working_dir, "Env": _variables(inputs.env),
        }  # fmt: skip
        wanted = {**(inputs.options or {}), **{name: value for name, value in own.items() if value is not None}}
        labels, settings = wanted.get("Labels"), wanted.get("HostConfig")
        wanted["Labels"] = {**(labels if isinstance(labels, dict) else {}), "headrace": self._context.execution_id}
        # What it says is read from there, whatever the engine keeps by itself.
        kept = {"LogConfig": {"Type": "json-file", "Config": {}}}
        wanted["HostConfig"] = {**kept, **(settings if isinstance(settings, dict) else {})}
        return wanted

    async def _gone(self, container: str) -> None:
        """Kill and remove the container, also when the task is cancelled meanwhile."""
        removing = asyncio.ensure_future(self._removed(container))
        try:
            await asyncio.shield(removing)
        except asyncio.CancelledError:
            await asyncio.wait([removing])
            raise

    async def _removed(self, container: str) -> None:
        try:
            async with asyncio.timeout(_REMOVE_S):
                await self._remove(container, force=True)
        except TimeoutError:
            self._context.log("WARNING", f"the container {container} may be left: the engine does not remove it")
        except host.Failed as failed:
            if not failed.words.startswith("status 404"):
                self._context.log("WARNING", f"the container {container} may be left: {failed.words}")

    async def _remove(self, container: str, *, force: bool) -> None:
        await self._call("DELETE", f"/containers/{container}", {"force": str(force).lower(), "v": "true"})

    async def _exec(self) -> DockerOutput:
        inputs = self._inputs
        asked = {
            "Cmd": inputs.args, "Env": _variables(inputs.env), "User": inputs.user, "WorkingDir": inputs.working_dir,
            "AttachStdout": True, "AttachStderr": True,
        }  # fmt: skip
        wanted = {name: value for name, value in asked.items() if value is not None}
        made = await self._call("POST", f"/containers/{inputs.container}/exec", json=wanted)
        number = _member(made, "Id", str, self._unexpected())
        stdout, stderr = await self._streams("POST", f"/exec/{number}/start", {}, json={"Detach": False, "Tty": False})
        ended = await self._call("GET", f"/exec/{number}/json")
        retcode = _member(ended, "ExitCode", int, self._unexpected())
        return self._ended(DockerOutput(retcode=retcode, stdout=stdout, stderr=stderr))

    def _ended(self, output: DockerOutput) -> DockerOutput:
        expected = [0] if self._inputs.expected_retcode is None else self._inputs.expected_retcode
        if output.retcode in (expected if isinstance(expected, list) else [expected]):
            return output
        stdout, stderr = str(output.stdout), str(output.stderr)
        last = (stderr.rstrip() or stdout.rstrip()).rpartition("\n")[2]
        said = f": {host.quoted(last)}" if last else ", without a word"
        output.stdout, output.stderr = stdout[-_FAILURE_CHARACTERS:], stderr[-_FAILURE_CHARACTERS:]
        raise host.Failed(f"the program ended with {output.retcode}{said}", output=output)

    async def _streams(self, method: str, path: str, params: dict[str, str], **more: Any) -> tuple[str, str]:
        """Return what a program writes, until it ends: pieces with eight bytes before each, as the API has it."""
        outputs = {1: bytearray(), 2: bytearray()}
        async with self._answered(method, path, params, patient=True, **more) as response:
            while head := await self._piece(response, 8):
                stream, length = head[0], int.from_bytes(head[4:], "big")
                if stream not in outputs or length > OUTPUT_BYTES_MAX:
                    raise self._unexpected()
                outputs[stream] += await self._piece(response, length) if length else b""
                if len(outputs[stream]) > OUTPUT_BYTES_MAX:
                    raise host.Failed(f"the program wrote more than {OUTPUT_BYTES_MAX >> 20} MiB")
        return outputs[1].decode("utf-8", "replace"), outputs[2].decode("utf-8", "replace")

    async def _piece(self, response: aiohttp.ClientResponse, length: int) -> bytes:
        try:
            return await response.content.readexactly(length)
        except asyncio.IncompleteReadError as error:
            if error.partial or length != 8:
                raise self._unexpected() from None
            return b""

    async def _listed(self) -> DockerOutput:
        inputs = self._inputs
        filters = msgspec.json.encode({"label": inputs.labels or []}).decode()
        asked = {"all": str(inputs.all or False).lower(), "filters": filters}
        found = await self._call("GET", "/containers/json", asked)
        try:
            return DockerOutput(containers=[_container(one) for one in found])
        except (LookupError, TypeError, AttributeError, ValueError):
            raise self._unexpected() from None

    async def _pull(self) -> None:
        """Have the engine fetch the image; what it says while it does is read to its end, where a failure stands."""
        inputs = self._inputs
        image = inputs.image or ""
        asked = {"fromImage": image} if "@" in image else dict(zip(("fromImage", "tag"), _tagged(image), strict=True))
        headers = {}
        if inputs.username is not None:
            login = {"username": inputs.username, "password": inputs.password}
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(msgspec.json.encode(login)).decode()
        async with self._answered("POST", "/images/create", asked, patient=True, headers=headers) as response:
            said = await _bounded(response, values.VALUE_BYTES_MAX)
        for line in said.splitlines():
            try:
                words = msgspec.json.decode(line).get("error")
            except (msgspec.DecodeError, AttributeError):
                raise self._unexpected() from None
            if words:
                raise host.Failed(f"the image cannot be pulled: {host.quoted(str(words))}")


async def _bounded(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > bytes_max:
            raise host.Failed(f"the answer is larger than {bytes_max:,} bytes")
    return bytes(body)


def _member(answer: Any, name: str, kind: type[Any], otherwise: host.Failed) -> Any:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind) or (kind is str and not _NAME.fullmatch(value)):
        raise otherwise
    return value


def _variables(env: dict[str, str] | None) -> list[str] | None:
    return None if env is None else [f"{name}={value}" for name, value in env.items()]


def _tagged(image: str) -> tuple[str, str]:
    """Return an image's name and its tag; a colon before a slash is that of a registry's port."""
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")


def _container(one: Any) -> Container:
    return Container(
        id=str(one["Id"]),
        name=str((one["Names"] or [""])[0]).lstrip("/"),
        image=str(one["Image"]),
        state=str(one["State"]),
        status=str(one["Status"]),
        created=int(one["Created"]),
        labels={str(name): str(value) for name, value in (one["Labels"] or {}).items()},
    )


@contextlib.asynccontextmanager
async def _session(
    settings: definitions.Settings, connections: rest.Connections, inputs: DockerInputs
) -> AsyncIterator[aiohttp.ClientSession]:
    if inputs.socket is not None:
        settings.local.socket(TASK, inputs.socket)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(inputs.socket)) as session:
            yield session
        return
    if (refusal := connections.egress.refusal(yarl.URL(inputs.url).raw_host or "")) is not None:
        raise host.Failed(refusal)
    yield connections.session()


async def _attempt(
    settings: definitions.Settings, connections: rest.Connections, inputs: DockerInputs, context: ports.TaskContext
) -> DockerOutput:
    trust = await blocking.call(_trust, inputs)
    async with _session(settings, connections, inputs) as session:
        return await _Engine(session, trust, inputs, context).run()


def _trust(inputs: DockerInputs) -> ssl.SSLContext:
    return tls.context(
        cacert=inputs.cacert, client_cert=inputs.client_cert, client_key=inputs.client_key, verify=inputs.verify_ssl
    )


async def _run(
    settings: definitions.Settings, connections: rest.Connections, inputs: DockerInputs, context: ports.TaskContext
) -> DockerOutput:
    attempt = functools.partial(_attempt, settings, connections, inputs, context)
    shown = f"{TASK} {inputs.command}"
    return await host.performed(
        shown, attempt, inputs, context, settings, repeatable=_is_repeatable(inputs), secret=("env",)
    )


def _is_repeatable(inputs: DockerInputs) -> bool:
    return inputs.command in ("list", "pull", "stop")


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[DockerInputs]:
    """Return the task type DOCKER."""
    connections = rest.Connections(settings.egress)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Run containers to their end, and look after them",
        description="One command for an engine of Docker or Podman.",
        inputs=DockerInputs,
        output=DockerOutput,
        run=functools.partial(_run, settings, connections),
        idempotent=_is_repeatable,
        check=_check,
        aliases=("PODMAN",),
        secret_inputs=frozenset({"env"}),
        close=connections.aclose,
    )
