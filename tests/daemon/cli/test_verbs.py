"""The verbs against a real server: what goes to stdout, what to stderr, and the exit status."""

import io
import json
import os
import signal
import subprocess
import sys

import click
import pytest

from headrace.daemon.cli import main
from tests.support.contract_server import TOKEN


@pytest.fixture
def headrace(capsys, server):
    """Run the command in this process against the server's socket; returns (exit status, stdout, stderr)."""

    def run(*args, state=True):
        status = main.main([*(["--state", str(server.state)] if state else []), *args])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def command(*args, **options):
    """Return the command as a process of its own, as people start it."""
    script = "import sys; from headrace.daemon.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", script, *map(str, args)]


def test_a_run_prints_its_result_and_talks_on_stderr(headrace):
    status, out, err = headrace("run", "hello", "name=Ada")

    assert status == 0
    assert json.loads(out) == {"greeting": "hello Ada"}
    assert err.startswith("ENDED_SUCCESS  hello")
    assert "all done" in err


def test_pruning_what_is_older_than_nothing_is_refused_in_words_of_the_command(headrace):
    status, _, err = headrace("records", "prune", "--older-than", "0s")

    assert status == 2
    assert "'--older-than'" in err and "0 is for ever" in err


def test_inputs_are_texts_json_and_a_document_together(headrace, server, tmp_path, monkeypatch):
    (tmp_path / "in.json").write_text('{"a": 1, "b": 1}')
    headrace("run", "hello", "--input", f"@{tmp_path}/in.json", "b:=[2, null]", "c=x=y", 'd:="t"')
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"e": true}'))
    headrace("run", "hello", "--input", "-")
    headrace("run", "hello", "--input", '{"f": 1.5}')

    given = [execution["input_value"] for execution in server.executions.values()]
    assert given == [{"a": 1, "b": [2, None], "c": "x=y", "d": "t"}, {"e": True}, {"f": 1.5}]


@pytest.mark.parametrize(
    "wrong",
    [
        ["x"],
        ["=x"],
        [":=1"],
        ["a:={"],
        ["a:=NaN"],
        ["a:=1e999"],
        ["--input", "[1]"],
        ["--input", "{"],
        ["--input", "@/nowhere"],
    ],
)
def test_inputs_that_cannot_be_used_are_refused_before_anything_runs(headrace, server, wrong):
    status, out, err = headrace("run", "hello", *wrong)

    assert (status, out) == (2, "")
    assert "Error: " in err or "cannot be written as JSON" in err
    assert server.seen == []


def test_a_failed_run_shows_the_traceback_and_fails(headrace):
    status, out, err = headrace("run", "broken")

    assert (status, out) == (1, "")
    assert "ENDED_ERROR  broken" in err
    assert "ValueError: no luck" in err


def test_a_run_as_json_is_the_execution_however_it_ended(headrace):
    assert json.loads(headrace("run", "hello", "--json")[1])["output_value"] == {"greeting": "hello world"}
    status, out, _ = headrace("run", "broken", "--json")
    assert (status, json.loads(out)["error"]["type"]) == (1, "ValueError")


def test_not_waiting_prints_the_id(headrace, server):
    status, out, _ = headrace("run", "slow", "--no-wait")

    assert status == 0
    assert server.executions[out.strip()]["status"] == "RUNNING"


def test_waiting_longer_than_wanted_is_status_124_and_cancels_nothing(headrace, server):
    status, out, err = headrace("run", "slow", "--timeout", "50ms")

    assert (status, out) == (124, "")
    assert "headrace logs -f" in err
    assert [execution["status"] for execution in server.executions.values()] == ["RUNNING"]


def test_following_shows_the_log_on_stderr(headrace):
    status, out, err = headrace("run", "hello", "--follow")

    assert status == 0
    assert json.loads(out) == {"greeting": "hello world"}
    assert "INFO      hello from hello" in err
    assert "stdout    printed" in err


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["run", "helo"], 3),
        (["flow", "show", "helo"], 3),
        (["show", "nothing"], 3),
        (["logs", "nothing"], 3),
        (["logs", "-f", "latest"], 3),
        (["cancel", "nothing"], 3),
        (["tasks", "nothing"], 3),
        (["run", "bad"], 2),
        (["run"], 2),
        (["nonsense"], 2),
        (["executions", "--status", "odd"], 2),
        (["executions", "--since", "soon"], 2),
        (["run", "hello", "--timeout", "soon"], 2),
        (["--help"], 0),
        (["version"], 0),
        (["flows"], 0),
    ],
)
def test_the_exit_status_tells_what_happened(headrace, args, status):
    assert headrace(*args)[0] == status


def test_nobody_there_is_status_69_with_the_way_out(capsys, tmp_path):
    assert main.main(["flows", "--state", str(tmp_path / "empty")]) == 69
    assert "headrace up" in capsys.readouterr().err


def test_a_wrong_token_is_status_4_and_a_right_one_comes_from_the_environment(headrace, server, monkeypatch):
    assert headrace("flows", "--url", server.url, state=False)[0] == 4
    monkeypatch.setenv("HEADRACE_TOKEN", TOKEN)
    monkeypatch.setenv("HEADRACE_URL", server.url)
    assert headrace("flows", state=False)[0] == 0


def test_interrupting_a_run_leaves_it_alone_and_says_how_to_go_on(server):
    process = subprocess.Popen(
        command("run", "slow", "--follow", "--state", server.state),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "hello from slow" in process.stderr.readline()

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    (id_,) = server.executions
    assert (process.returncode, out) == (130, "")
    assert f"headrace logs -f {id_}" in err
    assert server.executions[id_]["status"] == "RUNNING"


def test_a_reader_who_leaves_early_is_no_error(server):
    id_ = server.create()
    for _ in range(2000):
        server.log(id_, "x" * 100)
    process = subprocess.Popen(
        command("logs", id_, "--state", server.state), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.wait(10)
    process.stderr.close()

    assert err == ""


def test_flows_are_listed_with_what_is_broken(headrace):
    _, out, _ = headrace("flows")

    assert "reports/daily  ok" in out
    assert "slow           older version" in out
    assert "bad: SyntaxError: '(' was never closed  (bad.py:12 in 1a2b3c4d)" in out
    assert len(json.loads(headrace("flows", "--json")[1])["items"]) == 5


def test_a_flow_is_shown_with_its_script(headrace):
    _, out, _ = headrace("flow", "show", "reports/daily")

    assert "timeout      1 min 00 s" in out
    assert "def handler(system, this, inputs):" in out
    assert "script" in json.loads(headrace("flow", "show", "slow", "--json")[1])
    assert "SyntaxError" in headrace("flow", "show", "slow")[1]


def test_executions_are_filtered(headrace, server):
    server.create("hello")
    server.create("broken", status="ENDED_ERROR")
    server.create("slow", status="RUNNING", created_at="2020-01-01T00:00:00.000000+00:00")

    def listed(*args):
        return [execution["name"] for execution in json.loads(headrace("executions", "--json", *args)[1])["items"]]

    assert listed() == ["slow", "broken", "hello"]
    assert listed("--failed") == ["broken"]
    assert listed("--status", "running", "--status", "ENDED_SUCCESS") == ["slow", "hello"]
    assert listed("--flow", "hello") == ["hello"]
    assert listed("--limit", "1") == ["slow"]
    assert listed("--since", "2026-11-23T00:00:00+00:00") == ["broken", "hello"]
    assert listed("--since", "1s") == []
    assert "no execution is like that" in headrace("executions", "--since", "1s")[2]


def test_one_execution_is_shown_whole(headrace, server):
    waiting = {"call": 4, "kind": "task", "target": "REST", "children": ["t1"]}
    rest = {"input_value": {"n": 1}, "waiting_for": [waiting], "cancel_requested": True}
    server.create("hello", status="WAITING", message="half way", **rest)

    _, out, _ = headrace("show", "latest")

    assert "status     WAITING" in out
    assert "cancel     asked for" in out
    assert "call 4, task REST: t1" in out
    assert '"n": 1' in out
    assert json.loads(headrace("show", "0001", "--json")[1])["message"] == "half way"


def test_a_failure_without_traceback_names_its_place(headrace, server):
    error = {"type": "ValueError", "message": "no", "traceback": "", "file": "a.py", "line": 3}
    server.create("hello", status="ENDED_ERROR", error=error)

    assert "ValueError: no  (a.py:3)" in headrace("show", "latest")[1]


def test_a_log_is_lines_for_people_or_one_object_a_line(headrace, server):
    id_ = server.create()
    server.log(id_, "first\nsecond", level="WARNING")

    assert "WARNING   first\n                        second\n" in headrace("logs", id_)[1]
    (line,) = headrace("logs", id_, "--json")[1].splitlines()
    assert json.loads(line)["text"] == "first\nsecond"


def test_a_log_that_goes_into_a_file_is_as_it_was_written(headrace, server):
    id_ = server.create()
    server.log(id_, "\x1b[32mgreen\x1b[0m\x1b[2J")

    assert "\x1b[32mgreen\x1b[0m\x1b[2J\n" in headrace("logs", id_)[1]


def test_following_a_log_ends_with_the_execution(headrace, server):
    id_ = server.create(status="ENDED_CANCELLED")
    server.log(id_, "first")

    status, out, err = headrace("logs", "-f", id_, "--json")

    assert status == 0
    assert json.loads(out)["text"] == "first"
    assert err == "ended: ENDED_CANCELLED\n"


def test_a_tree_shows_children_in_the_order_they_were_started(headrace, server):
    root = server.create("reports/daily", status="RUNNING")
    first = server.create("hello", parent=root)
    server.create("REST", parent=first, kind="TASK")
    server.create("broken", parent=root, status="ENDED_ERROR")

    lines = headrace("tree", root)[1].splitlines()

    assert [line.split("  ")[0] for line in lines] == ["reports/daily", "├─ hello", "│", "└─ broken"]
    assert "└─ REST" in lines[2]
    nested = json.loads(headrace("tree", root, "--json")[1])
    assert [child["name"] for child in nested["children"]] == ["hello", "broken"]
    assert nested["children"][0]["children"][0]["name"] == "REST"


def test_several_are_cancelled_even_if_one_cannot_be(headrace, server):
    ended, running = server.create(), server.create("slow", status="RUNNING")

    status, out, err = headrace("cancel", ended, running)

    assert status == 1
    assert "has already ended" in err
    assert out.startswith(running)
    assert server.executions[running]["cancel_requested"]


def test_tasks_document_themselves(headrace):
    assert "REST  HTTP  One HTTP request" in headrace("tasks")[1]
    _, out, _ = headrace("tasks", "rest")
    assert 'method  "GET" | "POST"  "GET"' in out
    assert "url     string          required  where to" in out
    assert "port    integer\n" in out
    assert "tls     boolean                   whether to trust" in out
    assert json.loads(headrace("tasks", "rest", "--json")[1])["name"] == "REST"
    assert len(json.loads(headrace("tasks", "--json")[1])["items"]) == 1


def test_sync_looks_now_and_status_only_shows(headrace, server):
    _, out, _ = headrace("sync", "--status")
    assert "bad: SyntaxError" in out
    assert "odd.py: line 3: not a flow" in out
    assert server.paths() == ["GET /sync"]
    assert headrace("sync")[0] == 0
    assert server.paths()[1] == "POST /sync?wait=60"

    server.sync["error"] = "the forge does not answer"
    assert headrace("sync")[0] == 1
    assert json.loads(headrace("sync", "--status", "--json")[1])["error"] == "the forge does not answer"


@pytest.mark.parametrize(
    ("typed", "near"), [(["shwo"], "show"), (["settings", "lst"], "list or set"), (["token", "crate"], "create")]
)
def test_a_verb_that_is_not_there_leads_to_the_nearest(headrace, typed, near):
    status, _, err = headrace(*typed)
    assert status == 2
    assert f"No such command '{typed[-1]}'. Did you mean {near}" in err
    assert "Did you mean" not in headrace("zzzzzz")[2]


def test_the_version_is_printed_without_a_daemon(headrace):
    assert headrace("version")[1].startswith("headrace 0.")
    assert "version" in json.loads(headrace("version", "--json")[1])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(headrace, shell):
    assert "_HEADRACE_COMPLETE" in headrace("completion", shell)[1]


@pytest.mark.parametrize(
    ("words", "offered"),
    [("headrace run re", "reports/daily"), ("headrace show 0001", "0001beef"), ("headrace exec", "executions")],
)
def test_names_are_completed_from_the_daemon(server, words, offered):
    server.create()
    environ = {
        **os.environ, "_HEADRACE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")),
        "STATE_DIRECTORY": str(server.state),
    }  # fmt: skip

    done = subprocess.run(command(), env=environ, capture_output=True, text=True, check=True)

    assert offered in done.stdout


def test_completion_without_a_daemon_is_silent(tmp_path):
    environ = {
        **os.environ, "_HEADRACE_COMPLETE": "bash_complete", "COMP_WORDS": "headrace run x", "COMP_CWORD": "2",
        "STATE_DIRECTORY": str(tmp_path),
    }  # fmt: skip

    done = subprocess.run(command(), env=environ, capture_output=True, text=True, check=True)

    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.parametrize("words", [("version",), ("--help",), ("up", "--help")])
def test_a_quick_verb_imports_neither_server_nor_terminal_libraries(words):
    script = (
        f"import sys; from headrace.daemon.cli.main import main; main({list(words)}); "
        "print(sorted({'aiohttp', 'rich', 'structlog', 'msgspec', 'git', 'asyncio'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_completing_a_verb_imports_none():
    script = (
        "import sys, click; from headrace.daemon.cli import main; "
        "found = main.headrace.shell_complete(click.Context(main.headrace), 're'); "
        "print(*(one.value for one in found)); print('aiohttp' in sys.modules, 'msgspec' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    names, imported = done.stdout.splitlines()
    assert names == "resume rerun records restore replay reload"
    assert imported == "False False"


def test_what_the_list_says_of_a_verb_is_what_the_verb_says():
    context = click.Context(main.headrace)

    told = {name: main.headrace.get_command(context, name).get_short_help_str(1000) for name in main._VERBS}

    assert {name: about for name, (_, about) in main._VERBS.items()} == told
