"""YAML of other people becomes JSON, or a reason with its line; whatever it does to its reader, it does there."""

from __future__ import annotations

import itertools
import json

import hypothesis
import pytest
import yaml
from hypothesis import strategies

from headrace.sync import documents, tree


def read(text: str | bytes) -> documents.Document:
    content = text.encode() if isinstance(text, str) else text
    return documents.read({"a.yaml": content})["a.yaml"]


def value(text: str | bytes) -> object:
    found = read(text)
    assert found.problem == ""
    return json.loads(bytes(found.value))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", None),
        ("# nothing\n", None),
        ("42", 42),
        ("---\na: 1\n...\n", {"a": 1}),
        ("a: [x, 2.5, true, ~]", {"a": ["x", 2.5, True, None]}),
        ("day: 2024-01-02\nat: 2024-01-02 03:04:05", {"day": "2024-01-02", "at": "2024-01-02T03:04:05"}),
        ("on: yes\n8080: web\n2024-01-02: x", {"on": True, "8080": "web", "2024-01-02": "x"}),
        ("a: &x {k: 1}\nb: *x", {"a": {"k": 1}, "b": {"k": 1}}),
        ("d: &d {x: 1, y: 2}\ne:\n  <<: *d\n  y: 3", {"d": {"x": 1, "y": 2}, "e": {"x": 1, "y": 3}}),
        ("e: {<<: [{x: 1}, {x: 2, y: 3}]}", {"e": {"x": 1, "y": 3}}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        (b"\xef\xbb\xbfa: \xc3\xa4\n", {"a": "ä"}),
        ("a: =\nb: !!str 5", {"a": "=", "b": "5"}),
        (f"a: {2**70}", {"a": 2**70}),
        ("[" * 64 + "]" * 64, json.loads("[" * 64 + "]" * 64)),
    ],
)
def test_plain_documents_mean_what_they_say(text, meant):
    assert value(text) == meant


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' stands in line 1 already"),
        ("x:\n  a: 1\n  a: 1\n", 3, "the key 'a' stands in line 2"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "!!python/object/apply:os.system is not allowed"),
        ("a: !secret x\n", 1, "!secret is not allowed"),
        ("a: !!binary aGk=\n", 1, "!!binary is not allowed"),
        ("!!set {a, b}", 1, "!!set is not allowed"),
        ("!x a: 1", 1, "!x is not allowed"),
        ("a: 1\n\nb: .nan", 3, "not a number that JSON knows"),
        ("a: -.inf", 1, "not a number that JSON knows"),
        ("a: 1\n---\nb: 2\n", 2, "several documents"),
        ("a: 1\nb: [\n", 3, "not YAML"),
        ("a:\n\t- b", 2, "not YAML"),
        ("a: *nowhere", 1, "undefined alias"),
        ("a: 2024-13-45", 1, "month must be in 1..12"),
        ("[1, 2]: x", 1, "cannot be a key"),
        ("a: {<<: 3}", 1, "`<<` takes a mapping"),
        (b"a: 1\nb: \xe4", 2, "not UTF-8"),
        ("a: \x01", 1, "not YAML"),
        ('a: "\\ud800"', 1, "not YAML"),
        ("a: " + "9" * 5000, 1, "cannot be read"),
        ("a: 0x" + "f" * 100_000, 1, "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(text, line, said):
    found = read(text)
    assert said in found.problem
    assert (found.line, bytes(found.value)) == (line, b"null")


_NINE = [chr(97 + number) for number in range(10)]
BOMBS = {
    "billion laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise(_NINE)),
    "quadratic": "a: &a " + "x" * 100_000 + "\nb: [" + ",".join(["*a"] * 100) + "]",
    "merges": "a: &a {k: 1}\n"
    + "".join(f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}]}}\n" for a, b in itertools.pairwise(_NINE)),
    "in itself": "&a [*a]",
    "merged into itself": "&a {<<: *a}",
    "65 deep": "[" * 65 + "]" * 65,
    "500 deep": "[" * 500 + "]" * 500,
    "300,000 deep": "[" * 300_000,
    "deep by blanks": "\n".join("  " * number + "a:" for number in range(300)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_and_the_other_documents_are_read(bomb):
    found = documents.read({"a.yaml": b"a: 1", "b.yaml": BOMBS[bomb].encode(), "c.yaml": b"c: 1"})
    assert found["b.yaml"].problem
    assert bytes(found["b.yaml"].value) == b"null"
    assert not found["a.yaml"].problem + found["c.yaml"].problem


def test_top_keys_have_their_lines():
    assert read("# x\na: 1\n\nb:\n  c: 2\n").lines == {"a": 2, "b": 4}


def test_many_documents_are_read():
    found = documents.read({f"{number}.yaml": b"value: 1\n" for number in range(2000)})
    assert sum(bytes(one.value) == b'{"value": 1}' for one in found.values()) == 2000


def test_a_document_that_is_too_large_names_the_limit():
    assert "1,048,576" in documents.too_large(tree.Entry("a.yaml", "0" * 40, "100644", 2_000_000)).problem


_JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | strategies.text(strategies.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text("abc<=~ ö", min_size=1), inner),
    max_leaves=10,
)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(strategies.lists(_JSON, min_size=1, max_size=20))
def test_whatever_is_dumped_is_read_back(values):
    files = {f"{number}.yaml": yaml.safe_dump(one).encode() for number, one in enumerate(values)}
    found = documents.read(files)
    assert [json.loads(bytes(found[f"{number}.yaml"].value)) for number in range(len(values))] == values


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(strategies.lists(strategies.binary(max_size=200), min_size=1, max_size=20))
def test_no_bytes_whatever_are_left_without_an_answer(contents):
    found = documents.read({f"{number}.yaml": content for number, content in enumerate(contents)})
    assert len(found) == len(contents)
