"""The inline-metadata block: what it may say, and where an error in it is reported."""

from __future__ import annotations

import pytest

from headrace.engine import model, policy
from headrace.sync import check, compile_flows, metadata


def parse(text: str) -> model.Metadata:
    block, line, problem = compile_flows.find_block(text)
    assert not problem
    return metadata.parse(block, first_line=line, flow_name="sub/flow")


def settings(lines: str) -> model.Metadata:
    """Parse a block whose ``[tool.headrace]`` holds ``lines``; the first of them is line 5 of the file."""
    body = "\n".join(f"# {line}" for line in lines.splitlines())
    return parse(f"'''A flow.'''\n\n# /// script\n# [tool.headrace]\n{body}\n# ///\n")


def webhook(**fields: object) -> model.Webhook:
    return model.Webhook(**{"name": "sub/flow", **fields})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [('"2h"', 7200), ('"90s"', 90), ('"30 m"', 1800), ('"1h 30m"', 5400), ("45", 45), ("0.5", 0.5), ('"250ms"', 0.25)],
)
def test_durations(value, seconds):
    assert settings(f"timeout = {value}").timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize("value", ['"soon"', "true", "-1", "0", "inf", '"0s"', "nan", '"2 parsecs"', "[]"])
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(metadata.MetadataInvalid, match="timeout is") as caught:
        settings(f"timeout = {value}")
    assert (caught.value.line, caught.value.key) == (5, "timeout")


@pytest.mark.parametrize(
    ("value", "hook"),
    [
        ("true", webhook()),
        ("false", None),
        ("{}", webhook()),
        ('{name = "x"}', webhook(name="x")),
        ('{auth = "github", secret = "secret.env(GH)"}', webhook(auth="github", secret="secret.env(GH)")),
        ('{auth = "key", key = "secret.file(/run/k)"}', webhook(auth="key", secret="secret.file(/run/k)")),
        ('{methods = ["get", "POST"]}', webhook(methods=("GET", "POST"))),
    ],
)
def test_webhooks(value, hook):
    assert settings(f"webhook = {value}").webhook == hook


@pytest.mark.parametrize(
    ("value", "key", "said"),
    [
        ('{auth = "github"}', "webhook.auth", "there is no secret"),
        ('{secret = "secret.env(X)"}', "webhook.secret", 'add auth = "key"'),
        ('{auth = "key", secret = "hunter2"}', "webhook.secret", r"secret\.env\(NAME\)"),
        ('{auth = "key", secret = "secret.env()"}', "webhook.secret", "never hold one"),
        ('{auth = "key", secret = "secret.env(A)", key = "secret.env(A)"}', "webhook.key", "the same as secret"),
        ('{auth = "digest", secret = "secret.env(A)"}', "webhook.auth", "standard-webhooks"),
        ('{auth = "magic"}', "webhook.auth", "one of none, key, github"),
        ('{methods = ["TRACE"]}', "webhook.methods", "name some of"),
        ("{methods = []}", "webhook.methods", "name some of"),
        ('{name = "/x"}', "webhook.name", "without slashes"),
        ("{color = 1}", "webhook.color", "is not known"),
        ('"yes"', "webhook", "write a table"),
    ],
)
def test_webhooks_that_cannot_be_meant_are_refused(value, key, said):
    with pytest.raises(metadata.MetadataInvalid, match=said) as caught:
        settings(f"reuse = false\nwebhook = {value}")
    assert (caught.value.line, caught.value.key) == (6, key)


def test_a_secret_that_was_written_out_is_not_repeated():
    with pytest.raises(metadata.MetadataInvalid) as caught:
        settings('webhook = {auth = "key", secret = "hunter2"}')
    assert "hunter2" not in str(caught.value)


def test_a_flow_says_where_on_a_cluster_it_runs_and_what_it_needs_there():
    said = settings('worker = "dmz"\nresources = {cpu = 2, gpu = 0.5, memory = "4G", fpga = 1}').policies
    assert said.placement == policy.Placement(
        worker="dmz", cpu=2.0, gpu=0.5, memory=4 * 1024**3, resources={"fpga": 1.0}
    )
    assert settings('description = "d"').policies.placement == policy.ANYWHERE


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('worker = "two words"', "worker is 'two words'; write one short word without blanks, a label of nodes"),
        ("worker = 1", "worker is 1; write a text in quotes"),
        ("resources = 1", "resources is 1; write a table"),
        ('resources = {cpu = "2"}', "resources.cpu is '2'; write how much of it, a number from 0"),
        ("resources = {gpu = -1}", "resources.gpu is -1; write how much of it, a number from 0"),
        ('resources = {memory = "4 apples"}', 'resources.memory is \'4 apples\'; write it like "512M" or "2G"'),
        ("resources = {CPU = 2}", "resources.CPU is no name of a resource; there are cpu, gpu, memory, and those of"),
    ],
)
def test_a_place_that_cannot_be_meant_is_refused(line, problem):
    with pytest.raises(metadata.MetadataInvalid) as caught:
        settings(line)
    assert problem in caught.value.message


def schedules(lines: str) -> list[policy.Schedule]:
    return list(settings(lines).policies.schedules)


def test_a_flow_may_have_a_schedule_or_several_and_says_once_what_is_the_same_for_all():
    (one,) = schedules('schedule = "30 2 * * mon-fri"')
    assert (one.name, one.cron, one.timezone, one.catchup) == ("sub/flow", "30 2 * * mon-fri", "UTC", policy.Catchup())
    first, second = schedules(
        'timezone = "Europe/Vienna"\ncatchup = "last"\nexpect = {start_within = "5m"}\n'
        'schedule = ["@daily", {cron = "H 3 * * *", name = "early", timezone = "Asia/Tokyo", inputs = {n = 1}, '
        'catchup = {policy = "all", max = 3, window = "2d"}, overlap = "queue", enabled = false}]'
    )
    assert (first.name, first.timezone, first.catchup.policy) == ("sub/flow #1", "Europe/Vienna", "latest")
    assert first.start_within_s == second.start_within_s == 300.0
    assert (second.name, second.key, second.timezone) == ("early", "early", "Asia/Tokyo")
    assert second.catchup == policy.Catchup(policy="all", max=3, window_s=172800.0)
    assert (bytes(second.inputs), second.overlap, second.is_enabled) == (b'{"n":1}', "queue", False)
    (alone,) = schedules('schedule = "@daily"')
    assert alone.key != schedules('schedule = "@hourly"')[0].key == schedules('schedule = ["@hourly"]')[0].key


def test_policies_are_read_in_their_one_form():
    said = settings(
        'concurrency = {limit = 2, key = "inputs.customer.id", when_full = "reject"}\n'
        'retry = {attempts = 5, backoff = "1m", factor = 3, max = "1h", jitter = 0.5, on = ["OSError", "timeout"]}\n'
        'on_failure = "ops"\non_success = "log"\npriority = -5\nmax_memory = "1.5G"\ntags = ["a", "b", "a"]'
    )
    assert said.policies == policy.Policies(
        concurrency=policy.Concurrency(limit=2, key="inputs.customer.id", when_full="reject"),
        retry=policy.Retry(attempts=5, delay_s=60.0, factor=3.0, max_s=3600.0, jitter=0.5, on=("OSError", "timeout")),
        on_failure="ops",
        on_success="log",
        priority=-5,
        max_memory=3 << 29,
        tags=("a", "b"),
    )
    assert settings("max_memory = 67108864").policies.max_memory == 64 << 20


@pytest.mark.parametrize("what", ["resume", "restart", "fail"])
def test_what_becomes_of_it_when_it_is_cut_off_is_said_in_its_metadata(what):
    block = settings(f'on_interrupt = "{what}"')
    assert block.on_interrupt == what
    assert settings("reuse = true").on_interrupt == ""


def test_a_flow_may_ask_for_a_stricter_replay():
    block = settings("strict_replay = true")
    assert block.strict_replay
    assert not settings("reuse = true").strict_replay


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("schedule = 5", "schedule"),
        ('schedule = "soon"', "schedule"),
        ('schedule = {cron = "60 * * * *"}', "schedule.cron"),
        ('schedule = {timezone = "UTC"}', "schedule"),
        ('schedule = {cron = "@daily", inputs = 1}', "schedule.inputs"),
        ('schedule = {cron = "@daily", overlap = "reject"}', "schedule.overlap"),
        ('schedule = {cron = "@daily", expect = {within = 1}}', "schedule.expect.within"),
        ('schedule = ["@daily", "@daily"]', "schedule"),
        ('timezone = "Mars/Olympus"', "timezone"),
        ('expect = {start_within = "x"}', "expect.start_within"),
        ('catchup = {policy = "all", max = 0}', "catchup.max"),
        ('catchup = {policy = "all", window = "x"}', "catchup.window"),
        ('concurrency = {key = "customer"}', "concurrency.key"),
        ("retry = {jitter = 2}", "retry.jitter"),
        ('retry = {delay = "1s", backoff = "1s"}', "retry.backoff"),
        ("retry = {on = 'x'}", "retry.on"),
        ("on_failure = ''", "on_failure"),
        ("priority = 101", "priority"),
        ('max_memory = "1M"', "max_memory"),
        ('max_memory = "much"', "max_memory"),
        ("tags = ['two words']", "tags"),
        ('catchup = "some"', "catchup"),
        ("concurrency = {limit = 0}", "concurrency.limit"),
        ("concurrency = {limit = true}", "concurrency.limit"),
        ('concurrency = {when_full = "drop"}', "concurrency.when_full"),
        ("retry = {attempts = 1.5}", "retry.attempts"),
        ('retry = {delay = "x"}', "retry.delay"),
        ('on_interrupt = "explode"', "on_interrupt"),
        ("input_schema = []", "input_schema"),
        ("input_schema = {type = 'array'}", "input_schema"),
        ("input_schema = {properties = {n = {type = 'whole'}}}", "input_schema"),
        ("input_schema = {properties = {n = {element = 'slider'}}}", "input_schema"),
        ("input_schema = {properties = {n = {element = 'submit'}}}", "input_schema"),
        ("input_schema = {properties = {n = {'$ref' = 'https://elsewhere.example/'}}}", "input_schema"),
        ("reuse = 1", "reuse"),
        ("description = 7", "description"),
        ("shedule = '* * * * *'", "shedule"),
        ("timeout.x = 1", "timeout"),
    ],
)
def test_wrong_keys_and_types_name_line_and_key(line, key):
    with pytest.raises(metadata.MetadataInvalid) as caught:
        settings(f"# a comment\n\n{line}")
    assert (caught.value.line, caught.value.key) == (7, key)


def test_a_toml_error_names_its_line():
    with pytest.raises(metadata.MetadataInvalid, match="is not TOML") as caught:
        settings("reuse = true\ntimeout = = 3")
    assert caught.value.line == 6


def test_the_whole_block_of_a_newcomer_is_understood():
    block = parse(
        "# /// script\n"
        '# requires-python = ">=3.11"\n'
        '# dependencies = ["Requests <3", "PyYAML", "requests<3"]\n'
        "#\n"
        "# [tool.headrace]\n"
        '# description = "says hello"\n'
        "# reuse = false\n"
        '# timeout = "2h"\n'
        "# [tool.ruff]\n"
        "# whatever = 1\n"
        "# ///\n"
    )
    assert block == model.Metadata(
        description="says hello", timeout_s=7200.0, reuse=False, dependencies=("pyyaml", "requests<3")
    )


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('requires-python = ">=3.99"', "requires-python"),
        ('requires-python = "<3.10"', "requires-python"),
        ('requires-python = "3.11 or so"', "requires-python"),
        ("dependencies = 'x'", "dependencies"),
        ("dependencies = ['--index-url=https://x']", "dependencies"),
        ("dependencies = ['./here']", "dependencies"),
        ("dependencies = ['x @ file:///etc/passwd']", "dependencies"),
        ("dependencies = ['x @ https://me:secret@host/x.whl']", "dependencies"),
        ("name = 'x'", "name"),
    ],
)
def test_the_standard_part_of_the_block_is_checked_too(line, key):
    with pytest.raises(metadata.MetadataInvalid) as caught:
        parse(f"# /// script\n# {line}\n# ///\n")
    assert (caught.value.line, caught.value.key) == (2, key)


@pytest.mark.parametrize(
    ("line", "keep_s", "count"),
    [
        ('retention = "7d"', 604800.0, 0),
        ("retention = 60", 60.0, 0),
        ('retention = {keep = "1h", count = 100}', 3600.0, 100),
        ("retention = {count = 3}", None, 3),
    ],
)
def test_a_flow_says_how_long_its_executions_are_kept_and_how_many(line, keep_s, count):
    block = parse(f"# /// script\n# [tool.headrace]\n# {line}\n# ///\n")
    assert (block.retention_s, block.retention_count) == (keep_s, count)


@pytest.mark.parametrize(
    ("line", "key"),
    [('retention = "soon"', "retention"), ("retention = {count = 0}", "retention.count"), ("retention = {x = 1}", "x")],
)
def test_a_retention_that_cannot_be_is_refused(line, key):
    with pytest.raises(metadata.MetadataInvalid) as caught:
        parse(f"# /// script\n# [tool.headrace]\n# {line}\n# ///\n")
    assert (caught.value.line, key in caught.value.key) == (3, True)


def test_no_block_and_an_empty_block_mean_the_defaults():
    assert compile_flows.find_block("x = 1\n# ///\n") == ("", 0, "")
    assert parse("# /// script\n# ///\n") == model.Metadata()


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("# /// script\n# reuse = true\n", "no end", 1),
        ("# /// script\n#no blank\n# ///\n", "no end", 1),
        ("# /// script\n# ///\n\n# /// script\n# ///\n", "two", 4),
        ("# /// script\n# x = '" + "y" * 70_000 + "'\n# ///\n", "larger than", 1),
    ],
)
def test_a_block_that_is_none_says_so(text, said, line):
    _, at, problem = compile_flows.find_block(text)
    assert said in problem
    assert at == line


def test_windows_line_ends_are_fine():
    assert parse("# /// script\r\n# [tool.headrace]\r\n# timeout = 3\r\n# ///\r\n").timeout_s == 3


@pytest.mark.parametrize(
    ("before", "encoding"),
    [
        ("", "utf-8"),
        ("\ufeff", "utf-8"),
        ("# coding to a rule\n", "utf-8"),
        ("# -*- coding: latin-1 -*-\n", "latin-1"),
        ("#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\n", "cp1252"),
        ("# one\n# two\n# coding: latin-1\n", "utf-8"),
    ],
)
def test_a_block_is_read_in_the_encoding_of_its_file(before, encoding):
    said = 'für "alle" \\\\ im Süden'
    text = f"{before}# /// script\n# [tool.headrace]\n# description = '{said}'\n# ///\ndef handler(a, b): ...\n"
    found = check.check({"flow.py": text.encode(encoding)})["flow.py"]
    assert (found.reason, found.metadata.description) == ("", said)
