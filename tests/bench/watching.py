"""What watching for effects costs a flow: one audit event with the hook, over the same without it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from .results import Row
from .stage import Plan

#: Run in a process of its own, because a hook stays for good.
_PROGRAM = """
import json, socket, sys, time
from headrace.engine.guest import frames, purity
hooked, count = sys.argv[1] == "hooked", int(sys.argv[2])
watch = purity.Watch(frames.BlockingFrames(socket.socketpair()[0]))
if hooked:
    watch.install(lambda: None)
    watch.begin("/snapshot", "script.py")
events = {
    "no effect ever": ("os.scandir", "."),
    "import of Python": ("import", "a", None, None, None, None),
    "open for reading": ("open", "/x", "r", 0),
}
def lap(arguments):
    began = time.perf_counter_ns()
    for _ in range(count):
        sys.audit(*arguments)
    return (time.perf_counter_ns() - began) / count
print(json.dumps({name: min(lap(arguments) for _ in range(20)) for name, arguments in events.items()}))
"""


def hook(plan: Plan) -> Iterator[Row]:
    """Nanoseconds an audit event costs, by what it is."""
    count = plan.count(20_000)
    rounds = [{kind: _laps(kind, count) for kind in ("bare", "hooked")} for _ in range(plan.rounds)]
    for name in rounds[0]["bare"]:
        yield Row(
            f"audit event in a flow: {name}",
            "ns",
            [found["hooked"][name] - found["bare"][name] for found in rounds],
            20 * count * plan.rounds,
            also={"without the hook": rounds[0]["bare"][name]},
        )


def _laps(kind: str, count: int) -> dict[str, float]:
    command = [sys.executable, "-c", _PROGRAM, kind, str(count)]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found
