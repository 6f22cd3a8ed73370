"""Executions that are soon over share processes: each keeps its own words, and one that is not holds up nobody."""

import asyncio
import collections
import os
import time

import pytest

from headrace.daemon.async_client import AsyncClient

FLOW = """
    import os
    import time

    def handler(system, this, inputs):
        print('printed', inputs['n'])
        this.log(inputs['n'])
        if inputs.get('writes'):
            os.write(1, b'written %d\\n' % inputs['n'])
        time.sleep(inputs.get('sleeps', 0))
        return [inputs['n'], os.getpid()]
"""


@pytest.fixture(scope="module")
def quick(workshop):
    """A flow that is known to be quick: ten of its executions were."""
    name = workshop.flow("quick", FLOW)
    for n in range(30):
        workshop.daemon.run(name, n=n)
    return name


@pytest.fixture
def at_once(workshop, quick):
    """Ask for executions, all at once, and return them when they have ended."""

    async def ask(all_inputs):
        async with AsyncClient.find(state=str(workshop.daemon.state)) as client:

            async def one(inputs):
                return await client.wait((await client.run(quick, inputs))["id"], 60)

            return await asyncio.gather(*map(one, all_inputs))

    return lambda *all_inputs: asyncio.run(ask(all_inputs))


def test_each_has_its_own_output_and_its_own_words(workshop, at_once):
    asked = [{"n": n, "writes": n % 3 == 0} for n in range(300)]
    ended = at_once(*asked)
    assert [one["output_value"][0] for one in ended] == list(range(300))
    said = collections.defaultdict(list)
    for line in workshop.daemon.lines():
        if line["event"] == "log.written":
            said[line["execution"]].append(line.get("text") or line["args"][0])
    for one, inputs in zip(ended, asked, strict=True):
        n = inputs["n"]
        assert sorted(map(str, said[one["id"]])) == sorted(
            [str(n), f"printed {n}", *([f"written {n}"] if inputs["writes"] else [])]
        )


def test_a_few_processes_serve_many(at_once):
    """Unless one of them happens to take long: then it takes a while until they are known to be quick again."""
    few = 2 * len(os.sched_getaffinity(0))
    for _ in range(10):
        served = collections.Counter(one["output_value"][1] for one in at_once(*({"n": n} for n in range(300))))
        if sum(count for _, count in served.most_common(few)) > 200:
            return
    raise AssertionError(f"{len(served)} processes served them")


def test_one_that_is_not_quick_holds_up_nobody_and_who_waited_behind_it_began_once(workshop, at_once):
    asked = [{"n": n, "sleeps": 4 if n in (7, 20) else 0} for n in range(60)]
    before = time.time()
    ended = at_once(*asked)
    assert time.time() - before < 30
    assert {one["status"] for one in ended} == {"ENDED_SUCCESS"}
    slow = [one for one, inputs in zip(ended, asked, strict=True) if inputs["sleeps"]]
    assert len({one["output_value"][1] for one in slow}) == 2
    begun = collections.Counter(
        line["execution"] for line in workshop.daemon.lines() if line["event"] == "execution.started"
    )
    assert {begun[one["id"]] for one in ended} == {1}
    first_end = min(one["ended_at"] for one in slow)
    assert sum(one["ended_at"] < first_end for one in ended) == 58
