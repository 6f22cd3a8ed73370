"""Which flow a file is: told by content, and in doubt by where it lies."""

import pytest

from headrace.sync import lineage
from tests.support.repositories import FLOW


def origins(was, now, *, renames=None, alike=(), moved=None):
    return lineage.origins(
        was,
        was.keys(),
        lineage.Arrivals(
            files=now,
            left_out=(),
            may_be_flow=lambda path: path.endswith(".py"),
            meant_as_flow=now.keys(),
            moved=moved or {},
            renames=lambda: renames or {},
            alike=lambda old, new: (old, new) in alike,
        ),
    )


@pytest.mark.parametrize(
    ("was", "now", "found"),
    [
        pytest.param({"a.py": "1"}, {"a.py": "1"}, {}, id="nothing"),
        pytest.param({"a.py": "1"}, {"a.py": "2"}, {}, id="an edit"),
        pytest.param({"a.py": "1"}, {"b.py": "1"}, {"b.py": "a.py"}, id="a rename"),
        pytest.param(
            {"a.py": "1", "b.py": "2"}, {"a.py": "2", "b.py": "1"}, {"a.py": "b.py", "b.py": "a.py"}, id="a swap"
        ),
        pytest.param({"a.py": "1"}, {"b.py": "1", "a.py": "9"}, {"b.py": "a.py"}, id="a rename and a new one there"),
        pytest.param(
            {"a.py": "1", "b.py": "2"}, {"b.py": "1", "c.py": "2"}, {"b.py": "a.py", "c.py": "b.py"}, id="a chain"
        ),
        pytest.param(
            {"a.py": "1", "b.py": "2", "c.py": "3"},
            {"a.py": "3", "b.py": "1", "c.py": "2"},
            {"b.py": "a.py", "c.py": "b.py", "a.py": "c.py"},
            id="a circle",
        ),
        pytest.param(
            {"x/a.py": "1", "x/b.py": "2"}, {"y/a.py": "1", "y/b.py": "2"}, {"y/a.py": "x/a.py", "y/b.py": "x/b.py"},
            id="a folder",
        ),
        pytest.param({"a.py": "1"}, {"a.py": "1", "b.py": "1"}, {}, id="a copy"),
        pytest.param({"a.py": "1", "b.py": "1"}, {"a.py": "1", "b.py": "2", "c.py": "1"}, {}, id="twins"),
        pytest.param({"a.py": "1"}, {"a.py": "9", "b.py": "1", "c.py": "1"}, {}, id="two places to have gone to"),
        pytest.param({"a.py": "1", "b.py": "2"}, {"b.py": "1"}, {}, id="one put over another"),
        pytest.param({"a.py": "1"}, {"a.txt": "1", "a.py": "2"}, {}, id="to where no flow can be"),
    ],
)  # fmt: skip
def test_a_flow_goes_with_its_content_where_that_is_certain(was, now, found):
    assert origins(was, now) == found


def test_a_copy_whose_original_was_edited_is_a_copy():
    now = {"a.py": "1 edited", "b.py": "1"}
    assert origins({"a.py": "1"}, now, alike={("1", "1 edited")}) == {}
    assert origins({"a.py": "1"}, now) == {"b.py": "a.py"}


def test_what_we_moved_ourselves_counts_first_and_git_last():
    was, now = {"a.py": "1", "c.py": "3"}, {"b.py": "7", "d.py": "1", "e.py": "3 edited"}
    renames = {"b.py": "c.py", "e.py": "c.py"}
    assert origins(was, now, moved={"b.py": "a.py"}, renames={"e.py": "c.py"}) == {"b.py": "a.py", "e.py": "c.py"}
    assert origins(was, now, renames=renames) == {"d.py": "a.py", "b.py": "c.py"}


async def test_ids_go_with_the_content_when_files_are_exchanged_and_replaced(repository, daemon):
    texts = {name: FLOW + f"# {name}\n" * 20 for name in ("one", "two", "three")}
    for name, text in texts.items():
        repository.write(f"{name}.py", text)
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    before = {name: sync.flows.find(name).id for name in texts}
    repository.write("one.py", texts["two"])
    repository.write("two.py", texts["one"])
    repository.move("three.py", "archive/three.py")
    repository.write("three.py", "def handler(system, this, inputs):\n    this.log('quite another one')\n")
    repository.push()
    await daemon.synced(sync)
    ids = {name: flow.id for name, flow in sync.flows.current().flows.items()}
    assert (ids["one"], ids["two"], ids["archive/three"]) == (before["two"], before["one"], before["three"])
    assert ids["three"] not in before.values()
    repository.write("copy.py", texts["one"])
    repository.write("two.py", texts["one"] + "# edited\n")
    repository.push()
    await daemon.synced(sync)
    assert sync.flows.find("two").id == before["one"] != sync.flows.find("copy").id
