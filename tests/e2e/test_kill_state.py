"""kill -9 while flows change what they share: they go on, nothing is lost, nothing comes twice, no lock is left."""

import os
import random
import time

import pytest

from tests.support.daemons import until

ROUNDS = int(os.environ.get("HEADRACE_KILLS", "10")) // 5
WRITERS = 6
WRITES = """
def handler(system, this, inputs):
    n = 0
    while True:
        n += 1
        with this.lock('the list'):
            system.setting('list').list_append([this.id, n])
        system.setting('count of ' + this.id, value=n)
        system.file('files/' + this.id).save_text_content(str(n))
        if n % 20 == 0:
            system.message(subject=f'{this.id} {n}', request='go on?')
"""


def api(daemon, path):
    status, answer, _ = daemon.raw("GET", f"/api/v1{path}", headers={"Authorization": f"Bearer {daemon.token()}"})
    assert status == 200, answer
    return answer


@pytest.mark.timeout(300 + 20 * ROUNDS)
def test_kill_9_leaves_records_that_agree_with_what_flows_were_told(tmp_path, make_daemon, record_property):
    seed = int(os.environ.get("HEADRACE_SEED", str(random.randrange(10**6))))
    chance = random.Random(seed)
    print(f"{ROUNDS} kills, seed {seed}")
    record_property("seed", seed)
    record_property("tries", ROUNDS)
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "writes.py").write_text(WRITES)
    daemon = make_daemon(tmp_path / "flows")
    daemon.start()
    for _ in range(ROUNDS):
        writers = [daemon.client.run("writes")["id"] for _ in range(WRITERS)]
        until(lambda ids=writers: all(count(daemon, one) for one in ids), "all have written")
        time.sleep(chance.uniform(0, 0.3))
        daemon.kill()
        daemon.start()
        before = [count(daemon, one) for one in writers]
        until(
            lambda ids=writers, was=before: all(count(daemon, one) > n for one, n in zip(ids, was, strict=True)),
            "they go on",
        )
        for one in writers:
            daemon.client.cancel(one)
        until(lambda ids=writers: all(daemon.client.execution(one)["ended_at"] for one in ids), "they are ended")
        assert api(daemon, "/locks")["items"] == []
    check(daemon)


def count(daemon, writer):
    settings = {one["name"]: one["value"] for one in api(daemon, "/settings")["items"]}
    return settings.get(f"count of {writer}", 0)


def check(daemon):
    lines = daemon.lines()
    told = {}
    for line in lines:
        if line["event"] == "call.ended" and line.get("kind") == "setting.append":
            told[line["execution"]] = told.get(line["execution"], 0) + 1
    settings = {one["name"]: one["value"] for one in api(daemon, "/settings")["items"]}
    files = {one["name"] for one in api(daemon, "/files")["items"]}
    written = {}
    for writer, n in settings["list"]:
        assert n == written.get(writer, 0) + 1, f"{writer} lost or repeated {n}"
        written[writer] = n
    assert len(written) == ROUNDS * WRITERS
    for writer, n in written.items():
        # What was cut off between the change and the call's end was done, and nobody was told.
        assert told.get(writer, 0) in (n, n - 1)
        assert settings[f"count of {writer}"] in (n, n - 1)
        assert n == 1 or f"files/{writer}" in files
    asked = {one["subject"] for one in api(daemon, "/messages?pending=true")["items"]}
    expected = {f"{writer} {n}" for writer, last in written.items() for n in range(20, last, 20)}
    assert expected <= asked
    assert not api(daemon, "/locks")["items"]
