"""A node that leaves before it has a process: whoever waits for that hears why, whatever comes first."""

import asyncio
import json
import platform
import time

import pytest

from headrace.engine import policy
from headrace.engine.guest import link, node
from headrace.engine.workers import cluster, remote_process, seats


class Clock:
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class Site:
    """A cluster without Ray, one node that came for a seat, and somebody who waits for a process there."""

    async def begin(self):
        self.cluster = cluster.Cluster(cluster.Options(), Clock())
        server = await asyncio.start_server(self.cluster._connected, "127.0.0.1", 0)
        place = self.cluster.place("e1", policy.Placement(worker="dmz"))
        (line,) = self.cluster.seats._lines.values()
        self.seat = seats.Seat(line)  # as if Ray had been asked
        line.asked[self.seat.identity] = self.seat
        self.cluster.seats._tokens[self.seat.token] = self.seat
        self.reader, self.node = await asyncio.open_connection(*server.sockets[0].getsockname())
        who = {"token": self.seat.token, "node": "n", "host": "h"}
        hello = who | {"python": platform.python_version(), "platform": node.platform_name()}
        self.node.write(link.message(link.HELLO, json.dumps(hello).encode()))
        served = await asyncio.wait_for(place.taken, 5)
        self.waiting = asyncio.create_task(served.begin({}, {}))
        await self.reader.readexactly(link.HEAD.size)
        server.close()

    async def ray_says(self, why):
        await self.cluster._hear({"ended": self.seat.identity, "error": why})

    async def why(self):
        with pytest.raises(remote_process.NodeLost) as caught:
            await asyncio.wait_for(self.waiting, 5)
        return str(caught.value)


@pytest.fixture
async def site():
    made = Site()
    await made.begin()
    yield made
    made.node.close()
    if serving := [task for task in made.cluster._links.values() if task is not None]:
        await asyncio.wait(serving, timeout=5)


async def test_the_connection_ends_and_then_ray_says_why(site):
    site.node.close()
    while site.seat.identity not in site.cluster._unserved:
        await asyncio.sleep(0.01)
    assert not site.waiting.done()
    await site.ray_says("OSError: No space left on device")
    assert await site.why() == "node h was lost: OSError: No space left on device"


async def test_ray_says_why_before_the_connection_ends(site):
    await site.ray_says("OSError: No space left on device")
    assert await site.why() == "node h was lost: OSError: No space left on device"


async def test_ray_says_nothing(site, monkeypatch):
    monkeypatch.setattr(cluster, "_TOLD_S", 0.1)
    site.node.close()
    assert await site.why() == "node h was lost: its connection ended"
