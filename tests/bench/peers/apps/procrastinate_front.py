"""Procrastinate: who defers its tasks. Each two milliseconds it looks at all jobs somebody waits for."""

import asyncio
import contextlib

import front
from procrastinate_tasks import answer, app, entry

_ENDED = "SELECT id FROM procrastinate_jobs WHERE id = ANY(%(jobs)s) AND status IN ('succeeded', 'failed')"
_waited_for = {}


async def look():
    while True:
        await asyncio.sleep(0.002)
        if _waited_for:
            for row in await app.connector.execute_query_all_async(_ENDED, jobs=list(_waited_for)):
                _waited_for.pop(row["id"]).set_result(None)


async def ended(*jobs):
    futures = [_waited_for.setdefault(job, asyncio.get_running_loop().create_future()) for job in jobs]
    await asyncio.gather(*futures)


async def trivial():
    await ended(await answer.defer_async())


async def children(count):
    await ended(*await answer.batch_defer_async(*({"number": number} for number in range(count))))


async def wait(seconds):
    await answer.configure(schedule_in={"seconds": seconds}).defer_async()


async def begin(number, seconds):
    await entry.defer_async(number=number, seconds=seconds)


@contextlib.asynccontextmanager
async def lifespan(_application):
    async with app.open_async():
        looking = asyncio.create_task(look(), name="looking at jobs")
        yield
        looking.cancel()


front.serve(front.application(trivial, children, wait, begin, lifespan))
