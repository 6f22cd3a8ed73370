"""The daemon's log: one line a happening, secrets hidden, libraries included."""

import io
import json
import logging
import warnings

import pytest
import structlog

from headrace.daemon import logs


@pytest.fixture
def out():
    stream = io.StringIO()
    handlers, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers[:] = []  # those of pytest would be closed otherwise
    yield stream
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_how_severe_and_what_first(out):
    logs.configure("auto", "info", out)

    structlog.get_logger().info("execution.ended", execution="e1", duration_s=0.5)

    (line,) = lines(out)
    assert list(line)[:3] == ["at", "level", "event"]
    assert line["at"].endswith("Z")
    assert line | {"at": ""} == {
        "at": "", "level": "info", "event": "execution.ended", "execution": "e1", "duration_s": 0.5,
    }  # fmt: skip


def test_less_severe_lines_are_left_out(out):
    logs.configure("json", "warning", out)

    structlog.get_logger().info("sync.started")
    logging.getLogger("library").info("chatter")
    structlog.get_logger().error("sync.failed")

    assert [line["event"] for line in lines(out)] == ["sync.failed"]


def test_libraries_and_warnings_take_the_same_way_out(out):
    logs.configure("json", "info", out)

    logging.getLogger("library").warning("odd %s", "thing")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("careful", stacklevel=1)

    first, second = lines(out)
    assert (first["event"], first["logger"], first["level"]) == ("odd thing", "library", "warning")
    assert "careful" in second["event"]


def test_secrets_are_hidden_wherever_they_stand(out):
    logs.configure("json", "info", out)

    try:
        raise ValueError("cannot reach https://bot:s3cret@forge.example/f.git")
    except ValueError:
        structlog.get_logger().exception(
            "sync.failed",
            token="s3cret",
            headers={"Authorization": "Bearer s3cret-s3cret", "Accept": "json"},
            urls=["https://s3cret@forge.example/f.git"],
            note="sent hr_s3crets3cret",
            argv=("git", b"https://x:s3cret@forge.example"),
        )

    assert "s3cret" not in out.getvalue()
    (line,) = lines(out)
    assert "Traceback" in line["exception"]
    assert line["headers"]["Accept"] == "json"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("note", "Bearer s3cret-s3cret", "***"),
        ("note", "ba\u017fic s3cret-s3cret", "***"),  # a letter that counts as an s
        ("note", "sent HR_s3crets3cret", "sent ***"),
        ("note", "https://bot:s3cret@forge.example", "https://***@forge.example"),
        ("api-key", "s3cret", "***"),
        ("note", ["Basic s3cret-s3cret"], ["***"]),
        ("note", {"password": "s3cret"}, {"password": "***"}),
        ("note", 7, 7),
        ("note", None, None),
        ("note", "basically bearers of hr_x", "basically bearers of hr_x"),
    ],
)
def test_a_secret_is_hidden_also_where_nothing_else_of_the_line_is_suspicious(out, name, value, shown):
    logs.configure("json", "info", out)

    structlog.get_logger().info("sync.failed", flow="deploy", **{name: value})

    (line,) = lines(out)
    assert line[name] == shown
    assert line["flow"] == "deploy"


def test_no_value_can_break_a_line(out):
    logs.configure("json", "info", out)

    structlog.get_logger().info("file.found", name="caf\udce9.py", size=2**70, path=object())

    (line,) = lines(out)
    assert line["size"] == 2**70
    assert line["name"].startswith("caf")


def test_people_get_one_readable_line(out):
    logs.configure("console", "info", out)

    structlog.get_logger().info("sync.published", commit="1a2b3c4", token="s3cret")

    assert "sync.published" in out.getvalue()
    assert "commit=1a2b3c4 token=***" in out.getvalue()
    assert "\x1b" not in out.getvalue()
