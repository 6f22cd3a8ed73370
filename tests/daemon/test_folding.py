"""A JSON value as a tree that a page can bear."""

import json

import pytest

from headrace.daemon import folding
from headrace.engine import errors


def tree_of(value, **how):
    return folding.tree(folding.read(json.dumps(value).encode()), **how)


def nodes(node):
    return 1 + sum(nodes(member) for member in node.members)


def test_a_small_value_is_there_wholly_and_unfolded():
    root = tree_of({"a": {"b": [1, "x", None, True]}, "c": {}})
    assert [member.key for member in root.members] == ['"a"', '"c"']
    inner = root.members[0].members[0]
    assert [(one.kind, one.text) for one in inner.members] == [
        ("number", "1"),
        ("text", '"x"'),
        ("word", "null"),
        ("word", "true"),
    ]
    assert inner.at == "/a/b" and inner.open and not root.members[1].unopened


def test_numbers_are_shown_as_they_are_written():
    root = folding.tree(folding.read(b"[1e400, 12345678901234567890123, 1.10]"))
    assert [one.text for one in root.members] == ["1e400", "12345678901234567890123", "1.10"]


def test_a_large_value_is_cut_and_says_where_the_rest_is():
    root = tree_of([[{"n": n} for n in range(50)] for _ in range(500)])
    assert nodes(root) <= folding.NODES_MAX + folding.MEMBERS_MAX
    assert len(root.members) == root.after == folding.MEMBERS_MAX
    assert all(member.members or member.unopened for member in root.members)
    assert not root.members[0].open


def test_what_is_cut_is_reached_by_its_pointer_and_where_to_go_on():
    value = {"a/b": {"~": [*range(250)]}}
    held = folding.read(json.dumps(value).encode())
    found = folding.find(held, "/a~1b/~0")
    seen, after = [], 0
    while True:
        node = folding.tree(found, "/a~1b/~0", after)
        seen += [member.text for member in node.members]
        if not (after := node.after):
            break
    assert seen == [str(n) for n in range(250)]
    assert folding.tree(held).members[0].at == folding.member("a/b") == "/a~1b"


@pytest.mark.parametrize("pointer", ["/b", "/a/9", "/a/-1", "/a/x", "/a/0/0"])
def test_a_pointer_to_nowhere_finds_nothing(pointer):
    with pytest.raises(errors.NotFound):
        folding.find(folding.read(b'{"a": [1]}'), pointer)


def test_a_deep_value_goes_on_at_a_pointer():
    root = tree_of(json.loads('{"a":' * 60 + "1" + "}" * 60))
    node = root
    while node.members:
        node = node.members[0]
    assert node.unopened and 20 < node.at.count("/") < 30


def test_long_texts_are_cut_and_depth_is_refused_in_words():
    node = tree_of("x" * 10_000)
    assert node.unopened and node.count == 10_000 and len(node.text) < 5000
    with pytest.raises(errors.InvalidRequest, match="nested too deeply"):
        folding.read(b"[" * 100_000 + b"]" * 100_000)
