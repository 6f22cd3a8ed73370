import json
import re
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace.engine import errors
from headrace.engine.state import forms

#: Later Pythons bear more before they give up, and what they bear is looked through like anything else.
before_3_12 = pytest.mark.skipif(sys.version_info >= (3, 12), reason="not too deep for this Python")


def encoded(value):
    return json.dumps(value).encode()


def form(*required, **properties):
    return {"type": "object", "properties": properties, "required": list(required)}


def answered(body, **response):
    return json.loads(forms.answer(encoded(body), encoded(response)))


def refused(body, **response):
    with pytest.raises(errors.AnswerRefused) as caught:
        forms.answer(encoded(body), encoded(response))
    assert caught.value.http_status == 422
    return caught.value.message.removeprefix("the answer cannot be taken: ")


def checked(body):
    return json.loads(forms.checked(encoded(body)))


def invalid(body):
    with pytest.raises(errors.InvalidRequest) as caught:
        forms.checked(encoded(body))
    return caught.value.message


MESSAGE = form(
    message={"element": "markdown", "description": "# Done", "order": 1},
    OK={"element": "submit", "type": "boolean", "label": "OK", "order": 3},
)
REQUEST = form(
    "string",
    string={"element": "string", "type": "string", "label": "How many?", "order": 2},
    OK={"element": "submit", "type": "boolean", "label": "OK", "order": 3},
)
APPROVAL = form(
    "reason",
    reason={"element": "textarea"},
    approve={"element": "submit", "required": []},
    reject={"element": "submit"},
)


# -- what is a form -------------------------------------------------------------------------------------------------


def test_a_missing_type_comes_from_the_element():
    body = form(a={"element": "number"}, b={"element": "datetime"}, c={"element": "dropdown", "enum": [1]})
    types = {key: said.get("type") for key, said in checked(body)["properties"].items()}
    assert types == {"a": "number", "b": "string", "c": None}
    assert checked({"properties": {}})["type"] == "object"


def test_a_missing_element_comes_from_the_type():
    body = form(
        a={"type": "integer"},
        b={"type": ["string", "null"]},
        c={"type": "boolean"},
        d={"type": "string", "enum": ["x"]},
    )
    elements = {key: said["element"] for key, said in checked(body)["properties"].items()}
    assert elements == {"a": "number", "b": "string", "c": "toggle", "d": "dropdown"}


@pytest.mark.parametrize("body", [MESSAGE, REQUEST, APPROVAL])
def test_a_checked_form_is_as_it_was_but_for_types_and_stays_so(body):
    once = checked(body)
    assert checked(once) == once
    assert {**once, "properties": None} == {**body, "properties": None}


def test_keywords_nobody_knows_are_left_alone():
    body = form(a={"element": "string", "colour": {"hue": 3}, "minLength": None})
    body |= {"colour": "red", "$schema": "http://127.0.0.1:9/x", "$id": "http://127.0.0.1:9/y", "title": None}
    assert checked(body)["properties"]["a"]["colour"] == {"hue": 3}
    assert answered(body, a="x") == {"a": "x"}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([], "the form must be a JSON Schema object"),
        ({}, "the form has no properties"),
        ({"properties": []}, "the form has no properties"),
        ({"type": "array", "properties": {}}, 'the form\'s type is "array"; it must be object'),
        (form(a="string"), "form.properties.a must be an object"),
        (form(a={}), "form.properties.a has no element"),
        (form(a={"type": "array"}), "form.properties.a has no element"),
        (form(a={"element": "slider"}), 'form.properties.a has the unknown element "slider"'),
        (form(a={"element": ["string"]}), 'form.properties.a has the unknown element ["string"]'),
        (form(a={"element": "number", "type": "string"}), 'form.properties.a.type is "string"; the element number has'),
        (form(a={"element": "string", "order": "1"}), 'form.properties.a.order is "1"; it must be a number'),
        (form(a={"element": "string", "label": ["x"]}), "form.properties.a.label must be a text"),
        (form(a={"element": "string", "pattern": "("}), "form.properties.a.pattern cannot be used"),
        (form(a={"element": "string", "$ref": "http://127.0.0.1:9"}), "form.properties.a refers to"),
        (form(a={"element": "string", "required": True}), "form.properties.a.required must be a list"),
        (form(a={"element": "string", "required": ["a"]}), "form.properties.a.required has no meaning"),
        (form(a={"element": "dropdown"}), "form.properties.a is a dropdown with nothing to choose"),
        (form(a={"element": "dropdown", "enum": []}), "form.properties.a is a dropdown with nothing to choose"),
        (form(a={"element": "dropdown", "oneOf": ["x"]}), "form.properties.a.oneOf must list objects"),
        (form("b", a={"element": "string"}), "form.required names 'b', which the form does not have"),
        (form("a", a={"element": "markdown"}), "form.required names 'a', which is only read"),
        ({"properties": {}, "required": "a"}, "form.required must be a list"),
        (form(a={"element": "submit", "required": ["b"]}), "form.properties.a.required names 'b'"),
        ({"properties": {f"k{n}": {"element": "string"} for n in range(501)}}, "501 properties, the limit is 500"),
        ({"properties": {}, "dependentRequired": 5}, "form.dependentRequired cannot be used"),
    ],
)
def test_what_is_no_form_is_refused_with_its_place(body, told):
    assert told in invalid(body)


def test_forms_and_answers_have_bounds():
    with pytest.raises(errors.TooLarge):
        forms.checked(encoded(form(a={"element": "string", "description": "x" * 1024 * 1024})))
    with pytest.raises(errors.TooLarge):
        forms.answer(encoded(REQUEST), encoded({"string": "x" * 1024 * 1024}))
    with pytest.raises(errors.InvalidRequest, match="not valid JSON"):
        forms.checked(b"{")


@pytest.mark.parametrize("depth", [pytest.param(5000, marks=before_3_12), 50_000])
def test_a_form_nested_too_deeply_is_refused(depth):
    with pytest.raises(errors.InvalidRequest, match="nested too deeply"):
        forms.checked(b'{"properties":' * depth + b"{}" + b"}" * depth)


def test_a_form_is_read_in_the_order_it_is_asked():
    read = forms.read(
        encoded(
            form(
                last={"element": "string"},
                second={"element": "number", "order": 2, "title": "Two", "example": 5, "default": "x"},
                first={
                    "element": "dropdown",
                    "order": 1.5,
                    "label": "One",
                    "enum": [{"value": 1, "label": "one"}, "b", 3],
                },
                OK={"element": "submit", "order": 9, "required": ["last"]},
            )
        )
    )
    assert [element.key for element in read.elements] == ["first", "second", "OK", "last"]
    first, second, ok, _ = read.elements
    assert [(c.value, c.label) for c in first.choices] == [(1, "one"), ("b", "b"), (3, "3")]
    assert (second.label, second.example, second.default) == ("Two", "5", "x")
    assert read.buttons == (ok,) and ok.required == ("last",)


def test_passwords_are_the_keys_nobody_may_read():
    body = form(a={"element": "password"}, b={"element": "string"}, c={"element": "password"})
    assert forms.secret_keys(encoded(body)) == ("a", "c")


# -- what is an answer ----------------------------------------------------------------------------------------------


def test_a_question_is_answered_by_a_program_that_knows_no_button():
    assert answered(REQUEST, string="42") == {"string": "42", "OK": True}
    assert answered(REQUEST, string="42", OK=True) == {"string": "42", "OK": True}


def test_a_message_is_answered_by_its_button():
    assert answered(MESSAGE) == {"OK": True}


def test_what_is_missing_is_told():
    assert refused(REQUEST) == '"string": is missing; it must be a text'


def test_every_wrong_key_is_told_with_what_is_expected():
    body = form(
        "f",
        a={"element": "number"},
        b={"element": "toggle"},
        c={"element": "date"},
        d={"element": "dropdown", "enum": ["x", 2]},
        e={"element": "string", "minLength": 3},
        f={"element": "number", "type": "integer"},
        m={"element": "markdown"},
    )
    assert refused(body, a="5", b=1, c="24.11.2026", d="y", e="x", m="x", z=1).split("; ") == [
        '"m": is only read and takes no answer',
        '"z": is not asked for',
        "there are a, b, c, d, e, f",
        '"f": is missing',
        "it must be a whole number",
        '"a": must be a number',
        '"b": must be true or false',
        '"c": must be a date such as 2026-11-24',
        '"d": must be one of "x", 2',
        '"e": this is shorter than 3 characters',
    ]


def test_a_refusal_never_repeats_what_was_answered():
    body = form(pin={"element": "password", "minLength": 30, "pattern": "^x", "enum": ["q"], "format": "email"})
    assert "hunter2" not in refused(body, pin="hunter2")


def test_a_long_refusal_is_cut():
    body = form(**{f"k{n}": {"element": "number"} for n in range(100)})
    assert refused(body, **{f"k{n}": "x" for n in range(100)}).endswith("; and 80 more")


@pytest.mark.parametrize("response", [b"[]", b'"x"', b"null"])
def test_an_answer_is_an_object(response):
    with pytest.raises(errors.AnswerRefused, match="must be an object"):
        forms.answer(encoded(MESSAGE), response)


def test_an_answer_may_be_written_on_several_lines():
    assert forms.answer(encoded(REQUEST), b' {\n"string":\r\n"\xc3\xa4" }\n') == '{"string":"ä","OK":true}'.encode()


@pytest.mark.parametrize("number", ["5", "5.0", "-1e3", "123456789012345678901234567890", "0.1000"])
def test_a_number_stays_as_it_was_written(number):
    body = form(a={"element": "number"})
    assert forms.answer(encoded(body), b'{"a":%s}' % number.encode()) == b'{"a":%s}' % number.encode()


def test_keys_may_hold_blanks_and_anything_else():
    key = 'Ihr "Name"\n~1/$ref'
    body = {"properties": {key: {"element": "string"}}, "required": [key]}
    assert answered(body, **{key: "x"}) == {key: "x"}
    assert refused(body).startswith(json.dumps(key))


# -- defaults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "completed"),
    [
        ({"element": "number", "default": 5}, {"a": 5}),
        ({"element": "number", "default": "5"}, {}),
        ({"element": "number", "default": None}, {}),
        ({"element": "string", "type": ["string", "null"], "default": None}, {}),
        ({"element": "toggle", "default": False}, {"a": False}),
        ({"element": "time", "default": "12:30"}, {"a": "12:30"}),
        ({"element": "time", "default": ""}, {}),
        ({"element": "string", "default": "x", "minLength": 2}, {}),
        ({"element": "dropdown", "enum": ["x"], "default": "x"}, {"a": "x"}),
        ({"element": "dropdown", "enum": ["x"], "default": "y"}, {}),
        ({"element": "markdown", "default": "text"}, {}),
    ],
)
def test_an_unanswered_key_takes_its_default_if_that_is_a_good_answer(said, completed):
    assert answered(form(a=said)) == completed
    assert answered(form(a=said), **completed) == completed


def test_a_default_gives_way_to_an_answer():
    assert answered(form(a={"element": "number", "default": 5}), a=6) == {"a": 6}


def test_a_default_does_for_what_is_required_and_a_prefill_does_not():
    assert answered(form("a", a={"element": "number", "default": 5})) == {"a": 5}
    assert refused(form("a", a={"element": "number", "default": "5"})) == '"a": is missing; it must be a number'


# -- buttons --------------------------------------------------------------------------------------------------------


def test_the_button_that_is_pressed_is_in_the_answer_and_others_are_not():
    assert answered(APPROVAL, reject=True, approve=False, reason="no") == {"reject": True, "reason": "no"}


def test_a_button_with_its_own_list_replaces_what_is_required():
    assert answered(APPROVAL, approve=True) == {"approve": True}
    assert refused(APPROVAL, reject=True) == '"reason": is missing; it must be a text'


def test_a_button_may_itself_be_required():
    body = form("approve", approve={"element": "submit"}, reject={"element": "submit"})
    assert answered(body, approve=True) == {"approve": True}
    assert "approve" in refused(body, reject=True)


@pytest.mark.parametrize("response", [{}, {"reject": False}, {"approve": False, "reject": False}])
def test_which_of_several_buttons_is_pressed_must_be_said(response):
    assert refused(APPROVAL, reason="x", **response).startswith(
        '"approve": no button is pressed; send true for "approve" or "reject"'
    )


def test_a_button_that_is_pressed_by_default_need_not_be_named():
    body = form(a={"element": "submit"}, b={"element": "submit", "default": True})
    assert answered(body) == {"b": True}
    assert answered(body, a=True) == {"a": True}
    assert "no button is pressed" in refused(body, b=False)
    assert "no button is pressed" in refused(form(a={"element": "submit"}, b={"element": "submit", "default": "yes"}))


def test_only_one_button_can_be_pressed():
    assert refused(APPROVAL, approve=True, reject=True) == '"reject": is pressed beside "approve", and only one can be'


def test_a_button_is_pressed_by_true_alone():
    assert refused(MESSAGE, OK="yes").startswith('"OK": must be true')
    assert refused(MESSAGE, OK=False).startswith('"OK": no button is pressed')


def test_a_form_without_buttons_is_answered_as_well():
    assert answered(form(a={"element": "string"}), a="x") == {"a": "x"}
    assert answered({"properties": {}}) == {}


# -- elements -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "good", "bad"),
    [
        ({"element": "string"}, ["", "x"], [1, None, True, ["x"]]),
        ({"element": "password"}, ["x"], [1]),
        ({"element": "textarea", "maxLength": 3}, ["a\nb"], ["a\nbc", 1]),
        ({"element": "number"}, [0, 1.5, -3], ["5", True, None]),
        ({"element": "number", "type": "integer", "minimum": 1}, [1, 2.0], [1.5, 0]),
        ({"element": "number", "enum": [1, 2]}, [1], [3]),
        ({"element": "toggle"}, [True, False], ["true", 0, None]),
        (
            {"element": "date"},
            ["2026-11-24", "2024-02-29"],
            ["2026-02-29", "20261124", "2026-W01-1", "", "２０２６-11-24"],
        ),
        (
            {"element": "time"},
            ["12:30", "12:30:59", "12:30:00.123", "12:30Z", "12:30:00+01:00", "00:00:00-0330"],
            ["24:00", "12:60", "12", "12:30:60", "12:30:00+25:00", " 12:30", "12:30\n", ""],
        ),
        ({"element": "string", "format": "time"}, ["12:30:00"], ["noon"]),
        (
            {"element": "datetime"},
            ["2026-11-24T12:30:00+01:00", "2026-11-24 12:30", "2026-11-24t12:30:00z", "2026-11-24T12:30:00.000001"],
            ["2026-11-24", "2026-13-24T12:30", "2026-11-24_12:30", "12:30"],
        ),
        ({"element": "string", "format": "datetime"}, ["2026-11-24T12:30"], ["x"]),
        ({"element": "string", "format": "email"}, ["a@b.example"], ["x"]),
        (
            {"element": "dropdown", "enum": ["a", 1, None, {"x": 1}]},
            ["a", 1, None, {"x": 1}],
            ["b", True, "1", {"x": 2}],
        ),
        ({"element": "dropdown", "enum": [{"value": "a", "label": "A"}]}, ["a"], ["A", {"value": "a", "label": "A"}]),
        ({"element": "dropdown", "options": [{"value": 1, "label": "one"}, 2]}, [1, 2], ["one", 3]),
        (
            {"element": "dropdown", "oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": None}]},
            ["a", "b"],
            ["A"],
        ),
        ({"element": "string", "$ref": "#/$defs/name"}, ["abc"], ["ab"]),
    ],
)
def test_an_element_takes_what_it_asks_for(said, good, bad):
    body = {**form(a=said), "$defs": {"name": {"minLength": 3}}}
    for value in good:
        assert answered(body, a=value) == {"a": value}
    for value in bad:
        assert refused(body, a=value).startswith('"a":')


def test_what_the_whole_form_says_counts_too():
    body = form(a={"element": "toggle"}, b={"element": "string"}) | {"dependentRequired": {"a": ["b"]}}
    assert answered(body, a=True, b="x") == {"a": True, "b": "x"}
    assert "b" in refused(body, a=True)


# -- any form -------------------------------------------------------------------------------------------------------

VALUES = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.lists(st.integers(), max_size=1)
    | st.sampled_from(["", "a", "b", "12:30", "2026-11-24", "2026-11-24 12:30"])
)  # fmt: skip
KEYS = st.sampled_from(["a", "b c", "", "d", "ok", "no"])
PROPERTIES = st.fixed_dictionaries(
    {
        "element": st.sampled_from(
            ["string", "password", "number", "toggle", "time", "date", "datetime", "markdown", "submit"]
        )
    },
    optional={"default": VALUES, "order": st.integers(), "label": st.text(max_size=3)},
) | st.fixed_dictionaries(
    {"element": st.just("dropdown"), "enum": st.lists(VALUES, min_size=1, max_size=3)}, optional={"default": VALUES}
)
BODIES = st.dictionaries(KEYS, PROPERTIES, max_size=6)


@st.composite
def bodies(draw):
    properties = draw(BODIES)
    answerable = sorted(key for key, said in properties.items() if said["element"] != "markdown")
    lists = st.lists(st.sampled_from(answerable), max_size=2) if answerable else st.just([])
    for said in properties.values():
        if said["element"] == "submit" and draw(st.booleans()):
            said["required"] = draw(lists)
    return {"properties": properties, "required": draw(lists)}


def naively_good(said, value):
    kind = type(value).__name__
    text = {
        "time": r"\d\d:\d\d",
        "date": r"\d{4}-\d\d-\d\d",
        "datetime": r"\d{4}-\d\d-\d\d \d\d:\d\d",
    }
    match said["element"]:
        case "string" | "password":
            return kind == "str"
        case "number":
            return kind in ("int", "float")
        case "toggle":
            return kind == "bool"
        case "submit":
            return value is True
        case "dropdown":
            return any(value == choice and (kind == "bool") == isinstance(choice, bool) for choice in said["enum"])
        case element:
            return kind == "str" and element in text and re.fullmatch(text[element], value) is not None


def naively_completed(body, response):
    """The answer as it is to be recorded, or None if it is none."""
    properties = body["properties"]
    submits = [key for key, said in properties.items() if said["element"] == "submit"]
    if any(not isinstance(response[key], bool) for key in submits if key in response):
        return None
    whole = {key: value for key, value in response.items() if not (key in submits and value is False)}
    if not any(key in response for key in submits):
        default = submits if len(submits) == 1 else [key for key in submits if properties[key].get("default") is True]
        whole |= dict.fromkeys(default if len(default) == 1 else [], True)
    pressed = [key for key in submits if key in whole]
    if len(pressed) != min(1, len(submits)):
        return None
    for key, said in properties.items():
        default = said.get("default")
        if key not in whole and said["element"] != "submit" and default is not None and naively_good(said, default):
            whole[key] = default
    required = properties[pressed[0]].get("required", body["required"]) if pressed else body["required"]
    good = all(key in properties and naively_good(properties[key], value) for key, value in whole.items())
    return whole if good and set(required) <= whole.keys() else None


def compared(value):
    return json.dumps(value, sort_keys=True)


@given(bodies(), st.dictionaries(KEYS | st.just("other"), VALUES, max_size=3))
def test_any_answer_is_judged_and_completed_as_a_naive_reading_of_the_form_would(body, response):
    text = forms.checked(encoded(body))
    assert forms.checked(text) == text
    expected = naively_completed(body, response)
    try:
        whole = forms.answer(text, encoded(response))
    except errors.AnswerRefused:
        assert expected is None
        return
    assert compared(json.loads(whole)) == compared(expected)
    assert forms.answer(text, whole) == whole, "a completed answer is stable"


@given(bodies(), st.data())
def test_answers_that_fit_are_mostly_found(body, data):
    """The same, with answers made for the form, so that most are taken."""
    response = {}
    for key, said in body["properties"].items():
        value = data.draw(VALUES | st.just(True))
        if naively_good(said, value):
            response[key] = value
    expected = naively_completed(body, response)
    assume(expected is not None)
    whole = forms.answer(encoded(body), encoded(response))
    assert compared(json.loads(whole)) == compared(expected)
    assert forms.answer(encoded(body), whole) == whole
