"""Runs are compared by what their machine could do, and not at all where that would mean nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import compare
from tests.bench.__main__ import about_this_run
from tests.bench.results import Row


def written(path: Path, *rows: Row, **about: Any) -> Path:
    """A file as a run of the benchmarks leaves it."""
    found = [{"group": "any", **row.as_json()} for row in rows]
    path.write_text(json.dumps({**about_this_run(quick=False), **about, "rows": found}))
    return path


def latency(*rounds: float, limit: float | None = None) -> Row:
    return Row("latency", "ms p50", rounds, 100, limit=limit)


def rate(*rounds: float, limit: float | None = None) -> Row:
    return Row("rate", "/s", rounds, 100, limit=limit, more_is_better=True)


def lines(text: str) -> dict[str, list[str]]:
    """The cells of each row by its name."""
    return {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}


def compared(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = compare.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (latency(1.0, 1.1, 1.2), latency(1.3, 1.4, 1.5), "worse"),
        (latency(1.3, 1.4, 1.5), latency(1.0, 1.1, 1.2), "better"),
        (latency(1.0, 1.1, 1.2), latency(1.15, 1.4, 1.5), "in the spread"),
        (rate(100, 110, 120), rate(130, 140, 150), "better"),
        (rate(130, 140, 150), rate(100, 110, 120), "worse"),
        (latency(1.0), latency(9.0, 9.1), "one round"),
    ],
)
def test_a_difference_counts_beyond_both_spreads_alone(tmp_path, old, new, said):
    runs = [compare.read(written(tmp_path / name, row)) for name, row in (("old", old), ("new", new))]
    assert compare.verdict(*(run.rows[0] for run in runs)) == said


def test_on_a_busier_machine_what_counts_is_the_figure_by_its_limit(tmp_path, capsys):
    old = written(tmp_path / "old.json", latency(1.0, 1.0, 1.1, limit=0.5), rate(1000, 1010, limit=2000))
    new = written(tmp_path / "new.json", latency(2.0, 2.0, 2.2, limit=1.0), rate(490, 500, limit=500), load_before=99.0)
    status, out, _ = compared(capsys, old, new)
    found = lines(out)
    assert status == 0
    told = "1 ms p50 1–1.1 2 ms p50 2–2.2 2.00 worse"
    assert found["latency"] == f"{told} 2 2 1.00 in the spread".split()
    assert found["rate"][-4:] == ["0.502", "0.99", "1.97", "better"]
    assert "worse" in found["rate"]
    assert "load before the run 99.00" in out and "BUSY" in out.partition("new ")[2]


def test_what_one_run_has_alone_is_named_and_a_figure_of_nothing_is_divided_by_nothing(tmp_path, capsys):
    old = written(tmp_path / "old.json", Row("idle", "%", [0.0, 0.0], 2), latency(1.0))
    new = written(tmp_path / "new.json", Row("idle", "%", [0.2, 0.4], 2), rate(5.0))
    _, out, _ = compared(capsys, old, new)
    assert lines(out)["idle"] == ["0", "%", "0–0", "0.3", "%", "0.2–0.4", "worse"]
    assert "only old: latency" in out and "only new: rate" in out


def test_runs_of_different_machines_are_compared_only_if_one_insists(tmp_path, capsys):
    old = written(tmp_path / "old.json", latency(1.0), processor="Another One", cpus=64)
    new = written(tmp_path / "new.json", latency(1.0))
    status, out, err = compared(capsys, old, new)
    assert status == 2 and "latency" not in out
    assert "different machines" in err and "cpus 64 → " in err and "processor Another One → " in err
    assert "--anyway" in err
    status, out, _ = compared(capsys, old, new, "--anyway")
    assert status == 0 and "latency" in lines(out) and "cpus 64" in out


def test_another_python_is_no_other_machine_but_is_said(tmp_path, capsys):
    old, new = (written(tmp_path / f"{name}.json", latency(1.0), python=name) for name in ("3.11.2", "3.13.1"))
    assert "python 3.11.2 → 3.13.1" in compared(capsys, old, new)[1]


def test_by_default_it_is_the_two_newest_or_the_baseline(tmp_path):
    newest = [written(tmp_path / f"2026-01-0{day}T000000+0000.json", latency(1.0)) for day in (1, 2, 3)]
    (tmp_path / "plots").mkdir()
    baseline = tmp_path / "baseline.json"
    assert compare.chosen(None, None, tmp_path, baseline) == (newest[1], newest[2])
    assert compare.chosen("this", None, tmp_path, baseline) == (Path("this"), newest[2])
    assert compare.chosen("this", "that", tmp_path, baseline) == (Path("this"), Path("that"))
    for path in newest[:2]:
        path.unlink()
    with pytest.raises(compare.Unfit, match="but one run"):
        compare.chosen(None, None, tmp_path, baseline)
    written(baseline, latency(1.0))
    assert compare.chosen(None, None, tmp_path, baseline) == (baseline, newest[2])
    newest[2].unlink()
    with pytest.raises(compare.Unfit, match="no run in"):
        compare.chosen(None, None, tmp_path, baseline)


def test_what_cannot_be_compared_is_said(tmp_path, capsys):
    old = written(tmp_path / "old.json", latency(1.0))
    assert "no row in common" in compared(capsys, old, written(tmp_path / "new.json", rate(1.0)))[2]
    (tmp_path / "odd.json").write_text('{"rows": 7}')
    assert "odd.json is no run of the benchmarks" in compared(capsys, old, tmp_path / "odd.json")[2]
    assert "gone.json is no run of the benchmarks" in compared(capsys, old, tmp_path / "gone.json")[2]


def test_the_history_of_a_row_is_told_from_the_oldest_on(tmp_path, capsys):
    for day, figure in ((2, 3.0), (1, 1.0)):
        row = latency(figure, figure + 1, figure + 2, limit=0.5)
        written(tmp_path / f"2026-01-0{day}T000000+0000.json", row, rate(1.0), at=f"2026-01-0{day}T00:00:00+00:00")
    _, out, _ = compared(capsys, "--history", "LATE", "--directory", tmp_path)
    told = [line.split() for line in out.splitlines() if "latency" in line]
    assert [(words[1], words[3], words[-1]) for words in told] == [
        ("2026-01-01T00:00", "2", "4"),
        ("2026-01-02T00:00", "4", "8"),
    ]
    assert "rate" not in out
    assert "no run has a row with 'nothing'" in compared(capsys, "--history", "nothing", "--directory", tmp_path)[2]
