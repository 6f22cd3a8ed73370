"""A push becomes a catalogue: what is published, what is kept, what is refused."""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest

from headrace.engine import errors, events
from headrace.sync import check
from tests.support.repositories import FLOW, git


async def test_a_push_is_published_with_its_files(repository, daemon):
    repository.write("a.py")
    repository.write("sub dir/b c.d.py")
    repository.write("lib/mail.py", "def send(): ...\n")
    commit = repository.push()
    sync = await daemon.started(repository.url)
    status = await daemon.synced(sync)
    assert (status.state, status.commit, status.flows, status.error) == ("ok", commit, 2, "")
    assert sorted(sync.flows.current().flows) == ["a", "sub dir/b c.d"]
    folder = sync.flows.snapshot(commit)
    assert (folder / "lib/mail.py").read_text() == "def send(): ...\n"
    flow = sync.flows.find("a")
    assert (len(flow.id), flow.path, flow.commit) == (26, "a.py", commit)
    assert sync.flows.find(flow.id) == flow
    [event] = daemon.published
    assert (event.commit, event.ref, event.flows, event.broken) == (commit, "main", 2, 0)


async def test_nothing_new_is_not_published_again(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    await daemon.synced(sync)
    again = await daemon.started(repository.url)
    assert (await daemon.synced(again)).state == "ok"
    assert len(daemon.published) == 1


async def test_somebody_who_pushes_waits_for_few_processes(repository, daemon, tmp_path, monkeypatch):
    """Each git takes 5 ms to start, and a push is seen to run sooner without those that say what is known."""
    log, shims = tmp_path / "gits", tmp_path / "shims"
    shims.mkdir()
    (shims / "git").write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {shutil.which("git")} "$@"\n')
    (shims / "git").chmod(0o755)

    def begun() -> list[str]:
        known = ("ls-remote", "fetch", "rev-parse", "ls-tree", "cat-file", "update-ref", "for-each-ref", "gc")
        return [next(word for word in line.split() if word in known) for line in log.read_text().splitlines()]

    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    repository.write("a.py", FLOW + "# more\n")
    commit = repository.push()
    monkeypatch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
    assert (await daemon.synced(sync)).commit == commit
    assert begun() == ["ls-remote", "fetch", "rev-parse", "ls-tree", "cat-file", "update-ref"]
    log.unlink()
    await daemon.synced(sync)
    assert begun() == ["ls-remote"]


async def test_ids_stay_from_commit_to_commit_and_over_restarts(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    before = sync.flows.find("a").id
    repository.write("a.py", FLOW + "# more\n")
    second = repository.push()
    sync = await daemon.started(repository.url)
    assert sync.flows.find("a").id == before
    await daemon.synced(sync)
    assert (sync.flows.find("a").id, sync.flows.find("a").commit) == (before, second)


async def test_a_broken_file_keeps_the_last_good_version_and_says_why(repository, daemon):
    repository.write("a.py")
    repository.write("b.py")
    good = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    before = sync.flows.find("a")
    repository.write("a.py", "def handler(system, this):\n    return (\n")
    bad = repository.push()
    status = await daemon.synced(sync)
    flow = sync.flows.find("a")
    assert (flow.id, flow.commit, flow.blob, flow.runnable) == (before.id, good, before.blob, True)
    assert (flow.broken.file, flow.broken.line, flow.broken.commit) == ("a.py", 2, bad)
    assert flow.broken.reason == "syntax error: '(' was never closed"
    assert sync.flows.find("b").commit == bad
    assert [one.file for one in status.broken] == ["a.py"]
    assert daemon.published[-1].broken == 1
    assert sync.flows.snapshot(flow.commit).joinpath(flow.path).read_text() == FLOW

    repository.write("a.py", FLOW)
    mended = repository.push()
    await daemon.synced(sync)
    assert (sync.flows.find("a").commit, sync.flows.find("a").broken) == (mended, None)


async def test_a_flow_seen_only_broken_is_listed_and_cannot_run(repository, daemon):
    repository.write("a.py", "def handler(system):\n    ...\n")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    flow = sync.flows.find("a")
    assert not flow.runnable
    assert "def handler(system, this)" in flow.broken.reason


async def test_a_flow_without_its_handler_is_broken_and_a_helper_never_was_one(repository, daemon):
    repository.write("a.py")
    repository.write("helper.py", "x = 1\n")
    first = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    repository.write("a.py", "x = 1\n")
    repository.write("helper.py", "x = (\n")
    repository.push()
    status = await daemon.synced(sync)
    flow = sync.flows.find("a")
    assert (flow.commit, flow.runnable) == (first, True)
    assert "no `handler`" in flow.broken.reason
    assert "helper" not in sync.flows.current().flows
    assert status.warnings == {"helper.py": "line 1: syntax error: '(' was never closed"}


async def test_a_broken_flow_that_is_deleted_leaves_the_catalogue(repository, daemon):
    repository.write("a.py", "def handler(\n")
    repository.write("b.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    repository.remove("a.py")
    repository.push()
    status = await daemon.synced(sync)
    assert (list(sync.flows.current().flows), status.broken) == (["b"], ())


async def test_strict_refuses_the_whole_commit_and_keeps_the_old_one(repository, daemon):
    repository.write("a.py")
    good = repository.push()
    sync = await daemon.started(repository.url, policy="strict")
    await daemon.synced(sync)
    repository.write("b.py", "def handler(system, this)\n")
    bad = repository.push()
    status = await daemon.synced(sync)
    await daemon.synced(sync)
    rejected = [event for event in daemon.events if isinstance(event, events.CommitRejected)]
    assert [event.commit for event in rejected] == [bad]
    assert "b.py:1: syntax error" in rejected[0].reason
    assert (status.state, status.commit, status.rejected) == ("degraded", good, bad)
    assert list(sync.flows.current().flows) == ["a"]
    repository.write("b.py")
    mended = repository.push()
    status = await daemon.synced(sync)
    assert (status.state, status.commit, status.rejected, status.error) == ("ok", mended, "", "")


async def test_going_back_to_the_published_commit_ends_a_refusal(repository, daemon):
    repository.write("a.py")
    good = repository.push()
    sync = await daemon.started(repository.url, policy="strict")
    await daemon.synced(sync)
    repository.write("a.py", "def handler(\n")
    repository.push()
    refused = await daemon.synced(sync)
    repository.upstream.rename(repository.upstream.with_name("away"))
    assert "cannot be reached" in (await daemon.synced(sync)).error
    repository.upstream.with_name("away").rename(repository.upstream)
    assert (await daemon.synced(sync)).error == refused.error
    git(repository.upstream, "update-ref", "refs/heads/main", good)
    status = await daemon.synced(sync)
    assert (status.state, status.commit, status.rejected, status.error) == ("ok", good, "", "")
    assert len(daemon.events) == 2


async def test_a_journal_that_takes_nothing_now_gets_the_commit_later(repository, daemon, monkeypatch):
    repository.write("a.py")
    commit = repository.push()
    sync = await daemon.started(repository.url)
    real = daemon.publish

    async def full(event):
        raise errors.NotAccepting("the disk is full")

    monkeypatch.setattr(sync, "_publications", type("Full", (), {"publish": staticmethod(full)}))
    status = await daemon.synced(sync)
    assert (status.state, status.error, status.flows) == ("degraded", "the disk is full", 0)
    monkeypatch.setattr(sync, "_publications", type("Mended", (), {"publish": staticmethod(real)}))
    assert (await daemon.synced(sync)).commit == commit


async def test_a_rename_keeps_the_id(repository, daemon):
    repository.write("old.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    before = sync.flows.find("old").id
    repository.move("old.py", "deep/er/new.py")
    repository.push()
    await daemon.synced(sync)
    assert {name: flow.id for name, flow in sync.flows.current().flows.items()} == {"deep/er/new": before}


async def test_a_rename_with_an_edit_keeps_the_id(repository, daemon):
    text = FLOW + "".join(f"# line {number}\n" for number in range(30))
    repository.write("old.py", text)
    repository.write("stays.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    before = sync.flows.find("old").id
    repository.move("old.py", "new.py")
    repository.write("new.py", text + "# edited\n")
    repository.write("other.py", "def handler(system, this, inputs):\n    pass\n")
    repository.push()
    await daemon.synced(sync)
    assert sync.flows.find("new").id == before
    assert sync.flows.find("other").id != before


async def test_a_renamed_flow_that_is_broken_runs_on_under_its_new_name(repository, daemon):
    text = FLOW + "".join(f"# line {number}\n" for number in range(30))
    repository.write("old.py", text)
    good = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    before = sync.flows.find("old")
    repository.remove("old.py")
    repository.write("new.py", text + "(\n")
    repository.push()
    await daemon.synced(sync)
    flow = sync.flows.find("new")
    assert (flow.id, flow.commit, flow.path, flow.broken.file) == (before.id, good, "old.py", "new.py")
    repository.write("new.py", text)
    mended = repository.push()
    await daemon.synced(sync)
    flow = sync.flows.find("new")
    assert (flow.id, flow.commit, flow.path, flow.broken) == (before.id, mended, "new.py", None)


async def test_copies_get_ids_of_their_own(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    before = sync.flows.find("a").id
    repository.write("b.py")
    repository.push()
    await daemon.synced(sync)
    assert sync.flows.find("a").id == before != sync.flows.find("b").id


async def test_a_force_push_is_published_and_the_old_commit_stays_readable_while_in_use(repository, daemon):
    repository.write("a.py")
    first = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    daemon.in_use = frozenset({first})
    daemon.clock.ahead_s = 7200.0
    git(repository.directory, "checkout", "--quiet", "--orphan", "other")
    repository.write("a.py", "def handler(system, this):\n    return 2\n")
    second = repository.push(force=True)
    git(repository.upstream, "reflog", "expire", "--expire=now", "--all")
    git(repository.upstream, "gc", "--quiet", "--prune=now")
    status = await daemon.synced(sync)
    assert (status.state, status.commit) == ("ok", second)
    assert sync.flows.snapshot(first).joinpath("a.py").read_text() == FLOW
    assert sync.flows.find("a", first).commit == first
    git(daemon.state / "mirror.git", "gc", "--quiet", "--prune=now")
    assert git(daemon.state / "mirror.git", "cat-file", "-p", f"{first}:a.py") == FLOW.strip()


async def test_what_nothing_needs_is_removed_after_an_hour(repository, daemon):
    repository.write("a.py")
    first = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    for number in range(2):
        daemon.clock.ahead_s = 7200.0 * (number == 1)
        repository.write("a.py", FLOW + f"# {number}\n")
        last = repository.push()
        await daemon.synced(sync)
        assert (daemon.state / "snapshots" / first).exists() == (number == 0)
    daemon.clock.ahead_s = 2 * 7200.0
    await daemon.synced(sync)
    assert sorted(path.name for path in (daemon.state / "snapshots").iterdir()) == [last, f"{last}.json"]
    assert git(daemon.state / "mirror.git", "for-each-ref", "--format=%(refname)", "refs/pins") == f"refs/pins/{last}"
    with pytest.raises(errors.NotFound, match="not here any more"):
        sync.flows.snapshot(first)


async def test_the_commit_a_broken_flow_runs_on_is_kept(repository, daemon):
    repository.write("a.py")
    good = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    for number in range(3):
        daemon.clock.ahead_s += 7200.0
        repository.write("a.py", f"def handler(system, this):\n {number}(\n")
        repository.push()
        await daemon.synced(sync)
    assert sync.flows.snapshot(sync.flows.find("a").commit).name == good


@pytest.mark.parametrize("loss", ["branch deleted", "upstream gone", "upstream empty"])
async def test_losing_the_source_unpublishes_nothing(repository, daemon, loss):
    repository.write("a.py")
    commit = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    if loss == "branch deleted":
        git(repository.upstream, "update-ref", "-d", "refs/heads/main")
    else:
        shutil.rmtree(repository.upstream)
    if loss == "upstream empty":
        git(repository.directory, "init", "--quiet", "--bare", str(repository.upstream))
    status = await daemon.synced(sync)
    assert (status.state, status.commit, status.flows) == ("degraded", commit, 1)
    assert status.error
    assert status.hint
    restarted = await daemon.started(repository.url)
    assert restarted.flows.find("a").commit == commit
    assert restarted.flows.snapshot(commit).is_dir()
    assert (await daemon.synced(restarted)).state == "degraded"
    assert len(daemon.events) == 1


async def test_a_restart_asks_git_for_nothing_that_is_here(repository, daemon):
    repository.write("a.py")
    commit = repository.push()
    await daemon.synced(await daemon.started(repository.url))
    shutil.rmtree(daemon.state / "mirror.git")
    restarted = await daemon.started(repository.url)
    assert restarted.flows.snapshot(restarted.flows.find("a").commit).name == commit
    assert not (daemon.state / "mirror.git").exists()
    assert (await daemon.synced(restarted)).state == "ok"


async def test_a_source_that_was_never_reached_is_degraded_and_empty(tmp_path, daemon):
    sync = await daemon.started((tmp_path / "nowhere.git").as_uri())
    status = await daemon.synced(sync)
    assert (status.state, status.flows, status.commit) == ("degraded", 0, "")
    assert "cannot be reached" in status.error


async def test_a_tag_can_be_the_ref(repository, daemon):
    repository.write("a.py")
    commit = repository.push()
    git(repository.directory, "tag", "-a", "v1", "-m", "one")
    git(repository.directory, "push", "--quiet", "origin", "v1")
    repository.write("b.py")
    repository.push()
    sync = await daemon.started(repository.url, ref="v1")
    status = await daemon.synced(sync)
    assert (status.commit, status.ref, list(sync.flows.current().flows)) == (commit, "v1", ["a"])
    assert (await daemon.synced(sync)).state == "ok"
    assert len(daemon.events) == 1


async def test_a_commit_can_be_the_ref(repository, daemon):
    repository.write("a.py")
    commit = repository.push()
    repository.write("b.py")
    repository.push()
    sync = await daemon.started(repository.url, ref=commit)
    assert (await daemon.synced(sync)).commit == commit
    assert (await daemon.synced(sync)).state == "ok"
    assert len(daemon.events) == 1


async def test_a_missing_ref_is_named(repository, daemon):
    repository.write("a.py")
    repository.push()
    status = await daemon.synced(await daemon.started(repository.url, ref="nope"))
    assert "has no branch or tag 'nope'" in status.error


async def test_only_the_subfolder_is_published(repository, daemon):
    repository.write("flows/a.py")
    repository.write("flows/lib/x.py", "y = 1\n")
    repository.write("elsewhere/b.py")
    commit = repository.push()
    sync = await daemon.started(repository.url, path="flows/")
    await daemon.synced(sync)
    assert list(sync.flows.current().flows) == ["a"]
    assert sorted(path.name for path in sync.flows.snapshot(commit).iterdir()) == ["a.py", "lib"]
    other = await daemon.started(repository.url, path="elsewhere")
    await daemon.synced(other)
    assert list(other.flows.current().flows) == ["b"]
    assert [path.name for path in other.flows.snapshot(commit).iterdir()] == ["b.py"]


async def test_a_missing_subfolder_rejects_the_commit(repository, daemon):
    repository.write("a.py")
    repository.push()
    status = await daemon.synced(await daemon.started(repository.url, path="nope"))
    assert "no folder 'nope'" in status.error


async def test_two_flows_cannot_have_one_webhook(repository, daemon):
    hook = '# /// script\n# [tool.headrace]\n# webhook = {name = "x"}\n# ///\n'
    repository.write("b.py", hook + FLOW)
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    repository.write("a.py", hook + FLOW)
    repository.push()
    await daemon.synced(sync)
    assert sync.flows.find("b").broken is None
    assert sync.flows.find("a").broken.reason == "the webhook 'x' belongs to the flow 'b'"
    assert not sync.flows.find("a").runnable
    repository.remove("b.py")
    repository.push()
    await daemon.synced(sync)
    assert sync.flows.find("a").metadata.webhook.name == "x"


async def test_a_nudge_makes_a_pass_and_sync_now_waits_for_it(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    async with daemon.running(sync):
        await sync.sync_now(30)
        repository.write("b.py")
        commit = repository.push()
        status = await sync.sync_now(30)
    assert (status.commit, status.flows) == (commit, 2)


async def test_a_push_to_a_local_upstream_is_seen_without_a_nudge(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    async with daemon.running(sync), asyncio.timeout(30):
        await sync.sync_now(30)
        await asyncio.sleep(0.2)  # the watcher has no way to say that it watches
        repository.write("b.py")
        commit = repository.push()
        while sync.status().commit != commit:
            await asyncio.sleep(0.01)


async def test_a_commit_that_was_current_until_now_stays_for_an_hour(repository, daemon):
    repository.write("a.py")
    first = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    daemon.clock.ahead_s = 7200.0
    repository.write("a.py", FLOW + "# more\n")
    repository.push()
    await daemon.synced(sync)
    assert sync.flows.snapshot(first).is_dir()


@pytest.mark.parametrize("command", ["ls-remote", "fetch"])
async def test_a_stop_in_the_middle_of_a_pass_is_quick_and_harms_nothing(
    repository, daemon, tmp_path, monkeypatch, command
):
    repository.write("a.py")
    commit = repository.push()
    await daemon.synced(await daemon.started(repository.url))
    repository.write("b.py")
    repository.push()
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    started = tmp_path / "started"
    hang = f'case "$*" in *" {command} --"*) : > {started}; exec sleep 60;; esac'
    wrapper.write_text(f'#!/bin/sh\n{hang}\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{path}")
    sync = await daemon.started(repository.url)
    async with asyncio.timeout(10), daemon.running(sync):
        while not started.exists():
            await asyncio.sleep(0.01)
    assert git(daemon.state / "mirror.git", "for-each-ref", "--format=%(refname)", "refs/pins") == f"refs/pins/{commit}"
    monkeypatch.setenv("PATH", path)
    assert (await daemon.synced(await daemon.started(repository.url))).flows == 2


async def test_what_did_not_change_is_compiled_once_whatever_is_pushed_or_restarted(repository, daemon, monkeypatch):
    compiled = []
    real = check.check

    def recording(files):
        compiled.append(sorted(files))
        return real(files)

    monkeypatch.setattr(check, "check", recording)
    for number in range(50):
        repository.write(f"team/flow{number}.py", FLOW + f"# {number}\n")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    assert [len(files) for files in compiled] == [50]
    repository.write("team/flow7.py", FLOW + "# changed\n")
    repository.push()
    await daemon.synced(sync)
    repository.move("team/flow8.py", "moved.py")  # its name has a say in what its metadata mean
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    await daemon.synced(sync)
    assert [files for files in compiled[1:] if files] == [["team/flow7.py"], ["moved.py"]]


async def test_the_first_fetch_says_that_it_is_the_first_and_how_far_it_is(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    assert sync.status().doing == ""
    passing = asyncio.create_task(sync._pass())
    said = []
    while not passing.done():
        said.append(sync.status().doing)
        await asyncio.sleep(0.005)
    assert any(one.startswith("fetching all of it for the first time, 0.0 MB") for one in said)
    assert sync.status().doing == ""
    repository.write("b.py")
    repository.push()
    passing = asyncio.create_task(sync._pass())
    while not passing.done():
        assert sync.status().doing == ""
        await asyncio.sleep(0.005)
