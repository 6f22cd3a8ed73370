"""What the benchmarks stand on is what an installation has."""

import importlib.util
from pathlib import Path

from headrace.daemon import unfinished
from tests.bench import stage


def test_our_modules_have_their_bytecode_before_a_start_is_measured():
    bytecode = Path(importlib.util.cache_from_source(unfinished.__file__))
    bytecode.unlink(missing_ok=True)

    stage.compile_package()

    assert bytecode.exists()
