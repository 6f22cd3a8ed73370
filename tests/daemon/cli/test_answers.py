"""Answers as people type them: what a text means is what the form says."""

import json

import click
import pytest

from headrace.daemon.cli import messages
from headrace.engine.state import forms

FORM = {
    "type": "object",
    "properties": {
        "text": {"element": "markdown", "description": "Read this", "order": 1},
        "name": {"element": "string"},
        "count": {"element": "number"},
        "sure": {"element": "toggle"},
        "my size": {"element": "dropdown", "enum": [{"value": 1, "label": "small"}, {"value": 2, "label": "large"}]},
        "colour": {"element": "dropdown", "enum": ["red", "2", "blue"]},
        "when": {"element": "time"},
        "go": {"element": "submit", "label": "Go on"},
        "stop": {"element": "submit"},
    },
    "required": ["name"],
}


@pytest.fixture(scope="module")
def form():
    return forms.read(json.dumps(FORM).encode())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("name=1", {"name": "1"}),
        ("name=true", {"name": "true"}),
        ("name=", {"name": ""}),
        ("name:=1", {"name": 1}),
        ("count=3", {"count": 3}),
        ("count=-3.5", {"count": -3.5}),
        ("count=1e3", {"count": 1000.0}),
        ("count=many", {"count": "many"}),
        ("count=inf", {"count": "inf"}),
        ("count=nan", {"count": "nan"}),
        ("sure=yes", {"sure": True}),
        ("sure=OFF", {"sure": False}),
        ("sure=perhaps", {"sure": "perhaps"}),
        ("my size=large", {"my size": 2}),
        ("my size=1", {"my size": 1}),
        ("my size=3", {"my size": "3"}),
        ("colour=2", {"colour": "2"}),
        ("when=12:30", {"when": "12:30"}),
        ("go", {"go": True}),
        ("stop=true", {"stop": True}),
        ("unknown=1", {"unknown": "1"}),
        ("count:=[1]", {"count": [1]}),
    ],
)
def test_a_typed_value_is_meant_as_the_form_says(form, typed, meant):
    found = messages._typed(form, (typed,))
    assert found == meant
    assert json.dumps(found) == json.dumps(meant)


@pytest.mark.parametrize("typed", ["name", "unknown", "=1", "name:={"])
def test_what_is_neither_a_value_nor_a_button_is_refused(form, typed):
    with pytest.raises(click.UsageError):
        messages._typed(form, (typed,))


@pytest.mark.parametrize(
    ("key", "typed", "meant"), [("my size", "2", "2"), ("colour", "1", "red"), ("colour", "2", "2")]
)
def test_a_choice_may_be_typed_by_its_number_unless_that_is_a_choice(form, key, typed, meant):
    element = next(element for element in form.elements if element.key == key)
    assert messages._numbered(element, typed) == meant
