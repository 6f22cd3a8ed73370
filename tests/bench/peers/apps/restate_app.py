"""Restate: the service whose handlers the server calls."""

from datetime import timedelta

import ledger
import restate

trials = restate.Service("trials")


@trials.handler()
async def trivial(ctx: restate.Context, _input: int) -> str:
    return "DONE"


@trials.handler()
async def children(ctx: restate.Context, count: int) -> str:
    calls = [ctx.service_call(trivial, arg=number) for number in range(count)]
    await restate.gather(*calls)
    return "DONE"


@trials.handler()
async def wait(ctx: restate.Context, seconds: int) -> str:
    await ctx.sleep(timedelta(seconds=seconds))
    return "DONE"


@trials.handler()
async def begin(ctx: restate.Context, order: dict) -> str:
    await ctx.run_typed("began", ledger.write, word="began", number=order["number"])
    await ctx.sleep(timedelta(seconds=order["seconds"]))
    await ctx.run_typed("ended", ledger.write, word="ended", number=order["number"])
    return "DONE"


app = restate.app([trials])
