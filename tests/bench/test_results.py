"""What the benchmarks print: each figure beside what the machine itself took."""

import io

import pytest
import rich.console

from . import machine
from .results import Row, Table


def test_a_figure_stands_in_limits_of_the_machine_where_it_has_one():
    said = io.StringIO()
    table = Table(rich.console.Console(file=said, width=200))
    table.add(Row("executions", "/s", [900, 1000, 1100], 30, reach=3000, limit=8000, more_is_better=True))
    table.add(Row("idle", "MB", [78.0], 1))
    table.show()
    executions, idle = (line.split() for line in said.getvalue().splitlines()[3:5])
    assert executions[-4:] == ["≥", "3,000", "8,000", "0.125"]
    assert idle == ["idle", "78", "MB"]


@pytest.mark.parametrize(("governor", "polls_ms"), [("haltpoll\n", 0.2), ("menu\n", 0.0), (None, 0.0)])
def test_an_idle_cpu_polls_where_the_kernels_governor_does(tmp_path, monkeypatch, governor, polls_ms):
    (tmp_path / "ns").write_text("200000\n")
    if governor is not None:
        (tmp_path / "governor").write_text(governor)
    monkeypatch.setattr(machine, "_IDLE_POLL", tmp_path / "ns")
    monkeypatch.setattr(machine, "_IDLE_GOVERNOR", tmp_path / "governor")
    assert machine.idle_poll_ms() == polls_ms
