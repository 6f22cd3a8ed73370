"""The list of what flows may rely on and the tests of it are the same list."""

from __future__ import annotations

import ast
import collections
import tomllib
from pathlib import Path

HERE = Path(__file__).parent


def _rows() -> list[dict[str, str]]:
    return tomllib.loads((HERE / "contract.toml").read_text())["row"]


def _named() -> dict[str, list[str]]:
    """Every id a test is marked with → the tests."""
    found = collections.defaultdict(list)
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.contract":
                        for argument in mark.args:
                            found[ast.literal_eval(argument)].append(f"{path.name}::{node.name}")
    return found


def test_every_sentence_of_the_contract_is_tried_by_a_test():
    named = _named()
    untried = [row["id"] for row in _rows() if row["id"] not in named]
    assert not untried, f"no test is marked with {', '.join(untried)}"


def test_tests_name_only_sentences_of_the_contract():
    known = {row["id"] for row in _rows()}
    strays = {id_: tests for id_, tests in _named().items() if id_ not in known}
    assert not strays, f"contract.toml has no such rows: {strays}"


def test_each_sentence_stands_once_and_is_a_sentence():
    rows = _rows()
    twice = [id_ for id_, count in collections.Counter(row["id"] for row in rows).items() if count > 1]
    assert not twice, twice
    assert all(row.keys() == {"id", "text"} and row["text"].endswith(".") for row in rows)
