"""The fence around libraries that connect by themselves: whoever is refused or cancelled is gone soon."""

from __future__ import annotations

import asyncio
import time

import pytest

from headrace.tasks import egress, fence, host


class _Nowhere(egress.Egress):
    def refusal(self, address: str) -> str | None:
        return f"{address} is not for you"


async def _deaf(loop: fence.Loop, deaf: int) -> None:
    """Wait for a minute, like a library that a cancellation does not reach ``deaf`` times."""
    ends_at = time.monotonic() + 60
    while (rest := ends_at - time.monotonic()) > 0:
        try:
            await asyncio.sleep(rest)
        except asyncio.CancelledError:
            deaf -= 1
            if deaf < 0:
                raise


@pytest.mark.parametrize("deaf", [0, 1, 3])
async def test_what_is_refused_ends_although_a_library_does_not_hear_it(deaf):
    async def work(loop: fence.Loop) -> None:
        connecting = asyncio.create_task(asyncio.open_connection("127.0.0.1", 1))
        await _deaf(loop, deaf)
        await connecting

    began = time.monotonic()
    with pytest.raises(host.Failed, match=r"127\.0\.0\.1 is not for you"):
        await fence.call(work, _Nowhere(), bytes_max=1000)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("deaf", [0, 1, 3])
@pytest.mark.parametrize("patience_s", [None, 0.1])
async def test_what_is_cancelled_ends_although_a_library_does_not_hear_it(deaf, patience_s):
    begun = asyncio.Event()
    ours = asyncio.get_running_loop()

    async def work(loop: fence.Loop) -> None:
        ours.call_soon_threadsafe(begun.set)
        await _deaf(loop, deaf)

    calling = asyncio.create_task(fence.call(work, egress.Egress(), bytes_max=1000, patience_s=patience_s))
    await begun.wait()
    calling.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert time.monotonic() - began < 30
