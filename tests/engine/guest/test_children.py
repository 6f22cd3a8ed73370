"""Asking for children: what is an input, what is not, and what goes to the daemon."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.guest import children, flow_api
from tests.engine.guest.conftest import ENDED, Failure


def args(inputs=None, mode="ALL_SUCCEEDED", name=None, **more):
    return {"inputs": inputs or {}, "name": name, "mode": mode, **more}


@pytest.fixture(autouse=True)
def ended(daemon):
    for kind in ("flow", "task", "connect", "script", "clone", "run"):
        daemon.answers(kind, ENDED)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda this: this.flow("x"), ("flow", "x", args())),
        (lambda this: this.flow("x", {"a": 1}, b=2), ("flow", "x", args({"a": 1, "b": 2}))),
        (lambda this: this.flow("x", inputs={"a": 1}, a=2), ("flow", "x", args({"a": 2}))),
        (lambda this: this.flow("x", input_value={"a": 1}), ("flow", "x", args({"a": 1}))),
        (
            lambda this: this.flow("x", inputs={"name": "n"}, name="shown"),
            ("flow", "x", args({"name": "n"}, name="shown")),
        ),
        (lambda this: this.flow("x", flow_name="y", self=1), ("flow", "x", args({"flow_name": "y", "self": 1}))),
        (lambda this: this.flow("x", run=False), ("flow", "x", args(mode="create"))),
        (lambda this: this.flow("x", wait=False), ("flow", "x", args(mode="start"))),
        (lambda this: this.flow("x", wait="FIRST_ENDED"), ("flow", "x", args(mode="FIRST_ENDED"))),
        (lambda this: this.flow("x", run=False, wait=False), ("flow", "x", args(mode="create"))),
        (lambda this: this.flow("x", init={"wait": False, "name": "n"}), ("flow", "x", args(mode="start", name="n"))),
        (lambda this: this.flow("x", init={"run": False}), ("flow", "x", args(mode="create"))),
        (lambda this: this.flow("x", init={"wait": False}, wait="ALL_ENDED"), ("flow", "x", args(mode="ALL_ENDED"))),
        (lambda this: this.task("rest", url="u"), ("task", "rest", args({"url": "u"}))),
        (lambda this: this.task("SMTP", from_="a", name_="b"), ("task", "SMTP", args({"from": "a", "name": "b"}))),
        (lambda this: this.task("SMTP", {"from_": "a"}), ("task", "SMTP", args({"from": "a"}))),
        (
            lambda this: this.flow("x", from_=1, name_=2, own_=3),
            ("flow", "x", args({"from": 1, "name_": 2, "own_": 3})),
        ),
        (lambda this: this.flow("x", {"from_": 1}), ("flow", "x", args({"from_": 1}))),
        (lambda this: this.connect("c", a=1), ("connect", "c", args({"a": 1}))),
        (lambda this: this.connect(connection_type="REST"), ("connect", "", args(connection_type="REST"))),
        (lambda this: this.connect(connector_type="REST"), ("connect", "", args(connection_type="REST"))),
        (lambda this: this.script("text", a=1), ("script", "", args({"a": 1}, text="text"))),
    ],
)
def test_a_child_is_asked_for_as_it_was_said(this, daemon, make, expected):
    make(this)
    assert daemon.call == expected


@pytest.mark.parametrize(
    "given",
    [
        {"protect_inputs": ["a"], "protect_outputs": ["b"], "retention_time": 60, "orphan": False},
        {"init": {"protect_inputs": ["a"], "protect_outputs": ["b"], "retention_time": 60, "orphan": False}},
        {
            "init": {"protect_inputs": "a", "orphan": True},
            "protect_outputs": "b",
            "retention_time": 60,
            "orphan": False,
        },
        {
            "inputs": {"protect_inputs": ["a"], "init": {"orphan": False}},
            "protect_outputs": ("b",),
            "retention_time": 60,
        },
    ],
)
def test_what_is_no_input_never_becomes_one_however_it_comes_in(this, daemon, given):
    this.task("REST", **given, url="u")
    protected = {"protect_inputs": ["a"], "protect_outputs": ["b"], "retention_time": 60, "orphan": False}
    assert daemon.call == ("task", "REST", args({"url": "u"}, init=protected))


def test_a_retention_for_ever_is_something_else_than_none_given(this, daemon):
    this.flow("x", retention_time=None)
    assert daemon.call[2]["init"] == {"retention_time": None}


def test_names_to_protect_add_up(this, daemon):
    this.flow("x", init={"protect_inputs": ["a"]}, protect_inputs=["b"])
    assert daemon.call[2]["init"] == {"protect_inputs": ["a", "b"]}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda this: this.flow("x", init={"protect_input": ["a"]}), "init has no 'protect_input'"),
        (lambda this: this.flow("x", init="orphan"), "init are a dict"),
        (lambda this: this.flow("x", inputs=[1]), "inputs are a dict"),
        (lambda this: this.flow("x", protect_inputs=7), "protect_inputs is a list of names"),
        (lambda this: this.flow("x", wait="soon"), "ALL_ENDED"),
        (lambda this: this.flow(""), "the name of a flow is a text"),
        (lambda this: this.connect(), "connect takes the name of a connection"),
        (lambda this: this.script(7), "a script is a text"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_and_asks_nothing(this, daemon, make, words):
    with pytest.raises(flow_api.InvalidInputError, match=words):
        make(this)
    assert daemon.calls == []


def test_a_record_stands_for_its_name(this, system, daemon):
    this.flow(system.flow("hello"))
    this.connect(system.connection("shop"))
    assert [call[:2] for call in daemon.calls] == [("flow", "hello"), ("connect", "shop")]


# -- templates -------------------------------------------------------------------------------------


def test_a_template_asks_nothing_and_its_clones_run_with_the_defaults(this, daemon):
    template = this.task("REST", url="u", method="get", save=False, run=False, wait=False, init={"orphan": False})
    assert daemon.calls == []
    assert template.get("type", "input_value") == ("TASK", {"url": "u", "method": "get"})
    child = template.clone(method="post")
    assert daemon.call == ("task", "REST", args({"url": "u", "method": "post"}, init={"orphan": False}))
    assert child.get("output_value") == {"n": 1}


def test_cloning_a_template_merges_init_and_leaves_the_template_as_it_was(this, daemon):
    template = this.flow("x", {"a": 1}, save=False, name="n", init={"orphan": False, "protect_inputs": ["a"]})
    template.clone(b=2, init={"protect_inputs": ["b"], "wait": False}, name="m")
    template.clone()
    first, second = (call[2] for call in daemon.calls)
    both = {"orphan": False, "protect_inputs": ["b"]}
    assert first == args({"a": 1, "b": 2}, "start", "m", init=both)
    assert second == args({"a": 1}, name="n", init={"orphan": False, "protect_inputs": ["a"]})


def test_a_template_can_be_made_of_a_template(this, daemon):
    this.connect("c", a=1, save=False).clone(b=2, save=False).clone(c=3, connection_type="REST")
    assert daemon.call == ("connect", "c", args({"a": 1, "b": 2, "c": 3}, connection_type="REST"))


def test_a_template_can_be_neither_run_nor_waited_for(this, daemon):
    template = this.flow("x", save=False)
    assert repr(template) == "Execution(template of flow 'x')"
    for use in (template.run, template.wait, template.cancel, lambda: template.get("status"), lambda: template.id):
        with pytest.raises(flow_api.InvalidInputError, match="clone"):
            use()
    assert daemon.calls == []


def test_cloning_a_stored_execution_is_the_daemons_business(this, daemon):
    child = this.flow("x")
    child.clone({"a": 1}, b=2, name="again", wait=False, init={"orphan": False})
    assert daemon.calls[1] == ("clone", "c1", args({"a": 1, "b": 2}, "start", "again", init={"orphan": False}))
    with pytest.raises(flow_api.InvalidInputError, match="only a template"):
        child.clone(save=False)


# -- wrappers --------------------------------------------------------------------------------------


def test_a_wrapped_child_is_created_and_given_to_the_wrapper(this, daemon):
    daemon.answers("task", {"id": "c9", "name": "REST", "type": "TASK"})
    wrapper = this.using("wrap", a=1).task("REST", url="u", wait="ALL_ENDED", name="shown")
    child = {"id": "c9", "name": "REST", "type": "TASK"}
    assert daemon.calls == [
        ("task", "REST", args({"url": "u"}, "create", "shown")),
        ("flow", "wrap", args({"a": 1, "child_id": "c9", "child": child}, "ALL_ENDED")),
    ]
    assert wrapper.id == "c1"


def test_one_wrapper_can_be_used_for_several_children(this, daemon):
    using = this.using("wrap", {"a": 1}, name="wrapping")
    using.flow("x", run=False)
    using.script("text", wait=False)
    wrappers = [call[2] for call in daemon.calls if call[1] == "wrap"]
    assert [(w["mode"], w["name"], w["inputs"]["a"]) for w in wrappers] == [
        ("create", "wrapping", 1),
        ("start", "wrapping", 1),
    ]
    with pytest.raises(flow_api.InvalidInputError, match="cannot be wrapped"):
        using.flow("x", save=False)


# -- starting and waiting --------------------------------------------------------------------------


def test_run_resume_and_the_rest_name_their_execution(this, system, daemon):
    child = system.execution("e1")
    daemon.answers("run", {**ENDED, "id": "e1"}).answers("wait", [{**ENDED, "id": "e1"}])
    assert child.run_async() is child
    assert child.run() is child
    assert child.resume() is child
    assert child.wait("ALL_ENDED", timeout=3) is child
    assert child.cancel() is child and child.pause() is child
    assert daemon.calls == [
        ("run", "", {"execution": "e1", "mode": "start"}),
        ("run", "", {"execution": "e1", "mode": "ALL_SUCCEEDED"}),
        ("run", "", {"execution": "e1", "mode": "start"}),
        ("wait", "", {"executions": ["e1"], "return_when": "ALL_ENDED", "timeout": 3}),
        ("cancel", "", {"execution": "e1"}),
        ("pause", "", {"execution": "e1"}),
    ]


def test_two_handles_of_one_execution_both_learn_its_end(this, system, daemon):
    one, two = system.execution("e1"), system.execution("e1")
    daemon.answers("wait", [{**ENDED, "id": "e1"}])
    assert this.wait_for(one, [two], return_when=system.return_when.ALL_ENDED) == [one]
    assert one.get("status") == two.get("status") == "ENDED_SUCCESS"
    assert len(daemon.calls) == 1


def test_waiting_for_nothing_asks_nothing(this, daemon):
    assert this.wait_for() == this.wait_for([]) == []
    assert daemon.calls == []


def test_a_failed_child_comes_with_the_exception(this, daemon):
    failed = {**ENDED, "status": "ENDED_ERROR", "output_value": None}
    daemon.answers("flow", Failure("DependencyFailedError", "flow 'x' ended ENDED_ERROR: no luck", failed))
    with pytest.raises(flow_api.DependencyFailedError) as caught:
        this.flow("x")
    assert caught.value.execution.get("status", "output_value") == ("ENDED_ERROR", {})
    assert repr(caught.value) == "DependencyFailedError(\"flow 'x' ended ENDED_ERROR: no luck\")"


@given(
    given_inputs=st.dictionaries(st.text(max_size=5).filter(lambda name: name != "init"), st.integers()),
    loose=st.dictionaries(st.sampled_from(["a", "b", "b_", "from_", "own_", "x"]), st.integers()),
)
def test_loose_keywords_win_and_nothing_gets_lost(given_inputs, loose):
    arguments = {"inputs": given_inputs, "input_value": None, "name": None, "run": True, "wait": True, "save": True}
    arguments |= {"init": None, "protect_inputs": None, "protect_outputs": None, "orphan": None}
    order = children.Order("flow", "x", {}).given(arguments | {"retention_time": children.UNSET}, loose)
    named = {"from" if name == "from_" else name: value for name, value in loose.items()}
    assert order.inputs == given_inputs | named
