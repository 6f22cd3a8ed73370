"""Output without end does not hurt the daemon."""

import time
from pathlib import Path

import pytest

from headrace.engine.running.output import OUTPUT_BYTES_MAX

PRINTS = """
def handler(system, this):
    line = 'x' * 65535
    for _ in range(16384):
        print(line)
    return 'done'
"""
SUBPROCESS = """
import subprocess
def handler(system, this):
    subprocess.run("head -c 1073741824 /dev/zero", shell=True, check=True)
    return 'done'
"""


def peak_rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.parametrize(("name", "text"), [("prints", PRINTS), ("subprocess", SUBPROCESS)])
def test_a_gigabyte_of_output_is_cut_with_a_marker_and_others_do_not_notice(workshop, name, text):
    workshop.flow(name, text)
    workshop.flow("quick", "def handler(system, this):\n    return this.success()\n")
    daemon = workshop.daemon
    daemon.run("quick")
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")  # the peak counts from here
    before = peak_rss_mb(daemon.pid)
    flood = daemon.client.run(name)["id"]
    slowest = 0.0
    while daemon.client.execution(flood)["ended_at"] is None:
        began = time.monotonic()
        assert daemon.run("quick")["status"] == "ENDED_SUCCESS"
        slowest = max(slowest, time.monotonic() - began)
    ended = daemon.client.execution(flood)
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", "done")
    assert peak_rss_mb(daemon.pid) - before < 60
    lines = list(daemon.client.log(flood))
    assert sum(len(line["text"]) for line in lines[:-1]) <= OUTPUT_BYTES_MAX
    assert lines[-1]["text"] == "output is cut here: an execution may write 10,485,760 bytes"
    assert peak_rss_mb(daemon.pid) - before < 150  # ten megabytes of NULs are sixty in the journal
    print(f"slowest other run {slowest:.3f} s")


def test_a_hundred_thousand_log_calls_are_slowed_by_the_disk_and_not_kept_in_memory(workshop):
    workshop.flow("logs", "def handler(system, this):\n    for n in range(100_000):\n        this.log('line', n)\n")
    daemon = workshop.daemon
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")
    before = peak_rss_mb(daemon.pid)
    assert daemon.run("logs")["status"] == "ENDED_SUCCESS"
    assert peak_rss_mb(daemon.pid) - before < 60
