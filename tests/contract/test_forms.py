"""Forms: each element, defaults, buttons, and answers that will not do."""

from __future__ import annotations

import pytest

ASK = "return this.message('Form', body=inputs['form']).get('response')"


def form(*required, **properties):
    """A form of these properties, with a button."""
    return {
        "type": "object",
        "properties": {**properties, "OK": {"element": "submit", "type": "boolean", "label": "OK", "order": 99}},
        "required": list(required),
    }


def string(**more):
    return {"element": "string", "type": "string", **more}


@pytest.fixture
def answer(workshop):
    """Ask a form, try answers, and return the response the flow got for the last, which has to be taken."""

    def answer(form, *answers, refused=()):
        execution = workshop.start(ASK, form=form)
        message = workshop.asked(execution)["id"]
        for wrong in refused:
            status, problem = workshop.answer(message, wrong)
            assert status == 422, (wrong, status, problem)
        for right in answers:
            status, problem = workshop.answer(message, right)
            assert status == 200, (right, problem)
        response = workshop.ended(execution)["output_value"]
        response.pop("OK", None)
        return response

    return answer


@pytest.mark.contract("5.message.body", "5.form.attributes")
def test_people_get_the_form_as_it_was_given(workshop):
    given = form(
        "name",
        name=string(label="Your name", description="As in your passport", example="Ada", default="nobody", order=1),
        day={"element": "date", "type": "string", "format": "date", "label": "Day", "order": 2},
    )
    execution = workshop.start(ASK, form=given)
    message = workshop.asked(execution)
    assert message["body"] == given
    assert workshop.answer(message["id"], {"day": "2026-11-24"})[0] == 200
    assert workshop.ended(execution)["output_value"]["name"] == "nobody"


@pytest.mark.contract("5.element.string", "5.element.textarea", "5.element.number", "5.element.toggle")
@pytest.mark.contract("5.element.date", "5.element.time", "5.element.datetime", "5.element.dropdown")
@pytest.mark.parametrize(
    ("element", "right", "wrong"),
    [
        ({"element": "string", "type": "string"}, ["", "text", "ä\n"], [1, None, True, ["a"], {}]),
        ({"element": "textarea", "type": "string"}, ["two\nlines\n", ""], [1, None, False]),
        ({"element": "number", "type": "number"}, [0, -1, 1.5, 10**12], ["1", True, None, [1]]),
        ({"element": "number", "type": "integer"}, [0, 7], [1.5, "7", True]),
        ({"element": "number", "type": "number", "minimum": 1, "maximum": 3}, [1, 3], [0, 4]),
        ({"element": "toggle", "type": "boolean"}, [True, False], ["true", 1, None]),
        (
            {"element": "date", "type": "string", "format": "date"},
            ["2026-11-24", "2024-02-29"],
            ["2026-02-30", "24.11.2026", "", 1],
        ),
        (
            {"element": "time", "type": "string", "format": "time"},
            ["12:30:00", "12:30:00+01:00", "00:00:00Z", "23:59:59-05:30"],
            ["25:00:00", "noon", "", 12],
        ),
        (
            {"element": "datetime", "type": "string", "format": "date-time"},
            ["2026-11-24T12:30:00+01:00", "2026-11-24T12:30:00Z"],
            ["2026-11-24", "tomorrow", "2026-13-01T00:00:00Z", 1],
        ),
        ({"element": "dropdown", "type": "string", "enum": ["a", "b"]}, ["a", "b"], ["c", "", 1, None, ["a"]]),
        ({"element": "string", "type": "string", "minLength": 2, "pattern": "^x"}, ["xy"], ["x", "yx"]),
    ],
)
def test_an_element_takes_its_type_and_nothing_else(workshop, answer, element, right, wrong):
    asked = form("it", it=element)
    assert answer(asked, {"it": right[0]}, refused=[{"it": each} for each in wrong]) == {"it": right[0]}
    for good in right[1:]:
        assert answer(asked, {"it": good}) == {"it": good}


@pytest.mark.contract("5.element.password")
def test_a_password_is_true_for_the_flow_and_shown_to_nobody(workshop):
    password = "correct horse battery staple"
    asked = form("it", it={"element": "password", "type": "string", "label": "Password"}, open=string())
    execution = workshop.start(
        "response = this.message('Log in', body=inputs['form']).get('response')\n"
        "this.log(response)\nprint(response['it'])\nthis.set_output('response', response)\n"
        "this.set_output('length', len(response['it']))\nthis.flow('child', response)\n"
        "child = this.flow('child', got=response['it'])\n"
        "return None if child.get('output_value')['got']['got'] == response['it'] else this.error('not the true one')",
        form=asked,
    )
    message = workshop.asked(execution)["id"]
    assert workshop.answer(message, {"it": 7})[0] == 422
    status, answered = workshop.answer(message, {"it": password, "open": "readable"})
    assert status == 200
    ended = workshop.ended(execution)
    assert ended["status"] == "ENDED_SUCCESS", ended["message"]
    assert ended["output_value"]["length"] == len(password)
    shown = workshop.api("GET", f"/messages/{message}")
    assert shown["response"]["open"] == "readable"
    assert password not in str([answered, shown, workshop.api("GET", "/messages")])
    family = [execution, *(child["id"] for child in workshop.children(execution))]
    for each in family:
        assert password not in workshop.seen_by_people(each)
    assert password.encode() not in b"".join(
        segment.read_bytes() for segment in (workshop.daemon.state / "records").glob("*.jsonl")
    )
    later = "return len(system.message(inputs['id']).wait().get('response')['it'])"
    assert workshop.value(later, id=message) == len(password)


@pytest.mark.contract("5.element.markdown")
def test_markdown_is_shown_and_takes_no_answer(answer):
    asked = form("it", note={"element": "markdown", "description": "**Read this**"}, it=string())
    assert answer(asked, {"it": "x"}, refused=[{"it": "x", "note": "scribbled"}]) == {"it": "x"}


@pytest.mark.contract("5.element.submit")
def test_the_button_that_was_pressed_is_in_the_answer(workshop):
    asked = form(it=string())
    asked["properties"]["Cancel it"] = {"element": "submit", "type": "boolean", "label": "Cancel"}
    for pressed in ("OK", "Cancel it"):
        assert workshop.answered(ASK, {"it": "x", pressed: True}, form=asked) == {"it": "x", pressed: True}


@pytest.mark.contract("5.element.submit")
def test_two_buttons_cannot_be_pressed_at_once(answer):
    asked = form()
    asked["properties"]["other"] = {"element": "submit", "type": "boolean"}
    assert answer(asked, {"other": True}, refused=[{"OK": True, "other": True}]) == {"other": True}


@pytest.mark.contract("5.form.required", "5.answer.refused")
def test_what_is_required_has_to_be_answered(workshop):
    execution = workshop.start(ASK, form=form("a", "b", a=string(), b=string(), c=string()))
    message = workshop.asked(execution)["id"]
    status, problem = workshop.answer(message, {"a": "x", "OK": True})
    assert status == 422
    assert "b" in str(problem)
    assert workshop.answer(message, {"a": "x", "b": "", "OK": True})[0] == 200
    assert workshop.ended(execution)["output_value"] == {"a": "x", "b": "", "OK": True}


@pytest.mark.contract("5.form.submit-required")
def test_a_button_may_require_other_keys_than_the_form(workshop):
    asked = form("a", a=string(), why=string())
    asked["properties"]["reject"] = {"element": "submit", "type": "boolean", "required": ["why"]}
    asked["properties"]["skip"] = {"element": "submit", "type": "boolean", "required": []}
    execution = workshop.start(ASK, form=asked)
    message = workshop.asked(execution)["id"]
    assert workshop.answer(message, {"reject": True, "a": "x"})[0] == 422
    assert workshop.answer(message, {"OK": True, "why": "x"})[0] == 422
    assert workshop.answer(message, {"reject": True, "why": "not now"})[0] == 200
    assert workshop.ended(execution)["output_value"] == {"reject": True, "why": "not now"}
    assert workshop.answered(ASK, {"skip": True}, form=asked) == {"skip": True}


@pytest.mark.contract("5.form.required-button")
def test_a_button_may_itself_be_required(workshop):
    asked = form("sign", it=string())
    asked["properties"]["sign"] = {"element": "submit", "type": "boolean", "label": "Sign"}
    execution = workshop.start(ASK, form=asked)
    message = workshop.asked(execution)["id"]
    assert workshop.answer(message, {"it": "x", "OK": True})[0] == 422
    assert workshop.answer(message, {"it": "x", "sign": True})[0] == 200
    assert workshop.ended(execution)["output_value"] == {"it": "x", "sign": True}


@pytest.mark.contract("5.form.defaults")
def test_what_was_not_answered_takes_its_default(answer):
    asked = form(
        "a",
        a=string(default="from the form"),
        n={"element": "number", "type": "number", "default": 0},
        t={"element": "toggle", "type": "boolean", "default": False},
        d={"element": "dropdown", "type": "string", "enum": ["x", "y"], "default": "y"},
        e=string(default=""),
    )
    assert answer(asked, {"OK": True}) == {"a": "from the form", "n": 0, "t": False, "d": "y", "e": ""}


@pytest.mark.contract("5.form.defaults")
def test_an_answer_wins_over_a_default(answer):
    assert answer(form(a=string(default="default")), {"a": ""}) == {"a": ""}


@pytest.mark.contract("5.form.prefill", "5.form.absent")
def test_a_default_that_would_be_no_answer_is_only_a_prefill(answer):
    asked = form(
        null=string(default=None),
        wrong={"element": "number", "type": "number", "default": "many"},
        choice={"element": "dropdown", "type": "string", "enum": ["x"], "default": "z"},
        none=string(),
    )
    assert answer(asked, {"OK": True}) == {}


@pytest.mark.contract("5.form.prefill", "5.form.required")
def test_a_prefill_does_not_fulfil_what_is_required(answer):
    asked = form("it", it=string(default=None))
    assert answer(asked, {"it": "x"}, refused=[{"OK": True}]) == {"it": "x"}


@pytest.mark.contract("5.form.blanks")
def test_names_of_properties_may_be_anything_people_read(answer):
    asked = form(
        "How many, please?", **{"How many, please?": {"element": "number", "type": "number"}, "ä.b/c": string()}
    )
    said = {"How many, please?": 3, "ä.b/c": "x"}
    assert answer(asked, said) == said


@pytest.mark.contract("5.message.body")
@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"type": "object", "properties": {"a": {"element": "hologram"}}},
        {"type": "array", "properties": {"a": {"element": "string"}}},
        {"type": "object", "properties": {"a": {"element": "string"}}, "required": ["b"]},
        {"type": "object", "properties": {"a": {"element": "dropdown"}}},
    ],
)
def test_a_form_nobody_could_answer_is_refused(refused, wrong):
    refused("this.message('Form', body=inputs['form'])", "InvalidInputError", form=wrong)
