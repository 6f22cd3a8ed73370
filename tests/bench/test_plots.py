"""Pictures of how cost grows: the slopes are right, and every point lies where its figure is."""

from __future__ import annotations

import itertools
import json
import re
from xml.etree import ElementTree

import pytest

from tests.bench import drawing, plots

SVG = "{http://www.w3.org/2000/svg}"
SIZES = (10, 100, 1_000, 10_000)


def circles(text: str) -> list[tuple[float, float]]:
    return [(float(one.get("cx")), float(one.get("cy"))) for one in ElementTree.fromstring(text).iter(f"{SVG}circle")]


def words(text: str) -> list[str]:
    return [one.text for one in ElementTree.fromstring(text).iter(f"{SVG}text")]


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_the_slope_is_the_exponent_by_which_it_grows(exponent):
    assert drawing.slope([(n, 3.7 * n**exponent) for n in SIZES]) == pytest.approx(exponent)


def test_what_is_constant_at_first_is_told_from_what_grows_at_the_end():
    assert drawing.said([(10, 5.0), (100, 5.0), (1_000, 50.0), (10_000, 500.0)]) == "slope 0.70, 1.00 at the end"
    assert drawing.said([(10, 5.0)]) == "one size, no slope"
    assert drawing.said([(1, -2.0), (10, 5.0), (100, 50.0)]) == "slope 1.00; 1 of no more than 0 left out"


def test_points_lie_on_logarithmic_axes_where_their_figures_are():
    text = drawing.chart("T", "x", "y", {"linear": [(n, n / 100) for n in SIZES], "constant": [(n, 10) for n in SIZES]})
    found = circles(text)
    linear, constant = found[:4], found[4:]
    steps = [(b[0] - a[0], a[1] - b[1]) for a, b in itertools.pairwise(linear)]
    assert all(step == pytest.approx(steps[0], abs=0.2) for step in steps)
    assert steps[0][0] > 50 and steps[0][1] > 50
    assert len({y for _, y in constant}) == 1
    assert [x for x, _ in linear] == [x for x, _ in constant]
    assert constant[2] == linear[2]  # 1,000 / 100
    labels = words(text)
    assert {"10", "10,000", "0.1", "100"} <= set(labels)
    assert "● linear: slope 1.00, 1.00 at the end" in labels
    assert "● constant: slope 0.00, 0.00 at the end" in labels


def test_names_are_words_and_never_markup():
    assert {"a < b & c", "<x>"} <= set(words(drawing.chart("a < b & c", "<x>", "y", {"<i>": [(1, 1)]})))


def test_a_measured_growth_is_drawn_again_and_what_has_no_figure_is_said(tmp_path, capsys):
    figures = {
        "list": {"all, no filter": [[100, 1.9], [1000, 2.0]]},
        "sync": {"one changed file": [[10, 0.2], [100, 0.3]]},
        "waiting": {"each": [[1, -3.0]]},
    }
    (tmp_path / "growth.json").write_text(json.dumps({"figures": figures}))
    plots.main(["--drawn-from", str(tmp_path / "growth.json"), "--into", str(tmp_path / "drawn")])
    out, err = capsys.readouterr()
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"list.svg", "sync.svg"}
    assert out.split() == [str(tmp_path / "drawn" / name) for name in ("list.svg", "sync.svg")]
    assert len(re.findall("nothing of .* can be drawn", err)) == 3  # nothing of starts and runs either
    assert plots.CHARTS["list"].title in words((tmp_path / "drawn" / "list.svg").read_text())


def test_sizes_are_bounded_by_what_was_asked_for_and_by_what_is_worth_waiting_for():
    assert plots.sizes(2, 6, 10_000) == [100, 1_000, 10_000]
    assert plots.sizes(2, 6, 5) == [100]
    assert plots.sizes(0, 5, 10**9) == [1, 10, 100, 1_000, 10_000, 100_000]
