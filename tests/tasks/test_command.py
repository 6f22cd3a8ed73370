"""COMMAND, and what is true of every program that a task starts; SLEEP."""

from __future__ import annotations

import asyncio
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import uuid

import pytest

from headrace.engine import errors
from headrace.tasks import command, definition, local, registry, retry
from tests.support import machines


@pytest.fixture(autouse=True)
def scratch(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Where private folders are made; nothing may be left there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(autouse=True)
def unique(context):
    """What a task starts carries its id, and is ended by it, also what tests beside this one start."""
    context.execution_id = uuid.uuid4().hex


@pytest.fixture
def run(context):
    allowed = local.Local(programs=("sh", "cat", "/bin/echo", "not-there"))
    tasks = registry.installed(definition.Settings(local=allowed, pacing=retry.Pacing()))

    async def ran(*argv: str, **inputs) -> dict:
        prepared = tasks.prepare("COMMAND", json.dumps({"command": argv, **inputs}).encode())
        return json.loads(await prepared.run(context))

    return ran


@pytest.fixture
def failure(run):
    async def failed(*argv: str, **inputs) -> errors.TaskFailed:
        with pytest.raises(errors.TaskFailed) as raised:
            await run(*argv, **inputs)
        return raised.value

    return failed


async def test_a_program_gets_its_arguments_as_they_are(run):
    output = await run("/bin/echo", "a b", "$HOME", "; true")
    assert output == {"retcode": 0, "stdout": "a b $HOME ; true\n", "stderr": ""}
    assert (await run("cat", stdin="hallo ü", encoding="latin-1"))["stdout"] == "hallo ü"
    assert (await run("cat"))["stdout"] == ""
    output = await run("sh", "-c", "echo $X >&2; exit 3", env={"X": "x"}, expected_retcode=[0, 3])
    assert output == {"retcode": 3, "stdout": "", "stderr": "x\n"}


async def test_it_has_a_folder_of_its_own_and_little_else(run, context, scratch, monkeypatch):
    monkeypatch.setenv("DAEMON_SECRET", "x")
    said = (await run("sh", "-c", "pwd; echo $HOME; env"))["stdout"]
    assert "DAEMON_SECRET" not in said and said.splitlines()[0] == said.splitlines()[1]
    assert said.startswith(str(scratch))


async def test_files_go_in_and_come_out(run, failure, context):
    context.files.root.mkdir()
    (context.files.root / "a").write_text("hallo")
    copies = {
        "copy_files": [{"src": "headrace:a", "dst": "in/a"}],
        "output_files": [{"src": "out", "dst": "headrace:b"}],
    }
    await run("sh", "-c", "tr a-z A-Z <in/a >out", **copies)
    assert (context.files.root / "b").read_text() == "HALLO"
    for src in ("link", "nothing"):
        kept = [{"src": src, "dst": "headrace:c"}]
        said = (await failure("sh", "-c", "ln -s /etc/passwd link", output_files=kept)).message
        assert said.endswith(f"there is no file '{src}' to keep")


async def test_another_status_is_a_failure_with_all_it_wrote(failure):
    failed = await failure("sh", "-c", "echo out; echo first >&2; echo last >&2; exit 4")
    assert failed.message == "COMMAND sh: the program ended with 4: last"
    assert json.loads(failed.output) == {"retcode": 4, "stdout": "out\n", "stderr": "first\nlast\n"}
    assert "the program ended with 137" in (await failure("sh", "-c", "kill -9 $$")).message


async def test_only_what_the_operator_allows_is_started(call, failure):
    not_allowed = "COMMAND: this daemon does not let it start 'ls': the setting tasks.local says what it may"
    assert (await failure("ls")).message == not_allowed
    with pytest.raises(errors.TaskFailed, match="does not let it start 'sh'"):
        await call("COMMAND", command=["sh", "-c", "true"])
    assert (await failure("not-there")).message == "COMMAND: not-there is not installed where the daemon runs"


@pytest.mark.parametrize(("programs", "wrong"), [(["a/b"], "'a/b'"), ([""], "''")])
def test_a_setting_that_names_no_program_is_refused(programs, wrong):
    with pytest.raises(ValueError, match=f"{wrong} is not the name or the absolute path of a program"):
        local.Local(programs=tuple(programs))


async def test_a_program_that_never_stops_writing_is_killed(failure):
    mark = uuid.uuid4().hex
    failed = await failure("sh", "-c", f"cat /dev/zero; echo {mark}")
    assert "the program wrote more than 16 MiB: it was killed" in failed.message
    assert machines.processes_with(mark) == []


@pytest.mark.parametrize("how", ["sleep", "a group of its own", "not to be interrupted"])
async def test_cancelled_nothing_of_it_goes_on(run, how):
    mark = uuid.uuid4().hex
    script = {
        "sleep": f"sh -c 'sleep 300; echo {mark}' | cat",
        "a group of its own": f"setsid sh -c 'sleep 300; echo {mark}' & sleep 300",
        "not to be interrupted": f"trap '' TERM INT HUP; sh -c 'sleep 300; echo {mark}'; sleep 300",
    }[how]
    work = asyncio.create_task(run("sh", "-c", script))
    while not machines.processes_with(mark):
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert machines.processes_with(mark) == []


async def test_what_it_leaves_behind_ends_with_it(run):
    mark = uuid.uuid4().hex
    script = f"setsid sh -c 'sleep 300; echo {mark}' & sh -c 'sleep 300; echo {mark}' & echo done"
    assert (await run("sh", "-c", script))["stdout"] == "done\n"
    assert machines.processes_with(mark) == []


DIES = """
import asyncio, pathlib, sys
from headrace.tasks import process
folder = pathlib.Path(sys.argv[1])
asyncio.run(process.run(["sh", "-c", sys.argv[2]], folder=folder, mark="m", env={}, output_bytes_max=1))
"""


def test_when_the_daemon_is_killed_the_program_is_too(tmp_path):
    mark = uuid.uuid4().hex
    script = f"trap '' TERM; sh -c 'sleep 300; echo {mark}' | cat"
    daemon = subprocess.Popen([sys.executable, "-c", DIES, str(tmp_path), script])
    while len(machines.processes_with(mark)) < 3:
        assert daemon.poll() is None
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    while machines.processes_with(mark):
        pass


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"command": []}, "'command': expected a list of length >= 1"),
        ({"command": "ls -l"}, "'command': expected a list, got a text"),
        ({"command": ["a\0"]}, "'command': expected a program and arguments without zero bytes"),
        ({"env": {"a=b": ""}}, "'env': expected names and values of variables"),
        ({"encoding": "x"}, "'encoding': expected the name of a character set, such as utf-8"),
        (
            {"copy_files": [{"src": "headrace:a", "dst": "../b"}]},
            "'copy_files': expected a path inside of the folder as 'dst'",
        ),
        ({"output_files": [{"src": "a", "dst": "b"}]}, "'output_files': expected headrace:<path> as 'dst'"),
    ],
    ids=range(7),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("COMMAND", json.dumps({"command": ["sh"], **inputs}).encode())
    assert refused.value.message == f"COMMAND cannot use the input {message}"


def test_it_is_not_repeated(tasks):
    assert not tasks.prepare("COMMAND", b'{"command": ["sh"]}').idempotent
    assert command.OUTPUT_BYTES_MAX == 16 << 20


async def test_sleep_sleeps_and_may_be_cancelled(call, tasks):
    assert await call("SLEEP", delay=0.01) == {"seconds": 0.01}
    assert tasks.prepare("SLEEP", b'{"seconds": 1}').idempotent
    work = asyncio.create_task(call("sleep", seconds=1000))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    for wrong in (-1, 1e9, "x"):
        with pytest.raises(errors.InputRefused, match="SLEEP cannot use the input 'seconds': expected a number"):
            await call("SLEEP", seconds=wrong)
