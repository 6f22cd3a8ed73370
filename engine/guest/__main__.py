"""The way in: ``python -P <this file> <descriptor> <limits>`` becomes a fork server on the inherited control socket.

Its processes live within ``limits``, which is JSON.

With ``replay`` behind the descriptor it becomes a single flow process instead, which runs one execution offline.

The package is loaded from its folder under a private name, because flows may run in an environment, or on a machine,
where headrace itself is not installed. What it imported is frozen out of the garbage collector's sight, so that the
pages forked processes share stay shared.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys

_PACKAGE = "headrace_guest"


def load_package(folder: str) -> None:
    """Make the package in ``folder`` importable as ``headrace_guest``."""
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load_package(os.path.dirname(os.path.realpath(__file__)))
    fork_server = importlib.import_module(f"{_PACKAGE}.fork_server")
    flow_api = importlib.import_module(f"{_PACKAGE}.flow_api")
    sys.modules["flow_api"] = flow_api
    sys.modules["flow_api.exceptions"] = flow_api.exceptions
    if sys.argv[2:3] == ["replay"]:
        importlib.import_module(f"{_PACKAGE}.replay").main(int(sys.argv[1]), sys.argv[3:])
    control = fork_server.prepare(int(sys.argv[1]))
    process = importlib.import_module(f"{_PACKAGE}.run").rehearsed()
    gc.collect()
    gc.freeze()
    fork_server.main(control, json.loads(sys.argv[2]), process)
