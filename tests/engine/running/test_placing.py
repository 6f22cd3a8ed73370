"""Executions that run on a cluster: those that only wait make room at once when others have none."""

import asyncio
import types

import pytest

from headrace.engine import policy
from headrace.engine.lifecycle import Status
from headrace.engine.running import contents, flow_run, live, placing
from headrace.engine.state import masks


class Place:
    def __init__(self, now):
        self.asked_at = now
        self.taken = asyncio.get_running_loop().create_future()

    def cancel(self):
        self.taken.cancel()


class Cluster:
    """Gives places when a test says so."""

    def __init__(self):
        self.clock = types.SimpleNamespace(monotonic=asyncio.get_running_loop().time)
        self.places = []

    def place(self, execution, wants):
        self.places.append(Place(self.clock.monotonic()))
        return self.places[-1]


class Executions:
    """Supervises whatever has a place."""

    def __init__(self):
        self.maintaining = types.SimpleNamespace(holds=lambda subject: False)
        self.resting = types.SimpleNamespace(get_up=lambda subject: None)
        self.tasks = set()
        self.around = None

    def supervise(self, subject, run, room):
        self.around = run._around

    def spawn(self, work, name):
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        return task


class Sits:
    """One that has a place, and waits for something."""

    hibernated = False

    def hibernate(self):
        self.hibernated = True


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(placing, "_SAYS_WHY_S", 0.03)


async def test_who_waits_makes_room_at_once_as_long_as_others_have_none(fast):
    cluster, executions = Cluster(), Executions()
    nothing = dict.fromkeys(flow_run.Surroundings.__struct_fields__)
    lines = types.SimpleNamespace(durable=None)
    ledger = live.Ledger(lines, contents.Contents(None, None, masks.Masks()), None)
    around = flow_run.Surroundings(**nothing | {"ledger": ledger, "waiting": {}, "is_crowded": False})
    placed = placing.Placing(cluster, placing.Options(), around, executions)
    placed.start()
    for name in "ab":
        state = types.SimpleNamespace(id=name, status=Status.QUEUED, terms=policy.Terms(), attempt=0)
        subject = types.SimpleNamespace(state=state, supervision=None, watchers=[])
        assert placed.takes(subject, woken=False)
    cluster.places[0].taken.set_result(None)
    await asyncio.sleep(0.01)
    assert executions.around is not None and not executions.around.is_crowded
    sits = Sits()
    executions.around.waiting[sits] = None
    async with asyncio.timeout(5):
        while not executions.around.is_crowded:
            await asyncio.sleep(0.005)
        assert sits.hibernated
        cluster.places[1].taken.set_result(None)
        while executions.around.is_crowded:
            await asyncio.sleep(0.005)
    placed.stop()
    for task in executions.tasks:
        task.cancel()
