"""The fence around libraries that connect by themselves: whoever is refused or cancelled is gone soon."""

from __future__ import annotations

import asyncio

import pytest

from headrace.tasks import egress, fence, host


class _Nowhere(egress.Egress):
    def refusal(self, address: str) -> str | None:
        return f"{address} is not for you"


class _Deaf:
    """Waits for a minute, like a library that a cancellation does not reach so many times; says whether one did."""

    def __init__(self, times: int) -> None:
        self.heard = False
        self._times = times

    async def __call__(self) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + 60
        while (rest := ends_at - loop.time()) > 0:
            try:
                await asyncio.sleep(rest)
            except asyncio.CancelledError:
                self._times -= 1
                if self._times < 0:
                    self.heard = True
                    raise


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_what_is_refused_is_cancelled_until_it_hears_that(times):
    library = _Deaf(times)

    async def work(loop: fence.Loop) -> None:
        connecting = asyncio.create_task(asyncio.open_connection("127.0.0.1", 1))
        await library()
        await connecting

    with pytest.raises(host.Failed, match=r"127\.0\.0\.1 is not for you"):
        await fence.call(work, _Nowhere(), bytes_max=1000)
    assert library.heard


@pytest.mark.parametrize("times", [0, 1, 3])
@pytest.mark.parametrize("patience_s", [None, 0.1])
async def test_what_is_cancelled_is_cancelled_until_it_hears_that(times, patience_s):
    library = _Deaf(times)
    begun = asyncio.Event()
    ours = asyncio.get_running_loop()

    async def work(loop: fence.Loop) -> None:
        ours.call_soon_threadsafe(begun.set)
        await library()

    calling = asyncio.create_task(fence.call(work, egress.Egress(), bytes_max=1000, patience_s=patience_s))
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert library.heard
