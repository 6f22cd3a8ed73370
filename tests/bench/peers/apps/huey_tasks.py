"""Huey on Redis: the tasks that the consumer runs. What has to wait is a second task, scheduled for later."""

import os

import ledger
from huey import RedisHuey

huey = RedisHuey("trials", url=os.environ["REDIS"], notify_result=True)


@huey.task()
def answer(_number=0):
    return 42


@huey.task()
def finish(number):
    ledger.write("ended", number)


@huey.task()
def entry(number, seconds):
    ledger.write("began", number)
    finish.schedule((number,), delay=seconds)
