"""docs/tasks.md: its tables are those of the registry, its example runs."""

import json
import re
from pathlib import Path

import pytest

from headrace.tasks import git, page, registry, rest, rest_request, retry
from tests.support.daemons import Daemon

DOCUMENT = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
PROSE = " ".join(DOCUMENT.split())
TYPES = registry.built_in().types()


@pytest.mark.parametrize("name", ["all", *(one.name for one in TYPES)])
def test_the_inputs_are_those_of_the_declarations(name):
    again = "run `python -m headrace.tasks.page` and put its tables into docs/tasks.md"
    assert f"<!-- {name} -->\n{page.tables()[name]}\n" in DOCUMENT, again


@pytest.mark.parametrize("one", TYPES, ids=lambda one: one.name)
def test_names_and_outputs_are_all_described(one):
    section = DOCUMENT.partition(f"## {one.name}\n")[2].partition("\n## ")[0]
    outputs = section.partition("| output | is |")[2].partition("\n\n")[0]
    named = [
        name for cell in re.findall(r"^\| (`.*?) \|", outputs, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    ]
    assert set(named) == set(one.output["$defs"][one.output["$ref"].rpartition("/")[2]]["properties"])
    assert all(f"`{alias}`" in section for alias in one.aliases)


def test_no_type_and_no_limit_is_forgotten():
    assert set(re.findall(r"^## ([A-Z0-9]+)$", DOCUMENT, re.MULTILINE)) == {one.name for one in TYPES}
    assert re.search(r"after the statuses ([\d, and]+);", PROSE)[1].replace(" and", ",").split(", ") == [
        str(status) for status in sorted(rest._PASSING)
    ]
    assert all(method in PROSE for method in rest_request.RETRYABLE)
    backoff = re.search(r"`(\{'initial'.*?\})`", PROSE)[1].replace("'", '"')
    assert json.loads(backoff) == {name: getattr(retry.Backoff(), name) for name in retry.Backoff.__struct_fields__}
    assert f"{rest.BODY_BYTES_MAX >> 20} MiB in memory, and {rest.FILE_BYTES_MAX >> 30} GiB with `dst`" in PROSE
    assert f"{git.ENTRIES_MAX:,} files and folders" in PROSE
    assert f"{git.OUTPUT_BYTES_MAX >> 20} MiB as output, {git.STORED_BYTES_MAX >> 20} MiB with `files_path`" in PROSE


def test_the_example_ends_well(tmp_path):
    (tmp_path / "flows").mkdir()
    block = re.search(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)[1]
    (tmp_path / "flows" / "task.py").write_text(block)
    daemon = Daemon(tmp_path / "s", tmp_path / "flows").start()
    inputs = json.loads(re.search(r"^# inputs: (.*)$", block, re.MULTILINE)[1])
    assert daemon.run("task", **inputs)["status"] == "ENDED_SUCCESS"
    assert daemon.stop() == 0
