"""Edits of flows go back to where flows come from: as pushed commits, or as files of the developer's directory."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import msgspec
import pytest
from hypothesis import strategies

from headrace.engine import errors, ports
from headrace.sync import branch, edits, folder, loop, places, remote
from tests.support import repositories, sshd
from tests.support.repositories import FLOW, git

OTHER = "def handler(system, this):\n    return 2\n"
BROKEN = "def handler(system, this)\n"


@dataclasses.dataclass
class Place:
    """Where the flows of a test come from, whichever way."""

    repository: repositories.WorkingRepository
    read: Callable[[str], str | None]
    put: Callable[[], object]  # makes what was written in the working tree the source's newest state
    settings: dict[str, object]
    url: str

    async def sync(self, daemon, **settings) -> loop.Synchroniser:
        sync = await daemon.started(self.url, **self.settings, **settings)
        await daemon.synced(sync)
        return sync


@pytest.fixture(params=["remote", "developer"])
def place(request, tmp_path: Path) -> Place:
    """A source that was never synced, with nothing in it but a README."""
    if request.param == "remote":
        remote_ = repositories.Repository(tmp_path / "repository")

        def show(path: str) -> str | None:
            shown = subprocess.run(
                ["git", "show", f"main:{path}"], cwd=remote_.upstream, capture_output=True, text=True
            )
            return shown.stdout if shown.returncode == 0 else None

        def push() -> None:
            git(remote_.directory, "add", "--all")
            git(remote_.directory, "commit", "--quiet", "--allow-empty", "-m", "Change")
            git(remote_.directory, "pull", "--quiet", "--rebase", "origin", "main")
            git(remote_.directory, "push", "--quiet", "origin", "HEAD:main")

        remote_.write("README", "flows")
        remote_.push()
        return Place(remote_, show, push, {}, remote_.url)
    tree = repositories.WorkingRepository(tmp_path / "flows")
    tree.write("README", "flows")

    def content(path: str) -> str | None:
        return (tree.directory / path).read_text() if (tree.directory / path).is_file() else None

    return Place(tree, content, lambda: None, {"developer": True}, str(tree.directory))


def names(sync: loop.Synchroniser) -> dict[str, str]:
    """Return flow name → id."""
    return {name: flow.id for name, flow in sync.flows.current().flows.items()}


# -- what both do ---------------------------------------------------------------------------------------------------


async def test_a_new_flow_is_in_the_repository_and_then_in_the_catalogue(place, daemon):
    sync = await place.sync(daemon)
    authoring: ports.Authoring = sync.authoring
    await authoring.save_flow("sub dir/new flow 2026-01-02T03:04:05+00:00", FLOW, author="ada")
    assert place.read("sub dir/new flow 2026-01-02T03:04:05+00:00.py") == FLOW
    assert place.read("README") == "flows"
    await daemon.synced(sync)
    assert list(names(sync)) == ["sub dir/new flow 2026-01-02T03:04:05+00:00"]


async def test_a_change_keeps_the_id_and_everything_else(place, daemon):
    place.repository.write("a.py").chmod(0o755)
    place.repository.write("lib/x.py", "y = 1\n")
    place.put()
    sync = await place.sync(daemon)
    before = names(sync)
    await sync.authoring.save_flow("a", OTHER, author="ada", message="Return two")
    await daemon.synced(sync)
    assert names(sync) == before
    snapshot = sync.flows.snapshot(sync.flows.current().commit)
    assert (snapshot / "a.py").read_text() == OTHER
    assert stat.S_IMODE((snapshot / "a.py").stat().st_mode) == 0o555
    assert (snapshot / "lib/x.py").read_text() == "y = 1\n"


async def test_saving_what_is_there_changes_nothing(place, daemon):
    place.repository.write("a.py")
    place.put()
    sync = await place.sync(daemon)
    published = sync.flows.current().commit
    await sync.authoring.save_flow("a", FLOW, author="ada")
    assert (await daemon.synced(sync)).commit == published


async def test_a_script_that_does_not_compile_is_saved_and_the_last_good_version_runs(place, daemon):
    place.repository.write("a.py")
    place.put()
    sync = await place.sync(daemon)
    good = sync.flows.current().commit
    await sync.authoring.save_flow("a", BROKEN, author="ada")
    assert place.read("a.py") == BROKEN
    await daemon.synced(sync)
    flow = sync.flows.find("a")
    assert (flow.commit, flow.broken.line) == (good, 1)
    await sync.authoring.save_flow("a", OTHER, author="ada")
    await daemon.synced(sync)
    assert sync.flows.find("a").broken is None


async def test_what_somebody_else_changed_meanwhile_is_not_overwritten(place, daemon):
    place.repository.write("a.py")
    place.put()
    sync = await place.sync(daemon)
    place.repository.write("a.py", FLOW + "# theirs\n")
    place.repository.write("b.py", FLOW + "# theirs\n")
    place.put()
    for write in (
        sync.authoring.save_flow("a", OTHER, author="ada"),
        sync.authoring.save_flow("b", OTHER, author="ada"),
        sync.authoring.delete_flow("a", author="ada"),
        sync.authoring.rename_flow("a", "c", author="ada"),
    ):
        with pytest.raises(errors.Conflict, match=sync.flows.current().commit[:12]) as caught:
            await write
        assert "was changed in" in caught.value.message or "was made by somebody else" in caught.value.message
    assert place.read("a.py") == place.read("b.py") == FLOW + "# theirs\n"
    await sync.authoring.save_flow("a", FLOW + "# theirs\n", author="ada")  # the same is no conflict
    await daemon.synced(sync)
    await sync.authoring.save_flow("a", OTHER, author="ada")
    assert place.read("a.py") == OTHER


async def test_what_was_removed_meanwhile_is_not_brought_back(place, daemon):
    place.repository.write("a.py")
    place.put()
    sync = await place.sync(daemon)
    place.repository.remove("a.py")
    place.put()
    with pytest.raises(errors.Conflict, match="was removed"):
        await sync.authoring.save_flow("a", OTHER, author="ada")
    assert place.read("a.py") is None


async def test_changes_build_on_each_other_before_a_pass_has_seen_them(place, daemon):
    sync = await place.sync(daemon)
    for number in range(4):
        await sync.authoring.save_flow("a", FLOW + f"# {number}\n", author="ada")
    await sync.authoring.rename_flow("a", "b", author="ada")
    await sync.authoring.save_flow("b", OTHER, author="ada")
    await sync.authoring.delete_flow("b", author="ada")
    await sync.authoring.save_flow("b", FLOW, author="ada")
    await daemon.synced(sync)
    assert list(names(sync)) == ["b"]


async def test_of_two_who_save_the_same_flow_at_once_one_is_told(place, daemon):
    place.repository.write("a.py")
    place.put()
    sync = await place.sync(daemon)
    texts = [FLOW + "# one\n", FLOW + "# two\n"]
    done = await asyncio.gather(
        *(sync.authoring.save_flow("a", text, author="ada") for text in texts), return_exceptions=True
    )
    assert [isinstance(one, errors.Conflict) for one in done] == [False, True]
    assert place.read("a.py") == texts[0]


async def test_two_who_save_different_flows_at_once_both_succeed(place, daemon):
    sync = await place.sync(daemon)
    async with daemon.running(sync):
        await asyncio.gather(*(sync.authoring.save_flow(f"{n}", FLOW, author="ada") for n in range(8)))
        assert await sync.authoring.published(30)
    assert len(names(sync)) == 8


async def test_a_deleted_flow_is_gone(place, daemon):
    place.repository.write("sub/a.py")
    place.put()
    sync = await place.sync(daemon)
    await sync.authoring.delete_flow("sub/a", author="ada")
    await daemon.synced(sync)
    assert (place.read("sub/a.py"), names(sync)) == (None, {})
    for write in (
        sync.authoring.delete_flow("sub/a", author="ada"),
        sync.authoring.delete_flow("nowhere/at/all", author="ada"),
        sync.authoring.rename_flow("sub/a", "b", author="ada"),
    ):
        with pytest.raises(errors.NotFound, match="there is no flow"):
            await write


async def test_a_renamed_flow_keeps_its_id(place, daemon):
    place.repository.write("a.py")
    place.repository.write("b.py")  # the same content: only we know which one moved
    place.put()
    sync = await place.sync(daemon)
    before = names(sync)
    await sync.authoring.rename_flow("b", "deep/er/c", author="ada")
    await sync.authoring.rename_flow("a", "b", author="ada")
    await daemon.synced(sync)
    assert names(sync) == {"deep/er/c": before["b"], "b": before["a"]}
    assert place.read("deep/er/c.py") == place.read("b.py") == FLOW


async def test_a_flow_that_is_renamed_and_rewritten_at_once_keeps_its_id(place, daemon):
    place.repository.write("a.py")
    place.put()
    sync = await place.sync(daemon)
    before = names(sync)
    await sync.authoring.rename_flow("a", "b", author="ada")
    await sync.authoring.save_flow("b", "# nothing alike\n" * 50 + OTHER, author="ada")
    await sync.authoring.rename_flow("b", "c", author="ada")
    await sync.authoring.save_flow("a", FLOW, author="ada")  # a new flow under the old name
    await daemon.synced(sync)
    assert names(sync)["c"] == before["a"] != names(sync)["a"]
    await sync.authoring.delete_flow("c", author="ada")
    await sync.authoring.rename_flow("a", "c", author="ada")
    known = names(sync)["a"]
    await daemon.synced(sync)
    assert names(sync) == {"c": known}


async def test_two_flows_that_had_one_name_in_turn_are_two(place, daemon):
    place.repository.write("a.py")
    place.put()
    sync = await place.sync(daemon)
    before = names(sync)
    await sync.authoring.rename_flow("a", "b", author="ada")
    await sync.authoring.save_flow("a", OTHER, author="ada")
    await sync.authoring.rename_flow("a", "c", author="ada")
    await sync.authoring.save_flow("a", FLOW, author="ada")
    await daemon.synced(sync)
    assert names(sync)["b"] == before["a"]
    assert len({*names(sync).values()}) == 3


async def test_a_rename_that_was_forgotten_in_a_crash_is_recognised(place, daemon):
    place.repository.write("a.py")
    place.put()
    sync = await place.sync(daemon)
    before = names(sync)
    await sync.authoring.rename_flow("a", "b", author="ada")
    again = await place.sync(daemon)
    assert names(again) == {"b": before["a"]}


async def test_a_broken_flow_can_be_renamed(place, daemon):
    place.repository.write("a.py")
    place.put()
    sync = await place.sync(daemon)
    before = names(sync)
    await sync.authoring.save_flow("a", "x = 1\n", author="ada")
    await daemon.synced(sync)
    await sync.authoring.rename_flow("a", "b", author="ada")
    await daemon.synced(sync)
    assert names(sync) == {"b": before["a"]}
    assert sync.flows.find("b").broken.file == "b.py"


async def test_a_taken_name_is_not_taken_twice(place, daemon):
    for path in ("a.py", "b.py", "helper.py", "sub/c.py"):
        place.repository.write(path, FLOW + path if path != "helper.py" else "x = 1\n")
    place.put()
    sync = await place.sync(daemon)
    for name in ("b", "helper", "a"):
        with pytest.raises(errors.Conflict, match="already|appeared"):
            await sync.authoring.rename_flow("a", name, author="ada")
    with pytest.raises((errors.Conflict, errors.InvalidRequest), match="differ"):
        await sync.authoring.rename_flow("a", "SUB/x", author="ada")
    with pytest.raises((errors.Conflict, errors.InvalidRequest), match="differ"):
        await sync.authoring.save_flow("B", FLOW, author="ada")
    with pytest.raises((errors.Conflict, errors.InvalidRequest), match="differ"):
        await sync.authoring.rename_flow("a", "sub/C", author="ada")
    with pytest.raises((errors.Conflict, errors.InvalidRequest), match="differ"):
        await sync.authoring.rename_flow("sub/c", "A", author="ada")
    await sync.authoring.rename_flow("a", "A", author="ada")
    assert (place.read("A.py"), place.read("b.py")) == (FLOW + "a.py", FLOW + "b.py")


async def test_a_file_cannot_lie_inside_of_a_file(place, daemon):
    place.repository.write("data", "x")
    place.put()
    sync = await place.sync(daemon)
    with pytest.raises(errors.Conflict, match="'data"):
        await sync.authoring.save_flow("data/a", FLOW, author="ada")
    place.repository.write("x.py/y.txt", "z")
    place.put()
    await daemon.synced(sync)
    with pytest.raises(errors.Conflict, match="x.py"):
        await sync.authoring.save_flow("x", FLOW, author="ada")


async def test_links_are_neither_followed_nor_replaced(place, daemon, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.py").write_text("theirs")
    place.repository.directory.joinpath("linked").symlink_to(outside)
    place.repository.directory.joinpath("b.py").symlink_to(outside / "a.py")
    place.put()
    sync = await place.sync(daemon)
    for write in (
        sync.authoring.save_flow("linked/a", FLOW, author="ada"),
        sync.authoring.save_flow("linked/new", FLOW, author="ada"),
        sync.authoring.save_flow("b", FLOW, author="ada"),
        sync.authoring.delete_flow("b", author="ada"),
        sync.authoring.rename_flow("b", "c", author="ada"),
    ):
        with pytest.raises(errors.Conflict):
            await write
    assert [path.name for path in outside.iterdir()] == ["a.py"]
    assert (outside / "a.py").read_text() == "theirs"
    assert place.repository.directory.joinpath("b.py").is_symlink()


async def test_flows_of_a_subfolder_are_written_there(place, daemon):
    place.repository.write("ops/a.py")
    place.repository.write("a.py")
    place.put()
    sync = await place.sync(daemon, path="ops")
    await sync.authoring.save_flow("a", OTHER, author="ada")
    await sync.authoring.save_flow("sub/b", OTHER, author="ada")
    await sync.authoring.rename_flow("a", "c", author="ada")
    assert [place.read(path) for path in ("a.py", "ops/sub/b.py", "ops/c.py", "ops/a.py")] == [FLOW, OTHER, OTHER, None]
    await daemon.synced(sync)
    assert list(names(sync)) == ["c", "sub/b"]


async def test_with_write_back_off_nothing_is_written(place, daemon):
    sync = await place.sync(daemon, write_back=False)
    with pytest.raises(errors.NotAllowed, match="write-back is off") as caught:
        await sync.authoring.save_flow("a", FLOW, author="ada")
    assert "source.write_back = true" in caught.value.hint
    assert place.read("a.py") is None


async def test_published_waits_until_the_catalogue_has_it(place, daemon):
    sync = await place.sync(daemon)
    assert await sync.authoring.published(0)  # nothing was written
    await sync.authoring.save_flow("a", FLOW, author="ada")
    assert not await sync.authoring.published(0.01)  # nobody syncs
    async with daemon.running(sync):
        assert await sync.authoring.published(30)
        assert "a" in names(sync)
        await sync.authoring.delete_flow("a", author="ada")
        assert await sync.authoring.published(30)
    assert "a" not in names(sync)


async def test_published_does_not_wait_for_what_the_policy_refuses(place, daemon):
    place.repository.write("a.py")
    place.put()
    sync = await place.sync(daemon, policy="strict")
    async with daemon.running(sync):
        await sync.authoring.save_flow("a", BROKEN, author="ada")
        assert not await sync.authoring.published(60)
        assert sync.status().rejected
        await sync.authoring.save_flow("a", OTHER, author="ada")
        assert await sync.authoring.published(60)
    assert sync.status().rejected == ""


async def test_who_asked_may_go_away_and_the_change_is_complete(place, daemon):
    sync = await place.sync(daemon)
    asking = asyncio.create_task(sync.authoring.save_flow("a", FLOW, author="ada"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(30), daemon.running(sync):
        while "a" not in names(sync):
            await asyncio.sleep(0.01)


async def test_an_orderly_stop_leaves_the_repository_whole(place, daemon):
    sync = await place.sync(daemon)
    async with daemon.running(sync):
        await sync.sync_now(30)
        writing = asyncio.create_task(sync.authoring.save_flow("a", FLOW, author="ada"))
        await asyncio.sleep(0.02)
    (done,) = await asyncio.gather(writing, return_exceptions=True)
    assert place.read("a.py") in (None, FLOW)
    assert isinstance(done, errors.HeadraceError | str)


# -- names and texts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("", " /../x", "../x", "/etc/x", "a//b", "a/./b", ".git/hooks/x", "sub/.GIT/x", ".git\u200c/x", "a\nb"),
        *("a\\b", "a\0b", "\ud800", "x" * 300, "d/" * 33 + "x", "__init__", "lib/conftest", "tests/a", "_lib/a"),
        *(".x/a", "files/a", "-/../../x", "x/", "git~1/x", "..", ".", "a/..", "a\x1b[31m"),
    ],
)
async def test_names_that_cannot_be_flows_are_refused(tmp_path, daemon, name):
    (tmp_path / "flows").mkdir()
    sync = await daemon.started(str(tmp_path / "flows"), developer=True)
    for write in (
        sync.authoring.save_flow(name, FLOW, author="ada"),
        sync.authoring.delete_flow(name, author="ada"),
        sync.authoring.rename_flow(name, "b", author="ada"),
        sync.authoring.rename_flow("b", name, author="ada"),
    ):
        with pytest.raises(errors.InvalidRequest, match="no flow can be called") as caught:
            await write
        assert caught.value.hint
    assert list((tmp_path / "flows").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["-rf", "--force", "a,b", ":x", ":(top)x", "$HOME", "`id`", "a b.c", "ä/ö", "x.py", "*", "#"]
)
async def test_odd_names_are_only_names(place, daemon, name):
    sync = await place.sync(daemon)
    await sync.authoring.save_flow(name, FLOW, author="ada")
    await sync.authoring.rename_flow(name, f"sub/{name}", author="ada")
    await daemon.synced(sync)
    assert list(names(sync)) == [f"sub/{name}"]
    await sync.authoring.delete_flow(f"sub/{name}", author="ada")
    await daemon.synced(sync)
    assert names(sync) == {}


@hypothesis.given(strategies.text(max_size=40))
def test_no_name_whatever_leads_out_of_the_folder(name):
    try:
        path = edits.path_of(name, places.USUAL)
    except errors.InvalidRequest:
        return
    assert path == f"{name}.py"
    assert not {"", ".", "..", ".git"} & set(path.split("/"))


@pytest.mark.parametrize(
    ("script", "stored"),
    [("", b"\n"), ("a", b"a\n"), ("a\r\nb\rc\n", b"a\nb\nc\n"), ("\ufeffä\n", "\ufeffä\n".encode())],
)
def test_a_script_is_stored_in_one_form(script, stored):
    assert edits.text_of(script) == stored


def test_a_script_has_limits():
    assert len(edits.text_of("x" * (edits.SCRIPT_BYTES_MAX - 1))) == edits.SCRIPT_BYTES_MAX
    with pytest.raises(errors.TooLarge, match="1,048,576"):
        edits.text_of("x" * edits.SCRIPT_BYTES_MAX)
    with pytest.raises(errors.InvalidRequest, match="ud800"):
        edits.text_of("\ud800")


# -- commits --------------------------------------------------------------------------------------------------------


async def test_the_commit_names_its_author_and_reason(repository, daemon):
    repository.write("a.py")
    parent = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    commit = await sync.authoring.save_flow(
        "a", OTHER, author="Ada Lovelace", message="Return two\n\nOne was not enough"
    )
    shown = git(repository.upstream, "show", "--no-patch", "--format=%H|%P|%an <%ae>|%cn <%ce>|%B", "main")
    assert shown.strip() == (
        f"{commit}|{parent}|Ada Lovelace <headrace@localhost>|headrace <headrace@localhost>|"
        "Return two\n\nOne was not enough"
    )
    assert git(repository.upstream, "diff-tree", "--name-status", "-r", parent, commit) == "M\ta.py"
    for write, message in (
        (sync.authoring.save_flow("a", FLOW, author="x"), 'Save flow "a"'),
        (sync.authoring.rename_flow("a", "b", author="x"), 'Rename flow "a" to "b"'),
        (sync.authoring.delete_flow("b", author="x"), 'Delete flow "b"'),
    ):
        assert await write == git(repository.upstream, "rev-parse", "main")
        assert git(repository.upstream, "show", "--no-patch", "--format=%B", "main") == message


@pytest.mark.parametrize("text", ["", "<>", "\n", "a\nauthor: b", "<evil@x>", "\0", "\ud800", "-x", "x" * 100_000, "."])
async def test_odd_authors_and_messages_do_no_harm(repository, daemon, text):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    await sync.authoring.save_flow("a", OTHER, author=text, message=text)
    count, email = git(repository.upstream, "log", "-1", "--format=%P|%ae", "main").split("|")
    assert (len(count.split()), email) == (1, "headrace@localhost")
    assert (await daemon.synced(sync)).state == "ok"


async def test_a_change_of_another_file_pushed_meanwhile_is_kept(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    repository.write("b.py", OTHER)
    theirs = repository.push()
    ours = await sync.authoring.save_flow("a", OTHER, author="ada")
    assert git(repository.upstream, "rev-parse", f"{ours}^") == theirs
    await daemon.synced(sync)
    assert sorted(names(sync)) == ["a", "b"]


@pytest.fixture
def race(repository, monkeypatch):
    """Have somebody push between our fetch and our push, as often as there are pushes in the list it gives."""
    competitors: list[Callable[[], object]] = []
    real = remote.Remote.push

    def push(self, commit, tip):
        if competitors:
            competitors.pop(0)()
        return real(self, commit, tip)

    monkeypatch.setattr(remote.Remote, "push", push)
    monkeypatch.setattr(branch, "_PAUSE_S", 0.0)
    return competitors


def competing(repository, path: str, number: int) -> Callable[[], object]:
    def push() -> None:
        repository.write(path, FLOW + f"# competitor {number}\n")
        repository.push()

    return push


async def test_a_lost_race_is_run_again(repository, daemon, race):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    race += [competing(repository, "b.py", number) for number in range(3)]
    ours = await sync.authoring.save_flow("a", OTHER, author="ada")
    assert race == []
    assert git(repository.upstream, "rev-parse", "main^") == repository.head()
    assert git(repository.upstream, "rev-parse", "main") == ours
    assert git(repository.upstream, "rev-list", "--count", "main") == "5"  # nothing of the lost ones


async def test_a_race_for_the_same_file_is_a_conflict_that_names_both(repository, daemon, race):
    repository.write("a.py")
    published = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    race += [competing(repository, "a.py", 1)]
    with pytest.raises(errors.Conflict) as caught:
        await sync.authoring.save_flow("a", OTHER, author="ada")
    assert published[:12] in caught.value.message
    assert repository.head()[:12] in caught.value.message
    assert git(repository.upstream, "rev-parse", "main") == repository.head()


async def test_after_five_lost_races_it_is_given_up(repository, daemon, race):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    race += [competing(repository, "b.py", number) for number in range(9)]
    with pytest.raises(errors.Conflict, match="5 times"):
        await sync.authoring.save_flow("a", OTHER, author="ada")
    assert len(race) == 4
    assert git(repository.upstream, "rev-parse", "main") == repository.head()


async def test_what_was_taken_back_upstream_is_not_brought_back(repository, daemon, race):
    repository.write("a.py")
    first = repository.push()
    repository.write("secret.txt", "oops")
    regretted = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    race += [lambda: git(repository.upstream, "update-ref", "refs/heads/main", first)]
    ours = await sync.authoring.save_flow("a", OTHER, author="ada")
    assert git(repository.upstream, "rev-list", "main").split() == [ours, first]
    assert regretted not in git(repository.upstream, "rev-list", "main")


async def test_a_race_inside_of_the_push_is_run_again(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    repository.write("b.py")
    theirs = repository.commit()
    git(repository.directory, "push", "--quiet", "origin", "HEAD:refs/heads/other")
    hook = repository.upstream / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        f'#!/bin/sh\nrm {hook}\nexec env -i PATH="$PATH" git --git-dir={repository.upstream} update-ref '
        f"refs/heads/main {theirs}\n"
    )
    hook.chmod(0o755)
    ours = await sync.authoring.save_flow("a", OTHER, author="ada")
    assert not hook.exists()
    assert git(repository.upstream, "rev-list", "main").split()[:2] == [ours, theirs]


async def test_a_forge_that_declines_is_quoted(repository, daemon):
    repository.write("a.py")
    commit = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    hook = repository.upstream / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'GL-HOOK-ERR: main is a protected branch' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(errors.NotAllowed, match="main is a protected branch") as caught:
        await sync.authoring.save_flow("a", OTHER, author="ada")
    assert "source.write_back" in caught.value.hint
    assert git(repository.upstream, "rev-parse", "main") == commit
    hook.unlink()
    await sync.authoring.save_flow("a", OTHER, author="ada")


async def test_a_repository_of_another_user_is_not_pushed_to(repository, daemon, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a repository away")
    repository.write("a.py")
    repository.push()
    canary = tmp_path / "canary"
    hook = repository.upstream / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n: > {canary}\n")
    hook.chmod(0o755)
    for path in [repository.upstream, *repository.upstream.rglob("*")]:
        os.chown(path, 65534, 65534)
    sync = await daemon.started(repository.url)
    assert (await daemon.synced(sync)).state == "ok"
    with pytest.raises(errors.NotAllowed, match="belongs to another user"):
        await sync.authoring.save_flow("a", OTHER, author="ada")
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["tag", "commit"])
async def test_what_is_no_branch_cannot_be_written_to(repository, daemon, kind):
    repository.write("a.py")
    commit = repository.push()
    git(repository.directory, "push", "--quiet", "origin", "HEAD:refs/tags/v1")
    sync = await daemon.started(repository.url, ref="v1" if kind == "tag" else commit)
    await daemon.synced(sync)
    with pytest.raises(errors.NotAllowed, match=f"fixed at the {kind}") as caught:
        await sync.authoring.save_flow("a", OTHER, author="ada")
    assert "source.ref" in caught.value.hint


@pytest.mark.parametrize("ref", ["side", "refs/heads/side"])
async def test_the_branch_that_is_followed_is_the_one_written_to(repository, daemon, ref):
    repository.write("a.py")
    commit = repository.push()
    git(repository.directory, "push", "--quiet", "origin", "HEAD:refs/heads/side")
    sync = await daemon.started(repository.url, ref=ref)
    await daemon.synced(sync)
    ours = await sync.authoring.save_flow("a", OTHER, author="ada")
    assert git(repository.upstream, "rev-parse", "side") == ours
    assert git(repository.upstream, "rev-parse", "main") == commit


async def test_a_source_that_is_gone_is_unavailable(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    repository.upstream.rename(repository.upstream.with_name("away"))
    with pytest.raises(errors.SourceUnavailable):
        await sync.authoring.save_flow("a", OTHER, author="ada")


async def test_a_damaged_mirror_fails_a_change_and_is_mended_by_the_next_pass(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    for path in (daemon.state / "mirror.git" / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"")
    with pytest.raises(errors.SourceUnavailable):
        await sync.authoring.save_flow("a", OTHER, author="ada")
    for _ in range(2):
        assert (await daemon.synced(sync)).commit
    await sync.authoring.save_flow("a", OTHER, author="ada")
    assert (await daemon.synced(sync)).state == "ok"


async def test_a_change_over_ssh_is_pushed_with_the_sources_key(repository, daemon, tmp_path):
    if not sshd.PROGRAM.exists():
        pytest.skip("there is no sshd")
    repository.write("a.py")
    repository.push()
    async with sshd.running(tmp_path / "sshd") as server:
        known = tmp_path / "known_hosts"
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}")
        key = tmp_path / "sshd" / "client"
        sync = await daemon.started(
            f"ssh://{server.user}@127.0.0.1:{server.port}{repository.upstream}",
            ssh_key=str(key),
            known_hosts=str(known),
        )
        status = await daemon.synced(sync)
        assert status.state == "ok", status.error
        ours = await sync.authoring.save_flow("a", OTHER, author="ada")
        assert git(repository.upstream, "rev-parse", "main") == ours
        assert (await daemon.synced(sync)).commit == ours


# -- the developer's directory --------------------------------------------------------------------------------------


async def test_the_developers_repository_is_not_touched(tmp_path, daemon):
    tree = repositories.WorkingRepository(tmp_path / "flows")
    tree.write("a.py")
    head = tree.commit()
    before = {path: path.read_bytes() for path in (tree.directory / ".git").rglob("*") if path.is_file()}
    sync = await daemon.started(str(tree.directory), developer=True)
    await daemon.synced(sync)
    assert await sync.authoring.save_flow("a", OTHER, author="ada") == ""
    assert {path: path.read_bytes() for path in (tree.directory / ".git").rglob("*") if path.is_file()} == before
    assert tree.head() == head
    assert sorted(path.name for path in tree.directory.iterdir()) == [".git", "a.py"]


async def test_what_a_crash_left_is_no_part_of_a_commit_and_goes_at_the_next_start(tmp_path, daemon):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "a.py").write_text(FLOW)
    sync = await daemon.started(str(tmp_path / "flows"), developer=True)
    (tmp_path / "flows" / folder.SAVING).write_text("half")
    status = await daemon.synced(sync)
    assert [path.name for path in sync.flows.snapshot(status.commit).iterdir()] == ["a.py"]
    await sync.authoring.save_flow("a", OTHER, author="ada")
    assert sorted(path.name for path in (tmp_path / "flows").iterdir()) == ["a.py"]
    (tmp_path / "flows" / folder.SAVING).write_text("half")
    await daemon.started(str(tmp_path / "flows"), developer=True)
    assert sorted(path.name for path in (tmp_path / "flows").iterdir()) == ["a.py"]


async def test_a_directory_that_is_gone_is_unavailable(tmp_path, daemon):
    (tmp_path / "flows").mkdir()
    sync = await daemon.started(str(tmp_path / "flows"), developer=True)
    (tmp_path / "flows").rmdir()
    with pytest.raises(errors.SourceUnavailable):
        await sync.authoring.save_flow("a", FLOW, author="ada")


# -- crashes --------------------------------------------------------------------------------------------------------

_WRITE = """
import asyncio, json, pathlib, sys
import msgspec
from headrace.engine import events
from tests.sync.conftest import Daemon

async def main():
    state, url, developer, last, edition = sys.argv[1:]
    daemon = Daemon(pathlib.Path(state))
    daemon.events = [msgspec.json.decode(last, type=events.CommitPublished)]
    sync = await daemon.started(url, developer=developer == "True")
    print("ready", flush=True)
    sys.stdin.readline()
    flow = "def handler(system, this):\\n    return " + edition + "\\n" + "# padding\\n" * 20_000
    await sync.authoring.save_flow("a", flow, author="ada")
    print("saved", flush=True)
    await sync.authoring.rename_flow("b" + edition, "b" + str(int(edition) + 1), author="ada")
    print("renamed", flush=True)

asyncio.run(main())
"""


def until_nobody_works_on(repository: repositories.WorkingRepository) -> None:
    """Return when the other side of a killed push has ended: it is the remote's process, not ours.

    In developer mode nothing is pushed, and there is nobody to wait for."""
    if isinstance(repository, repositories.Repository):
        place = str(repository.upstream).encode()
        while any(place in command for command in commands()):
            time.sleep(0.01)


def commands() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()


async def test_a_change_killed_at_any_moment_is_there_whole_or_not_at_all(place, daemon):
    place.repository.write("a.py")
    place.repository.write("b0.py", OTHER)
    place.put()
    sync = await place.sync(daemon)
    before = names(sync)
    chance = random.Random(11)
    whole_s, told = 0.6, ""
    edition = 0
    for _ in range(10):
        last = msgspec.json.encode(daemon.published[-1]).decode()
        words = [
            sys.executable,
            "-c",
            _WRITE,
            str(daemon.state),
            place.url,
            str(bool(place.settings)),
            last,
            str(edition),
        ]
        old = place.read("a.py")
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"ready\n"
            child.stdin.write(b"go\n")
            child.stdin.flush()
            began = time.monotonic()
            if told:  # the first one is not killed and says how long it takes
                time.sleep(chance.uniform(0.0, whole_s))
                child.kill()
            told = child.stdout.read().decode()
            whole_s = whole_s if edition else time.monotonic() - began
        until_nobody_works_on(place.repository)
        new = place.read("a.py")
        assert new == old or (
            new.startswith(f"def handler(system, this):\n    return {edition}\n") and len(new) > 200_000
        )
        if "saved" in told:
            assert new.startswith(f"def handler(system, this):\n    return {edition}\n")
        at = [number for number in (edition, edition + 1) if place.read(f"b{number}.py") == OTHER]
        assert len(at) == 1
        if "renamed" in told:
            assert at == [edition + 1]
        edition = at[0]
        sync = await place.sync(daemon)
        assert sync.status().state == "ok"
        assert names(sync) == {"a": before["a"], f"b{edition}": before["b0"]}
        if place.settings:
            assert {path.name for path in place.repository.directory.iterdir()} == {
                ".git", "README", "a.py", f"b{edition}.py"
            }  # fmt: skip
    await sync.authoring.save_flow("a", OTHER, author="ada")
    assert place.read("a.py") == OTHER
    assert git(daemon.state / "mirror.git", "fsck", "--connectivity-only", "--no-dangling") == ""
