"""Lines of the log as entries of systemd's journal: parsed as systemd does, on a socket of the test's own."""

import io
import json
import logging
import os

import pytest
import structlog

from headrace.daemon import journald, logs
from tests.support.journal import Listener


@pytest.fixture
def listener(tmp_path, monkeypatch):
    monkeypatch.setattr(journald, "SOCKET", str(tmp_path / "socket"))
    listener = Listener(tmp_path / "socket")
    handlers, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers[:] = []  # those of pytest would be closed otherwise
    yield listener
    listener.close()
    structlog.reset_defaults()
    for one in logging.root.handlers:
        one.close()
    logging.captureWarnings(capture=False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def test_a_line_is_an_entry_with_a_field_for_each_of_its_own(listener):
    logs.configure("journald", "info", io.StringIO())
    structlog.get_logger().info("execution.ended", execution="e1", flow="größe", duration_s=0.5, reason=None, ok=True)
    entry = listener.next()
    assert entry.pop("CODE_FILE") == __file__ and int(entry.pop("CODE_LINE")) > 0
    assert entry.pop("CODE_FUNC") == "test_a_line_is_an_entry_with_a_field_for_each_of_its_own"
    assert entry == {
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "headrace",
        "HEADRACE_EVENT": "execution.ended",
        "HEADRACE_EXECUTION": "e1",
        "HEADRACE_FLOW": "größe",
        "HEADRACE_DURATION_S": "0.5",
        "HEADRACE_OK": "true",
        "MESSAGE": "execution.ended execution=e1 flow=größe duration_s=0.5 ok=true",
    }


@pytest.mark.parametrize(("level", "priority"), [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3")])
def test_severities_are_those_of_syslog(listener, level, priority):
    logs.configure("journald", "debug", io.StringIO())
    getattr(structlog.get_logger(), level)("thing.happened")
    assert listener.next()["PRIORITY"] == priority


def test_what_has_several_lines_is_whole_and_cannot_make_up_fields(listener):
    logs.configure("journald", "info", io.StringIO())
    structlog.get_logger().info("push.refused", reason="a\nPRIORITY=0\nMESSAGE=forged", **{"odd name!": "\udcff"})
    entry = listener.next()
    assert (entry["PRIORITY"], entry["HEADRACE_REASON"]) == ("6", "a\nPRIORITY=0\nMESSAGE=forged")
    assert entry["HEADRACE_ODD_NAME_"] == "\\udcff"


def test_secrets_are_masked_and_tracebacks_are_in_the_message(listener):
    logs.configure("journald", "info", io.StringIO())
    try:
        raise ValueError("cannot reach https://bot:s3cret@forge.example/f.git")
    except ValueError:
        structlog.get_logger().exception("request.failed", token="s3cret", path="/x")
    entry = listener.next()
    assert "s3cret" not in str(entry) and entry["HEADRACE_TOKEN"] == "***"
    assert entry["MESSAGE"].startswith("request.failed ") and "\nValueError: cannot reach" in entry["MESSAGE"]


def test_what_libraries_log_takes_the_same_way(listener):
    logs.configure("journald", "info", io.StringIO())
    logging.getLogger("library").warning("odd %s", "thing")
    entry = listener.next()
    assert (entry["HEADRACE_EVENT"], entry["HEADRACE_LOGGER"], entry["PRIORITY"]) == ("odd thing", "library", "4")
    assert entry["CODE_FILE"] == __file__


def test_what_is_too_large_for_a_datagram_is_handed_over_as_a_sealed_file(listener):
    logs.configure("journald", "info", io.StringIO())
    structlog.get_logger().info("thing.happened", text="x" * 3_000_000)
    assert len(listener.next()["HEADRACE_TEXT"]) == 3_000_000 and listener.files == 1
    structlog.get_logger().info("thing.happened", text="y")
    assert listener.next()["HEADRACE_TEXT"] == "y"


def test_while_the_journal_is_away_lines_go_to_stderr_and_come_back_to_it(listener, tmp_path):
    out = io.StringIO()
    logs.configure("journald", "info", out)
    listener.close()
    (tmp_path / "socket").unlink()
    structlog.get_logger().info("thing.happened", n=1)
    assert [json.loads(line)["n"] for line in out.getvalue().splitlines()] == [1]
    again = Listener(tmp_path / "socket")
    structlog.get_logger().info("thing.happened", n=2)
    assert again.next()["HEADRACE_N"] == "2"
    again.close()


def test_the_journal_is_spoken_to_by_itself_only_if_stderr_is_its(listener, tmp_path, monkeypatch):
    with (tmp_path / "stream").open("w+") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        logs.configure("auto", "info", stream)
        structlog.get_logger().info("thing.happened", n=1)
        assert listener.next()["HEADRACE_N"] == "1"
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")  # somebody redirected it
        logs.configure("auto", "info", stream)
        structlog.get_logger().info("thing.happened", n=2)
        stream.seek(0)
        assert [json.loads(line)["n"] for line in stream] == [2]
