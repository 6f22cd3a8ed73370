"""Flows as records: reading them, and writing them back to where they come from."""

from __future__ import annotations

import pytest

from tests.support.daemons import Daemon
from tests.support.repositories import Repository, git

TEXT = "def handler(system, this):\n    return 'written by a flow'\n"
WRITE = """
def handler(system, this, inputs):
    flow = system.flow(inputs['name'])
    flow.save(script=inputs['text'])
    this.set_output('ran', this.flow(inputs['name'], wait='ALL_ENDED').get('output_value'))
    this.set_output('read', flow.load('script'))
"""


@pytest.fixture(scope="module")
def hosted(tmp_path_factory):
    """A repository with flows, and daemons on it: one that may write back, one that may not."""
    home = tmp_path_factory.mktemp("h")
    repository = Repository(home / "repository")
    repository.write("writes.py", WRITE)
    repository.write("existing.py", "def handler(system, this):\n    return 'as it was'\n")
    repository.push("First flows")
    writer, reader = Daemon(home / "writer", repository.url), Daemon(home / "reader", repository.url)
    reader.environment["HEADRACE_SOURCE__WRITE_BACK"] = "false"
    try:
        writer.start(wait=False)
        reader.start()
        writer.until_ready()
        yield repository, writer, reader
        assert [daemon.stop() for daemon in (writer, reader)] == [0, 0]
    finally:
        writer.kill()
        reader.kill()


@pytest.mark.contract("3.flow.reads", "3.record.fields")
def test_a_flow_s_text_name_and_commit_can_be_read(workshop, value):
    assert value("""
flow = system.flow('child')
same = system.flow(flow.get('id'), by='id')
return [flow.get('script').startswith('\\nimport flow_api'), flow.get('name'), flow.get('commit') == this.get('commit'),
        same.get('name'), flow.get('id') == this.flow('child').get('flow_id'), len(flow.get('commit'))]
""") == [True, "child", True, "child", True, 40]


@pytest.mark.contract("3.flow.save")
@pytest.mark.parametrize("name", ["existing", "new folder/brand new"])
def test_saving_a_flow_is_a_commit_whose_author_is_the_execution(hosted, name):
    repository, writer, _ = hosted
    ended = writer.run("writes", name=name, text=TEXT)
    assert ended["status"] == "ENDED_SUCCESS", ended["message"]
    assert ended["output_value"]["read"] == TEXT
    upstream = repository.upstream
    assert git(upstream, "show", f"main:{name}.py") == TEXT.strip()
    author = git(upstream, "log", "-1", "--format=%an %ae %B", "main", "--", f"{name}.py")
    assert ended["id"] in author
    writer.client.sync()
    assert writer.run(name)["output_value"] == "written by a flow"


@pytest.mark.contract("3.flow.save")
def test_in_developer_mode_saving_a_flow_writes_its_file(workshop, value):
    value("system.flow('saved in a folder').save(script=inputs['text'])", text=TEXT)
    assert (workshop.folder / "saved in a folder.py").read_text() == TEXT
    workshop.daemon.client.sync()
    assert workshop.daemon.run("saved in a folder")["output_value"] == "written by a flow"


@pytest.mark.contract("3.flow.save")
def test_a_flow_is_made_renamed_and_deleted_with_its_id_kept(workshop, value):
    workshop.flow("to be renamed", TEXT)
    before, after, gone = value("""
flow = system.flow('to be renamed')
before = flow.get('id')
flow.save(name='renamed to this')
after = system.flow('renamed to this').get('id')
system.flow('renamed to this').delete()
return [before, after, system.flow('renamed to this').exists()]
""")
    assert (before, gone) == (after, False)
    assert not (workshop.folder / "renamed to this.py").exists()


@pytest.mark.contract("3.flow.save")
def test_a_flow_without_a_name_is_called_new_flow_and_begins_with_a_template(value):
    name, script = value("""
return system.flow().save().get('name', 'script')
""")
    assert name.startswith("new flow 20")
    assert "# TODO: write your automation" in script
    assert "def handler(system, this" in script


@pytest.mark.contract("3.flow.save")
def test_a_text_that_is_no_flow_is_saved_and_the_last_good_version_runs(workshop, value):
    workshop.flow("gets broken", TEXT)
    assert (
        value("""
flow = system.flow('gets broken')
flow.save(script='def handler(:')
return this.flow('gets broken').get('output_value')
""")
        == "written by a flow"
    )
    shown = workshop.api("GET", "/flows/gets%20broken")
    assert (shown["broken"]["line"], shown["script"]) == (1, TEXT)


@pytest.mark.contract("3.flow.save", "4.raised.InvalidInputError")
@pytest.mark.parametrize("name", ["../outside", "a/../../b", ".hidden/x", "x\ny", "__init__"])
def test_a_name_that_can_be_no_flow_s_is_refused(refused, name):
    refused(
        "system.flow(inputs['name']).save(script='def handler(system, this): pass')", "InvalidInputError", name=name
    )


@pytest.mark.contract("3.flow.denied", "4.raised.PermissionDenied")
def test_where_nothing_may_be_written_back_saving_is_denied(hosted):
    _, _, reader = hosted
    ended = reader.run("writes", name="existing", text=TEXT)
    assert (ended["status"], ended["error"]["type"]) == ("ENDED_ERROR", "PermissionDenied")
