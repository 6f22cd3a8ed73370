"""Prefect: who asks its server for runs of deployments and for their states. The caller's, no part of the peer."""

import front
from prefect.deployments import run_deployment

_WAITING = 0


async def ended(name, **parameters):
    """Run a deployment to its end; the more callers wait, the more seldom each asks."""
    global _WAITING
    _WAITING += 1
    try:
        poll_s = 0.05 * _WAITING
        run = await run_deployment(f"{name}/trials", parameters=parameters, poll_interval=poll_s, as_subflow=False)
    finally:
        _WAITING -= 1
    assert run.state.is_completed(), run.state


async def trivial():
    await ended("trivial")


async def children(count):
    await ended("children", count=count)


async def wait(seconds):
    await run_deployment("sleeper/trials", parameters={"seconds": seconds}, timeout=0, as_subflow=False)


async def begin(number, seconds):
    parameters = {"number": number, "seconds": seconds}
    await run_deployment("entry/trials", parameters=parameters, timeout=0, as_subflow=False)


front.serve(front.application(trivial, children, wait, begin))
