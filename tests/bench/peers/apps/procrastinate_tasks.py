"""Procrastinate on PostgreSQL: the tasks of its worker. What has to wait is a second task, deferred for later."""

import os

import ledger
import procrastinate

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE"], min_size=4, max_size=20)
)
RETRY = procrastinate.RetryStrategy(max_attempts=5)


@app.task()
async def answer(number=0):
    return 42


@app.task(retry=RETRY)
async def finish(number):
    ledger.write("ended", number)


@app.task(retry=RETRY)
async def entry(number, seconds):
    ledger.write("began", number)
    await finish.configure(schedule_in={"seconds": seconds}).defer_async(number=number)


@app.periodic(cron="* * * * *")
@app.task(queueing_lock="retry_stalled_jobs", pass_context=True)
async def retry_stalled_jobs(context, timestamp):
    for job in await app.job_manager.get_stalled_jobs():
        await app.job_manager.retry_job(job)
