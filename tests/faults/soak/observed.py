"""A daemon that says from time to time how many asyncio tasks it has, which nobody sees from outside.

python -m tests.faults.soak.observed FILE up …
"""

from __future__ import annotations

import asyncio.tasks
import contextlib
import sys
import threading
import time
from pathlib import Path

from headrace.daemon.cli import main

EVERY_S = 5.0


def _say(file: Path) -> None:
    while True:
        time.sleep(EVERY_S)
        with contextlib.suppress(RuntimeError, OSError):  # the set changed meanwhile, or the disk is full
            alive = sum(1 for task in list(asyncio.tasks._all_tasks) if not task.done())
            file.write_text(str(alive))


if __name__ == "__main__":
    threading.Thread(target=_say, args=(Path(sys.argv.pop(1)),), daemon=True).start()
    sys.exit(main.main())
