"""docs/flows.md: its flows run, and what it lists is what there is."""

import datetime
import inspect
import json
import re
from pathlib import Path

import pytest

from headrace.engine import lifecycle, values
from headrace.engine.guest import exceptions, flow_api
from headrace.engine.running import asking, child_calls, output, own_calls, record_calls, recorder, views
from headrace.engine.state import filters, forms, kinds
from headrace.sync import metadata
from tests.support.daemons import Daemon

DOCS = Path(__file__).parents[2] / "docs"
ENGINE = DOCS.parent / "engine"
DOCUMENT = (DOCS / "flows.md").read_text()
REFERENCE = (DOCS / "flow-api.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
FILES = {re.search(r"^# ([\w/ ]+\.py)$", block, re.MULTILINE)[1]: block for block in BLOCKS}
FLOWS = {name: block for name, block in FILES.items() if "def handler(" in block}


def said(block: str, what: str, default: str) -> str:
    found = re.search(rf"^# {what}: (.*)$", block, re.MULTILINE)
    return found[1] if found else default


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    home = tmp_path_factory.mktemp("docs")
    for name, block in FILES.items():
        path = home / "flows" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    daemon = Daemon(home / "s", home / "flows").start()
    yield daemon
    assert daemon.stop() == 0


def test_every_block_is_a_file_of_its_own():
    assert len(FILES) == len(BLOCKS) > 10


@pytest.mark.parametrize("name", FLOWS)
def test_an_example_ends_as_it_says(daemon, name):
    ended = daemon.run(name.removesuffix(".py"), **json.loads(said(FLOWS[name], "inputs", "{}")))
    assert ended["status"] == said(FLOWS[name], "ends", "ENDED_SUCCESS"), ended


def test_what_an_example_says_is_recorded_is_recorded(daemon):
    told = [(name, text) for name in FLOWS for text in re.findall(r"# recorded as: (.*)$", FLOWS[name], re.MULTILINE)]
    assert told
    for name, text in told:
        execution = daemon.run(name.removesuffix(".py"))["id"]
        assert text in [line.get("text") for line in daemon.record(execution) if line["event"] == "log.written"]


def test_no_example_is_broken_or_ignored(daemon):
    flows = {flow["path"]: flow for flow in daemon.client.flows()}
    assert flows.keys() == FLOWS.keys()
    assert not [path for path, flow in flows.items() if flow["broken"]]
    assert daemon.client.sync_state()["warnings"] == {}


@pytest.mark.parametrize("owner", [flow_api.Execution, flow_api.System, *flow_api.Record.__subclasses__()])
def test_every_method_is_described(owner):
    """In the reference, under a heading of its own; another name of it is told of in one of both."""
    described = set(re.findall(r"^### \w+\.(\w+)$", REFERENCE, re.MULTILINE))
    members = {name: member for name, member in inspect.getmembers(owner) if not name.startswith("_")}
    main = {id(member) for name, member in members.items() if name in described}
    other = [name for name, member in members.items() if name not in described and id(member) in main]
    assert members.keys() - described - set(other) <= {"return_when"}
    assert not [name for name in other if not re.search(rf"(`|\.){name}\b", DOCUMENT + REFERENCE)]


def test_the_guide_leads_to_the_reference():
    assert "[flow-api.md](flow-api.md)" in DOCUMENT


def test_every_parameter_of_a_child_is_described():
    parameters = set(inspect.signature(flow_api.Execution.flow).parameters) - {"self", "flow_name", "more_inputs"}
    assert not [name for name in parameters if f"{name}=" not in DOCUMENT]


def test_nothing_is_described_that_does_not_exist():
    used = set(re.findall(r"\b(?:this|system|child|later|slow)\.(?!py\b)(\w+)", DOCUMENT))
    assert used <= {*dir(flow_api.Execution), *dir(flow_api.System)}
    called = set(re.findall(r"\)\.(\w+)\(", DOCUMENT))
    known = {*dir(flow_api.Execution), *dir(str), *dir(dict), *dir(datetime.datetime)}
    assert called <= known.union(*(dir(kind) for kind in flow_api.Record.__subclasses__()))


def test_fields_statuses_and_ways_to_wait_are_all_there():
    listed = set(re.findall(r"`(\w+)`", DOCUMENT))
    assert set(views.FIELDS) <= listed
    assert {f"`{field}`" for field in own_calls._SAVED} - {"`status_message`"} == set(
        re.findall(r"`\w+`", re.search(r"^Of these, (.*?) can be saved\.", DOCUMENT, re.MULTILINE)[1])
    )
    assert {status.value for status in lifecycle.Status} <= listed
    assert {way.value for way in flow_api.ReturnWhen} <= listed


def test_every_record_and_element_is_told_of():
    assert not [kind for kind in kinds.KINDS if f"`{kind}`" not in DOCUMENT]
    for kind in kinds.KINDS.values():
        assert not [field for field in kind.fields if f"`{field}`" not in DOCUMENT]
    assert not [element for element in forms._KINDS if f"`{element}`" not in DOCUMENT]


def test_the_exceptions_listed_exist():
    table = DOCUMENT.partition("| exception |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`([A-Z]\w+)`", table)) - {"Exception"}
    never = set(
        re.findall(r"`([A-Z]\w+)`", re.search(r"^\* (.*) can be imported, and is not", DOCUMENT, re.MULTILINE)[1])
    )
    assert listed | never == set(exceptions.__all__)
    assert not listed & never
    raised = "\n".join(path.read_text() for room in ("running", "state") for path in (ENGINE / room).glob("*.py"))
    assert {name for name in never if f'Refused("{name}"' in raised} == set()


#: The first cells of the table of metadata.
_METADATA_ROWS = re.findall(
    r"^\| (`\w+`(?:, `\w+`)*) \|",
    DOCUMENT.partition("| key of `[tool.headrace]` |")[2].partition("\n\n")[0],
    re.MULTILINE,
)


def test_metadata_keys_stand_where_they_belong():
    assert set(re.findall(r"`(\w+)`", "".join(_METADATA_ROWS))) == metadata._KEYS.keys()


def test_the_limits_are_those_of_the_code():
    table = DOCUMENT.partition("## Limits")[2]
    assert f"| {values.VALUE_BYTES_MAX * 3 // 4 >> 20} MiB; " in table  # base64 takes four characters for three bytes
    assert f"is saved | {record_calls._SCRIPT_BYTES_MAX >> 20} MiB |" in table
    assert f"{values.VALUE_BYTES_MAX >> 20} MiB" in table
    assert f"{output.OUTPUT_BYTES_MAX >> 20} × 1024 × 1024" in table
    assert f"| {child_calls.DEPTH_MAX} |" in table
    assert f"| {record_calls.LISTED_MAX:,} |" in table
    sizes = (forms.BODY_BYTES_MAX >> 20, forms.PROPERTIES_MAX, forms.ANSWER_BYTES_MAX >> 20)
    assert "| {} MiB · {} · {} MiB |".format(*sizes) in table
    assert f"| {filters.DEPTH_MAX} · {filters.CONDITIONS_MAX:,} · {filters.CHOICES_MAX:,} |" in table
    assert f"people | {asking._SUBJECT_CHARACTERS_MAX:,} characters |" in table
    assert f"{values.TEXT_CHARACTERS_MAX:,} · {4 * values.TEXT_CHARACTERS_MAX:,} characters" in table
    assert recorder.TARGET_CHARACTERS_MAX == kinds.NAME_CHARACTERS_MAX
    assert f"record | {kinds.NAME_CHARACTERS_MAX:,} characters |" in table
    assert f"or after {record_calls._PUBLISHED_S:g} s" in DOCUMENT
