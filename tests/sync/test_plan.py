"""What a sync would change, told without changing it."""

from headrace.sync import plan
from tests.support.repositories import git

GONE = "def handler(system, this):\n    return 'gone'\n" + "# gone\n" * 9


def changes(told):
    return [(one.kind, one.change, one.name, one.before) for one in told.changes]


async def test_a_plan_tells_every_change_and_leaves_everything_as_it_is(repository, daemon):
    for path in ("kept.py", "edited.py", "breaking.py"):
        repository.write(path, f"def handler(system, this):\n    return {path!r}\n")
    repository.write("old.py", "def handler(system, this):\n    return 'old'\n")
    repository.write("gone.py", GONE)
    repository.write("settings/who.yaml", "value: 1\n")
    repository.write("settings/left.yaml", "value: 1\n")
    first = repository.push()
    sync = await daemon.started(repository.url)
    assert (await sync.plan()).result == "publish"
    assert [one.change for one in (await sync.plan()).changes] == ["added"] * 7
    await daemon.synced(sync)
    assert (await sync.plan()).result == "unchanged"
    assert (await sync.plan()).changes == ()

    repository.move("old.py", "new.py")
    repository.remove("gone.py")
    repository.remove("settings/left.yaml")
    repository.write("breaking.py", "def handler(system, this:\n")
    repository.write("edited.py", "def handler(system, this):\n    return 2\n")
    repository.write("more.py")
    repository.write("settings/who.yaml", "value: 2\n")
    repository.write("settings/new.yaml", "value: 1\n")
    second = repository.push()
    files = sorted(path.name for path in daemon.state.rglob("*.json"))
    told = await sync.plan()
    assert (told.result, told.commit, told.published) == ("publish", second, first)
    assert changes(told) == [
        ("flow", "broken", "breaking", ""),
        ("flow", "changed", "edited", ""),
        ("flow", "removed", "gone", ""),
        ("flow", "added", "more", ""),
        ("flow", "renamed", "new", "old"),
        ("setting", "removed", "left", ""),
        ("setting", "added", "new", ""),
        ("setting", "changed", "who", ""),
    ]
    assert [one.file for one in told.broken] == ["breaking.py"]
    assert sync.flows.current().commit == first
    assert sorted(path.name for path in daemon.state.rglob("*.json")) == files
    assert len(daemon.events) == 1

    await daemon.synced(sync)
    repository.write("breaking.py")
    repository.push()
    assert changes(await sync.plan()) == [("flow", "mended", "breaking", "")]


async def test_a_plan_says_why_a_commit_would_be_refused(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url, policy="strict")
    await daemon.synced(sync)
    repository.write("a.py", "def handler(:\n")
    repository.push()
    told = await sync.plan()
    assert told.result == "reject"
    assert "a.py:1" in told.reason
    repository.write("a.py")
    repository.write("A.py")
    repository.push()
    told = await sync.plan()
    assert told.result == "reject"
    assert isinstance(told, plan.Plan)
    assert "case" in told.reason


async def test_a_rewritten_history_is_told_by_the_plan_and_by_the_pass_after_it(repository, daemon):
    repository.write("a.py")
    repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    git(repository.directory, "commit", "--quiet", "--amend", "-m", "otherwise")
    repository.push(force=True)
    assert (await sync.plan()).rewritten
    assert (await sync.plan()).rewritten
    found = sync._workshop.prepare(sync._manifest)
    assert found.rewritten
    assert not sync._workshop.prepare(found.manifest).rewritten
