"""docs/repository.md: its files are good declarations, and what it lists is what there is."""

import re
import sys
from pathlib import Path

import pytest

from headrace.engine import errors, model
from headrace.sync import check, compile_flows, declarations, documents, edits, places, read_documents, shapes, tree

DOCUMENT = (Path(__file__).parents[2] / "docs" / "repository.md").read_text()
BLOCKS = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
KEYS = dict(re.findall(r"^\| `(\w+)/` \| (.*) \|$", DOCUMENT, re.MULTILINE))


def test_the_examples_are_good_declarations():
    files = {path: text.encode() for path, text in BLOCKS}
    assert len(files) == 5
    entries = tuple(tree.Entry(path, tree.blob_sha(text), "100644", len(text)) for path, text in files.items())
    gathered = declarations.gather(
        model.Catalogue(),
        declarations.Commit(
            sha="0" * 40,
            plan=tree.Plan(entries, {}),
            places=places.USUAL,
            documents=documents.read(files),
            webhooks={},
        ),
    )
    assert (gathered.problems, gathered.warnings) == ((), {})
    assert {path for named in gathered.declared.values() for path in (one.path for one in named.values())} == {*files}


def test_every_folder_is_listed():
    table = DOCUMENT.partition("## What the files say")[0]
    assert all(f"| `{folder}/**" in table for folder in places.FOLDERS)


@pytest.mark.parametrize("folder", [folder for folder in places.FOLDERS if folder not in ("settings", "files")])
def test_every_key_is_listed(folder):
    with pytest.raises(shapes.Wrong) as caught:
        declarations._SHAPES[places.FOLDERS[folder]]({"?": 1})
    known = set(re.search(r"there are (.*)", caught.value.message)[1].split(", "))
    assert set(re.findall(r"`(\w+)`", KEYS[folder])) == known
    required = set(re.findall(r"\*\*`(\w+)`\*\*", KEYS[folder]))
    for key in required:
        others = {"flow_name": "a", "cron": "@daily", "connection_type": "x", "value": {}, "url": "https://x"}
        with pytest.raises(shapes.Wrong, match=f"has no {key}"):
            declarations._SHAPES[places.FOLDERS[folder]]({k: v for k, v in others.items() if k in required - {key}})


def test_the_limits_are_those_of_the_code():
    said = re.sub(r"\s+", " ", DOCUMENT)
    assert f"a file of more than {tree.FILE_BYTES_MAX >> 20} MiB" in said
    assert f"a `.py` file of more than {tree.PYTHON_BYTES_MAX >> 20} MiB" in said
    assert (
        f"more than {documents.DOCUMENT_BYTES_MAX >> 20} MiB, and more than {read_documents.DEPTH_MAX} levels" in said
    )
    assert f"A script has at most {edits.SCRIPT_BYTES_MAX >> 20} MiB" in said


@pytest.mark.parametrize("name", ["a/..", ".git/x", "_lib/x", ".x/y", "tests/x", "__init__", "x/conftest", "files/x"])
def test_the_names_it_rules_out_are_refused(name):
    with pytest.raises(errors.InvalidRequest):
        edits.path_of(name, places.USUAL)


def test_a_flow_below_files_is_none_and_elsewhere_it_is():
    assert not places.USUAL.may_be_flow("files/x.py")
    assert places.USUAL.may_be_flow("webhooks/x.py")
    assert check.may_be_flow("files/x.py")  # by itself a name like any other


def test_yaml_is_read_as_it_says():
    read = documents.read({"a.yaml": b"a: yes\nb: 12:30\nc: '12:30'\non: 2024-01-02\n"})["a.yaml"]
    assert bytes(read.value) == b'{"a": true, "b": 750, "c": "12:30", "on": "2024-01-02"}'


def test_the_children_need_nothing_of_ours():
    for module in (compile_flows, read_documents):
        imports = re.findall(r"^(?:import|from) (\S+)", Path(module.__file__).read_text(), re.MULTILINE)
        assert {name.partition(".")[0] for name in imports} - sys.stdlib_module_names <= {"yaml"}
