"""Many deliveries at once, on a disk that takes its time, beside flows that take theirs: each that was acknowledged is
there, nobody is refused for it, and what is over a webhook's rate is told so and when to come again."""

import asyncio
import os
import shutil
import time
from pathlib import Path

import aiohttp
import pytest

from headrace.daemon import webhooks
from tests.support.daemons import until

BURST = int(os.environ.get("HEADRACE_BURST", "400"))
SLOW = int(os.environ.get("HEADRACE_SLOW", "20"))
FLOWS = {
    "hook": '# /// script\n# [tool.headrace]\n# webhook = {name = "open", auth = "none"}\n# ///\n'
    "def handler(system, this, inputs):\n    return {'n': inputs['json']['n']}\n",
    "slow": "def handler(system, this):\n    this.sleep(20)\n",
}


async def sent(daemon, count, *, rate=500.0, callers=100):
    """Send so many a second; returns (status, seconds it took, id or Retry-After) of each."""
    found = []
    connector = aiohttp.TCPConnector(limit=callers)
    async with aiohttp.ClientSession(daemon.url, connector=connector) as session:

        async def one(n):
            began = time.monotonic()
            headers = {"Idempotency-Key": f"burst-{n}"}
            async with session.post("/webhook/open?async=1", json={"n": n}, headers=headers) as answer:
                body = await answer.json()
                told = body["id"] if answer.status == 202 else answer.headers.get("Retry-After", "")
                found.append((answer.status, time.monotonic() - began, told))

        pending = []
        for n in range(count):
            pending.append(asyncio.create_task(one(n)))
            await asyncio.sleep(1 / rate)
        await asyncio.gather(*pending)
    return found


@pytest.mark.skipif(not shutil.which("strace"), reason="strace makes the disk slow")
async def test_a_burst_on_a_slow_disk_is_acknowledged_and_kept(make_daemon, tmp_path, record_property):
    record_property("tries", BURST)
    flows = tmp_path / "flows"
    flows.mkdir()
    for name, text in FLOWS.items():
        (flows / f"{name}.py").write_text(text)
    daemon = make_daemon(flows)
    slow = ("-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=200ms")
    daemon.start("strace", "-D", "-f", "-q", "--seccomp-bpf", "-o", os.devnull, *slow)
    for _ in range(SLOW):
        await asyncio.to_thread(daemon.client.run, "slow")
    found = await sent(daemon, BURST)
    took = sorted(seconds for _, seconds, _ in found)
    print(f"{BURST} deliveries: p50 {took[len(took) // 2]:.3f} s, p99 {took[int(len(took) * 0.99)]:.3f} s")
    assert {status for status, _, _ in found} == {202}
    daemon.kill()
    daemon.start()
    known = {one["id"] for one in await asyncio.to_thread(daemon.client.all_executions, limit=BURST + 500, flow="hook")}
    assert {id_ for _, _, id_ in found} == known, "what was acknowledged, once each"


def resident_mb(daemon):
    return int(Path(f"/proc/{daemon.pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


async def test_what_is_over_the_rate_is_refused_by_rule_and_taken_again_later(make_daemon, tmp_path, monkeypatch):
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "hook.py").write_text(FLOWS["hook"])
    daemon = make_daemon(flows)
    daemon.program = ("-c", CROWDED)
    daemon.start()
    before = resident_mb(daemon)
    found = await sent(daemon, 3 * BURST, rate=5000)
    counts = {status: sum(one[0] == status for one in found) for status in {one[0] for one in found}}
    print(f"{3 * BURST} deliveries: {counts}, +{resident_mb(daemon) - before:.0f} MB")
    assert counts.keys() == {202, 429} and counts[202] >= 200
    assert all(told.isdigit() and int(told) >= 1 for status, _, told in found if status == 429)
    assert resident_mb(daemon) - before < 150
    until(lambda: daemon.raw("POST", "/webhook/open?async=1", {"n": 0})[0] == 202, "there is room again")
    assert '"request.failed"' not in daemon.log.read_text()


#: A daemon that takes fewer deliveries of one webhook than a test can send.
CROWDED = f"""
from headrace.daemon import {webhooks.__name__.rpartition(".")[2]} as webhooks
webhooks.DELIVERIES_PER_S, webhooks.DELIVERIES_AT_ONCE = 50.0, 200
from headrace.daemon.cli.main import main
main()
"""
