"""A flow's versions: listed over renames, read, compared, brought back; of deleted flows, too."""

import re

import pytest

from headrace.engine import errors
from tests.support.browser import Browser
from tests.support.daemons import Daemon
from tests.support.repositories import Repository, git

TEXT = "def handler(system, this):\n    a = 1\n    b = 2\n    c = 3\n    return {n}\n"


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A repository in which a flow was made, changed, renamed with an edit, and another one deleted."""
    repository = Repository(tmp_path_factory.mktemp("r"))
    commits = []
    repository.write("first.py", TEXT.format(n=1))
    repository.write("gone.py", TEXT.format(n=7) + "# gone\n" * 9)
    commits.append(repository.push("Begin"))
    repository.write("first.py", TEXT.format(n=2))
    commits.append(repository.push("Return two\n\nBecause."))
    repository.move("first.py", "sub/second.py")
    repository.write("sub/second.py", TEXT.format(n=3))
    commits.append(repository.push("Move it"))
    repository.remove("gone.py")
    commits.append(repository.push("Remove it"))
    return repository, commits


@pytest.fixture(scope="module")
def daemon(pushed, tmp_path_factory):
    running = Daemon(tmp_path_factory.mktemp("s"), pushed[0].url).start()
    yield running
    assert running.stop() == 0


def test_every_version_is_listed_over_a_rename_with_an_edit(daemon, pushed):
    _, commits = pushed
    found = daemon.client.flow_history("sub/second")
    assert [(one["commit"], one["change"], one["name"], one["before"]) for one in found] == [
        (commits[2], "renamed", "sub/second", "first"),
        (commits[1], "changed", "first", ""),
        (commits[0], "added", "first", ""),
    ]
    assert (found[1]["author"], found[1]["message"]) == ("Ada", "Return two\n\nBecause.")


def test_the_page_of_the_source_says_what_each_commit_changed(daemon, pushed):
    repository, commits = pushed
    repository.write("notes/a b.txt", "x")
    repository.push("Note it \x01 with\x1b[31m colours")
    browser = Browser(daemon.url).logged_in(daemon.token())
    daemon.client.sync()
    page = " ".join(re.sub("<[^>]*>", " ", browser.get("/sync")).split())
    assert "Return two Ada 1 file changed first.py" in page
    assert "Move it Ada 1 file renamed sub/second.py before: first.py" in page
    assert "Remove it Ada 1 file deleted gone.py" in page
    assert "Note it with colours Ada 1 file added notes/a b.txt" in page
    assert page.count("Published") == 2 and page.index(commits[0][:8]) > page.index(commits[2][:8])


def test_pages_stay_the_same_while_commits_come(daemon, pushed):
    path = "/flows/sub%2Fsecond/history"
    page = daemon.client._json("GET", path, query=[("limit", "2")])
    daemon.client.save_flow("unrelated", TEXT.format(n=0))
    rest = daemon.client._json("GET", path, query=[("limit", "2"), ("cursor", page["next"])])
    assert [one["change"] for one in page["items"] + rest["items"]] == ["renamed", "changed", "added"]
    assert rest["next"] is None


def test_the_source_at_a_commit_is_found_by_the_path_it_had(daemon, pushed):
    _, commits = pushed
    assert daemon.client.flow_at("sub/second", commits[0])["script"] == TEXT.format(n=1)
    assert daemon.client.flow_at("sub/second", commits[3][:8])["script"] == TEXT.format(n=3)
    with pytest.raises(errors.NotFound):
        daemon.client.flow_at("sub/second", "0" * 40)
    with pytest.raises(errors.NotFound):
        daemon.client.flow_at("sub/second", "HEAD")


def test_two_versions_are_compared_over_a_rename(daemon, pushed):
    _, commits = pushed
    text = daemon.client.flow_diff("sub/second", commits[0], commits[2])
    assert text.startswith(f"--- first.py\t{commits[0][:12]}\n+++ sub/second.py\t{commits[2][:12]}\n@@ ")
    assert "\n-    return 1\n+    return 3\n" in text
    assert daemon.client.flow_diff("sub/second", commits[2], commits[2]) == ""


def test_a_deleted_flow_has_its_history_and_its_source(daemon, pushed):
    _, commits = pushed
    assert [one["change"] for one in daemon.client.flow_history("gone")] == ["deleted", "added"]
    assert daemon.client.flow_at("gone", commits[1])["script"].startswith(TEXT.format(n=7))
    for name in ("never", "../first", "a\nb"):
        with pytest.raises(errors.NotFound):
            daemon.client.flow_history(name)


def test_a_version_is_brought_back_by_a_commit_of_whoever_did_it(daemon, pushed):
    repository, commits = pushed
    id_ = daemon.client.flow("sub/second")["id"]
    restored = daemon.client.restore_flow("sub/second", commits[0])
    assert (restored["id"], daemon.client.flow("sub/second")["script"]) == (id_, TEXT.format(n=1))
    said = git(repository.upstream, "log", "-1", "--format=%s", "main")
    assert said == f'Restore flow "sub/second" as it was in {commits[0][:12]}'
    assert daemon.client.restore_flow("gone", commits[0], message="It is needed")["runnable"]
    assert [one["change"] for one in daemon.client.flow_history("gone")] == ["added", "deleted", "added"]


def test_a_copy_begins_a_history_of_its_own(daemon):
    original = TEXT.format(n=11) + "# the original\n" * 5
    daemon.client.save_flow("original", original)
    daemon.client.save_flow("original", original + "# changed\n")
    daemon.client.save_flow("copy", original + "# changed\n")
    assert [one["change"] for one in daemon.client.flow_history("copy")] == ["added"]
    assert [one["change"] for one in daemon.client.flow_history("original")] == ["changed", "added"]


def test_a_deleted_flow_keeps_its_executions_with_their_source(daemon):
    daemon.client.save_flow("short lived", TEXT.format(n=5))
    ended = daemon.run("short lived")
    daemon.client.delete_flow("short lived")
    (listed,) = daemon.client.executions(flow="short lived")["items"]
    assert listed["id"] == ended["id"]
    assert daemon.client.execution(ended["id"])["commit"] == ended["commit"]
    assert daemon.client.flow_at("short lived", ended["commit"])["script"] == TEXT.format(n=5)
    page = Browser(daemon.url).logged_in(daemon.token()).get(f"/executions/{ended['id']}")
    assert "short lived" in page
    assert b"return 5" in b"".join(daemon.client.export(ended["id"]))
