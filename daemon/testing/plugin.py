"""The pytest plugin: what a repository's own tests get, and where its flows are.

    def test_greets(run_flow):
        assert run_flow('hello', name='Ada').output == {'greeting': 'Hello Ada'}

pytest loads this in every run on a machine where Headrace is installed, so it imports nothing of ours until a fixture
is used. ``headrace test`` says where the flows are; without it they are where pytest's configuration stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_SCOPES = ("function", "class", "module", "package", "session")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add where flows are, and how long a daemon lives."""
    group = parser.getgroup("headrace", "tests of Headrace's flows")
    group.addoption("--flows", metavar="DIR", help="The folder with the flows; else the root of the tests.")
    parser.addini("headrace_flows", "The folder with the flows, below the root of the tests.", default="")
    parser.addini(
        "headrace_scope",
        f"How long a daemon with its settings and files lives: {', '.join(_SCOPES)}.",
        default="function",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what is a flow by its place, even one whose name begins with test: pytest would run its lines."""
    given = config.getoption("--flows")
    folder = Path(given).resolve() if given else None
    if folder is None or not collection_path.is_file() or not collection_path.is_relative_to(folder):
        return None
    return None if "tests" in collection_path.relative_to(folder).parts else True


def _scope(fixture_name: str, config: pytest.Config) -> Any:
    scope = config.getini("headrace_scope")
    if scope not in _SCOPES:
        raise pytest.UsageError(f"headrace_scope is {scope!r}; it may be {', '.join(_SCOPES)}")
    return scope


@pytest.fixture(scope="session")
def flows_folder(pytestconfig: pytest.Config) -> Path:
    """The folder with the flows."""
    given = pytestconfig.getoption("--flows")
    folder = Path(given) if given else pytestconfig.rootpath / str(pytestconfig.getini("headrace_flows"))
    if not folder.is_dir():
        raise pytest.UsageError(f"there is no folder {folder} with flows")
    return folder.resolve()


@pytest.fixture(scope=_scope)
def rehearsal(flows_folder: Path) -> Iterator[Any]:
    """A daemon on the flows with a state of its own: see ``headrace.daemon.testing.rehearsal.Rehearsal``."""
    from .rehearsal import Rehearsal  # the marked place: a run that tests no flow does not pay for a daemon

    one = Rehearsal(flows_folder)
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def run_flow(rehearsal: Any) -> Any:
    """Run a flow to its end and return how it ended: ``run_flow('hello', name='Ada')``."""
    return rehearsal.run_flow


@pytest.fixture
def fake_task(rehearsal: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Play a type of task in this test: ``fake_task('REST', {'status_code': 200, 'json': {}})``."""
    rehearsal.tasks.folder = request.path.parent
    yield rehearsal.tasks
    rehearsal.tasks.reset()


@pytest.fixture
def replay_recording(flows_folder: Path, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Replay what really ran against the flows as they are now: ``replay_recording('orders.jsonl')``."""
    from .recordings import replay  # the marked place, likewise

    def check(file: str | Path, *, strict: bool = False, effects: bool = False) -> Any:
        __tracebackhide__ = True
        return replay(request.path.parent / file, flows_folder, strict=strict, effects=effects)

    return check
