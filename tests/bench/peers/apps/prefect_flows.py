"""Prefect: the flows of the trials, served by one process that starts another for each run."""

import asyncio

import ledger
from prefect import flow, serve, task


@task
def answer(number: int = 0) -> int:
    return 42


@flow(log_prints=False)
def trivial() -> int:
    return 42


@flow
def children(count: int) -> int:
    return len(answer.map(range(count)).result())


@flow
async def sleeper(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task
def write(word: str, number: int) -> None:
    ledger.write(word, number)


@flow
async def entry(number: int, seconds: float) -> None:
    write("began", number)
    await asyncio.sleep(seconds)
    write("ended", number)


if __name__ == "__main__":
    flows = (trivial, children, sleeper, entry)
    serve(*(each.to_deployment(name="trials") for each in flows), limit=200)
