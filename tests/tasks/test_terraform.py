"""TERRAFORM, with the tofu or terraform of this machine, on what needs no provider from elsewhere."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid

import pytest

from headrace.engine import errors
from headrace.tasks import definition, local, registry, retry
from tests.support import machines

ONE = """
variable "name" { type = string }
resource "terraform_data" "one" { input = var.name }
output "name" { value = terraform_data.one.output }
output "hidden" {
  value     = "of-${var.name}"
  sensitive = true
}
"""


@pytest.fixture
def work(context):
    if shutil.which("tofu") is None and shutil.which("terraform") is None:
        pytest.skip("neither tofu nor terraform is installed")
    context.execution_id = uuid.uuid4().hex
    allowed = local.Local(programs=("tofu", "terraform"))
    tasks = registry.installed(definition.Settings(local=allowed, pacing=retry.Pacing()))

    async def worked(**inputs) -> dict:
        return json.loads(await tasks.prepare("TOFU", json.dumps(inputs).encode()).run(context))

    return worked


async def test_a_plan_is_applied_read_and_destroyed(work, context):
    given = {"configuration": ONE, "variables": {"name": "web7"}, "state": "headrace:states/one"}
    planned = await work(**given)
    assert planned["changes"] == {"create": ["terraform_data.one"]} and planned["retcode"] == 2
    assert context.files.names() == []
    applied = await work(command="apply", **given)
    assert applied["outputs"] == {"name": "web7", "hidden": "of-web7"} and context.hidden == ["of-web7"]
    assert "of-web7" not in applied["report"] and context.files.names() == ["states/one"]
    again = await work(**given)
    assert again["changes"] == {} and again["retcode"] == 0
    assert (await work(command="output", **given))["outputs"]["name"] == "web7"
    await work(command="destroy", **given)
    assert (await work(command="output", **given))["outputs"] == {}


async def test_a_failure_says_why_and_keeps_what_was_made(work, context):
    broken = {"resource": {"terraform_data": {
        "good": {"input": "kept"},
        "bad": {"depends_on": ["terraform_data.good"], "provisioner": {"local-exec": {"command": "exit 3"}}},
    }}}  # fmt: skip
    given = {"configuration": broken, "state": "headrace:state"}
    with pytest.raises(errors.TaskFailed) as failed:
        await work(command="apply", **given)
    assert failed.value.message == "TERRAFORM apply: apply failed: Error: local-exec provisioner error"
    assert b"kept" in context.files.read("state")
    with pytest.raises(errors.TaskFailed) as failed:
        await work(command="validate", configuration="resource {")
    assert failed.value.message.startswith("TERRAFORM validate: init failed: Error: ")


async def test_cancelled_nothing_of_it_goes_on_and_the_state_is_kept(work, context):
    mark = f"sleep 300; echo {uuid.uuid4().hex}"
    slow = {"resource": {"terraform_data": {
        "good": {"input": "kept"},
        "slow": {"depends_on": ["terraform_data.good"], "provisioner": {"local-exec": {"command": mark}}},
    }}}  # fmt: skip
    running = asyncio.create_task(work(command="apply", configuration=slow, state="headrace:state"))
    while not machines.processes_with(mark):
        assert not running.done()
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert machines.processes_with(mark) == []
    assert b"kept" in context.files.read("state")


async def test_secrets_of_the_environment_are_in_no_message(work):
    given = {"configuration": ONE, "env": {"TF_CLI_ARGS_plan": "-no-such-s3cr3t-option"}, "variables": {"name": "x"}}
    with pytest.raises(errors.TaskFailed) as failed:
        await work(**given)
    assert failed.value.message.startswith("TERRAFORM plan: plan failed: ") and "s3cr3t" not in failed.value.message


async def test_only_if_the_operator_allows_it(call):
    with pytest.raises(errors.TaskFailed) as failed:
        await call("TERRAFORM", configuration=ONE)
    assert failed.value.message.startswith("TERRAFORM: this daemon does not let it start 'tofu' or 'terraform'")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"configuration": None}, "needs the input 'configuration': the configuration, unless copy_files brings it"),
        ({"state": "/etc/x"}, "cannot use the input 'state': expected headrace:<path>"),
        ({"variables": {"a b": 1}}, "cannot use the input 'variables': expected names of variables"),
        ({"targets": ["a\nb"]}, "cannot use the input 'targets': expected addresses of resources"),
        ({"env": {"a=b": "c"}}, "cannot use the input 'env': expected names of variables and texts"),
    ],
    ids=range(5),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("TERRAFORM", json.dumps({"configuration": ONE, **inputs}).encode())
    assert refused.value.message == f"TERRAFORM {message}"


def test_only_what_reads_may_be_repeated(tasks):
    assert tasks.prepare("TERRAFORM", b'{"configuration":"x"}').idempotent
    assert not tasks.prepare("TERRAFORM", b'{"configuration":"x","command":"apply"}').idempotent
