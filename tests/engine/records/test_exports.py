"""The format of exports: versioned, checked line by line, and readable for as long as version 1 is."""

import base64
import hashlib
import json
from pathlib import Path

import pytest

from headrace.engine import errors
from headrace.engine.records import exports
from tests.support.daemons import Daemon
from tests.support.replays import export, outcome

GOLDEN = Path(__file__).parents[2] / "golden" / "export" / "version-1.jsonl"
#: What the golden file was exported from.
GOLDEN_FLOWS = {
    "orders": """from lib import numbers


def handler(system, this, inputs):
    this.log('order', inputs['number'])
    parts = this.flow('parts', n=inputs['number'])
    note = this.step('note', str.upper, 'noted')
    large = system.setting('large', value='x' * 70_000).get('value')
    this.set_output(parts=parts.get('output_value')['of'], note=note, size=len(large))
    try:
        this.flow('fails')
    except Exception as error:
        this.log(str(error))
    return this.success(f"ordered {numbers.twice(inputs['number'])}")
""",
    "parts": "def handler(system, this, inputs):\n    this.log('part')\n    return {'of': inputs['n']}\n",
    "fails": "def handler(system, this):\n    raise ValueError('no luck')\n",
    "lib/numbers": "def twice(number):\n    return 2 * number\n",
}


def read(text):
    return list(exports.read(text.splitlines(keepends=True), "it"))


def changed(**fields):
    first, rest = GOLDEN.read_bytes().split(b"\n", 1)
    return json.dumps(json.loads(first) | fields).encode() + b"\n" + rest


def test_the_golden_file_is_replayed_as_ever():
    again = outcome(GOLDEN)
    assert (again["verdict"], again["notes"], again["text"]) == ("same", [], "ENDED_SUCCESS: ordered 14")


def test_what_is_exported_now_has_the_shape_of_the_golden_file(tmp_path):
    for name, text in GOLDEN_FLOWS.items():
        path = tmp_path / "flows" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    daemon = Daemon(tmp_path / "s", tmp_path / "flows").start()
    try:
        file = export(daemon, daemon.run("orders", number=7)["id"], tmp_path / "now.jsonl")
        record = (daemon.state / "records" / "00000001.jsonl").read_text().splitlines()
    finally:
        assert daemon.stop() == 0

    def shape(path):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        # what interleaves with what is up to the moment; which lines there are is not
        return sorted((sorted(line), line.get("event", ""), line.get("source", "")) for line in lines)

    assert shape(file) == shape(GOLDEN)
    own = [line for line in file.read_text().splitlines() if line.startswith('{"seq":')]
    assert own == [line for line in record if line in own], "the journal's lines, as they are and in their order"


def test_a_file_of_a_newer_version_is_refused_with_what_to_do():
    with pytest.raises(errors.InvalidRequest) as refused:
        read(changed(version=2))
    assert refused.value.message == "it has version 2 of the format, this headrace reads version 1"
    assert "the headrace that wrote it" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "ends too early"),
        (b"{}\n", "line 1: not a line of an export: it does not begin with a header"),
        (b"[1]\n", "line 1: not a line"),
        (b"\xff\n", "line 1: not a line"),
        (changed(format="other"), "line 1"),
        (changed(headrace=1), "line 1"),
        (GOLDEN.read_bytes()[:-20], "ends too early"),
        (GOLDEN.read_bytes().rsplit(b"\n", 2)[0] + b"\n", "ends too early"),
        (GOLDEN.read_bytes() + b"{}\n", "not a line of an export"),
    ],
)
def test_what_is_no_export_is_refused_with_its_line(text, what):
    with pytest.raises(errors.InvalidRequest) as refused:
        read(text)
    assert what in refused.value.message


def test_a_line_that_is_missing_or_one_too_many_is_noticed():
    lines = GOLDEN.read_bytes().splitlines(keepends=True)
    for number in range(1, len(lines) - 1):
        with pytest.raises(errors.InvalidRequest):
            read(b"".join(lines[:number] + lines[number + 1 :]))
        with pytest.raises(errors.InvalidRequest):
            read(b"".join(lines[: number + 1] + lines[number:]))


@pytest.mark.parametrize("path", ["/etc/x.py", "../x.py", "a/../../x.py", "a/..", "x.sh", "./x.py", "a\0.py", ""])
def test_a_source_file_stays_below_its_folder(path):
    header = exports.header_line(exports.Header(headrace="1", python="3", execution="e"))
    with pytest.raises(errors.InvalidRequest, match="no path of a source file"):
        read(header + exports.source_line(path, b"") + exports.end_line(2))


def test_values_are_checked_against_their_hash_and_may_be_anything():
    header = exports.header_line(exports.Header(headrace="1", python="3", execution="e"))
    for content in (b'{"a": "\xc3\xa9"}', b"\xff\x00\n", b""):
        name = hashlib.sha256(content).hexdigest()
        (found,) = read(header + exports.blob_line(name, content) + exports.end_line(2))
        assert found.blobs == {name: content}
        with pytest.raises(errors.InvalidRequest, match="hash"):
            read(header + exports.blob_line("0" * 64, content) + exports.end_line(2))
    wrong = json.dumps({"blob": "0" * 64, "base64": base64.b64encode(b"x").decode() + "!"}).encode() + b"\n"
    with pytest.raises(errors.InvalidRequest, match="line 2"):
        read(header + wrong + exports.end_line(2))


def test_joined_files_are_read_one_after_the_other():
    assert [one.header.flow for one in read(GOLDEN.read_bytes() * 3)] == ["orders"] * 3
