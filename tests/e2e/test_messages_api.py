"""What flows ask people: listed, answered once over HTTP, on the command line and at a terminal."""

import concurrent.futures
import json
import os
import pty
import subprocess
import sys

import pytest

from tests.support.daemons import until

ASKS = """
FORM = {
    'type': 'object',
    'properties': {
        'about': {'element': 'markdown', 'description': 'Please fill in', 'order': 1},
        'name': {'element': 'string', 'label': 'Your name', 'order': 2},
        'count': {'element': 'number', 'default': 3, 'order': 3},
        'sure': {'element': 'toggle', 'order': 4},
        'size': {'element': 'dropdown', 'enum': ['small', 'large'], 'order': 5},
        'secret': {'element': 'password', 'order': 6},
        'go': {'element': 'submit', 'label': 'Go on', 'order': 7},
        'stop': {'element': 'submit', 'required': [], 'order': 8},
    },
    'required': ['name'],
}

def handler(system, this, inputs):
    response = this.message(inputs.get('subject', 'Please answer'), body=FORM).get('response')
    this.set_output('got', {**response, 'secret': len(response.get('secret', ''))})
"""
OK = """
def handler(system, this):
    this.message('Ready?', message='**Ready?**')
    return this.success('was ready')
"""


@pytest.fixture(scope="module")
def daemon(workshop):
    workshop.flow("asks", ASKS)
    workshop.flow("ok", OK)
    return workshop.daemon


@pytest.fixture
def asked(daemon):
    """Run a flow that asks; returns the execution's id and the message."""

    def asked(flow="asks", **inputs):
        execution = daemon.client.run(flow, inputs)["id"]

        def found():
            return [m for m in daemon.client.messages(pending=True) if m["execution_id"] == execution]

        return execution, until(found, "it asks")[0]

    yield asked
    for message in daemon.client.messages(pending=True):
        daemon.client.cancel(message["execution_id"])


@pytest.fixture
def ask(daemon):
    def ask(method, path, body=None):
        return daemon.raw(method, "/api/v1" + path, body, {"Authorization": f"Bearer {daemon.token()}"})

    return ask


def command(daemon, *args):
    return [sys.executable, "-m", "headrace", "--state", str(daemon.state), *map(str, args)]


@pytest.fixture
def headrace(daemon):
    def run(*args):
        done = subprocess.run(command(daemon, *args), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_message_is_listed_shown_and_answered(daemon, ask, asked):
    execution, message = asked(subject="Which one?")
    assert (message["subject"], message["status"], message["response"]) == ("Which one?", "pending", None)
    assert ask("GET", f"/messages/{message['id']}")[1] == message
    status, answered, _ = ask(
        "POST", f"/messages/{message['id']}/response", {"name": "Ada", "sure": True, "secret": "hush-5", "go": True}
    )
    assert (status, answered["status"], answered["answered_by"]) == (200, "answered", "admin")
    assert answered["response"] == {"name": "Ada", "sure": True, "secret": "[protected]", "go": True, "count": 3}
    got = daemon.client.wait(execution, 20)["output_value"]["got"]
    assert got == {"name": "Ada", "sure": True, "secret": 6, "go": True, "count": 3}
    assert message["id"] not in [m["id"] for m in ask("GET", "/messages?pending=true")[1]["items"]]
    assert message["id"] in [m["id"] for m in ask("GET", "/messages")[1]["items"]]
    assert "hush-5" not in json.dumps(daemon.lines())


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, '"name"'),
        ({"name": "x", "go": True, "count": "many"}, 422, '"count": must be a number'),
        ({"name": "x", "go": True, "nonsense": 1}, 422, '"nonsense": is not asked for'),
        ([1], 422, "must be an object"),
        (b"{", 400, "not valid JSON"),
    ],
)
def test_an_answer_that_does_not_fit_says_why_and_leaves_the_message_open(ask, asked, body, status, words):
    _, message = asked()
    found, problem, _ = ask("POST", f"/messages/{message['id']}/response", body)
    assert found == status and words in problem["detail"]
    assert ask("GET", f"/messages/{message['id']}")[1]["status"] == "pending"


def test_of_many_answers_at_once_one_counts(daemon, ask, asked):
    execution, message = asked()

    def answer(number):
        return ask("POST", f"/messages/{message['id']}/response", {"name": f"n{number}", "go": True})

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, range(12)))
    assert sorted(status for status, _, _ in answers) == [200] + [409] * 11
    (winner,) = [body for status, body, _ in answers if status == 200]
    assert daemon.client.wait(execution, 20)["output_value"]["got"]["name"] == winner["response"]["name"]


def test_a_message_of_an_ended_execution_takes_no_answer(daemon, ask, asked):
    execution, message = asked()
    daemon.client.cancel(execution)
    daemon.client.wait(execution, 20)
    status, problem, _ = ask("POST", f"/messages/{message['id']}/response", {"name": "x", "go": True})
    assert status == 409 and "needs no answer" in problem["detail"]
    assert ask("GET", f"/messages/{message['id']}")[1]["status"] == "withdrawn"
    assert ask("GET", "/messages/nothing")[0] == 404
    assert ask("GET", "/messages?pending=perhaps")[0] == 400


def test_a_message_waits_through_a_kill(daemon, ask, asked):
    _, message = asked(subject="Still there?")
    daemon.kill()
    daemon.start()
    found = ask("GET", f"/messages/{message['id']}")[1]
    assert found.get("subject") == "Still there?", found


def test_answers_are_typed_as_the_form_means_them(daemon, headrace, asked):
    execution, message = asked()
    assert message["id"] in headrace("messages")[1]
    _, out, _ = headrace("messages", "show", message["id"])
    assert "Your name" in out and "required" in out and "dropdown" in out
    status, _, err = headrace("answer", message["id"], "name=1", "count=many", "go")
    assert (status, "must be a number" in err) == (2, True)
    status, out, _ = headrace("answer", "latest", "name=1", "count=7", "sure=yes", "size=large", "go", "--json")
    assert (status, json.loads(out)["status"]) == (0, "answered")
    got = daemon.client.wait(execution, 20)["output_value"]["got"]
    assert got == {"name": "1", "count": 7, "sure": True, "size": "large", "go": True, "secret": 0}
    assert headrace("answer", message["id"], "name=1", "go")[0] == 1
    assert headrace("answer", "nothing", "name=1")[0] == 3
    assert message["id"] not in headrace("messages")[1]
    assert message["id"] in headrace("messages", "--all")[1]


def test_a_form_with_a_button_alone_needs_no_values(daemon, headrace, asked):
    execution, message = asked("ok")
    assert headrace("answer", message["id"])[0] == 0
    assert daemon.client.wait(execution, 20)["message"] == "was ready"


def test_a_form_with_fields_does_where_nobody_can_be_asked(headrace, asked):
    _, message = asked()
    status, _, err = headrace("answer", message["id"])
    assert (status, "the form asks for name, count" in err) == (2, True)


def test_at_a_terminal_every_field_is_asked_for_and_passwords_stay_hidden(daemon, asked):
    execution, message = asked()
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command(daemon, "answer", message["id"]), stdin=follower, stdout=follower, stderr=follower,
        env={**os.environ, "TERM": "dumb", "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(follower)
    seen = ""
    typed = [("Your name", "Ada"), ("count", "many"), ("count", "4"), ("sure", "y"), ("size", "2"),
             ("secret", "hush-6"), ("Press", "Go on")]  # fmt: skip
    for label, text in typed:
        part = ""
        while f"{label}" not in part or not part.rstrip(" ").endswith(":"):
            part += os.read(leader, 65536).decode()
        seen += part
        os.write(leader, text.encode() + b"\n")
    try:
        while chunk := os.read(leader, 65536):
            seen += chunk.decode()
    except OSError:  # Linux says so when the other side is closed
        pass
    assert process.wait(20) == 0
    os.close(leader)
    assert "Please fill in" in seen and "that is not a number" in seen and "1 small, 2 large" in seen
    assert "hush-6" not in seen
    got = daemon.client.wait(execution, 20)["output_value"]["got"]
    assert got == {"name": "Ada", "count": 4, "sure": True, "size": "large", "secret": 6, "go": True}
