"""The mirror heals: locks, half-made and damaged repositories, killed processes."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time

import msgspec
import pytest

from headrace.engine import events
from headrace.sync import manifests, mirror, snapshot, tree
from tests.support.repositories import FLOW, git
from tests.sync import killing


async def published(repository, daemon):
    """Publish one commit and return a synchroniser as after a restart."""
    repository.write("a.py")
    repository.write("lib/x.py", "y = 1\n")
    repository.push()
    await daemon.synced(await daemon.started(repository.url))
    return daemon.published[-1].commit


def is_whole(daemon, sync) -> bool:
    """Return whether everything that the catalogue names is on disk as git has it."""
    manifest = manifests.read(daemon.state / "snapshots", sync.flows.current().commit)
    return snapshot.is_intact(sync.flows.snapshot(manifest.catalogue.commit), manifest.files)


def lock_everything(folder):
    for name in ("config.lock", "packed-refs.lock", "shallow.lock", "refs/remotes/origin/main.lock", "HEAD.lock"):
        folder.joinpath(name).touch()


def lose_objects(folder):
    for path in (folder / "objects").iterdir():
        shutil.rmtree(path)


def cut_objects(folder):
    for path in (folder / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            os.truncate(path, path.stat().st_size // 2)


def swap_blobs(folder):
    """Put another object's bytes in place of each one: readable, and not what its name says."""
    objects = [path for path in (folder / "objects").glob("??/*") if path.is_file()]
    contents = [path.read_bytes() for path in objects]
    for path, content in zip(objects, contents[1:] + contents[:1], strict=True):
        path.chmod(0o644)
        path.write_bytes(content)


def half_a_clone(folder):
    shutil.rmtree(folder)
    folder.joinpath("objects").mkdir(parents=True)
    folder.with_name("mirror.git.new-1234").joinpath("refs").mkdir(parents=True)


def no_head(folder):
    folder.joinpath("HEAD").unlink()


def garbage_refs(folder):
    folder.joinpath("refs/remotes/origin/main").write_text("garbage\n")


@pytest.mark.parametrize(
    "harm",
    [shutil.rmtree, half_a_clone, no_head, lock_everything, lose_objects, cut_objects, swap_blobs, garbage_refs],
    ids=lambda harm: harm.__name__,
)
@pytest.mark.parametrize("when", ["running", "restarted"])
async def test_a_harmed_mirror_is_mended_by_the_next_pass(repository, daemon, harm, when):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    before = sync.flows.find("a").id
    harm(daemon.state / "mirror.git")
    if when == "restarted":
        sync = await daemon.started(repository.url)
    repository.write("b.py")
    commit = repository.push()
    for _ in range(2):
        status = await daemon.synced(sync)
    assert (status.state, status.commit, status.flows) == ("ok", commit, 2)
    assert sync.flows.find("a").id == before
    assert is_whole(daemon, sync)
    assert not list(daemon.state.glob("mirror.git.*"))


@pytest.mark.parametrize("harm", ["gone", "file gone", "file changed"])
async def test_a_harmed_snapshot_is_made_again_at_start_without_the_source(repository, daemon, harm):
    commit = await published(repository, daemon)
    folder = daemon.state / "snapshots" / commit
    if harm == "gone":
        shutil.rmtree(folder)
    elif harm == "file gone":
        (folder / "lib/x.py").unlink()
    else:
        (folder / "a.py").chmod(0o644)
        (folder / "a.py").write_text("garbage")
    shutil.rmtree(repository.upstream)
    sync = await daemon.started(repository.url)
    assert sync.flows.find("a").commit == commit
    assert is_whole(daemon, sync)
    assert len(daemon.events) == 1


@pytest.mark.parametrize("harm", ["gone", "cut"])
async def test_a_harmed_manifest_is_made_again_at_start_and_announced(repository, daemon, harm):
    commit = await published(repository, daemon)
    path = manifests.path_of(daemon.state / "snapshots", commit)
    if harm == "gone":
        path.unlink()
    else:
        os.truncate(path, 40)
    shutil.rmtree(repository.upstream)
    sync = await daemon.started(repository.url)
    assert sync.flows.find("a").commit == commit
    assert [event.commit for event in daemon.published] == [commit, commit]
    again = await daemon.started(repository.url)
    assert again.flows.find("a").id == sync.flows.find("a").id
    assert len(daemon.events) == 2


async def test_ids_survive_a_manifest_that_was_rewritten_and_never_announced(repository, daemon):
    commit = await published(repository, daemon)
    path = manifests.path_of(daemon.state / "snapshots", commit)
    before = (await daemon.started(repository.url)).flows.find("a").id
    manifest = manifests.read(path.parent, commit)
    manifests.write(path.parent, msgspec.structs.replace(manifest, rules="of another version"))
    sync = await daemon.started(repository.url)
    assert sync.flows.find("a").id == before
    assert len(daemon.published) == 2


async def test_with_snapshot_and_mirror_lost_the_ids_survive_until_the_source_is_back(repository, daemon):
    commit = await published(repository, daemon)
    first = await daemon.started(repository.url)
    before = first.flows.find("a").id
    shutil.rmtree(daemon.state / "snapshots" / commit)
    shutil.rmtree(daemon.state / "mirror.git")
    sync = await daemon.started(repository.url)
    status = await daemon.synced(sync)
    assert (status.state, status.commit) == ("ok", commit)
    assert sync.flows.find("a").id == before
    assert is_whole(daemon, sync)


async def test_a_snapshot_that_vanishes_while_running_comes_back(repository, daemon):
    await published(repository, daemon)
    sync = await daemon.started(repository.url)
    shutil.rmtree(daemon.state / "snapshots" / sync.flows.current().commit)
    await daemon.synced(sync)
    assert is_whole(daemon, sync)


async def test_unchanged_files_are_linked_and_touched_ones_are_not(repository, daemon):
    repository.write("same.py")
    repository.write("touched.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    old = sync.flows.snapshot(sync.flows.current().commit)
    (old / "touched.py").chmod(0o644)
    (old / "touched.py").write_text(FLOW.replace("42", "43"))
    repository.write("new.py")
    repository.push()
    await daemon.synced(sync)
    new = sync.flows.snapshot(sync.flows.current().commit)
    assert (new / "same.py").samefile(old / "same.py")
    assert (new / "touched.py").read_text() == FLOW
    assert {path.stat().st_mode & 0o777 for path in new.iterdir()} == {0o444}
    assert {path.stat().st_mtime for path in new.iterdir()} == {snapshot.MTIME_S}


def test_a_snapshot_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    """Each pass would leave another half of one, on a disk that is full."""
    files = tuple(tree.Entry(f"lib/{number}.py", tree.blob_sha(b"x = 1\n"), "100644", 6) for number in range(3))

    def blobs(shas):
        yield b"x = 1\n"
        raise OSError(errno.ENOSPC, "no room")

    with pytest.raises(OSError, match="no room"):
        snapshot.write(tmp_path, "5" * 40, tree.Plan(files, {}), blobs)
    assert list(tmp_path.iterdir()) == []


async def test_executables_stay_executable(repository, daemon):
    repository.write("a.py")
    repository.write("tool.sh", "#!/bin/sh\n").chmod(0o755)
    commit = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    assert sync.flows.snapshot(commit).joinpath("tool.sh").stat().st_mode & 0o777 == 0o555


def fetched(directory, repository) -> mirror.Mirror:
    """Return a mirror with all branches of the upstream."""
    made = mirror.Mirror(directory, environment={"GIT_ALLOW_PROTOCOL": "file"})
    made.ensure()
    made.git.run("fetch", "--quiet", "--", str(repository.upstream), "+refs/heads/*:refs/remotes/origin/*")
    return made


def test_pins_survive_a_rebuild(tmp_path, repository):
    repository.write("a.py")
    commit = repository.push()
    made = fetched(tmp_path, repository)
    made.pin(commit)
    made.rebuild("for the test")
    assert made.pins() == [commit]
    assert made.has(commit)
    made.unpin([commit])
    assert made.pins() == []


def test_a_history_is_compared_with_what_was_known_of_it(tmp_path, repository):
    repository.write("a.py")
    first = repository.push()
    repository.write("b.py")
    second = repository.push()
    git(repository.directory, "checkout", "--quiet", "--orphan", "other")
    repository.write("c.py")
    foreign = repository.commit()
    git(repository.directory, "push", "--quiet", "origin", "HEAD:other")
    made = fetched(tmp_path, repository)
    branch = "refs/remotes/origin/main"
    assert made.since("", branch) == made.since(first, branch) == made.since(second, branch) == (second, True)
    assert made.since(foreign, branch) == made.since("0" * 40, branch) == (second, False)
    assert (made.is_ancestor(first, second), made.is_ancestor(second, first)) == (True, False)
    assert made.since(second, "refs/remotes/origin/gone") == ("", False)


def test_the_mirror_is_packed_when_it_holds_many_small_files(tmp_path, repository):
    repository.write("a.py")
    commit = repository.push()
    made = fetched(tmp_path, repository)
    killing.make_untidy(made.directory)
    small = git(made.directory, "hash-object", "-w", "--stdin", stdin=b"needed")
    git(made.directory, "update-ref", "refs/pins/small", small)
    file = made.directory / "objects" / small[:2] / small[2:]
    assert file.exists()
    made.tidy()
    assert not file.exists()
    assert git(made.directory, "cat-file", "-p", small) == "needed"
    assert made.has(commit)


def test_the_mirror_is_packed_when_it_holds_many_packs(tmp_path, repository):
    made = fetched(tmp_path, repository)
    packs = made.directory / "objects" / "pack"
    for number in range(mirror._PACKS_MAX + 1):
        small = git(made.directory, "hash-object", "-w", "--stdin", stdin=b"needed %d" % number)
        git(made.directory, "update-ref", f"refs/pins/{number}", small)
        made.tidy()
        git(made.directory, "pack-objects", "--quiet", str(packs / "pack"), stdin=small.encode())
    assert len([*packs.glob("*.pack")]) == mirror._PACKS_MAX + 1
    made.tidy()
    assert len([*packs.glob("*.pack")]) == 1


_SYNC = """
import asyncio, pathlib, sys
import msgspec
from headrace.engine import events
from tests.sync.conftest import Daemon

class Recording(Daemon):
    async def publish(self, event):
        with pathlib.Path(sys.argv[2]).open("ab") as journal:
            journal.write(msgspec.json.encode(event) + b"\\n")
        return await super().publish(event)

async def main():
    daemon = Recording(pathlib.Path(sys.argv[1]))
    daemon.events = [msgspec.json.decode(sys.argv[4], type=events.CommitPublished)]
    print("ready", flush=True)
    sys.stdin.readline()
    await daemon.synced(await daemon.started(sys.argv[3]))
    print("done", flush=True)

asyncio.run(main())
"""


async def test_a_sync_killed_at_any_moment_is_finished_by_the_next_one(repository, daemon, tmp_path):
    journal = tmp_path / "journal"
    words = [sys.executable, "-c", _SYNC, str(daemon.state), str(journal), repository.url]
    for number in range(40):
        repository.write(f"lib/{number}.py", f"x = {number}\n")
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    began = time.monotonic()
    await daemon.synced(sync)
    whole_s = time.monotonic() - began
    before = sync.flows.find("a").id
    chance = random.Random(7)
    for number in range(10):
        repository.write("a.py", FLOW + f"# {number}\n")
        repository.write(f"lib/{number}.py", "y = 1\n")
        commit = repository.push()
        known = msgspec.json.encode(daemon.published[-1]).decode()
        with subprocess.Popen([*words, known], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"ready\n"
            child.stdin.write(b"go\n")
            child.stdin.flush()
            time.sleep(chance.uniform(0.0, whole_s))
            child.kill()
        for line in journal.read_bytes().splitlines() if journal.exists() else []:
            daemon.events.append(msgspec.json.decode(line, type=events.CommitPublished))  # it came as far as that
        journal.unlink(missing_ok=True)
        sync = await daemon.started(repository.url)
        status = await daemon.synced(sync)
        assert (status.state, status.commit, status.flows) == ("ok", commit, 1)
        assert sync.flows.find("a").id == before
        assert len(list(sync.flows.snapshot(commit).rglob("*.py"))) == 41
        assert is_whole(daemon, sync)
    assert git(daemon.state / "mirror.git", "fsck", "--connectivity-only", "--no-dangling") == ""
