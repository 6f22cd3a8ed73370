import json
import time

import pytest

from headrace.engine import errors
from headrace.engine.state import schemas


def schema(said, **formats):
    return schemas.Schema(said, "schema", formats)


def test_what_does_not_fit_is_told_by_place_and_keyword_without_the_value():
    read = schema({"properties": {"a": {"minLength": 30, "pattern": "^x"}, "b": {"items": {"type": "integer"}}}})
    assert read.problems({"a": "x" * 30, "b": [1]}) == {}
    assert read.problems({"a": "hunter2", "b": [1, "hunter2"]}) == {
        ("a",): {"minLength": "this is shorter than 30 characters", "pattern": 'this does not match "^x"'},
        ("b", 1): {"type": 'this is not of type "integer"'},
    }


def test_formats_are_those_of_the_caller_and_the_usual_ones():
    read = schema(
        {"items": [], "prefixItems": [{"format": "even"}, {"format": "email"}, {"format": "of later"}]}
        | {"items": True},
        even=lambda text: len(text) % 2 == 0,
    )
    assert read.problems(["ab", "a@b.example", "x"]) == {}
    assert list(read.problems(["abc", "x", "x"])) == [(0,), (1,)]


@pytest.mark.parametrize(
    "reference",
    [
        "http://127.0.0.1:9/x",
        "file:///etc/hostname",
        "other.json",
        "#anchor",
        "https://json-schema.org/draft/2020-12/schema",
    ],
)
def test_nothing_outside_is_fetched(reference):
    with pytest.raises(
        errors.InvalidRequest, match=r"schema.allOf\[0\] refers to .*, which is outside of it"
    ) as caught:
        schema({"allOf": [{"$ref": reference}]})
    assert caught.value.hint == "nothing is ever fetched"


@pytest.mark.parametrize("keyword", ["$dynamicRef", "$id", "$anchor"])
def test_parts_have_no_other_names(keyword):
    with pytest.raises(errors.InvalidRequest, match=r"schema\.not has \$"):
        schema({"not": {keyword: "x"}})


def test_a_property_may_have_any_name():
    read = schema({"properties": {"$id": {"type": "string"}, "$ref": {"type": "string"}}})
    assert list(read.problems({"$id": 1, "$ref": "x"})) == [("$id",)]


def test_a_schema_refers_to_its_own_parts():
    parts = {"a b/c~d%": {"type": "integer"}, "list": {"allOf": [{"minimum": 3}]}}
    read = schema(
        {
            "$defs": parts,
            "properties": {"x": {"$ref": "#/$defs/a%20b~1c~0d%25"}, "y": {"$ref": "#/$defs/list/allOf/0"}},
        }
    )
    assert list(read.problems({"x": "1", "y": 2})) == [("x",), ("y",)]
    with pytest.raises(errors.InvalidRequest, match="which is not there"):
        schema({"$ref": "#/$defs/list/allOf/1", "$defs": parts})


@pytest.mark.parametrize("said", [{"$ref": "#"}, {"not": {"$ref": "#/not"}}])
def test_a_schema_that_refers_to_itself_is_refused(said):
    with pytest.raises(errors.InvalidRequest, match="refers to itself"):
        schema(said)


def test_a_small_schema_that_would_take_years_is_refused():
    doubled = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n - 1}"}] * 2} for n in range(1, 60)}
    with pytest.raises(errors.InvalidRequest, match="more than 100,000 parts"):
        schema({"$defs": {"a0": {}, **doubled}, "$ref": "#/$defs/a59"})


def test_depth_is_bounded_also_through_references():
    deep = {}
    for _ in range(40):
        deep = {"not": deep}
    chain = {f"a{n}": {"$ref": f"#/$defs/a{n - 1}"} for n in range(1, 400)}
    for said in (deep, {"$ref": "#/$defs/a399", "$defs": {**dict(reversed(chain.items())), "a0": {}}}):
        with pytest.raises(errors.InvalidRequest, match="more than 32 deep"):
            schema(said)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"type": "texts"}, "schema.properties.my age.type cannot be used"),
        ({"pattern": "("}, 'schema.properties.my age.pattern cannot be used: this is not a "regex"'),
        ({"pattern": "(((a{1000}){1000}){1000})"}, "schema.properties.my age.pattern cannot be used"),
        ({"minLength": -1}, "schema.properties.my age.minLength cannot be used"),
        ({"allOf": [{"required": "x"}]}, "schema.properties.my age.allOf[0].required cannot be used"),
        ({"const": "\ud800"}, "schema cannot be used"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_place(part, told):
    with pytest.raises(errors.InvalidRequest) as caught:
        schema({"properties": {"my age": part}})
    assert told in caught.value.message


@pytest.mark.parametrize("pattern", ["^(a+)+$", r"^(?=(a+)+$)(a|aa)+\1b", r"(a*)*\1$"])
def test_a_pattern_does_not_take_for_ever(pattern):
    started = time.process_time()
    assert schema({"pattern": pattern}).problems("a" * 5000 + "!")
    assert time.process_time() - started < 60, "years, if it were not bounded"


def test_numbers_of_any_size_are_compared():
    assert schema({"maximum": 5}).problems(json.loads("1" + "0" * 40))
