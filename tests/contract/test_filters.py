"""Listings and their filters: each comparison, how they are joined, and any of them against a naive filter."""

from __future__ import annotations

import itertools
import re

import hypothesis
import hypothesis.strategies as st
import pytest

STOCK = {
    "filtered apple": {"price": 1, "colour": "red"},
    "filtered Banana": {"price": 2.5, "colour": "yellow"},
    "filtered cherry": {"price": 10, "colour": "red"},
    "filtered date": "not an object",
}
MAKE = "for name, value in inputs['stock'].items():\n    system.setting(name, value=value)\n"
LIST = "return [setting.get('name') for setting in system.settings(filter=inputs['filter'])]"
OURS = {"field": "name", "op": "like", "value": "filtered %"}


@pytest.fixture(scope="module")
def picked(workshop):
    """Return the names of the stock's settings that a filter picks, without what they have in common."""
    workshop.value(MAKE, stock=STOCK)

    def picked(condition):
        found = workshop.value(LIST, filter={"and": [OURS, condition]})
        return [name.removeprefix("filtered ") for name in found]

    return picked


@pytest.mark.contract("3.filter.eq", "3.filter.ne", "3.filter.gt", "3.filter.ge", "3.filter.lt", "3.filter.le")
@pytest.mark.contract("3.filter.like", "3.filter.in")
@pytest.mark.parametrize(
    ("field", "op", "value", "expected"),
    [
        ("name", "eq", "filtered apple", ["apple"]),
        ("name", "eq", "filtered app", []),
        ("name", "ne", "filtered apple", ["Banana", "cherry", "date"]),
        ("value.price", "gt", 1, ["Banana", "cherry"]),
        ("value.price", "ge", 2.5, ["Banana", "cherry"]),
        ("value.price", "lt", 10, ["Banana", "apple"]),
        ("value.price", "le", 10, ["Banana", "apple", "cherry"]),
        ("value.price", "eq", 10, ["cherry"]),
        ("value.price", "gt", "a text", []),
        ("value.colour", "in", ["red", "blue"], ["apple", "cherry"]),
        ("value.colour", "in", [], []),
        ("value", "eq", "not an object", ["date"]),
        ("value", "eq", {"price": 1, "colour": "red"}, ["apple"]),
        ("name", "like", "filtered %e%", ["apple", "cherry", "date"]),
        ("name", "like", "filtered _ate", ["date"]),
        ("name", "like", "%BANANA", ["Banana"]),
        ("name", "gt", "filtered b", ["cherry", "date"]),
    ],
)
def test_a_condition_compares_a_field_with_a_value(picked, field, op, value, expected):
    assert picked({"field": field, "op": op, "value": value}) == expected


@pytest.mark.contract("3.filter.and", "3.filter.or", "3.filter.not")
def test_conditions_are_joined_and_nested(picked):
    red = {"field": "value.colour", "op": "eq", "value": "red"}
    cheap = {"field": "value.price", "op": "lt", "value": 5}
    assert picked({"and": [red, cheap]}) == ["apple"]
    assert picked({"or": [red, cheap]}) == ["Banana", "apple", "cherry"]
    assert picked({"not": red}) == ["Banana", "date"]
    assert picked({"and": [{"not": {"or": [red]}}, cheap]}) == ["Banana"]
    assert picked({"or": []}) == []
    assert picked({"and": []}) == ["Banana", "apple", "cherry", "date"]


@pytest.mark.contract("3.filter.alias")
def test_filter_is_called_filter_with_an_underscore_too(picked, value):
    one = {"field": "name", "op": "eq", "value": "filtered apple"}
    assert (
        value(
            "return [[s.get('name') for s in system.settings(filter_=inputs['f'])],"
            " [s.get('name') for s in system.settings(inputs['f'])]]",
            f=one,
        )
        == [["filtered apple"]] * 2
    )


@pytest.mark.contract("3.filter.wrong")
@pytest.mark.parametrize(
    "wrong",
    [
        {"field": "name", "op": "resembles", "value": "x"},
        {"field": "name", "op": "eq"},
        {"xor": []},
        {"field": "name", "op": "in", "value": "text"},
        {"and": {"field": "name", "op": "eq", "value": 1}},
        {"not": "x"},
    ],
)
def test_a_filter_that_cannot_be_understood_is_refused(refused, wrong):
    refused("return len(list(system.settings(inputs['filter'])))", "InvalidInputError", filter=wrong)


@pytest.mark.contract("3.filter.wrong")
def test_a_filter_that_is_no_dict_is_refused(refused):
    refused("system.settings('name = 1')", "InvalidInputError")


@pytest.mark.contract("3.filter.eq", "3.filter.and", "3.type.execution")
def test_executions_are_filtered_by_their_fields(value):
    assert value("""
children = [this.flow('child', name=f'number {n}', fail='x' if n % 2 else None, wait='ALL_ENDED') for n in range(4)]
mine = {'field': 'parent_execution_id', 'op': 'eq', 'value': this.id}
def numbers(*conditions):
    return [execution.get('name')[-1] for execution in system.executions({'and': [mine, *conditions]})]
return [
    numbers(),
    numbers({'field': 'status', 'op': 'eq', 'value': 'ENDED_ERROR'}),
    numbers({'field': 'status', 'op': 'in', 'value': ['ENDED_SUCCESS', 'ENDED_CANCELLED']}),
    numbers({'not': {'field': 'name', 'op': 'like', 'value': '%1'}}),
    numbers({'field': 'created_at', 'op': 'gt', 'value': children[1].get('created_at')}),
    numbers({'field': 'flow_name', 'op': 'ne', 'value': 'child'}),
]
""") == [["3", "2", "1", "0"], ["3", "1"], ["2", "0"], ["3", "2", "0"], ["3", "2"], []]


@pytest.mark.contract("3.filter.eq", "3.type.message")
def test_messages_are_filtered_too(value):
    assert value("""
for kind in ('INFO', 'WARNING'):
    system.message(subject='filtered message', message='text', message_type=kind)
return [message.get('message_type') for message in system.messages({'and': [
    {'field': 'subject', 'op': 'eq', 'value': 'filtered message'},
    {'field': 'message_type', 'op': 'ne', 'value': 'INFO'}]})]
""") == ["WARNING"]


@pytest.mark.contract("3.list.snapshot")
def test_a_listing_is_a_snapshot_and_what_is_gone_since_is_told(value):
    assert value("""
for name in 'abc':
    system.setting(f'snapshot {name}', value=name)
listing = system.settings({'field': 'name', 'op': 'like', 'value': 'snapshot %'})
system.setting('snapshot b').delete()
system.setting('snapshot d', value='d')
seen = []
for setting in listing:
    try:
        seen.append(setting.get('value'))
    except flow_api.ResourceNotFoundError:
        seen.append('gone')
return seen
""") == ["a", "gone", "c"]


@pytest.mark.contract("3.list.iterates")
def test_a_listing_can_be_gone_through_more_than_once(value):
    assert value("""
system.setting('listed twice', value=1)
listing = system.settings({'field': 'name', 'op': 'eq', 'value': 'listed twice'})
return [[setting.get('value') for setting in listing] for _ in range(2)]
""") == [[1], [1]]


# -- any filter against a naive one -----------------------------------------------------------------------------------

SCALAR = st.sampled_from([None, True, False, 0, 1, 1.0, 2, "", "a", "A", "b", "a_b", [1], {"k": 1}])
RECORD = st.fixed_dictionaries({"x": SCALAR, "y": SCALAR}) | SCALAR
FIELD = st.sampled_from(["value.x", "value.x", "value", "value", "value.y", "value.x.k", "name", "value.missing"])
CONDITION = st.one_of(
    st.fixed_dictionaries(
        {"field": FIELD, "op": st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le"]), "value": SCALAR}
    ),
    st.fixed_dictionaries({"field": FIELD, "op": st.just("in"), "value": st.lists(SCALAR, max_size=3)}),
    st.fixed_dictionaries(
        {
            "field": FIELD,
            "op": st.just("like"),
            "value": st.sampled_from(["%", "_", "a%", "%b", "A_", "%0", "a\\_b", ""]),
        }
    ),
)
FILTER = st.recursive(
    CONDITION,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=5,
)
ASK = """
kept = 'filter example'
for n, value in enumerate(inputs['records']):
    system.setting(f'{kept} {n}', value=value, description=f'd{n}')
ours = {'field': 'name', 'op': 'like', 'value': kept + ' _'}
found = [[one.get('name')[-1] for one in system.settings({'and': [ours, asked]})] for asked in inputs['filters']]
for n, value in enumerate(inputs['records']):
    system.setting(f'{kept} {n}').delete()
return found
"""


def same(a, b):
    """JSON equality: numbers by value, true is no number."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return a == b and (type(a) is type(b) or {type(a), type(b)} <= {int, float})


def ordered(a, b):
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (a, b))
    return numbers or (isinstance(a, str) and isinstance(b, str))


def matches(record, asked):
    """The naive filter."""
    if "and" in asked:
        return all(matches(record, each) for each in asked["and"])
    if "or" in asked:
        return any(matches(record, each) for each in asked["or"])
    if "not" in asked:
        return not matches(record, asked["not"])
    found = record
    for part in asked["field"].split("."):
        found = found.get(part) if isinstance(found, dict) else None
    op, value = asked["op"], asked["value"]
    match op:
        case "eq":
            return same(found, value)
        case "ne":
            return not same(found, value)
        case "in":
            return any(same(found, each) for each in value)
        case "like":
            if not isinstance(found, str):
                return False
            wild = {"%": ".*", "_": ".", "\\_": "_"}
            parts = re.split(r"(\\_|%|_)", value)
            pattern = "".join(re.escape(wild[p]) if p == "\\_" else wild.get(p) or re.escape(p) for p in parts)
            return re.fullmatch(pattern, found, re.IGNORECASE | re.DOTALL) is not None
    if not ordered(found, value):
        return False
    return {"gt": found > value, "ge": found >= value, "lt": found < value, "le": found <= value}[op]


@pytest.mark.contract("3.filter.eq", "3.filter.in", "3.filter.like", "3.filter.and", "3.filter.or", "3.filter.not")
@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(records=st.lists(RECORD, min_size=4, max_size=10), filters=st.lists(FILTER, min_size=5, max_size=20))
def test_any_filter_picks_what_a_naive_one_picks(workshop, records, filters):
    known = [
        {"name": f"filter example {n}", "value": record, "description": f"d{n}"} for n, record in enumerate(records)
    ]
    expected = [[record["name"][-1] for record in known if matches(record, asked)] for asked in filters]
    found = workshop.value(ASK, records=records, filters=filters)
    for asked, mine, theirs in itertools.zip_longest(filters, expected, found):
        assert theirs == mine, (asked, records)
