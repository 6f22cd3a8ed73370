"""Sets of texts are iterated in the order of their hashes: a replay sees the order its first run saw.

The daemon keeps a seed of its own, a new one at each start; flow processes have the same one for ever.
"""

import os
import random

import pytest

from tests.support.daemons import until

SEEDS = int(os.environ.get("HEADRACE_SEEDS", "2"))
ORDERS = """
# /// script
# [tool.headrace]
# strict_replay = true
# ///
def handler(system, this):
    words = {f'word {n}' for n in range(50)}
    for word in words:
        this.log(word)
    first = next(iter(words))
    system.setting(first, value=hash(first))
    this.sleep(2)
    return [*words, hash(first)]
"""


@pytest.mark.timeout(60 + 20 * SEEDS)
def test_a_replay_under_another_hash_seed_of_the_daemon_is_the_same(tmp_path, make_daemon, record_property):
    record_property("tries", SEEDS)
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "orders.py").write_text(ORDERS)
    daemon = make_daemon(tmp_path / "flows")
    outcomes = set()
    seeds = random.Random(SEEDS).sample(range(1, 2**32), SEEDS)
    daemon.environment["PYTHONHASHSEED"] = "0"
    daemon.start()
    for seed in seeds:
        execution = daemon.client.run("orders")["id"]
        until(lambda one=execution: daemon.client.execution(one)["status"] == "WAITING", "it sleeps")
        daemon.kill()
        daemon.environment["PYTHONHASHSEED"] = str(seed)
        daemon.start()
        ended = daemon.client.wait(execution, 30)
        assert (ended["status"], ended["attempt"]) == ("ENDED_SUCCESS", 2), (seed, ended)
        outcomes.add(str(ended["output_value"]))
    assert len(outcomes) == 1
