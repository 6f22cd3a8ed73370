"""Writes the state directories of ``tests/golden/state``: what a version left behind, every later one goes on with.

    python -m tests.golden.state.write v1

A daemon of the code as it is begins some executions that wait, runs others, and is stopped; what it keeps is packed,
without what a daemon makes anew (the index, the ballast, its credentials). A pack that was released is never written
again.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

from tests.support.daemons import Daemon, until

FOLDER = Path(__file__).parent
FLOWS = {
    "naps": """
def handler(system, this):
    name = this.uuid()
    this.log('begins')
    this.sleep(5)
    return name
""",
    "asks": """
def handler(system, this):
    return this.message('deploy?', request='go?').get('response')['string']
""",
    "holds": """
def handler(system, this):
    with this.lock('door'):
        this.message('open?', request='go?')
    return 1
""",
    "wants": """
def handler(system, this):
    with this.lock('door'):
        this.log('in')
    return 2
""",
    "parent": """
def handler(system, this):
    children = [this.flow('asks', wait=False), this.flow('quick', n=3, wait=False)]
    this.wait_for(children)
    return [child.get('output_value') for child in children]
""",
    "steps": """
def handler(system, this):
    made = this.step('made', dict, a=1)
    this.set_output('made', made)
    this.sleep(5)
    system.file('report.txt', content='done')
""",
    "quick": """
def handler(system, this, inputs):
    system.setting('last', value=inputs['n'])
    system.setting('all').list_append(inputs['n'])
    return inputs['n']
""",
}
WAITING = ("naps", "asks", "holds", "wants", "parent", "steps")
_KEPT = ("records", "HEAD", "blobs", "sealed", "snapshots", "mirror.git", "audit.jsonl")


def main(version: str) -> None:
    """Write one."""
    target = FOLDER / f"{version}.tar.gz"
    if target.exists():
        raise SystemExit(f"{target} is there: what was released stays")
    with tempfile.TemporaryDirectory() as name:
        (flows := Path(name) / "flows").mkdir()
        for flow, text in FLOWS.items():
            (flows / f"{flow}.py").write_text(text)
        daemon = Daemon(Path(name) / "state", flows)
        daemon.start()
        for flow in WAITING:
            execution = daemon.client.run(flow, name=flow)["id"]
            until(lambda one=execution: daemon.client.execution(one)["status"] == "WAITING", f"{flow} waits")
        for n in range(10):
            daemon.run("quick", n=n)
        daemon.stop()
        with tarfile.open(target, "w:gz") as pack:
            for path in sorted(daemon.state.iterdir()):
                if path.name in _KEPT:
                    pack.add(path, path.name)
                else:
                    print(f"left out: {path.name}")


if __name__ == "__main__":
    main(sys.argv[1])
