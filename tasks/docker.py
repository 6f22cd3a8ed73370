"""DOCKER: run, enter and look after containers, and build images, through the API of Docker's engine, which Podman
serves too.

The engine is reached over TCP, or over a socket of the daemon's machine if the operator allows that: who may use such a
socket may do anything on the machine.
"""

from __future__ import annotations

import functools

from ..engine import ports
from . import definition as definitions
from . import docker_containers, docker_engine, docker_images, host, rest
from . import docker_inputs as asked


async def _attempt(
    settings: definitions.Settings,
    connections: rest.Connections,
    inputs: asked.DockerInputs,
    context: ports.TaskContext,
) -> asked.DockerOutput:
    async with (
        docker_engine.reached(settings, connections, inputs) as engine,
        settings.folders.opened("docker") as folder,
    ):
        match inputs.command:
            case "pull":
                return await docker_images.pull(engine, inputs)
            case "build":
                return await docker_images.build(engine, inputs, context, folder)
        return await docker_containers.Work(engine, inputs, context, folder).perform()


async def _run(
    settings: definitions.Settings,
    connections: rest.Connections,
    inputs: asked.DockerInputs,
    context: ports.TaskContext,
) -> asked.DockerOutput:
    attempt = functools.partial(_attempt, settings, connections, inputs, context)
    shown = f"{asked.TASK} {inputs.command}"
    return await host.performed(
        shown, attempt, inputs, context, settings, repeatable=_is_repeatable(inputs), secret=("env", "build_args")
    )


def _is_repeatable(inputs: asked.DockerInputs) -> bool:
    return inputs.command in ("list", "pull", "build", "stop")


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[asked.DockerInputs]:
    """Return the task type DOCKER."""
    connections = rest.Connections(settings.egress)
    return definitions.TaskDefinition(
        name=asked.TASK,
        summary="Run containers to their end, look after them, and build images",
        description="One command for an engine of Docker or Podman.",
        inputs=asked.DockerInputs,
        output=asked.DockerOutput,
        run=functools.partial(_run, settings, connections),
        idempotent=_is_repeatable,
        check=asked.check,
        aliases=("PODMAN",),
        secret_inputs=frozenset({"env", "build_args"}),
        close=connections.aclose,
    )
