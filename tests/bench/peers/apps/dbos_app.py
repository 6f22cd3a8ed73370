"""DBOS: workflows in the web application's own process, checkpoints in the database that ``DATABASE`` names."""

import asyncio
import os

import front
import ledger
from dbos import DBOS

DBOS(config={"name": "trials", "system_database_url": os.environ["DATABASE"], "log_level": "WARNING"})


@DBOS.workflow()
async def answer():
    return 42


@DBOS.workflow()
async def parent(count):
    handles = [await DBOS.start_workflow_async(answer) for _ in range(count)]
    return len(await asyncio.gather(*(handle.get_result() for handle in handles)))


@DBOS.workflow()
async def sleeper(seconds):
    await DBOS.sleep_async(seconds)


@DBOS.step()
async def write(word, number):
    ledger.write(word, number)


@DBOS.workflow()
async def entry(number, seconds):
    await write("began", number)
    await DBOS.sleep_async(seconds)
    await write("ended", number)


async def wait(seconds):
    await DBOS.start_workflow_async(sleeper, seconds)


async def begin(number, seconds):
    await DBOS.start_workflow_async(entry, number, seconds)


DBOS.launch()
front.serve(front.application(answer, parent, wait, begin))
