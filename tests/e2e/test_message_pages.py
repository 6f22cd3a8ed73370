"""What flows ask, answered on pages of a real daemon by a browser without script; conversions by themselves."""

import json
import re

import pytest

from headrace.daemon import fields
from headrace.engine.state import forms
from tests.support.browser import Browser, Forms
from tests.support.daemons import until

ONE_OR_TWO = [{"const": 1, "title": "one"}, {"const": 2, "title": "two"}]
FORM = {
    "type": "object",
    "properties": {
        "about": {"element": "markdown", "description": "Two lines\n<b>of text</b>", "order": 1},
        "a name": {"element": "string", "label": "A name", "example": "Ada", "order": 2},
        "size": {"element": "number", "type": "integer", "minimum": 1, "order": 3},
        "fast": {"element": "toggle", "default": True, "order": 4},
        "where": {
            "element": "dropdown",
            "oneOf": [{"const": 1, "title": "one"}, {"const": 2, "title": "two"}],
            "order": 5,
        },
        "when": {"element": "datetime", "order": 6},
        "at": {"element": "time", "order": 7},
        "notes": {"element": "textarea", "default": None, "order": 8},
        "pin": {"element": "password", "order": 9},
        "form_token": {"element": "string", "order": 10},
        "go": {"element": "submit", "label": "Go", "required": ["a name"], "order": 11},
        "stop": {"element": "submit", "label": "Stop", "required": [], "order": 12},
    },
}
TYPED = {"a name": "Ada", "size": "3", "where": "1", "when": "2026-01-31T08:30", "at": "08:30", "notes": "x\r\ny"}
SAID = {
    "a name": "Ada",
    "size": 3,
    "fast": True,
    "where": 2,
    "when": "2026-01-31T08:30",
    "at": "08:30",
    "notes": "x\ny",
}


@pytest.fixture
def question(workshop):
    """Ask with the form above and return the execution that waits and the message."""
    workshop.flow("asks", f"import json\nFORM = json.loads({json.dumps(FORM)!r})\n" + ASKS)
    execution = workshop.daemon.client.run("asks")["id"]
    return execution, until(lambda: asked(workshop.daemon, execution), "it asks")


ASKS = """
def handler(system, this):
    return this.message('All of it', body=FORM).get('response')
"""


def asked(daemon, execution):
    headers = {"Authorization": f"Bearer {daemon.token()}"}
    pending = daemon.raw("GET", "/api/v1/messages?pending=true", headers=headers)[1]["items"]
    return next((message["id"] for message in pending if message["execution_id"] == execution), None)


@pytest.fixture
def browser(workshop):
    return Browser(workshop.daemon.url).logged_in(workshop.daemon.token())


def test_every_element_arrives_as_what_it_stands_for():
    form = forms.read(json.dumps(FORM).encode())
    said = fields.answered(form, TYPED | {"fast": "true", "go": "true", "form_token": "the session's"})
    assert said == SAID | {"go": True}
    assert fields.answered(form, {"stop": "true"}) == {"fast": False, "stop": True}
    assert fields.answered(form, {"size": "many", "where": "9"}) == {"size": "many", "fast": False}
    assert fields.answered(form, {"form_token of the form": "mine"})["form_token"] == "mine"


def test_a_form_is_shown_answered_and_shown_with_its_answer(workshop, browser, question):
    execution, message = question
    assert "All of it" in browser.get("/messages")
    assert f'href="/messages/{message}"' in browser.get(f"/executions/{execution}?still")
    page = browser.get(f"/messages/{message}")
    assert "&lt;b&gt;of text&lt;/b&gt;" in page and "<script>" not in page
    shown = browser.submit(page, TYPED | {"pin": "hush-hush-1", "fast": "true"})
    assert "Answered by" in shown and "hush-hush-1" not in shown and "[protected]" in shown
    ended = workshop.daemon.client.execution(execution, wait_s=20)
    assert {key: value for key, value in ended["output_value"].items() if key != "pin"} == SAID | {"go": True}
    assert ended["output_value"]["pin"] == "[masked]"


def test_an_answer_that_cannot_be_taken_comes_back_with_what_was_typed_but_the_password(browser, question):
    page = browser.get(f"/messages/{question[1]}")
    action, fields, _ = next(form for form in Forms(page).found if "size" in form[1])
    wrong = {"size": "0", "notes": "keep me", "pin": "hush-hush-2", "go": "true"}
    status, text = browser.send(action, fields | wrong)
    assert status == 422 and "keep me" in text and "hush-hush-2" not in text
    assert re.search(r'role="alert"', text)


def test_who_is_late_sees_who_answered(workshop, browser, question):
    page = browser.get(f"/messages/{question[1]}")
    headers = {"Authorization": f"Bearer {workshop.daemon.token()}"}
    path = f"/api/v1/messages/{question[1]}/response"
    assert workshop.daemon.raw("POST", path, {"stop": True}, headers)[0] == 200
    action, fields, _ = next(form for form in Forms(page).found if "size" in form[1])
    status, text = browser.send(action, fields | {"stop": "true"})
    assert status == 409 and "was answered by admin" in text


def test_nobody_answers_without_the_pages_own_token(browser, question):
    status, _ = browser.send(f"/messages/{question[1]}", {"stop": "true"})
    assert status == 403
