"""What all task types share: names, inputs, refusals, schemas."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Annotated

import msgspec
import pytest

from headrace.engine import errors
from headrace.tasks import builtin, definition, registry
from tests.support.task_context import Context


class EchoInputs(definition.Inputs):
    word: Annotated[str, msgspec.Meta(description="what to say")]
    from_: Annotated[str | None, msgspec.Meta(description="who says it")] = msgspec.field(name="from", default=None)
    times: int = 1
    mode: str = "plain"


class EchoOutput(msgspec.Struct):
    said: str


async def _echo(inputs: EchoInputs, context: Context) -> EchoOutput:
    return EchoOutput(f"{inputs.from_ or 'someone'}: " + inputs.word * inputs.times)


def _definition(name: str = "ECHO", aliases: tuple[str, ...] = ("SAY",)) -> definition.TaskDefinition[EchoInputs]:
    return definition.TaskDefinition(
        name=name,
        summary="Say it again",
        inputs=EchoInputs,
        output=EchoOutput,
        run=_echo,
        idempotent=lambda inputs: inputs.times == 1,
        aliases=aliases,
        input_aliases={"text": "word"},
    )


@pytest.fixture
def echo() -> registry.Registry:
    return registry.of(_definition())


def _refused(echo: registry.Registry, text: str) -> tuple[str, str]:
    with pytest.raises(errors.InputRefused) as refused:
        echo.prepare("ECHO", text.encode())
    return refused.value.kind, refused.value.message


async def test_a_task_runs_and_returns_its_output_as_json(echo: registry.Registry, context: Context) -> None:
    prepared = echo.prepare("ECHO", b'{"word": "hey", "times": 2}')
    assert json.loads(await prepared.run(context)) == {"said": "someone: heyhey"}


@pytest.mark.parametrize("name", ["echo", "Echo", "say", "SAY"])
def test_types_are_found_by_name_and_alias_in_any_case(echo: registry.Registry, name: str) -> None:
    assert echo.prepare(name, b'{"word": "x"}').type == "ECHO"


def test_an_unknown_type_is_refused_with_the_nearest_names(echo: registry.Registry) -> None:
    with pytest.raises(errors.NotFound) as unknown:
        echo.prepare("ECHOO", b"{}")
    assert unknown.value.message == "there is no task type 'ECHOO'; did you mean 'ECHO'?"
    assert unknown.value.hint == "the types are ECHO"


@pytest.mark.parametrize("key", ["from", "from_"])
async def test_a_trailing_underscore_escapes_a_reserved_word(
    echo: registry.Registry, context: Context, key: str
) -> None:
    prepared = echo.prepare("ECHO", json.dumps({"word": "x", key: "me"}).encode())
    assert json.loads(await prepared.run(context)) == {"said": "me: x"}


async def test_an_input_has_aliases(echo: registry.Registry, context: Context) -> None:
    assert json.loads(await echo.prepare("ECHO", b'{"text": "x"}').run(context)) == {"said": "someone: x"}


def test_an_input_given_twice_is_refused(echo: registry.Registry) -> None:
    assert _refused(echo, '{"word": "x", "text": "y"}') == (
        "InvalidInputError",
        "ECHO cannot use the input 'word': it is given twice, the second time as 'text'",
    )


@pytest.mark.parametrize("text", ["{}", '{"word": null}'])
def test_a_missing_input_is_named_with_what_it_means(echo: registry.Registry, text: str) -> None:
    assert _refused(echo, text) == ("MissingInputError", "ECHO needs the input 'word': what to say")


def test_an_unknown_input_is_named_with_the_nearest_ones(echo: registry.Registry) -> None:
    assert _refused(echo, '{"word": "x", "tims": 1}') == (
        "ExtraInputError",
        "ECHO has no input 'tims'; did you mean 'times'?",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"word": 5}', "ECHO cannot use the input 'word': expected a text, got a whole number"),
        ('{"word": "x", "times": "2"}', "ECHO cannot use the input 'times': expected a whole number, got a text"),
        ('{"word": "x", "timeout": 0}', "ECHO cannot use the input 'timeout': expected a number > 0.0"),
        (
            '{"word": "x", "retry_interrupted": 1}',
            "ECHO cannot use the input 'retry_interrupted': expected true or false, got a whole number",
        ),
        (
            '{"word": "x", "retry_backoff": {"initially": 1}}',
            "ECHO cannot use the input 'retry_backoff': it contains an unknown field `initially`",
        ),
        (
            '{"word": "x", "protect_inputs": [1]}',
            "ECHO cannot use the input 'protect_inputs[0]': expected a text, got a whole number",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(echo: registry.Registry, text: str, message: str) -> None:
    assert _refused(echo, text) == ("InvalidInputError", message)


def test_inputs_that_are_no_object_are_refused(echo: registry.Registry) -> None:
    assert _refused(echo, "[1]") == ("InvalidInputError", "ECHO takes an object of names and values")


def test_the_common_inputs_are_accepted_by_every_type(echo: registry.Registry) -> None:
    common = {
        "word": "x",
        "timeout": 5,
        "retry_backoff": {"initial": 0.1, "maximum": 1, "multiplier": 3, "deadline": 9},
        "protect_inputs": ["word"],
        "protect_outputs": ["said"],
        "retry_interrupted": True,
    }
    assert echo.prepare("ECHO", json.dumps(common).encode()).timeout_s == 5


def test_a_task_is_repeatable_when_its_type_says_so_or_the_call_does(echo: registry.Registry) -> None:
    assert echo.prepare("ECHO", b'{"word": "x"}').idempotent
    assert not echo.prepare("ECHO", b'{"word": "x", "times": 2}').idempotent
    assert echo.prepare("ECHO", b'{"word": "x", "times": 2, "retry_interrupted": true}').idempotent


async def test_an_output_over_the_limit_is_a_clear_failure(echo: registry.Registry, context: Context) -> None:
    prepared = echo.prepare("ECHO", json.dumps({"word": "x" * 1024 * 1024, "times": 65}).encode())
    with pytest.raises(errors.TaskFailed, match="ECHO succeeded, but its output is 68,157,460 bytes as JSON"):
        await prepared.run(context)


def test_types_describe_themselves_with_json_schemas(tasks: registry.Registry) -> None:
    described = {one.name: one for one in tasks.types()}
    assert list(described) == sorted(described)
    for one in described.values():
        (inputs,) = (one.inputs["$defs"][one.inputs["$ref"].rpartition("/")[2]]["properties"],)
        assert one.summary
        assert all(field.get("description") for field in inputs.values()), one.name


def test_two_types_of_one_name_are_refused() -> None:
    with pytest.raises(errors.ConfigurationInvalid, match="two task types are called say: ECHO and OTHER"):
        registry.of(_definition(), _definition("OTHER", ("say",))).load_foreign()


def test_the_table_says_what_the_types_are_called() -> None:
    for where, names in builtin.TYPES.items():
        module, _, function = where.partition(":")
        found = getattr(importlib.import_module(f"headrace.tasks.{module}"), function or "definition")
        made = found(definition.Settings())
        assert (made.name, *made.aliases) == names


@pytest.mark.parametrize("asking", ["", "prepare('SLEEP', b'{\"seconds\": 1}')", "load_foreign()"])
def test_only_the_type_that_is_asked_for_is_loaded(asking: str) -> None:
    call = f"headrace.tasks.registry.installed().{asking}" if asking else ""
    code = f"import sys, headrace.daemon.app\n{call}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("headrace.tasks.sleep" in done.stdout.split()) is asking.startswith("prepare")
    assert "headrace.tasks.docker" not in done.stdout.split()


async def test_a_type_is_made_ready_beside_the_event_loop() -> None:
    threads = []

    def load() -> definition.TaskDefinition[EchoInputs]:
        threads.append(threading.current_thread())
        return _definition()

    found = registry.Registry([registry.Type(("ECHO", "SAY"), load)])
    await found.ready("say")
    await found.ready("Echo")
    assert found.prepare("ECHO", b'{"word": "x"}').type == "ECHO"
    assert [one is threading.main_thread() for one in threads] == [False]
    await found.ready("nothing of that name")


def test_what_could_not_be_loaded_is_loaded_whole_the_next_time() -> None:
    def fails() -> Iterator[definition.TaskDefinition[EchoInputs]]:
        yield _definition()
        if not tried:
            tried.append(1)
            raise RuntimeError("a defect of a distribution's")

    tried: list[int] = []
    found = registry.Registry((), fails)
    with pytest.raises(RuntimeError):
        found.load_foreign()
    assert [one.name for one in found.types()] == ["ECHO"]


def factory(settings: definition.Settings) -> definition.TaskDefinition[EchoInputs]:
    return _definition()


def test_a_distribution_adds_types_and_a_broken_one_does_not_stop_the_rest(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real distributions on the path: one with a type, one whose module does not exist."""
    (tmp_path / "echo_type.py").write_text(f"import sys\nfactory = sys.modules[{__name__!r}].factory\n")
    for name, value in (("good", "echo_type:factory"), ("bad", "no_such_module:factory")):
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert {"ECHO", "REST"} <= {one.name for one in registry.installed().types()}
