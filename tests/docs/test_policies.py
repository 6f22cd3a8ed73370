"""docs/policies.md says what the code does: its blocks are good metadata, its tables have every key and default."""

import re
from pathlib import Path

import msgspec
import pytest

from headrace.engine import cron, events, model, policy
from headrace.engine.running import schedules, sequels
from headrace.sync import compile_flows, metadata, policies

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "policies.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_metadata_that_is_acted_on(block):
    text, line, problem = compile_flows.find_block(block)
    found = metadata.parse(text, first_line=line, flow_name="f")
    assert not problem and found.policies != policy.Policies()


def cells(header):
    table = DOCUMENT.partition(header)[2].partition("\n\n")[0]
    return set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE))))


def test_every_key_of_a_schedule_is_told_of():
    with pytest.raises(policies.shapes.Wrong) as refused:
        policies._schedule_fields({"?": 1})
    assert cells("| key | default | says |") == set(refused.value.message.partition("there are ")[2].split(", "))


def test_the_ways_and_the_defaults_are_those_of_the_code():
    said = policy.Retry()
    words = f"`attempts` times in\nall ({said.attempts})"
    assert (
        words in DOCUMENT and f"`delay` ({said.delay_s:g} s;" in DOCUMENT and f"as long ({said.factor:g})" in DOCUMENT
    )
    assert f"`max` (1 h), give or take the part of it that `jitter` says ({said.jitter:g})" in DOCUMENT
    assert said.max_s == 3600.0 and policy.CATCHUP_WINDOW_S == 86400.0 and schedules.ON_TIME_S == 60.0
    assert (
        f"`max` ({policy.CATCHUP_MAX})" in DOCUMENT and f"(-{policy.PRIORITY_MAX} to {policy.PRIORITY_MAX}," in DOCUMENT
    )
    assert set(re.findall(r'^\| `"(\w+)"` \|', DOCUMENT, re.MULTILINE)) == set(policy.WHEN_FULL)
    assert all(f'`"{one}"`' in DOCUMENT for one in (*policy.OVERLAP, *policy.CATCHUP))
    assert all(f"`{one}`" in DOCUMENT for one in cron.SHORTHANDS)


def test_every_input_of_who_is_told_is_listed():
    created = events.ExecutionCreated(execution="e", inputs=msgspec.Raw(b"{}"))
    assert sequels.told(model.Execution.created(created, "")).keys() == cells("| input | is |") - {"LATE"}
