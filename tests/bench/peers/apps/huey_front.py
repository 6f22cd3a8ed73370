"""Huey: who asks for its tasks, and waits for their results."""

import functools

import front
import huey_tasks
from anyio import to_thread


async def threaded(function, *arguments, **names):
    return await to_thread.run_sync(functools.partial(function, *arguments, **names))


def run_one():
    return huey_tasks.answer().get(blocking=True)


def run_many(count):
    return huey_tasks.answer.map(range(count)).get(blocking=True)


async def trivial():
    await threaded(run_one)


async def children(count):
    assert len(await threaded(run_many, count)) == count


async def wait(seconds):
    await threaded(huey_tasks.answer.schedule, (), delay=seconds)


async def begin(number, seconds):
    await threaded(huey_tasks.entry, number, seconds)


if __name__ == "__main__":
    front.serve(front.application(trivial, children, wait, begin))
