"""Flow processes by themselves: what they inherit, how they die, what they may not do."""

import asyncio
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from headrace.engine import errors
from headrace.engine.guest import cgroups, fork_server
from headrace.engine.workers import flow_process, nursery, processes, protocol
from tests.support.daemons import processes_matching, until


def start_text(name, snapshot, inputs=b"{}"):
    execution = msgspec.Raw(b'{"id":"e1","input_value":%b}' % inputs)
    return protocol.start(protocol.Start(execution=execution, path=name, snapshot=str(snapshot), system={}))


WHERE = "return [sys.prefix, os.getppid(), os.getpid()]"


class Clock:
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


@pytest.fixture
async def pool():
    pool = processes.Processes(Clock(), idle_max=2, idle_s=0.4)
    await pool.start()
    yield pool
    await pool.stop()


@pytest.fixture(scope="module")
def other_python(tmp_path_factory):
    """The interpreter of an environment."""
    folder = tmp_path_factory.mktemp("other")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return f"{folder}/bin/python"


@pytest.fixture
def run(pool, tmp_path):
    async def run(body, python="", *, name="flow.py", keep=False):
        """Run a handler's body in a process; returns what it returned, or how it ended."""
        text = "import os, sys, socket\ndef handler(system, this):\n" + "".join(
            f"    {line}\n" for line in body.strip("\n").splitlines()
        )
        (tmp_path / name).write_text(text)
        process = pool.take((name, "c"), python=python)
        process.start(start_text(name, tmp_path))
        while True:
            said = await process.receive()
            if isinstance(said, protocol.Ended):
                break
            if isinstance(said, protocol.Settle):
                process.send(protocol.settled())
            if isinstance(said, protocol.Effect):
                process.send(protocol.noticed())
        if keep and said.again:
            pool.give_back((name, "c"), process)
        else:
            process.kill()
            await process.exited
        return json.loads(bytes(said.returned)) if said.returned else said

    return run


async def test_a_flow_process_holds_nothing_but_its_streams_its_channel_and_its_queue(run):
    # 5 is the listing's own descriptor
    assert await run("return sorted(int(n) for n in os.listdir('/proc/self/fd'))") == [0, 1, 2, 3, 4, 5]


async def test_it_gets_no_environment_but_what_is_harmless(run, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "x")
    names = set(await run("return sorted(os.environ)"))
    assert names <= set(fork_server._PASSED_ON) | {
        "PYTHONHASHSEED",
        "PYTHONUTF8",
        "PYTHONDONTWRITEBYTECODE",
        "LC_CTYPE",
    }


async def test_it_leads_a_session_of_its_own_dumps_no_core_and_writes_private_files(run):
    body = (
        "import resource\nreturn [os.getsid(0) == os.getpid(), resource.getrlimit(resource.RLIMIT_CORE), os.umask(0)]"
    )
    assert await run(body) == [True, [0, 0], 0o077]


async def test_its_main_thread_has_the_number_that_it_says(run):
    assert await run("import threading\nreturn threading.main_thread().native_id == threading.get_native_id()")


async def test_a_fork_server_buries_where_deaths_are_ignored_by_inheritance(pool, run):
    former = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        os.kill(pool._main.pid, signal.SIGKILL)
        before = pool._main.pid
        while pool._main.pid in (before, 0):
            await asyncio.sleep(0.02)
    finally:
        signal.signal(signal.SIGCHLD, former)
    with pytest.raises(EOFError, match="exited by itself with status 3"):
        await asyncio.wait_for(run("os._exit(3)"), 10)


async def test_a_fork_server_without_descriptors_says_so_and_goes_on(pool, run):
    pool._idle_s = 60.0  # the next one stays
    await run("return 1")
    server = pool._main.pid
    while not pool._main._next.pid:
        await asyncio.sleep(0.02)
    pool._main._next.kill()
    await pool._main._next.exited
    usual = resource.prlimit(server, resource.RLIMIT_NOFILE)
    open_now = len(os.listdir(f"/proc/{server}/fd"))
    for spare in (0, 2, 4):  # for none of what comes with a request, for some of it, for all but the pidfd
        resource.prlimit(server, resource.RLIMIT_NOFILE, (open_now + spare, usual[1]))
        turn = pool.take(("f", "c"), fresh=True)
        turn.start(b"whatever")
        with pytest.raises((EOFError, flow_process.TakenBack), match="could not be started"):
            await asyncio.wait_for(turn.receive(), 10)
        for _ in range(100):
            if pool._main._next is not None and pool._main._next.exited.done():
                break
            await asyncio.sleep(0.02)
        assert fork_server.children(server) == []
    resource.prlimit(server, resource.RLIMIT_NOFILE, usual)
    assert await run("return 7") == 7
    assert pool._main.pid == server


async def test_it_has_nothing_to_read_and_meets_signals_as_any_program(run):
    body = (
        "import signal\n"
        "met = [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)]\n"
        "blocked = len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
        "return [sys.stdin.read(), os.readlink('/proc/self/fd/0'), met == [signal.SIG_DFL] * 3, blocked]"
    )
    assert await run(body) == ["", "/dev/null", True, 0]


async def test_logging_begins_as_it_is_in_every_new_process(run):
    body = (
        "import logging\n"
        "found = [logging.root.level, len(logging.root.handlers), logging.getLogger('a').isEnabledFor(logging.INFO)]\n"
        "logging.basicConfig(level=logging.ERROR, format='%(message)s!')\n"
        "return [*found, logging.root.level]"
    )
    for _ in range(2):
        assert await run(body) == [20, 1, True, 40]
    assert await run(body, keep=True) == [20, 1, True, 40]
    assert await run(body, keep=True) == [20, 1, True, 40]


async def test_sets_iterate_alike_in_every_process(run):
    orders = {tuple(await run("return list({'a', 'b', 'c', 'd', 'e', 'f', 'g'})")) for _ in range(3)}
    assert len(orders) == 1


async def test_a_warm_process_is_used_again_and_an_idle_one_leaves_after_a_while(pool, run):
    first = await run("return os.getpid()", keep=True)
    assert await run("return os.getpid()", keep=True) == first
    for _ in range(100):
        if pool.count == 0:
            break
        await asyncio.sleep(0.05)
    assert pool.count == 0


async def test_who_needs_a_new_process_finds_one_that_was_made_before_and_leaves_when_nobody_does(pool, run):
    async def found():
        await run("return 1")
        made = fork_server.children(pool._main.pid)
        return made == [await run("return os.getpid()")] and pool.count == 0

    for _ in range(20):  # where much else runs it may not be there yet, or have left again
        if await found():
            break
    else:
        raise AssertionError("each time one had to be made")
    for _ in range(200):
        if not fork_server.children(pool._main.pid):
            break
        await asyncio.sleep(0.05)
    assert not fork_server.children(pool._main.pid)


async def test_one_that_died_while_it_waited_harms_nobody(pool, run):
    for _ in range(20):
        await run("return 1")
        if made := fork_server.children(pool._main.pid):
            break
    os.kill(made[0], signal.SIGKILL)
    await asyncio.sleep(0.1)
    assert pool.count == 0
    try:
        returned = await run("return 2")
    except flow_process.TakenBack:  # that was not known yet: this one has not begun, and goes elsewhere
        returned = await run("return 2")
    assert returned == 2


async def test_no_more_than_so_many_rest(pool, run):
    for name in ("a.py", "b.py", "c.py", "d.py"):
        await run("return 1", name=name, keep=True)
    for _ in range(100):
        if pool.count == 2:
            break
        await asyncio.sleep(0.02)
    assert pool.count == 2


async def test_what_a_dead_process_leaves_is_killed_even_if_it_hid_in_a_session_of_its_own(run):
    mine = f"sleep 47.{os.getpid()}"
    await run(
        "import subprocess\n"
        f"hidden = 'setsid sh -c \"{mine}1 & {mine}2\"'\n"
        f"subprocess.run(f'{{hidden}} & ({mine}3 &) & exec sleep 0', shell=True)\n"
        "return 1"
    )
    until(lambda: not processes_matching(mine), "they are gone", 5)


async def test_a_process_that_grew_leaves_however_large_the_daemon_is(pool, run):
    larger = b"x" * (300 * 1024 * 1024)  # what is started by something large has that as its peak
    os.kill(before := pool._main.pid, signal.SIGKILL)
    while pool._main.pid in (before, 0):
        await asyncio.sleep(0.02)
    del larger
    assert (await run("x = b'x' * 1024")).dirty == ""
    assert (await run("x = b'x' * (200 * 1024 * 1024)")).dirty == "memory grew"


async def test_an_orphan_that_stayed_makes_its_process_leave(run):
    mine = f"sleep 46.{os.getpid()}"
    said = await run(f"import subprocess\nsubprocess.run('{mine} &', shell=True)")
    assert said.dirty == "a child process is still there"
    until(lambda: not processes_matching(mine), "it is gone", 5)


async def test_processes_do_not_outlive_their_fork_server_where_nobody_looks_for_them(tmp_path):
    """As on the nodes of a cluster: a daemon kills what a dead fork server left."""
    alone = nursery.Nursery("", {}, itertools.count(1), cgroups.Subtree())
    await alone.start()
    process = alone.spawn(0.0)
    while not (process.pid and alone._next.pid):
        await asyncio.sleep(0.02)
    os.kill(alone.pid, signal.SIGKILL)
    until(lambda: {_state(process.pid), _state(alone._next.pid)} <= {"", "Z"}, "both are dead")
    await alone.wait()
    processes.reap_zombies(processes.reap_zombies(set()))  # this process may have adopted them


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


async def test_flows_forking_by_themselves_do_not_speak_on_the_channel(run):
    body = (
        "pid = os.fork()\nif pid == 0:\n    print('from the child')\n    os.system('true')\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\nreturn 'fine'"
    )
    assert await run(body) == "fine"


@pytest.mark.parametrize(
    "garbage",
    ["b'\\xff\\xff\\xff\\xff'", "b'\\x00\\x00\\x00\\x04nope'", 'b\'\\x00\\x00\\x00\\x13{"op":"no such op"}\''],
)
async def test_a_process_that_breaks_the_protocol_is_found_out(run, garbage):
    with pytest.raises((errors.InvalidRequest, EOFError)):
        await run(f"os.write(3, {garbage})\nimport time\ntime.sleep(30)")


async def test_many_processes_at_once_all_answer_and_all_end(pool, run):
    found = await asyncio.gather(*(run("return os.getpid()", name=f"f{n}.py") for n in range(60)))
    assert len(set(found)) == 60
    assert pool.count == 0


async def test_the_next_process_is_not_counted_while_it_waits_nor_while_it_leaves(pool, run):
    await run("return 1")
    following = pool._main._next
    assert (following.alive, pool.count) == (True, 0)
    pool._main.dismiss_next(time.monotonic() + 60)
    assert (following.alive, following.exited.done(), pool.count) == (False, False, 0)
    await asyncio.wait_for(following.exited, 10)
    assert pool.count == 0
    assert await run("return 2") == 2


async def test_of_processes_that_are_killed_at_any_moment_each_death_is_told_and_nothing_stays(
    pool, run, record_property
):
    chance = random.Random(4711)
    pool._idle_s = 60.0  # the next one stays
    await run("return 1")
    while not pool._main._next.pid:
        await asyncio.sleep(0.02)
    server = pool._main.pid
    open_before = len(os.listdir(f"/proc/{server}/fd"))

    async def killed():
        process = pool.take(("f", "c"), fresh=True).process
        await asyncio.sleep(chance.random() * 0.02)
        if process.pid and chance.random() < 0.5:
            os.kill(process.pid, signal.SIGKILL)  # by somebody else
        else:
            process.kill()
        return await asyncio.wait_for(process.exited, 60)

    rounds = int(os.environ.get("HEADRACE_KILLS", "10"))
    for _ in range(rounds):
        assert set(await asyncio.gather(*(killed() for _ in range(30)))) == {signal.SIGKILL}
    record_property("tries", 30 * rounds)
    assert pool.count == 0
    until(lambda: len(fork_server.children(server)) == 1, "only the next one is there")
    until(lambda: len(os.listdir(f"/proc/{server}/fd")) == open_before, "nothing is open that was not before")
    assert pool._main.pid == server
    assert await run("return 7") == 7


async def test_a_fork_server_that_dies_again_and_again_gives_the_daemon_up(pool):
    for _ in range(6):
        server = pool._main.pid
        os.kill(server, 9)
        for _ in range(200):
            if pool._main.pid not in (server, 0) or pool.failed.done():
                break
            await asyncio.sleep(0.02)
    assert "died 6 times within a minute" in (await asyncio.wait_for(pool.failed, 5)).message


async def test_each_interpreter_has_a_fork_server_that_leaves_when_it_was_idle(pool, run, other_python):
    theirs = await run(WHERE, other_python, keep=True)
    assert await run(WHERE, other_python, keep=True) == theirs
    mine = await run(WHERE, keep=True)
    assert await run(WHERE, keep=True) == mine
    assert other_python == f"{theirs[0]}/bin/python"
    assert not set(mine) & set(theirs)
    assert pool.environments == 1
    for _ in range(200):
        if pool.environments == 0 and not processes_matching(other_python):
            break
        await asyncio.sleep(0.05)
    assert (pool.environments, processes_matching(other_python)) == (0, [])
    assert (await run(WHERE, other_python))[0] == theirs[0]


async def test_what_a_dead_fork_server_left_is_killed_and_the_other_fork_servers_are_not(pool, run, other_python):
    pool._idle_s = 60.0  # nothing of this is about being idle
    first = await run(WHERE, other_python)
    _, mine, _ = await run(WHERE)
    os.kill(mine, signal.SIGKILL)
    for _ in range(200):
        if pool._main.pid not in (mine, 0):
            break
        await asyncio.sleep(0.02)
    assert (await run(WHERE, other_python))[:2] == first[:2]
    os.kill(first[1], signal.SIGKILL)
    for _ in range(200):
        if pool.environments == 0:
            break
        await asyncio.sleep(0.02)
    again = await run(WHERE, other_python)
    assert again[0] == first[0] and again[1] != first[1]
    assert not pool.failed.done()


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 7\n", "not a program"])
async def test_an_interpreter_that_does_not_start_is_told_to_whoever_waits_and_no_matter_to_others(
    pool, run, tmp_path, text
):
    python = tmp_path / "python"
    python.write_text(text)
    python.chmod(0o755)
    for _ in range(7):  # more often than the daemon's own may die
        turn = pool.take(("f", "c"), python=str(python))
        turn.start(b"whatever")
        with pytest.raises(flow_process.TakenBack, match="the flow process"):
            await asyncio.wait_for(turn.receive(), 10)
        await asyncio.wait_for(turn.process.exited, 10)
    assert await run("return 7") == 7
    assert (pool.environments, pool.failed.done()) == (0, False)


async def test_how_a_process_died_is_told_in_words(run):
    with pytest.raises(EOFError, match="was killed by SIGKILL"):
        await run("os.kill(os.getpid(), 9)")
    with pytest.raises(EOFError, match="exited by itself with status 3"):
        await run("os._exit(3)")


async def test_memory_limits_are_the_flows_problem_alone(tmp_path):
    pool = processes.Processes(Clock(), idle_max=2, limits={"memory_bytes": 300 * 1024 * 1024})
    await pool.start()
    (tmp_path / "hog.py").write_text("def handler(system, this):\n    x = 'x' * 10**9\n")
    process = pool.take(("hog", "c"))
    process.start(start_text("hog.py", tmp_path))
    said = await process.receive()
    assert isinstance(said, protocol.Ended) and said.failure.type == "MemoryError"
    await pool.stop()


async def test_orphans_that_come_to_the_daemon_are_buried_and_its_own_children_left_alone():
    fork_server.become_subreaper()
    mine = subprocess.Popen(["true"])
    subprocess.run(["sh", "-c", "(sleep 0.1 &)"], check=True)
    until(lambda: len(zombies()) == 2, "both are dead")
    seen = processes.reap_zombies(set())
    assert seen == zombies()
    assert processes.reap_zombies(seen - {mine.pid}) == {mine.pid}
    assert zombies() == {mine.pid}
    assert mine.wait() == 0


def zombies():
    return {pid for pid in fork_server.children(os.getpid()) if processes._is_zombie(pid)}
