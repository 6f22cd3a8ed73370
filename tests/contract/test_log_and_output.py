"""What flows say: this.log, print, subprocesses, logging."""

from __future__ import annotations

import pytest


def lines(workshop, body, **inputs):
    """Run a body and return its log."""
    ended = workshop.run(body, **inputs)
    assert ended["status"] == "ENDED_SUCCESS", ended["message"]
    return workshop.log(ended["id"])


@pytest.mark.contract("2.log.values")
def test_values_are_kept_in_order_and_keywords_as_labels(workshop):
    (line,) = lines(workshop, "this.log('text', 1, None, {'k': [True]}, answer=42, none=None)")
    assert line["args"] == ["text", 1, None, {"k": [True]}]
    assert line["kwargs"] == {"answer": 42, "none": None}
    assert line["text"].startswith("text 1") and "answer=42" in line["text"]
    assert line["level"] == "INFO"


@pytest.mark.contract("2.log.values")
def test_labels_alone_and_nothing_at_all_are_logged_too(workshop):
    first, second = lines(workshop, "this.log(a=1)\nthis.log()")
    assert (first["args"], first["kwargs"]) == ([], {"a": 1})
    assert (second["args"], second["kwargs"]) == ([], {})


@pytest.mark.contract("2.log.values")
def test_log_gives_the_execution_back(value):
    assert value("return this.log('a').log('b') is this") is True


@pytest.mark.contract("2.log.anything")
def test_what_json_cannot_hold_is_logged_as_text(workshop):
    found = lines(
        workshop,
        "this.log(object, {1, 2}, {'deep': [int]}, label=ValueError('x'))\nthis.log(float('nan'), b'bytes')",
    )
    assert found[0]["args"] == ["<class 'object'>", "{1, 2}", {"deep": ["<class 'int'>"]}]
    assert found[0]["kwargs"] == {"label": "x"}
    assert found[1]["args"] == ["nan", "b'bytes'"]


@pytest.mark.contract("2.log.anything")
def test_a_structure_without_end_does_no_harm(workshop):
    (line,) = lines(workshop, "a = []\na.append(a)\nthis.log(a)")
    assert line["args"] == ["[[...]]"]


@pytest.mark.contract("2.log.logln")
def test_logln_is_log(workshop):
    (line,) = lines(workshop, "this.logln('text', a=1)")
    assert (line["args"], line["kwargs"]) == (["text"], {"a": 1})


@pytest.mark.contract("2.log.level")
@pytest.mark.parametrize(
    ("said", "kept"), [("DEBUG", "DEBUG"), ("warning", "WARNING"), ("Error", "ERROR"), ("CRITICAL", "CRITICAL")]
)
def test_a_level_is_honoured(workshop, said, kept):
    (line,) = lines(workshop, "this.log('text', level=inputs['level'])", level=said)
    assert (line["level"], line["kwargs"]) == (kept, {})


@pytest.mark.contract("2.log.level")
def test_a_level_there_is_not_is_refused(refused):
    assert "LOUD" in refused("this.log('text', level='LOUD')", "InvalidInputError")


@pytest.mark.contract("2.log.print")
def test_what_is_printed_keeps_its_place_among_the_calls(workshop):
    found = lines(
        workshop,
        "import sys\nprint('one')\nthis.log('two')\nprint('three ä', file=sys.stderr)\n"
        "this.get('status')\nprint('four')",
    )
    assert [line["text"] for line in found] == ["one", "two", "three ä", "four"]
    assert [line["stream"] for line in found] == ["stdout", "", "stderr", "stdout"]


@pytest.mark.contract("2.log.print")
def test_what_was_printed_before_a_failure_is_kept(workshop, run):
    ended = run("print('last words', end='')\nraise ValueError('x')")
    assert [line["text"] for line in workshop.log(ended["id"])] == ["last words"]


@pytest.mark.contract("2.log.subprocess")
def test_what_subprocesses_write_is_recorded_in_its_place(workshop):
    found = lines(
        workshop,
        "import subprocess\nprint('before')\n"
        "subprocess.run(['sh', '-c', 'echo from a subprocess; echo to stderr >&2'])\nprint('after')",
    )
    out = "\n".join(line["text"] for line in found if line["stream"] == "stdout")
    assert out.splitlines() == ["before", "from a subprocess", "after"]
    assert ("stderr", "to stderr") in [(line["stream"], line["text"].strip()) for line in found]


@pytest.mark.contract("2.log.logging")
def test_python_s_logging_is_recorded_with_its_level(workshop):
    found = lines(
        workshop,
        "import logging\nlogging.info('a %s', 'b')\nlogging.getLogger('my.part').warning('careful')\n"
        "logging.debug('not asked for')\nthis.log('mine')\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.exception('it failed')",
    )
    said = [(line["level"], line["text"].splitlines()[0].split(" logger=")[0]) for line in found]
    assert said == [("INFO", "a b"), ("WARNING", "careful"), ("INFO", "mine"), ("ERROR", "it failed")]
    assert "ZeroDivisionError" in str(found[-1])
    assert found[0]["stream"] == "logging"


@pytest.mark.contract("2.log.logging")
def test_basic_config_decides_what_is_recorded_and_nothing_is_recorded_twice(workshop):
    found = lines(
        workshop,
        "import logging\nlogging.basicConfig(level=logging.DEBUG, format='%(levelname)s: %(message)s')\n"
        "logging.debug('now asked for')",
    )
    assert [(line["level"], line["text"]) for line in found] == [("DEBUG", "DEBUG: now asked for")]
