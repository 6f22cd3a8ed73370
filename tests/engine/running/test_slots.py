import asyncio

from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.running.slots import NEW_S, Slots


async def test_who_comes_back_goes_before_newcomers():
    told = []
    slots = Slots(1, lambda: told.append("room"))
    slots.enter("a")
    waiting = asyncio.create_task(slots.come_back("b"), name="b")
    await asyncio.sleep(0)
    slots.leave("a")
    await waiting
    assert not slots.has_room() and not told


async def test_giving_up_while_coming_back_leaks_no_slot():
    slots = Slots(1, lambda: None)
    slots.enter("a")
    waiting = asyncio.create_task(slots.come_back("b"), name="b")
    await asyncio.sleep(0)
    slots.leave("a")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert slots.has_room() and slots.held == 0


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "back", "cancel"]), st.integers(0, 5)), max_size=60))
def test_whatever_happens_there_are_never_more_than_the_limit_and_none_is_lost(steps):
    async def walk():
        slots = Slots(2, lambda: None)
        returning = {}
        for step, number in steps:
            name = f"e{number}"
            if step == "enter" and slots.has_room():
                slots.enter(name)
            elif step == "leave":
                slots.leave(name)
            elif step == "back" and name not in returning:
                returning[name] = asyncio.create_task(slots.come_back(name), name=name)
            elif step == "cancel" and name in returning:
                task = returning.pop(name)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0)
            assert slots.held <= 2
        for number in range(6):
            slots.leave(f"e{number}")
            await asyncio.sleep(0)
        for name, task in returning.items():
            await task
            slots.leave(name)
            await asyncio.sleep(0)
        for number in range(6):
            slots.leave(f"e{number}")
        assert slots.held == 0 and slots.has_room()

    asyncio.run(walk())


def test_more_slots_let_in_who_waits_and_fewer_send_nobody_away():
    async def walk():
        rooms = []
        slots = Slots(1, lambda: rooms.append(slots.held))
        slots.enter("a")
        back = asyncio.create_task(slots.come_back("b"), name="b")
        await asyncio.sleep(0)
        slots.resize(3)
        await back
        assert (slots.held, rooms) == (2, [2]), "who comes back goes first, then newcomers are told"
        slots.enter("c")
        slots.resize(1)
        assert slots.held == 3 and not slots.has_room()
        slots.leave("a")
        slots.leave("b")
        assert not slots.has_room()
        slots.leave("c")
        assert slots.has_room()

    asyncio.run(walk())


def test_few_are_new_at_a_time_and_who_stays_holds_up_nobody(monkeypatch):
    async def walk():
        rooms = []
        slots = Slots(100, lambda: rooms.append(slots.held), new_max=2)
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        with monkeypatch.context() as at_once:
            at_once.setattr(loop, "time", lambda: now_s)
            slots.enter("a")
            slots.enter("b")
            assert not slots.has_room()
            slots.leave("a")
            assert (slots.has_room(), rooms) == (True, [1]), "its place as one who is new is free with it"
            slots.enter("c")
        while not slots.has_room():
            await asyncio.sleep(NEW_S / 10)
        assert slots.held == 2 and rooms == [1, 2], "those who stay are told to be new no more, and newcomers of it"
        for name in ("d", "e"):
            slots.enter(name)
        assert not slots.has_room()
        returning = asyncio.create_task(slots.come_back("f"), name="f")
        await returning
        assert slots.held == 5, "who comes back is not new"

    asyncio.run(walk())


def test_quick_ones_are_counted_for_themselves():
    async def walk():
        rooms = []
        slots = Slots(100, lambda: rooms.append(slots.held), new_max=1, quick_max=3)
        slots.enter("a")
        for name in "bcd":
            assert slots.has_room(quick=True) and not slots.has_room()
            slots.enter(name, quick=True)
        assert not slots.has_room(quick=True)
        slots.leave("a")
        assert slots.has_room() and not slots.has_room(quick=True)
        slots.leave("c")
        assert slots.has_room(quick=True)
        slots.enter("e", quick=True)
        while not slots.has_room(quick=True):  # they are not so quick
            await asyncio.sleep(NEW_S / 10)
        assert slots.held == 3 and rooms[:2] == [3, 2]
        assert Slots(100, lambda: None).has_room(quick=True) is False, "where none are foreseen there is no room"

    asyncio.run(walk())


async def test_no_clock_runs_where_the_limit_is_lower_anyway():
    slots = Slots(2, lambda: None, new_max=8)
    slots.enter("a")
    slots.enter("b")
    slots.leave("a")
    assert slots.has_room()
    slots.resize(100)
    for name in "cdefghij":
        assert slots.has_room()
        slots.enter(name)
    assert not slots.has_room()
