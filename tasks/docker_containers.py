"""DOCKER's commands about containers: run, exec, copy, list, stop and remove.

A container that is run ends with the task: whatever becomes of the task, it is killed and removed.
"""

from __future__ import annotations

import asyncio
import pathlib
import uuid
from typing import Any

import msgspec

from ..engine import ports
from . import docker_engine, docker_files, host
from . import docker_inputs as asked

#: How long a container that was run may take to be gone, when the task is over.
_REMOVE_S = 20.0


class Work:
    """One task about containers. Each command raises ``host.Failed``."""

    def __init__(
        self,
        engine: docker_engine.Engine,
        inputs: asked.DockerInputs,
        context: ports.TaskContext,
        folder: pathlib.Path,
    ) -> None:
        self._engine, self._inputs, self._context, self._folder = engine, inputs, context, folder

    async def perform(self) -> asked.DockerOutput:
        """Do what is asked."""
        inputs = self._inputs
        match inputs.command:
            case "run":
                return await self._run()
            case "exec":
                return await self._exec()
            case "copy":
                await self._bring_in(inputs.container or "")
                await self._take_out(inputs.container or "")
            case "list":
                return await self._listed()
            case "stop":
                grace = {} if inputs.grace is None else {"t": str(inputs.grace)}
                await self._engine.call("POST", f"/containers/{inputs.container}/stop", grace)
            case "remove":
                await self._remove(inputs.container or "", force=inputs.force or False)
        return asked.DockerOutput()

    async def _bring_in(self, container: str) -> None:
        copies = self._inputs.copy_files or ()
        await docker_files.bring_in(self._engine, container, self._context, self._folder, copies)

    async def _take_out(self, container: str) -> None:
        copies = self._inputs.output_files or ()
        await docker_files.take_out(self._engine, container, self._context, self._folder, copies)

    async def _run(self) -> asked.DockerOutput:
        inputs, engine = self._inputs, self._engine
        own = f"headrace-{self._context.execution_id}-{uuid.uuid4().hex[:8]}"
        #: What is to be removed: one with a name of ours also when nobody knows whether it was made.
        left = None if inputs.name else own
        try:
            made = await engine.call("POST", "/containers/create", {"name": inputs.name or own}, json=self._wanted())
            left = container = engine.member(made, "Id", str)
            await self._bring_in(container)
            if inputs.detach:
                await engine.call("POST", f"/containers/{container}/start")
                left = None
                return asked.DockerOutput(id=container)
            retcode = await self._to_its_end(container)
            # Followed from the start it may never end: Podman misses the end of what ends at once.
            wanted = {"stdout": "true", "stderr": "true"}
            stdout, stderr = await engine.streams("GET", f"/containers/{container}/logs", wanted)
            output = self._ended(asked.DockerOutput(id=container, retcode=retcode, stdout=stdout, stderr=stderr))
            await self._take_out(container)
            return output
        finally:
            if left is not None:
                await self._gone(left)

    async def _to_its_end(self, container: str) -> int:
        """Start the container, give it what it is to read, and return its program's status."""
        start, engine = f"/containers/{container}/start", self._engine
        if self._inputs.stdin is None:
            await engine.call("POST", start)
            return await self._status(container)
        async with engine.attached(container) as writer:
            await engine.call("POST", start)
            feeding = asyncio.create_task(docker_engine.feed(writer, self._inputs.stdin.encode()), name="docker.stdin")
            try:
                retcode = await self._status(container)
            finally:
                unread = feeding.cancel()  # it waits for a program that reads no more
                await asyncio.wait([feeding])
        if unread or not feeding.result():
            self._context.log("WARNING", "the program ended before it had read all of its input")
        return retcode

    async def _status(self, container: str) -> int:
        ended = await self._engine.call("POST", f"/containers/{container}/wait", patient=True)
        return int(self._engine.member(ended, "StatusCode", int))

    def _wanted(self) -> dict[str, Any]:
        inputs = self._inputs
        own: dict[str, Any] = {
            "Image": inputs.image, "Cmd": inputs.args, "Entrypoint": inputs.entrypoint, "User": inputs.user,
            "WorkingDir": inputs.working_dir, "Env": _variables(inputs.env),
        }  # fmt: skip
        if inputs.stdin is not None:
            own |= {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
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
        await self._engine.call("DELETE", f"/containers/{container}", {"force": str(force).lower(), "v": "true"})

    async def _exec(self) -> asked.DockerOutput:
        inputs, engine = self._inputs, self._engine
        own = {
            "Cmd": inputs.args, "Env": _variables(inputs.env), "User": inputs.user, "WorkingDir": inputs.working_dir,
            "AttachStdout": True, "AttachStderr": True,
        }  # fmt: skip
        wanted = {name: value for name, value in own.items() if value is not None}
        await self._bring_in(inputs.container or "")
        made = await engine.call("POST", f"/containers/{inputs.container}/exec", json=wanted)
        number = engine.member(made, "Id", str)
        stdout, stderr = await engine.streams("POST", f"/exec/{number}/start", {}, json={"Detach": False, "Tty": False})
        ended = await engine.call("GET", f"/exec/{number}/json")
        retcode = engine.member(ended, "ExitCode", int)
        output = self._ended(asked.DockerOutput(retcode=retcode, stdout=stdout, stderr=stderr))
        await self._take_out(inputs.container or "")
        return output

    def _ended(self, output: asked.DockerOutput) -> asked.DockerOutput:
        expected = [0] if self._inputs.expected_retcode is None else self._inputs.expected_retcode
        if output.retcode in (expected if isinstance(expected, list) else [expected]):
            return output
        stdout, stderr = str(output.stdout), str(output.stderr)
        last = (stderr.rstrip() or stdout.rstrip()).rpartition("\n")[2]
        said = f": {host.quoted(last)}" if last else ", without a word"
        output.stdout, output.stderr = (
            stdout[-docker_engine.FAILURE_CHARACTERS :],
            stderr[-docker_engine.FAILURE_CHARACTERS :],
        )
        raise host.Failed(f"the program ended with {output.retcode}{said}", output=output)

    async def _listed(self) -> asked.DockerOutput:
        inputs = self._inputs
        filters = msgspec.json.encode({"label": inputs.labels or []}).decode()
        wanted = {"all": str(inputs.all or False).lower(), "filters": filters}
        found = await self._engine.call("GET", "/containers/json", wanted)
        try:
            return asked.DockerOutput(containers=[_container(one) for one in found])
        except (LookupError, TypeError, AttributeError, ValueError):
            raise self._engine.unexpected() from None


def _variables(env: dict[str, str] | None) -> list[str] | None:
    return None if env is None else [f"{name}={value}" for name, value in env.items()]


def _container(one: Any) -> asked.Container:
    return asked.Container(
        id=str(one["Id"]),
        name=str((one["Names"] or [""])[0]).lstrip("/"),
        image=str(one["Image"]),
        state=str(one["State"]),
        status=str(one["Status"]),
        created=int(one["Created"]),
        labels={str(name): str(value) for name, value in (one["Labels"] or {}).items()},
    )
