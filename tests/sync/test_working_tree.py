"""Developer mode: edits run before they are committed, and the user's repository is not touched."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path

import pytest

from headrace.sync import source
from tests.support.repositories import FLOW, WorkingRepository, git


@pytest.fixture
def tree(tmp_path: Path) -> WorkingRepository:
    return WorkingRepository(tmp_path / "flows")


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Return content and modification time of every file below ``folder``."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


async def test_uncommitted_and_untracked_files_count_and_the_repository_is_untouched(tree, daemon):
    tree.write("committed.py")
    head = tree.commit()
    tree.write("committed.py", FLOW + "# edited\n")
    tree.write("untracked.py")
    tree.write("staged.py")
    git(tree.directory, "add", "staged.py")
    before = fingerprint(tree.directory)
    sync = await daemon.started(str(tree.directory), developer=True)
    status = await daemon.synced(sync)
    assert (status.state, status.ref) == ("ok", "working tree")
    assert sorted(sync.flows.current().flows) == ["committed", "staged", "untracked"]
    assert sync.flows.snapshot(status.commit).joinpath("committed.py").read_text().endswith("# edited\n")
    assert fingerprint(tree.directory) == before
    assert head in git(daemon.state / "mirror.git", "log", "-1", "--format=%B", status.commit)


async def test_each_change_is_a_commit_and_no_change_is_none(tree, daemon):
    tree.write("a.py")
    sync = await daemon.started(str(tree.directory), developer=True)
    first = (await daemon.synced(sync)).commit
    assert (await daemon.synced(sync)).commit == first
    tree.write("a.py", FLOW + "# more\n")
    second = (await daemon.synced(sync)).commit
    assert git(daemon.state / "mirror.git", "rev-parse", f"{second}^") == first
    tree.commit("only committed, nothing edited")
    assert (await daemon.synced(sync)).commit == second
    assert len(daemon.published) == 2


@pytest.mark.parametrize("harmed", ["", "HEAD", "refs", "objects"])
async def test_a_harmed_mirror_is_mended_and_holds_what_is_published(tree, daemon, harmed):
    tree.write("a.py")
    sync = await daemon.started(str(tree.directory), developer=True)
    await daemon.synced(sync)
    flow = sync.flows.find("a").id
    harm = daemon.state / "mirror.git" / harmed
    harm.unlink() if harmed == "HEAD" else shutil.rmtree(harm)
    for text in ("# more\n", "# and more\n"):
        tree.write("a.py", FLOW + text)
        status = await daemon.synced(sync)
    assert (status.state, sync.flows.find("a").id) == ("ok", flow)
    assert git(daemon.state / "mirror.git", "cat-file", "-p", f"{status.commit}:a.py").endswith("# and more")


async def test_a_mirror_that_is_gone_is_made_again_when_nothing_has_changed(tree, daemon):
    tree.write("a.py")
    sync = await daemon.started(str(tree.directory), developer=True)
    await daemon.synced(sync)
    shutil.rmtree(daemon.state / "mirror.git")
    status = await daemon.synced(sync)
    assert status.state == "ok"
    assert git(daemon.state / "mirror.git", "cat-file", "-p", f"{status.commit}:a.py") == FLOW.strip()


async def test_a_plain_directory_will_do(tmp_path, daemon):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.py").write_text(FLOW)
    sync = await daemon.started(str(tmp_path / "plain"), developer=True)
    assert (await daemon.synced(sync)).flows == 1


async def test_ignored_files_and_our_own_state_are_left_out(tree, daemon):
    tree.write(".gitignore", "ignored/\n")
    tree.write(".git/info/exclude", "private.py\n")
    for path in ("a.py", "ignored/b.py", "private.py", ".headrace/c.py", "__pycache__/d.py", "e.pyc"):
        tree.write(path)
    daemon.state = tree.directory / "my state"
    sync = await daemon.started(str(tree.directory), developer=True)
    status = await daemon.synced(sync)
    files = [path.name for path in sync.flows.snapshot(status.commit).rglob("*") if path.is_file()]
    assert sorted(files) == [".gitignore", "a.py"]
    assert (await daemon.synced(sync)).commit == status.commit


async def test_files_are_taken_as_they_are_whatever_attributes_and_hooks_say(tree, daemon, tmp_path):
    canary = tmp_path / "canary"
    script = tree.write(".git/hooks/pre-commit", f"#!/bin/sh\n: > {canary}\n")
    script.chmod(0o755)
    for name in ("post-commit", "post-index-change", "reference-transaction"):
        tree.write(f".git/hooks/{name}", script.read_bytes()).chmod(0o755)
    git(tree.directory, "config", "core.fsmonitor", str(script))
    git(tree.directory, "config", "filter.evil.clean", f"touch {canary}")
    git(tree.directory, "config", "core.hooksPath", str(tree.directory / ".git/hooks"))
    tree.write(".gitattributes", "*.py filter=evil text eol=crlf ident\n")
    tree.write("a.py", b"def handler(system, this):\r\n    return '$Id$'\n")
    sync = await daemon.started(str(tree.directory), developer=True)
    status = await daemon.synced(sync)
    assert (
        sync.flows.snapshot(status.commit).joinpath("a.py").read_bytes() == tree.directory.joinpath("a.py").read_bytes()
    )
    assert not canary.exists()


async def test_links_and_repositories_inside_are_left_out_with_a_warning(tree, daemon):
    tree.write("a.py")
    tree.directory.joinpath("link.py").symlink_to("/etc/passwd")
    WorkingRepository(tree.directory / "inner").commit()
    WorkingRepository(tree.directory / "unborn").write("x.py")
    sync = await daemon.started(str(tree.directory), developer=True)
    status = await daemon.synced(sync)
    assert (status.state, list(sync.flows.current().flows)) == ("ok", ["a"])
    assert {"link.py", "inner"} <= status.warnings.keys()


async def test_a_directory_that_is_gone_unpublishes_nothing(tree, daemon):
    tree.write("a.py")
    sync = await daemon.started(str(tree.directory), developer=True)
    await daemon.synced(sync)
    tree.directory.rename(tree.directory.with_name("away"))
    status = await daemon.synced(sync)
    assert (status.state, status.flows) == ("degraded", 1)
    tree.directory.with_name("away").rename(tree.directory)
    assert (await daemon.synced(sync)).state == "ok"


async def test_a_damaged_mirror_is_made_again(tree, daemon):
    tree.write("a.py")
    sync = await daemon.started(str(tree.directory), developer=True)
    await daemon.synced(sync)
    for path in (daemon.state / "mirror.git" / "objects").glob("??/*"):
        path.chmod(0o644)
        path.write_bytes(b"")
    tree.write("b.py")
    status = await daemon.synced(sync)
    assert (status.state, status.flows) == ("ok", 2)


async def test_a_saved_file_is_published_by_itself(tree, daemon):
    tree.write("a.py")
    sync = await daemon.started(str(tree.directory), developer=True)
    async with daemon.running(sync), asyncio.timeout(30):
        await sync.sync_now(30)
        await asyncio.sleep(0.2)  # the watcher has no way to say that it watches
        tree.write("b.py")
        while "b" not in sync.flows.current().flows:
            await asyncio.sleep(0.01)


def test_the_source_argument_tells_directories_repositories_and_urls_apart(tmp_path, repository):
    plain = source.parse(str(tmp_path), ref="x")
    assert (plain.url, plain.developer) == (str(tmp_path), True)
    assert source.parse(str(repository.directory)).developer
    bare = source.parse(str(repository.upstream))
    assert (bare.url, bare.developer, bare.watched) == (repository.url, False, repository.upstream / "refs")
    remote = source.parse("https://forge.example/ops/flows.git")
    assert (remote.developer, remote.watched) == (False, None)
    assert source.Source(url=repository.directory.as_uri()).watched == repository.directory / ".git" / "refs"
    with pytest.raises(source.errors.ConfigurationInvalid, match="no directory"):
        source.parse("nowhere")
