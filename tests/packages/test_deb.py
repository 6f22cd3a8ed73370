"""The Debian package, really installed: what it starts, what an upgrade keeps, what removing and purging leave."""

import http.client
import json
import stat
import threading
import urllib.error
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from headrace.daemon.cli import unit
from tests.packages.conftest import deliveries, listed
from tests.support.daemons import until


def test_it_is_enabled_at_once_and_started_when_it_knows_where_flows_come_from(machine, packages):
    said = machine.install(packages[0])
    assert "it does not know where flows come from" in said
    assert machine.asked == []
    wanted = machine.root / "etc/systemd/system"
    assert (wanted / "multi-user.target.wants/headrace.service").is_symlink()
    assert (wanted / "sockets.target.wants/headrace.socket").is_symlink()
    home = machine.root / "var/lib/headrace"
    user = next(line for line in (machine.root / "etc/passwd").read_text().splitlines() if line.startswith("headrace:"))
    assert (home.stat().st_uid, stat.S_IMODE(home.stat().st_mode)) == (int(user.split(":")[2]), 0o700)
    assert user.endswith(":/var/lib/headrace:/usr/sbin/nologin")

    machine.begin()
    assert json.loads(machine.headrace("sync", "--status", "--json"))["state"] == "ok"
    assert json.loads(machine.headrace("version", "--json"))["python"].startswith("3.")
    assert json.loads(machine.get("/webhook/counts?n=7"))["n"] == 7
    assert machine.headrace("unit") == unit.text("/usr/lib/headrace/bin/headrace")
    assert "good    git" in machine.headrace("doctor")


def test_nothing_starts_where_the_operator_forbids_it(machine, packages):
    policy = machine.root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    (machine.root / "etc/headrace").mkdir()
    machine.configure()
    machine.install(packages[0], "--force-confold")
    assert machine.asked == []
    assert (machine.root / "etc/headrace/headrace.toml").read_text().startswith("[source]"), "the operator's own stays"


def test_an_upgrade_keeps_ids_state_settings_and_every_webhook(machine, packages):
    old, new = packages
    machine.install(old)
    machine.begin()
    machine.headrace("settings", "set", "kept", "41")
    waiting = json.loads(machine.headrace("run", "waits", "--no-wait", "--json"))["id"]
    before = listed(machine)
    first = machine.daemon.pid
    over = threading.Event()

    cut, told = [], []

    def ask(number):
        """Send it until it is taken, as senders do: again after a 503, and after a stop that cut it off."""
        while True:
            try:
                return json.loads(machine.get(f"/webhook/counts?n={number}"))
            except urllib.error.HTTPError as error:
                if error.code != 503 or "Retry-After" not in error.headers:
                    raise
                told.append(number)
            except (OSError, http.client.HTTPException):
                cut.append(number)
            over.wait(0.2)

    def send(sender):
        sent = []
        for number in range(sender, 100_000, 4):
            answer = ask(number)
            assert answer.get("n", number) == number, "it is the answer to another one"
            sent.append(number)
            if over.is_set():
                break
        return sent

    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send, sender) for sender in range(4)]
        try:
            machine.install(new)
        finally:
            over.set()
        sent = [one for sender in senders for one in sender.result()]
    assert machine.daemon.pid != first
    assert machine.asked[-3:] == ["stop headrace.service", "start headrace.socket", "start headrace.service"]
    until(lambda: all(status for _, status in deliveries(machine)), "all have ended")
    made = Counter(deliveries(machine))
    assert set(made) == {(number, "ENDED_SUCCESS") for number in sent}, "each that was answered is there"
    assert {number for (number, _), count in made.items() if count > 1} <= set(cut), "and once"
    print(f"webhooks taken: {len(sent)}, lost: 0; told to come again: {len(told)}, cut off: {len(cut)}")
    after = listed(machine)
    assert after[waiting] == "WAITING" and waiting in before
    assert json.loads(machine.headrace("settings", "show", "kept", "--json"))["value"] == 41
    assert (machine.root / "etc/headrace/headrace.toml").read_text() == '[source]\nurl = "/srv/flows"\n'
    assert machine.run("dpkg-query", "-W", "-f", "${Version}", "headrace").stdout.endswith("+next")
    machine.headrace("records", "verify")


def test_removing_keeps_the_state_and_purging_leaves_nothing(machine, packages):
    before = machine.files()
    users = (machine.root / "etc/passwd").read_text()
    machine.install(packages[0])
    machine.begin()
    ended = json.loads(machine.headrace("run", "waits", "--no-wait", "--json"))
    machine.run("dpkg", "--remove", "headrace")
    assert machine.asked[-2:] == ["stop headrace.socket", "stop headrace.service"]
    assert machine.daemon is None
    assert (machine.root / "var/lib/headrace/records/00000001.jsonl").is_file()
    assert (machine.root / "etc/headrace/headrace.toml").is_file()
    assert not (machine.root / "usr/lib/headrace").exists()
    machine.install(packages[0])
    assert ended["id"] in listed(machine), "what it kept is there again"
    machine.run("dpkg", "--purge", "headrace")
    assert {path for path in machine.files() - before if not path.endswith("-")} == set()
    assert (machine.root / "etc/passwd").read_text() == users
