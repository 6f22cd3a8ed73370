"""A database gets each change once, however often the plug is pulled: a step writes down with it that it was made.

A step that is cut off runs again, so it may have committed and nobody knows. The mark it leaves in the same transaction
tells its next try; execution and place in the flow name it.
"""

import os
import random
import sqlite3
import time

import pytest

KILLS = int(os.environ.get("HEADRACE_KILLS", "4"))
CHANGES = 40
BOOKS = """
import sqlite3, time

def booked(path, mark, amount):
    with sqlite3.connect(path, timeout=30) as database:
        new = database.execute('INSERT OR IGNORE INTO marks VALUES (?)', (mark,)).rowcount
        if new:
            database.execute('UPDATE account SET balance = balance + ?', (amount,))
        time.sleep(0.005)
    time.sleep(0.005)
    return bool(new)

def handler(system, this, inputs):
    for n in range(inputs['changes']):
        if not this.step(f'change {n}', booked, inputs['path'], f'{this.id} {n}', n):
            this.log('made before', n)
"""


@pytest.mark.timeout(120 + 10 * KILLS)
def test_a_step_that_leaves_a_mark_changes_a_database_once(tmp_path, make_daemon, record_property):
    seed = int(os.environ.get("HEADRACE_SEED", str(random.randrange(10**6))))
    chance = random.Random(seed)
    record_property("seed", seed)
    record_property("tries", KILLS)
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "books.py").write_text(BOOKS)
    path = tmp_path / "books.db"
    with sqlite3.connect(path) as database:
        database.executescript("CREATE TABLE marks (mark TEXT PRIMARY KEY); CREATE TABLE account (balance INTEGER);")
        database.execute("INSERT INTO account VALUES (0)")
    daemon = make_daemon(tmp_path / "flows").start()
    executions = []
    for _ in range(KILLS):
        executions.append(daemon.client.run("books", {"path": str(path), "changes": CHANGES})["id"])
        time.sleep(chance.uniform(0.1, 0.6))
        daemon.kill()
        daemon.start()
    ended = [daemon.client.wait(execution, 60) for execution in executions]
    assert {one["status"] for one in ended} == {"ENDED_SUCCESS"}
    again = sum(line["event"] == "log.written" for line in daemon.lines())
    print(f"seed {seed}, {KILLS} kills, {again} steps had committed when they were cut off")
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM marks").fetchone() == (KILLS * CHANGES,)
        assert database.execute("SELECT balance FROM account").fetchone() == (KILLS * sum(range(CHANGES)),)
