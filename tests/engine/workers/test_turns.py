"""Executions that follow each other in one flow process: each has its own words, and what is taken back never began."""

import asyncio
import json
import os
import random
import signal
import time

import msgspec
import pytest

from headrace.engine.guest import frames
from headrace.engine.workers import flow_process, processes, protocol

#: What each execution does, by its inputs: says that it has begun, and the rest as it is told to.
FLOW = """
import os, threading, time

def handler(system, this, inputs):
    os.mkfifo(f"{inputs['marks']}/{inputs['n']}")  # of which no audit event tells: nobody has to be asked
    for line in range(inputs.get('prints', 0)):
        print(inputs['n'])
        this.log(inputs['n'])
    os.write(1, b'%d;' % inputs['n'] * inputs.get('writes', 0))
    time.sleep(inputs.get('sleeps', 0))
    if inputs.get('asks'):
        this.get('status')
    if inputs.get('fails'):
        raise ValueError('no')
    if inputs.get('leaves'):
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    while inputs.get('logs'):
        this.log('still here')
        time.sleep(0.001)
    return [inputs['n'], os.getpid(), len(inputs.get('padding', ''))]
"""


class Clock:
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class Taken:
    """One turn, listened to as supervision does; ``ended`` is how it ended: what was returned, or an exception."""

    def __init__(self, turn, marks, n):
        self.turn = turn
        self.n = n
        self._mark = marks / str(n)
        self.lines = []
        self.written = b""
        self.said = None
        turn.listen(self._hear)
        self._task = asyncio.create_task(self._serve())

    @property
    def began(self):
        return self._mark.exists()

    def _hear(self, stream, chunk):
        self.written += chunk
        return True

    async def ended(self):
        return await asyncio.wait_for(self._task, 30)

    async def _serve(self):
        try:
            while True:
                match said := await self.turn.receive():
                    case protocol.Output():
                        self.lines.append(said.text)
                    case protocol.Log():
                        self.lines.append(json.loads(bytes(said.args))[0])
                    case protocol.Effect():
                        self.turn.send(protocol.noticed())
                    case protocol.Settle():
                        self.turn.send(protocol.settled())
                    case protocol.Call():
                        self.turn.send(protocol.answer(said.call, b'{"status":"RUNNING"}'))
                    case protocol.Ended():
                        self.said = said
                        return json.loads(bytes(said.returned)) if said.returned else said.outcome
        except (flow_process.TakenBack, EOFError) as error:
            return error


def busy_until(condition):
    """Wait without letting the event loop turn."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
async def pool():
    pool = processes.Processes(Clock(), idle_max=8)
    await pool.start()
    yield pool
    await pool.stop()


@pytest.fixture
def begin(pool, tmp_path):
    """Give a process executions, all at once; returns what each became."""
    (tmp_path / "marks").mkdir()
    (tmp_path / "flow.py").write_text(FLOW)
    numbers = iter(range(100_000))

    def begin(process, *wanted):
        taken = []
        for each in wanted:
            n = next(numbers)
            inputs = json.dumps({"n": n, "marks": f"{tmp_path}/marks"} | each).encode()
            one = Taken(process.turn(), tmp_path / "marks", n)
            execution = msgspec.Raw(b'{"id":"%d","input_value":%b}' % (n, inputs))
            start = protocol.Start(execution=execution, path="flow.py", snapshot=str(tmp_path), system={})
            one.turn.start(protocol.start(start))
            taken.append(one)
        return taken

    return begin


@pytest.fixture
def patient(monkeypatch):
    """However busy this machine is, nobody is taken back because it takes long."""
    monkeypatch.setattr(flow_process, "_HELD_UP_S", 60)


@pytest.fixture
async def process(pool, begin):
    """A process that is warm."""
    process = pool.take(("flow", "c")).process
    (first,) = begin(process, {})
    assert (await first.ended())[0] == first.n
    return process


@pytest.mark.usefixtures("patient")
async def test_they_run_one_after_the_other_in_one_process_and_each_has_its_own_words(process, begin):
    taken = begin(process, *({"prints": n % 3, "asks": n % 2} for n in range(40)))
    assert process.turns == 40
    for n, one in enumerate(taken):
        assert await one.ended() == [one.n, process.pid, 0]
        assert one.lines == [f"{one.n}\n", one.n] * (n % 3)
    assert process.turns == 0


@pytest.mark.usefixtures("patient")
async def test_what_they_write_to_the_pipes_is_theirs_alone(process, begin):
    for _ in range(30):
        taken = begin(process, *({"writes": random.choice((0, 0, 1, 3, 5000))} for _ in range(10)))
        for one in taken:
            await one.ended()
            assert one.written.replace(b"%d;" % one.n, b"") == b""
    (last,) = begin(process, {"writes": 7})
    await last.ended()
    assert last.written == b"%d;" % last.n * 7


@pytest.mark.usefixtures("patient")
async def test_a_pipe_that_is_seen_before_the_channel_is_not_read_for_the_wrong_one(process, begin):
    first, second, third = begin(process, {}, {"writes": 3, "sleeps": 0.05}, {})
    busy_until(lambda: second.began)
    time.sleep(0.02)  # that it has written, without a turn of this loop
    process.pipes._readable("stdout")
    for one in (first, second, third):
        await one.ended()
    assert [one.written for one in (first, second, third)] == [b"", b"%d;" % second.n * 3, b""]


@pytest.mark.usefixtures("patient")
async def test_nothing_of_what_they_write_is_lost(process, begin):
    taken = begin(process, *({"writes": 8000} for _ in range(20)))  # nearly all that a pipe holds, each
    for one in taken:
        await one.ended()
        assert one.written == b"%d;" % one.n * 8000


@pytest.mark.parametrize("long", [{"sleeps": 0.3}, {"logs": True}, {"writes": 100_000}])  # more than a pipe holds
async def test_who_is_held_up_is_taken_back_and_has_not_begun(process, begin, long):
    first, *others = begin(process, long, {}, {}, {})
    for one in others:
        assert isinstance(await one.ended(), flow_process.TakenBack)
        assert one.turn.exited.done()
    assert process.stalled or "writes" in long
    if "logs" in long:
        first.turn.send(protocol.cancelled(str(first.n)))
    await first.ended()
    assert first.began and not process.stalled
    assert first.written == b"%d;" % first.n * long.get("writes", 0)
    await asyncio.sleep(0.05)
    assert not any(one.began for one in others)
    (after,) = begin(process, {})
    assert isinstance(await after.ended(), flow_process.TakenBack if "logs" in long else list)


@pytest.mark.parametrize("last", [{"fails": True}, {"leaves": True}])
@pytest.mark.usefixtures("patient")
async def test_nobody_begins_in_a_process_that_is_not_as_good_as_new(process, begin, last):
    good, bad, *others = begin(process, {}, last, {}, {})
    assert (await good.ended())[0] == good.n
    await bad.ended()
    assert bad.said.again is False
    for one in others:
        assert isinstance(await one.ended(), flow_process.TakenBack)
    await asyncio.sleep(0.05)
    assert not any(one.began for one in others)
    assert not process.alive
    (late,) = begin(process, {})
    assert isinstance(await late.ended(), flow_process.TakenBack)


@pytest.mark.usefixtures("patient")
async def test_killed_at_any_moment_each_has_ended_or_not_begun_but_for_one(pool, begin, record_property):
    tries, cut_off = int(os.environ.get("HEADRACE_KILLS", "40")), 0
    record_property("tries", tries)
    for _ in range(tries):
        process = pool.take(("flow", "c"), fresh=True).process
        taken = begin(process, *({"writes": 1} for _ in range(12)))
        await taken[random.randrange(4)].ended()
        await asyncio.sleep(random.random() * 0.002)
        os.kill(process.pid, signal.SIGKILL)
        lost = [one for one in taken if isinstance(await one.ended(), EOFError)]
        cut_off += len(lost)
        assert len(lost) <= 1
        for one in taken:
            if isinstance(await one.ended(), flow_process.TakenBack):
                assert not one.began
            elif one not in lost:
                assert one.said.again
    assert cut_off  # else the kills came too late


@pytest.mark.usefixtures("patient")
async def test_who_is_killed_takes_nobody_along(pool, begin, record_property):
    """Those behind have not begun, or go on: also when the one that is to be killed ends at that moment."""
    wanted = {(True, EOFError), (False, flow_process.TakenBack), (False, list)}
    outcomes, tries, least = set(), 0, int(os.environ.get("HEADRACE_KILLS", "40"))
    while tries < least or (tries < least + 200 and not wanted <= outcomes):
        tries += 1
        process = pool.take(("flow", "c"), fresh=True).process
        taken = begin(process, *({"sleeps": 0.001} for _ in range(8)))
        victim = taken[random.randrange(8)]
        await taken[0].ended()
        await asyncio.sleep(random.random() * 0.006)
        victim.turn.kill()
        for one in taken:
            ended = await one.ended()
            if isinstance(ended, EOFError):
                assert one is victim
            if isinstance(ended, flow_process.TakenBack):
                assert not one.began
            outcomes.add((one is victim, type(ended)))
        process.kill()
        await process.exited
    record_property("tries", tries)
    assert wanted <= outcomes


@pytest.mark.usefixtures("patient")
async def test_one_that_is_over_when_it_is_to_be_killed_takes_nobody_along(process, begin, monkeypatch):
    """It ends, and the next one begins, before the queue is emptied; nobody here has heard of that."""
    first, second, third = begin(process, {}, {"sleeps": 0.1}, {})
    take_back = flow_process.FlowProcess._take_back

    def late(self, why, **keep):
        busy_until(lambda: second.began)
        take_back(self, why, **keep)

    with monkeypatch.context() as patched:
        patched.setattr(flow_process.FlowProcess, "_take_back", late)
        first.turn.kill()
        assert isinstance(await third.ended(), flow_process.TakenBack)
    assert [(await one.ended())[0] for one in (first, second)] == [first.n, second.n]
    assert process.alive


@pytest.mark.usefixtures("patient")
async def test_one_that_begins_while_others_are_taken_back_is_none_of_them(process, begin):
    class Waiting:
        """The queue's end; between two messages the process takes one as well."""

        def __init__(self, end):
            self._end = end
            self._taken = 0

        def recv(self, *how):
            if self._taken == 1:
                busy_until(lambda: third.began)
            self._taken += 1
            return self._end.recv(*how)

        def close(self):
            self._end.close()

    first, second, third, fourth = begin(process, {"sleeps": 0.1}, {}, {"sleeps": 0.02}, {})
    third.turn.send(protocol.cancelled(str(third.n)))
    busy_until(lambda: first.began)
    process._waiting = Waiting(process._waiting)
    process._take_back("tried")
    assert isinstance(await second.ended(), flow_process.TakenBack) and not second.began
    assert isinstance(await fourth.ended(), flow_process.TakenBack) and not fourth.began
    assert [(await one.ended())[0] for one in (first, third)] == [first.n, third.n]
    (after,) = begin(process, {"padding": "x" * 10_000})
    assert (await after.ended())[2] == 10_000


@pytest.mark.usefixtures("patient")
async def test_one_that_was_to_be_first_and_is_put_back_comes_after_who_was_taken_meanwhile(pool, begin):
    process = pool.take(("flow", "c"), fresh=True).process
    first, second = begin(process, {"padding": "x" * 10_000}, {})  # before there is a process at all
    process._take_back("tried", keep=first.turn)
    assert isinstance(await second.ended(), flow_process.TakenBack)
    assert (await first.ended())[2] == 10_000


@pytest.mark.usefixtures("patient")
async def test_what_is_said_to_one_that_waits_reaches_it_when_it_begins(process, begin):
    first, second, third = begin(process, {"sleeps": 0.005}, {"logs": True}, {})
    second.turn.send(protocol.cancelled(str(second.n)))
    assert (await first.ended())[0] == first.n
    assert await second.ended() == "cancelled"
    assert isinstance(await third.ended(), flow_process.TakenBack)


@pytest.mark.usefixtures("patient")
async def test_a_start_that_is_too_long_for_the_queue_waits_for_its_turn_as_well(process, begin):
    long = {"padding": "x" * 300_000}
    taken = begin(process, {"sleeps": 0.02, "asks": True}, long, {"asks": True}, long | {"asks": True}, long)
    for one, length in zip(taken, (0, 300_000, 0, 300_000, 300_000), strict=True):
        assert (await one.ended())[2] == length
    nearly = {"padding": "x" * (frames.START_BYTES_MAX - 500)}
    for one in begin(process, *[nearly] * 16):
        assert (await one.ended())[2] == len(nearly["padding"])


@pytest.mark.usefixtures("patient")
async def test_one_that_says_much_is_slowed_down_and_nobody_behind_it_loses_a_word(process, begin):
    taken = begin(process, *({"prints": 3000} for _ in range(3)))
    for one in taken:
        await one.ended()
        assert one.lines == [f"{one.n}\n", one.n] * 3000


def _know_quick_ones_after_ten(monkeypatch):
    """However slow the machine is."""
    monkeypatch.setattr(processes, "_QUICK_S", 60)
    monkeypatch.setattr(processes, "_UNKNOWN_S", 170)


async def test_a_flow_is_quick_while_its_executions_are_on_the_whole(pool):
    kind = ("flow", "c")
    process = pool.take(kind).process
    kept = pool._kept[kind, ""]

    def is_quick_after(*took_s):
        for process.last_took_s in took_s:
            pool.give_back(kind, process.turn())
        return kept.quick

    assert not is_quick_after(*[0.0003] * 5)
    assert is_quick_after(*[0.0003] * 5)
    assert is_quick_after(*[*[0.0003] * 9, 0.006] * 10)  # one in ten had to wait for a core
    assert not is_quick_after(30)  # it might do so again
    assert is_quick_after(*[0.0003] * 10)
    assert not is_quick_after(*[0.0025] * 100)
    assert is_quick_after(*[0.0003] * 10)
    pool.take(kind, alone=True)  # somebody was held up
    assert not kept.quick


@pytest.mark.usefixtures("patient")
async def test_quick_executions_follow_in_as_many_processes_as_there_are_cores(pool, begin, monkeypatch):
    _know_quick_ones_after_ten(monkeypatch)
    kind = ("flow", "c")

    async def run(process, **inputs):
        (one,) = begin(process, inputs)
        await one.ended()
        pool.give_back(kind, one.turn)

    first, second = pool.take(kind).process, pool.take(kind).process
    for _ in range(10):
        await run(first)
    await run(second)
    turn = pool.take(kind)
    begin(turn.process, *[{}] * 5)
    assert pool.take(kind).process is turn.process is second  # though the other one is idle
    assert pool.take(kind, fresh=True).process not in (first, second)
    assert pool.take(kind, alone=True).process is first  # somebody was taken back: so it is with the next ones
    third = pool.take(kind).process
    assert third not in (first, second)
    for _ in range(10):
        await run(first)
    assert pool.take(kind).process in (second, third)
    monkeypatch.setattr(processes, "_QUICK_S", 0)
    assert pool.take(kind).process is first and pool.take(kind).process not in (first, second, third)


@pytest.mark.usefixtures("patient")
async def test_a_burst_of_quick_ones_makes_no_more_processes_than_there_are_cores(pool, begin, monkeypatch):
    _know_quick_ones_after_ten(monkeypatch)
    pool._cores = 3
    kind = ("flow", "c")
    process = pool.take(kind).process
    for _ in range(10):
        (one,) = begin(process, {})
        await one.ended()
        pool.give_back(kind, one.turn)
    used = [pool.take(kind).process for _ in range(3)]
    assert len(set(used)) == 3 and process in used
    taken = []
    for _ in range(3 * processes.TURNS_MAX):
        following = pool.take(kind).process
        assert following in used
        taken += begin(following, {})
    assert {each.turns for each in used} == {processes.TURNS_MAX}
    assert pool.take(kind).process not in used
    for one in taken:
        assert (await one.ended())[0] == one.n


@pytest.mark.usefixtures("patient")
async def test_a_process_that_ended_several_at_once_is_idle_once(pool, begin):
    kind = ("flow", "c")
    process = pool.take(kind).process
    taken = begin(process, {}, {}, {})
    for one in taken:
        await one.ended()
    for one in taken:
        pool.give_back(kind, one.turn)
    assert pool.take(kind).process is process
    assert pool.take(kind).process is not process


async def test_a_kind_of_which_nothing_is_left_is_forgotten(begin):
    pool = processes.Processes(Clock(), idle_max=8, idle_s=0.2)
    await pool.start()
    turn = pool.take(("flow", "c"))
    (one,) = begin(turn.process, {})
    await one.ended()
    pool.give_back(("flow", "c"), one.turn)
    for _ in range(100):
        if not pool._kept:
            break
        await asyncio.sleep(0.02)
    assert not pool._kept
    await pool.stop()


async def test_a_process_that_died_is_forgotten_at_once(pool, begin):
    (one,) = begin(pool.take(("flow", "c")).process, {"fails": True})
    await one.ended()
    one.turn.kill()
    await one.turn.exited
    await asyncio.sleep(0)
    assert not pool._kept[("flow", "c"), ""]._busy  # who fails again and again leaves nothing here
