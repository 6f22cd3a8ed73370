"""What appears on a real terminal (a pty): colours, tables that fit, nothing a flow could steer it with."""

import os
import pty
import re
import subprocess
import sys

import pytest

from tests.engine.records import journals

SCRIPT = "import sys; from headrace.daemon.cli.main import main; sys.exit(main())"


def on_terminal(*args, columns=80, **environ):
    """Run the command on a terminal of its own and return everything that appeared there."""
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **environ}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, args)], stdin=follower, stdout=follower, stderr=follower, env=env
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(leader)
    process.wait(10)
    return seen.decode()


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_table_has_colour_and_fits_the_terminal(server):
    server.create("hello", status="ENDED_ERROR", message="a very long message " * 20)

    seen = on_terminal("executions", "--state", server.state, columns=110)

    assert "\x1b[1;31mENDED_ERROR" in seen
    lines = plain(seen).splitlines()
    assert len(lines) == 2
    assert all(len(line.rstrip()) <= 110 for line in lines)
    assert lines[1].rstrip().endswith("…")


def test_no_color_is_honoured(server):
    server.create("hello", status="ENDED_ERROR")

    assert "\x1b[1;31m" not in on_terminal("executions", "--state", server.state, NO_COLOR="1")


@pytest.mark.parametrize("verb", ["executions", "show", "tree", "logs"])
def test_what_a_flow_wrote_cannot_steer_the_terminal(server, verb):
    evil = "\x1b]0;owned\x07\x1b[2Jgone\r\x9b31m"
    id_ = server.create("hello", message=evil, output_value=evil, input_value={"x": evil})
    server.log(id_, evil)

    seen = on_terminal(verb, *([] if verb == "executions" else [id_]), "--state", server.state, columns=200)

    assert "gone" in seen
    assert "\x1b]0" not in seen
    assert "\x1b[2J" not in seen
    assert "\x9b" not in seen
    assert "\x07" not in seen


def test_a_log_keeps_its_colours_and_nothing_else_of_a_terminal(server):
    id_ = server.create("hello")
    server.log(id_, "\x1b[32mgreen\x1b[0m plain \x1b[1;31mred\x1b[2J\x1b]0;x\x07\x1b[0m")

    seen = on_terminal("logs", id_, "--state", server.state, columns=200)

    assert "\x1b[32mgreen\x1b[0m plain" in seen
    assert "\x1b[1;31mred" in seen
    assert "\x1b[2J" not in seen
    assert "\x1b]0" not in seen
    assert "green plain red" in plain(on_terminal("logs", id_, "--state", server.state, columns=200, NO_COLOR="1"))


def test_a_long_run_shows_that_it_goes_on(server):
    seen = on_terminal("run", "slow", "--timeout", "1", "--state", server.state, columns=200)

    assert re.search(r"slow  RUNNING  \d", plain(seen))
    assert "slow is still RUNNING and goes on" in plain(seen)


def test_a_short_run_shows_its_result_and_nothing_else(server):
    seen = plain(on_terminal("run", "hello", "--state", server.state))

    assert seen.startswith('{\r\n  "greeting": "hello world"\r\n}\r\nENDED_SUCCESS  hello')


def test_long_work_shows_how_far_it_is_and_leaves_no_trace(server, tmp_path):
    journals.filled(tmp_path / "records", [1, 2, 1])

    seen = on_terminal("records", "reindex", "--state", tmp_path)

    assert re.search(r"indexing .*100%", plain(seen))
    assert plain(seen).splitlines()[-1].strip().startswith("5 records are indexed")
    exported = on_terminal("records", "export", server.create("hello"), "-o", tmp_path / "e", "--state", server.state)
    assert "exporting" in plain(exported)


def test_a_script_is_shown_as_it_is(server):
    assert "def handler(system, this, inputs):" in plain(on_terminal("flow", "show", "hello", "--state", server.state))
