import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine import errors
from headrace.engine.state import filters

RECORD = {
    "name": "dir/Report 1.txt",
    "created_at": "2026-11-24T10:00:00.000000+00:00",
    "size": 12,
    "is_enabled": True,
    "message": None,
    "value": {"region": "eu", "hosts": ["a", "b"], "deep": {"n": 1.5}},
    "a.b": "with a dot",
}


def matches(said):
    return filters.parse(said).matches(RECORD)


def condition(field, op, value):
    return {"field": field, "op": op, "value": value}


@pytest.mark.parametrize(
    ("field", "op", "value", "expected"),
    [
        ("size", "eq", 12, True),
        ("size", "eq", 12.0, True),
        ("size", "eq", "12", False),
        ("size", "ne", "12", True),
        ("size", "gt", 11.5, True),
        ("size", "ge", 12, True),
        ("size", "lt", 12, False),
        ("size", "le", True, False),
        ("is_enabled", "eq", True, True),
        ("is_enabled", "eq", 1, False),
        ("is_enabled", "ge", True, False),
        ("message", "eq", None, True),
        ("message", "ne", None, False),
        ("message", "lt", 1, False),
        ("message", "ne", 1, True),
        ("missing", "eq", None, True),
        ("missing", "like", "%", False),
        ("created_at", "ge", "2026-11-24", True),
        ("created_at", "lt", "2026-11-25", True),
        ("name", "like", "dir/%", True),
        ("name", "like", "DIR/report _.TXT", True),
        ("name", "like", "report%", False),
        ("size", "like", "12", False),
        ("value.region", "in", ["us", "eu"], True),
        ("value.region", "in", [], False),
        ("is_enabled", "in", [1], False),
        ("value.deep.n", "eq", 1.5, True),
        ("value.region.x", "eq", None, True),
        ("value.hosts", "eq", ["a", "b"], True),
        ("value.hosts", "gt", ["a"], False),
        ("value.deep", "eq", {"n": 1.5}, True),
        ("a.b", "eq", "with a dot", True),
    ],
)
def test_a_field_is_compared_with_a_value(field, op, value, expected):
    assert matches(condition(field, op, value)) is expected
    assert matches(condition(field, op.upper(), value)) is expected
    assert matches({"not": condition(field, op, value)}) is not expected


@pytest.mark.parametrize(
    ("like", "text", "expected"),
    [
        ("100\\%", "100%", True),
        ("100\\%", "1000", False),
        ("a\\_b", "a_b", True),
        ("a\\_b", "axb", False),
        ("\\\\%", "\\x", True),
        ("a*b", "axb", False),
        ("[ab]?", "[ab]?", True),
        ("%", "two\nlines", True),
        ("STRASSE", "straße", True),
        ("", "", True),
    ],
)
def test_like_knows_two_wild_characters_and_how_to_mean_them_plainly(like, text, expected):
    assert filters.parse(condition("name", "like", like)).matches({"name": text}) is expected


def test_like_does_not_take_for_ever():
    assert not filters.parse(condition("name", "like", "%a" * 50 + "b")).matches({"name": "a" * 5000})


YES, NO = condition("size", "eq", 12), condition("size", "eq", 13)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, True),
        ({}, True),
        ([], True),
        ([YES, NO], False),
        ({"and": [YES, YES]}, True),
        ({"or": [NO, YES]}, True),
        ({"or": []}, False),
        ({"op": "or", "value": [NO, YES]}, True),
        ({"op": "and", "value": [NO, YES]}, False),
        ({"op": "not", "value": NO}, True),
        ({"not": [YES, NO]}, True),
        ({"AND": [{"not": NO}, {"or": [NO, {"and": [YES]}]}]}, True),
        ({"field": "size", "value": 12}, True),
    ],
)
def test_conditions_are_joined_in_each_spelling(said, expected):
    assert matches(said) is expected


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("name", "filter is 'name'"),
        (5, "filter is 5"),
        ({"field": "a", "op": "gte", "value": 1}, "filter.op is 'gte'"),
        ({"and": [YES, {"or": [condition("", "eq", 1)]}]}, "filter.and[1].or[0].field is ''"),
        ({"field": "a", "op": "eq"}, "filter has no value"),
        (condition("a", "in", "abc"), "filter.value is 'abc'; in needs a list"),
        (condition("a", "like", 5), "filter.value is 5; like needs a text"),
        ({"and": YES}, "filter.and is {"),
        ({"not": 5}, "filter.not is 5"),
        ({"xor": [YES]}, "filter has no field and joins by 'xor'"),
        ({"op": "eq", "value": 5}, "filter has no field and joins by 'eq'"),
        ({"op": [], "value": 5}, "filter has no field and joins by []"),
        ({"field": "a", "op": "eq", "value": 1, "case": 1}, "filter is {"),
        ({"and": [], "or": []}, "filter is {"),
        ([[5]], "filter[0][0] is 5"),
    ],
)
def test_what_is_not_of_the_dialect_is_refused_with_its_place(said, told):
    with pytest.raises(errors.InvalidRequest) as caught:
        filters.parse(said)
    assert told in caught.value.message
    assert "eq, ne, gt, ge, lt, le, like, in" in caught.value.hint


def test_a_filter_has_bounds():
    deep = YES
    for _ in range(40):
        deep = {"not": deep}
    value = 1
    for _ in range(900):
        value = [value]
    for said in (deep, [YES] * 1001, condition("a", "in", [1] * 10_001), condition("a", "eq", value), value):
        with pytest.raises(errors.InvalidRequest):
            filters.parse(said)


def test_a_filter_tells_its_fields_and_what_it_certainly_requires():
    found = filters.parse(
        {
            "and": [
                YES,
                {"or": [condition("name", "eq", "x")]},
                {"not": condition("b", "eq", 1)},
                condition("c", "gt", 1),
            ]
        }
    )
    assert found.fields == {"size", "name", "b", "c"}
    assert found.required_equals == {"size": 12, "name": "x"}
    assert filters.parse({"or": [YES, NO]}).required_equals == {}
    assert filters.parse(None).fields == frozenset()


@pytest.mark.parametrize(
    ("path", "directory", "expected"),
    [
        ("a/b.txt", "a", True),
        ("a/b.txt", "/a/", True),
        ("a/b/c.txt", "./a", True),
        ("ab/c.txt", "a", False),
        ("a", "a", False),
        ("a", "", True),
        ("a", ".", True),
        ("a", "/", True),
    ],
)
def test_a_file_lies_in_a_folder_or_below_it(path, directory, expected):
    assert filters.in_directory(path, directory) is expected


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [("a/b.txt", "*.txt", True), ("a/b.txt", "a/?.txt", True), ("b.TXT", "*.txt", False), ("c", "[ab]", False)],
)
def test_a_glob_crosses_folders(path, pattern, expected):
    assert filters.matches_glob(path, pattern) is expected


# -- beside an evaluator that was written otherwise -----------------------------------------------------------------

FIELDS = st.sampled_from(["a", "b", "c.d", "c.e"])
SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.text("aB_%é", max_size=3)
VALUES = SCALARS | st.lists(SCALARS, max_size=2)
RECORDS = st.fixed_dictionaries(
    {}, optional={"a": VALUES, "b": VALUES, "c": st.dictionaries(st.sampled_from("de"), VALUES)}
)
CONDITIONS = (
    st.builds(condition, FIELDS, st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le"]), VALUES)
    | st.builds(condition, FIELDS, st.just("in"), st.lists(VALUES, max_size=3))
    | st.builds(condition, FIELDS, st.just("like"), st.text("aB_%é", max_size=3))
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.builds(lambda parts: {"and": parts}, st.lists(inner, max_size=3))
        | st.builds(lambda parts: {"or": parts}, st.lists(inner, max_size=3))
        | st.builds(lambda part: {"not": part}, inner)
        | st.builds(lambda parts: {"op": "or", "value": parts}, st.lists(inner, max_size=3))
    ),
    max_leaves=8,
)


def kind(value):
    return "number" if type(value) in (int, float) else type(value).__name__


def canonical(value):
    """Texts that are the same exactly if the values are."""
    if isinstance(value, list):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    return f"{kind(value)}:{float(value) if kind(value) == 'number' else value}".replace("-0.0", "0.0")


def naive(said, record):
    if isinstance(said, list):
        said = {"and": said}
    if "field" not in said:
        op, parts = (said["op"], said["value"]) if "op" in said else next(iter(said.items()))
        if op == "not":
            return not naive(parts, record)
        truths = [naive(part, record) for part in parts]
        return False not in truths if op == "and" else True in truths
    outer, _, inner = said["field"].partition(".")
    found = record.get(outer)
    found = found.get(inner) if inner and found is not None else found
    op, value = said["op"], said["value"]
    if op in ("eq", "ne"):
        return (canonical(found) == canonical(value)) == (op == "eq")
    if op == "in":
        return canonical(found) in [canonical(choice) for choice in value]
    if op == "like":
        pattern = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in value)
        return isinstance(found, str) and re.fullmatch(pattern, found, re.IGNORECASE | re.DOTALL) is not None
    if kind(found) != kind(value) or kind(found) not in ("number", "str"):
        return False
    order = (found > value) - (found < value)
    return order in {"gt": (1,), "ge": (0, 1), "lt": (-1,), "le": (-1, 0)}[op]


@given(FILTERS, st.lists(RECORDS, min_size=1, max_size=5))
def test_a_filter_means_what_a_naive_reading_of_it_means(said, records):
    parsed = filters.parse(said)
    for record in records:
        assert parsed.matches(record) is naive(said, record)
        if parsed.matches(record):
            for field, value in parsed.required_equals.items():
                assert naive(condition(field, "eq", value), record)
