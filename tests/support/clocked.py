"""A daemon whose wall clock is off, and is set while it runs.

    python -m tests.support.clocked FILE up …

runs ``headrace up …`` with the clock off by as many seconds as FILE says at that moment. The clock that never steps is
left alone, as it is when somebody sets the time of a machine. (libfaketime cannot do that to Python: with the clock on
the wall it also bends the sleeping until a moment of the other one, which is what ``time.sleep`` does.)
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from headrace.daemon.cli import main

_true = time.time


def _off(file: Path) -> None:
    def now() -> float:
        return _true() + float(file.read_text())

    time.time = now


if __name__ == "__main__":
    _off(Path(sys.argv.pop(1)))
    sys.exit(main.main())
