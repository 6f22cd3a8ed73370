"""What a flow declares of its inputs: the form that comes of it, and what does not fit."""

import pytest

from headrace.engine import errors
from headrace.engine.state import inputs

SCHEMA = {
    "required": ["volume", "hidden"],
    "properties": {
        "volume": {"type": "string", "title": "Volume", "minLength": 2},
        "gigabytes": {"type": "integer", "minimum": 1, "default": 10},
        "tier": {"enum": ["fast", "cheap"]},
        "size": {"oneOf": [{"const": 1, "title": "small"}, {"const": 2, "title": "large"}]},
        "from": {"type": "string", "format": "date"},
        "maybe": {"type": ["string", "null"]},
        "pin": {"type": "string", "format": "password"},
        "hosts": {"type": "array", "items": {"type": "string"}, "default": ["a"], "examples": [["x", "y"]]},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "pool": {"$ref": "#/$defs/pool"},
    },
    "$defs": {"pool": {"type": "object", "properties": {"id": {"type": "integer"}}}},
}
GOOD = {"volume": "v1", "hidden": 1}


@pytest.fixture(scope="module")
def declared():
    return inputs.read(inputs.checked(SCHEMA))


def test_each_property_is_asked_with_the_element_that_fits_it(declared):
    elements = {element.key: element.element for element in declared.form.elements}
    told = "volume string, gigabytes number, tier dropdown, size dropdown, from date, maybe string, pin password"
    assert ", ".join(f"{key} {element}" for key, element in elements.items() if key not in declared.as_json) == told
    assert {elements[key] for key in declared.as_json} == {"textarea"}
    assert declared.as_json == {"hosts", "either", "pool"}
    assert declared.secret == ("pin",)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({}, {"volume": "is missing", "hidden": "is missing"}),
        ({**GOOD, "gigabytes": "x"}, {"gigabytes": "must be a whole number"}),
        ({**GOOD, "gigabytes": 0}, {"gigabytes": "this is less than the minimum of 1"}),
        ({**GOOD, "tier": "slow"}, {"tier": 'must be one of "fast", "cheap"'}),
        ({**GOOD, "from": "tomorrow"}, {"from": "must be a date such as 2026-11-24"}),
        ({**GOOD, "hosts": ["a", 1]}, {"hosts": '[1] this is not of type "string"'}),
        ({**GOOD, "pool": {"id": "x"}}, {"pool": 'id this is not of type "integer"'}),
        ({**GOOD, "maybe": None, "either": 3, "more": "is allowed", "size": 2}, {}),
    ],
)
def test_what_does_not_fit_is_told_by_key(declared, given, wrong):
    assert declared.problems(given) == wrong


def test_what_is_not_declared_may_be_refused():
    declared = inputs.read(inputs.checked({"properties": {}, "additionalProperties": False}))
    assert list(declared.problems({"x": 1})) == [""]


def test_a_check_returns_what_is_secret_or_says_all_that_is_wrong():
    text = inputs.checked(SCHEMA)
    assert inputs.check(text, b'{"volume": "v1", "hidden": 1, "pin": "1234"}') == ("pin",)
    assert inputs.check("", b'{"anything": 1}') == ()
    with pytest.raises(errors.InputsUnfit, match=r"'volume' is missing; 'hidden' is missing"):
        inputs.check(text, b"{}")


@pytest.mark.parametrize(
    "said",
    [
        {"type": "string"},
        {"properties": []},
        {"properties": {"a": {"type": "number", "minimum": "x"}}},
        {"properties": {"a": {"$ref": "#/$defs/nowhere"}}},
        {"properties": {"a": {"element": "submit"}}},
        {"properties": {"a": {"element": "dropdown"}}},
        {"required": "a"},
        {"required": [1]},
    ],
)
def test_schemas_of_something_else_are_refused(said):
    with pytest.raises(errors.InvalidRequest):
        inputs.checked(said)
