"""DOCKER's commands about images: pull and build. The engine tells what it does while it does it."""

from __future__ import annotations

import base64
import pathlib
import re
from typing import Any

import msgspec

from ..engine import ports
from . import docker_engine, docker_files, host
from . import docker_inputs as asked

#: An id, as the engine tells it at the end of a build.
_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_TAR = {"Content-Type": "application/x-tar"}


async def pull(engine: docker_engine.Engine, inputs: asked.DockerInputs) -> asked.DockerOutput:
    """Have the engine fetch the image; what it tells is read to its end, where a failure stands."""
    image = inputs.image or ""
    wanted = {"fromImage": image} if "@" in image else dict(zip(("fromImage", "tag"), tagged(image), strict=True))
    headers = {}
    if inputs.username is not None:
        login = {"username": inputs.username, "password": inputs.password}
        headers["X-Registry-Auth"] = base64.urlsafe_b64encode(msgspec.json.encode(login)).decode()
    async with engine.answered("POST", "/images/create", wanted, patient=True, headers=headers) as response:
        async for told in engine.lines(response):
            if words := told.get("error"):
                raise host.Failed(f"the image cannot be pulled: {host.quoted(str(words))}")
    return asked.DockerOutput()


async def build(
    engine: docker_engine.Engine, inputs: asked.DockerInputs, context: ports.TaskContext, folder: pathlib.Path
) -> asked.DockerOutput:
    """Have the engine make an image; what it tells goes into the task's record line by line."""
    inside = folder / "in"
    inside.mkdir()
    await docker_files.gather(inputs, context, inside)
    log, identity = _Log(context), ""
    async with docker_files.packed(inside, folder / "in.tar") as content:
        wanted = _wanted(inputs)
        async with engine.answered("POST", "/build", wanted, patient=True, data=content, headers=_TAR) as response:
            async for told in engine.lines(response):
                log.add(str(told.get("stream", "")))
                if words := told.get("error"):
                    log.flush()
                    said = f"the image cannot be built: {host.quoted(str(words))}"
                    raise host.Failed(
                        said, output=asked.DockerOutput(report=log.text[-docker_engine.FAILURE_CHARACTERS :])
                    )
                if isinstance(aux := told.get("aux"), dict):
                    identity = str(aux.get("ID", ""))
    log.flush()
    if not _DIGEST.fullmatch(identity):
        raise engine.unexpected()
    return asked.DockerOutput(id=identity, report=log.text)


def _wanted(inputs: asked.DockerInputs) -> dict[str, str]:
    """Return the query of a build; what it makes on the way is removed, however it ends."""
    own: dict[str, Any] = {"rm": True, "forcerm": True}
    if inputs.image is not None:
        own["t"] = inputs.image if "@" in inputs.image else ":".join(tagged(inputs.image))
    if inputs.dockerfile is not None:
        own["dockerfile"] = inputs.dockerfile
    if inputs.build_args is not None:
        own["buildargs"] = inputs.build_args
    wanted = {**(inputs.options or {}), **own}
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in wanted.items()
    }


class _Log:
    """What is told in pieces, as lines of the record and as a whole."""

    def __init__(self, context: ports.TaskContext) -> None:
        self._context = context
        self._pieces: list[str] = []
        self._line: list[str] = []

    def add(self, piece: str) -> None:
        """Take the next piece; a line is written when it has its end."""
        self._pieces.append(piece)
        *whole, begun = piece.split("\n")
        for part in whole:
            self._line.append(part)
            self.flush()
        self._line.append(begun)

    def flush(self) -> None:
        """Write the line that has begun."""
        line = "".join(self._line).rstrip()
        self._line.clear()
        if line:
            self._context.log("INFO", line)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._pieces)


def tagged(image: str) -> tuple[str, str]:
    """Return an image's name and its tag; a colon before a slash is that of a registry's port."""
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")
