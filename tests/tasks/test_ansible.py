"""ANSIBLE, with the ansible-playbook of this machine, against this machine and an sshd on it."""

from __future__ import annotations

import asyncio
import getpass
import json
import uuid

import pytest

from headrace.engine import errors
from headrace.tasks import definition, local, registry, retry
from tests.support import machines, services


@pytest.fixture
def play(context):
    services.program("ansible-playbook")
    context.execution_id = uuid.uuid4().hex
    allowed = local.Local(programs=("ansible-playbook",))
    tasks = registry.installed(definition.Settings(local=allowed, pacing=retry.Pacing()))

    async def played(*steps: dict, **inputs) -> dict:
        book = json.dumps([{"hosts": "all", "gather_facts": False, "tasks": list(steps)}])
        prepared = tasks.prepare("ANSIBLE", json.dumps({"playbook": book, **inputs}).encode())
        return json.loads(await prepared.run(context))

    return played


async def test_a_playbook_changes_this_machine_and_tells_what_it_did(play, tmp_path):
    step = {"copy": {"content": "{{ said }}", "dest": str(tmp_path / "made")}, "tags": "a"}
    output = await play(step, {"fail": {}, "tags": "b"}, extra_vars={"said": "hallo"}, tags=["a"])
    assert (tmp_path / "made").read_text() == "hallo"
    assert output["retcode"] == 0 and output["stats"]["localhost"]["changed"] == 1
    assert "changed: [localhost]" in output["report"]


async def test_a_host_that_fails_is_a_failure_with_its_words(play):
    with pytest.raises(errors.TaskFailed) as failed:
        await play({"fail": {"msg": "on purpose"}})
    assert failed.value.message.startswith("ANSIBLE: hosts failed: fatal: [localhost]: FAILED!")
    assert "on purpose" in failed.value.message
    assert json.loads(failed.value.output)["stats"]["localhost"]["failures"] == 1


async def test_other_machines_are_reached_with_their_key_alone(play, tmp_path):
    with machines.sshd(tmp_path / "sshd") as machine:
        inventory = {"all": {"hosts": {"far": {"ansible_host": "127.0.0.1", "ansible_port": machine.port}}}}
        known = f"[127.0.0.1]:{machine.port} {machine.host_key}"
        access = {"inventory": inventory, "username": getpass.getuser(), "key": machine.key, "known_hosts": known}
        output = await play({"raw": "echo hallo"}, **access)
        assert output["stats"]["far"]["ok"] == 1
        other = f"[127.0.0.1]:{machine.port} {(tmp_path / 'sshd/other.pub').read_text()}"
        with pytest.raises(errors.TaskFailed) as failed:
            await play({"raw": "echo hallo"}, **{**access, "known_hosts": other})
        assert failed.value.message.startswith("ANSIBLE: hosts are unreachable: fatal: [far]: UNREACHABLE!")
        assert machine.key.splitlines()[2] not in failed.value.message + failed.value.output.decode()


async def test_cancelled_nothing_of_it_goes_on(play):
    mark = uuid.uuid4().hex
    work = asyncio.create_task(play({"shell": f"sleep 300; echo {mark}"}))
    while not machines.processes_with(f"sleep 300; echo {mark}"):
        assert not work.done()
        await asyncio.sleep(0.02)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert machines.processes_with(mark) == []


async def test_only_if_the_operator_allows_it(call):
    with pytest.raises(errors.TaskFailed, match="^ANSIBLE: this daemon does not let it start 'ansible-playbook'"):
        await call("ANSIBLE", playbook="[]")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"limit": "--x"}, "'limit': expected a text without control characters that is no option"),
        ({"tags": ["a b"]}, "'tags': expected names of tags"),
        ({"inventory": ["a b"]}, "'inventory': expected names or addresses of hosts"),
        ({"key": "x"}, "'key': expected a private key, '-----BEGIN … PRIVATE KEY-----'"),
    ],
    ids=range(4),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("ANSIBLE", json.dumps({"playbook": "[]", **inputs}).encode())
    assert refused.value.message == f"ANSIBLE cannot use the input {message}"


def test_only_a_look_may_be_repeated(tasks):
    assert not tasks.prepare("ANSIBLE", b'{"playbook":"[]"}').idempotent
    assert tasks.prepare("ANSIBLE", b'{"playbook":"[]","check_mode":true}').idempotent
