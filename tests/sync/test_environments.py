"""Environments: built once for each list, from wheels of our own; what fails, dies or is removed meanwhile."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from headrace.engine import errors
from headrace.sync import environments, requirements, sources
from headrace.sync.source import Source
from tests.support import wheels
from tests.support.daemons import processes_matching
from tests.support.repositories import FLOW, Repository
from tests.sync.conftest import Clock

#: What no other process on this machine does.
SLEEP = f"sleep 9753.{os.getpid()}"
#: How often a build is killed; HEADRACE_KILLS for more.
KILLS = int(os.environ.get("HEADRACE_KILLS", "3"))


def flow(*dependencies: str) -> str:
    listed = ", ".join(f'"{one}"' for one in dependencies)
    return f"# /// script\n# dependencies = [{listed}]\n# ///\n{FLOW}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder of wheels: alpha in two versions, beta that wants the first, marked whose ``.pth`` leaves a trace."""
    folder = tmp_path_factory.mktemp("wheels")
    wheels.wheel(folder, "alpha", "1.0")
    wheels.wheel(folder, "alpha", "2.0")
    wheels.wheel(folder, "beta", "1.0", ["alpha<2"])
    trace = folder / "trace"
    started = f"import pathlib; pathlib.Path({str(trace)!r}).touch()\n"
    wheels.wheel(folder, "marked", "1.0", pth=started)
    wheels.source(
        folder, "built", "1.0", started + "from setuptools import setup\nsetup(name='built', version='1.0')\n"
    )
    return folder


@pytest.fixture
def packages(shop):
    return environments.Packages(find_links=(str(shop),), no_index=True, timeout_s=60.0)


@pytest.fixture
async def sync(repository, daemon, packages):
    sync = daemon.synchroniser(repository.url, packages=packages)
    await sync.start(None)
    return sync


def built(daemon) -> list[str]:
    return sorted(path.name for path in (daemon.state / "envs").iterdir())


def says(python, code: str) -> str:
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def version(daemon, sync, name: str) -> str:
    return says(daemon.installed.python(sync.flows.find(name).venv), "import alpha; print(alpha.VERSION)")


async def test_equal_lists_share_an_environment_and_different_ones_do_not_meet(sync, repository, daemon):
    repository.write("one.py", flow("alpha<2"))
    repository.write("two.py", flow("Alpha < 2"))
    repository.write("three.py", flow("alpha>=2"))
    repository.write("bare.py")
    repository.push()
    status = await daemon.synced(sync)
    assert (status.state, status.flows, status.broken, status.doing) == ("ok", 4, (), "")
    one, two, three = (sync.flows.find(name) for name in ("one", "two", "three"))
    assert one.venv == two.venv != three.venv and sync.flows.find("bare").venv == ""
    assert built(daemon) == sorted({one.venv, three.venv})
    assert (version(daemon, sync, "one"), version(daemon, sync, "three")) == ("1.0", "2.0")
    [cached] = (daemon.state / "envs" / one.venv).glob("venv/lib/*/site-packages/__pycache__/alpha.*.pyc")
    told = says(daemon.installed.python(one.venv), "import alpha; print(alpha.__cached__, (lambda: 0).__module__)")
    assert told.split()[0] == str(cached)
    assert len(daemon.published) == 1


async def test_an_environment_is_built_once_whatever_is_pushed_and_over_restarts(sync, repository, daemon, packages):
    repository.write("one.py", flow("alpha<2"))
    repository.push()
    await daemon.synced(sync)
    folder = daemon.state / "envs" / sync.flows.find("one").venv
    born = folder.stat().st_ino
    repository.write("two.py", flow("alpha<2"))
    repository.push()
    again = await daemon.started(repository.url, packages=packages)
    await daemon.synced(again)
    assert again.flows.find("two").venv == folder.name and folder.stat().st_ino == born


async def test_a_list_that_cannot_be_had_marks_the_flow_and_its_old_version_goes_on(sync, repository, daemon):
    repository.write("one.py", flow("alpha<2"))
    good = repository.push()
    await daemon.synced(sync)
    repository.write("one.py", flow("alpha>=2", "beta"))
    repository.write("new.py", flow("gamma"))
    repository.write("other.py")
    bad = repository.push()
    status = await daemon.synced(sync)
    one, new = sync.flows.find("one"), sync.flows.find("new")
    assert (one.commit, one.runnable, new.runnable, sync.flows.find("other").commit) == (good, True, False, bad)
    assert version(daemon, sync, "one") == "1.0"
    assert "beta depend on alpha<2 and you require alpha>=2" in one.broken.reason
    assert one.broken.reason.startswith(environments.CANNOT) and "`headrace sync` tries again" in one.broken.reason
    assert "gamma was not found" in new.broken.reason and "run.environments.find_links" in new.broken.reason
    assert (one.broken.key, one.broken.commit, len(status.broken)) == ("dependencies", bad, 2)

    repository.write("one.py", flow("beta"))
    mended = repository.push()
    await daemon.synced(sync)
    assert (sync.flows.find("one").commit, sync.flows.find("one").broken) == (mended, None)


async def test_what_failed_is_tried_again_by_itself_and_published_when_it_works(sync, repository, daemon, shop):
    repository.write("late.py", flow("late"))
    commit = repository.push()
    await daemon.synced(sync)
    assert not sync.flows.find("late").runnable
    await daemon.synced(sync)
    assert len(daemon.published) == 1  # it is not time yet, and nothing is new
    daemon.clock.ahead_s += 61
    await daemon.synced(sync)
    assert len(daemon.published) == 1  # it was tried, in vain
    wheel, _ = wheels.wheel(shop, "late", "1.0")
    try:
        daemon.clock.ahead_s += 121
        status = await daemon.synced(sync)
    finally:
        wheel.unlink()
    assert (status.broken, sync.flows.find("late").runnable, len(daemon.published)) == ((), True, 2)
    assert [event.commit for event in daemon.published] == [commit, commit]


async def test_a_strict_source_refuses_the_commit_until_the_environment_can_be_had(repository, daemon, packages, shop):
    sync = daemon.synchroniser(repository.url, packages=packages, policy="strict")
    await sync.start(None)
    repository.write("one.py", flow("later"))
    repository.push()
    status = await daemon.synced(sync)
    assert status.state == "degraded" and "later was not found" in status.error
    daemon.clock.ahead_s += 61
    await daemon.synced(sync)
    assert len(daemon.events) == 1
    wheel, _ = wheels.wheel(shop, "later", "1.0")
    try:
        daemon.installed.hurry()  # as `headrace sync` does
        status = await daemon.synced(sync)
    finally:
        wheel.unlink()
    assert (status.state, len(daemon.published)) == ("ok", 1)


async def test_the_repository_has_a_default_and_a_lock_for_all(sync, repository, daemon, shop):
    repository.write("requirements.txt", "# for whoever says nothing\nalpha\n")
    repository.write("requirements.lock", "alpha==1.0\n")
    repository.write("default.py")
    repository.write("own.py", flow("alpha>=1"))
    repository.write("none.py", flow())
    repository.write("against.py", flow("alpha>=2"))
    repository.push()
    await daemon.synced(sync)
    assert version(daemon, sync, "default") == version(daemon, sync, "own") == "1.0"
    assert sync.flows.find("none").venv == ""
    assert sync.flows.current().venv == sync.flows.find("default").venv  # of scripts
    reason = sync.flows.find("against").broken.reason
    assert reason == "'alpha>=2' is wanted, and requirements.lock has 1.0: change one of them"

    digest = wheels.wheel(shop, "alpha", "2.0")[1]
    repository.write("requirements.lock", f"alpha==2.0 \\\n    --hash=sha256:{digest}\n")
    repository.push()
    await daemon.synced(sync)
    assert {version(daemon, sync, name) for name in ("default", "own", "against")} == {"2.0"}

    repository.write("requirements.lock", f"alpha==2.0 --hash=sha256:{'0' * 64}\n")
    repository.push()
    await daemon.synced(sync)
    assert "Hash mismatch" in sync.flows.find("own").broken.reason
    assert version(daemon, sync, "own") == "2.0"

    repository.write("requirements.lock", "alpha>=1\n")
    repository.push()
    status = await daemon.synced(sync)
    assert sync.flows.find("own").broken.reason == (
        "requirements.lock, line 1: 'alpha>=1' is no exact version such as 'requests==2.32.3'"
    )
    assert status.warnings == {"requirements.lock": "line 1: 'alpha>=1' is no exact version such as 'requests==2.32.3'"}


async def test_nothing_that_is_installed_runs_before_a_flow_does(sync, repository, daemon, shop):
    repository.write("one.py", flow("marked"))
    repository.write("two.py", flow("built"))
    repository.push()
    await daemon.synced(sync)
    one, two = sync.flows.find("one"), sync.flows.find("two")
    assert one.broken is None and "run.environments.find_links" in two.broken.reason
    assert not (shop / "trace").exists()
    says(daemon.installed.python(one.venv), "")
    assert (shop / "trace").exists()  # it would have been seen
    (shop / "trace").unlink()


async def test_environments_that_nothing_refers_to_go_and_those_of_live_executions_stay(sync, repository, daemon):
    repository.write("one.py", flow("alpha<2"))
    first = repository.push()
    await daemon.synced(sync)
    old = sync.flows.find("one").venv
    daemon.in_use = frozenset({first})
    repository.write("one.py", flow("alpha>=2"))
    repository.push()
    await daemon.synced(sync)
    new = sync.flows.find("one").venv
    daemon.clock.ahead_s += 3601
    repository.write("more.py")
    repository.push()
    await daemon.synced(sync)
    assert built(daemon) == sorted([old, new])
    daemon.in_use = frozenset()
    daemon.clock.ahead_s += 3601
    await daemon.synced(sync)
    assert built(daemon) == [new]


async def test_one_that_somebody_removed_is_built_again_when_it_is_wanted(sync, repository, daemon):
    repository.write("one.py", flow("alpha<2"))
    commit = repository.push()
    await daemon.synced(sync)
    venv = sync.flows.find("one").venv
    daemon.installed.python(venv).unlink()
    await sync.install("f" * 24, commit)  # nothing runs in that
    assert not daemon.installed.has(venv)
    await sync.install(venv, commit)
    assert version(daemon, sync, "one") == "1.0" and built(daemon) == [venv]


def test_a_death_at_any_moment_of_a_build_is_healed_by_the_next_one(tmp_path, packages, record_property):
    """Killed so many times, at moments spread over a whole build, with everything it had started."""
    record_property("tries", KILLS)
    recipe = requirements.Recipe(("alpha<2", "beta"))
    program = tmp_path / "build.py"
    program.write_text(f"""if True:
        import pathlib, time
        from headrace.sync import environments, requirements
        there = environments.Environments(pathlib.Path({str(tmp_path / "envs")!r}), environments.{packages!r}, time)
        there.open()
        print("begins", flush=True)
        there.build({{requirements.{recipe!r}: ("a",)}})
        """)
    cut = 0
    for number in range(KILLS):
        building = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE)
        assert building.stdout.readline() == b"begins\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            building.wait(0.6 * (number + 0.5) / KILLS)
        building.kill()
        cut += building.wait() == -9
        building.stdout.close()
        there = environments.Environments(tmp_path / "envs", packages, Clock())
        there.open()
        there.build({recipe: ("a",)})
        assert [path.name for path in (tmp_path / "envs").iterdir()] == [recipe.id]
        assert says(there.python(recipe.id), "import alpha, beta; print(alpha.VERSION, beta.VERSION)") == "1.0 1.0"
        assert processes_matching(str(tmp_path / "envs")) == []
        shutil.rmtree(tmp_path / "envs" / recipe.id)
    assert cut


async def test_a_resolver_that_is_killed_is_started_again_once(repository, daemon, packages, tmp_path):
    """A ``uv`` that dies by SIGKILL at its first word, and one that always does."""
    real = environments._find_uv()
    marker = tmp_path / "killed"
    wrapper = tmp_path / "uv"
    wrapper.write_text(f'#!/bin/sh\nif [ ! -e {marker} ]; then touch {marker}; kill -9 $$; fi\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    sync = daemon.synchroniser(repository.url, packages=msgspec.structs.replace(packages, uv=str(wrapper)))
    await sync.start(None)
    repository.write("one.py", flow("alpha<2"))
    repository.push()
    await daemon.synced(sync)
    assert marker.exists() and sync.flows.find("one").broken is None

    wrapper.write_text("#!/bin/sh\nkill -9 $$\n")
    repository.write("one.py", flow("alpha>=2"))
    repository.push()
    await daemon.synced(sync)
    assert "uv was killed by SIGKILL" in sync.flows.find("one").broken.reason
    assert version(daemon, sync, "one") == "1.0"


async def test_a_build_that_takes_too_long_is_ended_with_all_it_started(repository, daemon, packages, tmp_path):
    wrapper = tmp_path / "uv"
    wrapper.write_text(f"#!/bin/sh\n{SLEEP} &\nwait\n")
    wrapper.chmod(0o755)
    quick = msgspec.structs.replace(packages, uv=str(wrapper), timeout_s=1.0)
    sync = daemon.synchroniser(repository.url, packages=quick)
    await sync.start(None)
    repository.write("one.py", flow("alpha<2"))
    repository.push()
    await daemon.synced(sync)
    assert "it was not done after 1 s" in sync.flows.find("one").broken.reason
    assert processes_matching(SLEEP) == [] and built(daemon) == []


async def test_a_stop_breaks_a_build_off_and_leaves_nothing(repository, daemon, packages, tmp_path):
    wrapper = tmp_path / "uv"
    wrapper.write_text(f"#!/bin/sh\nexec {SLEEP}\n")
    wrapper.chmod(0o755)
    sync = daemon.synchroniser(repository.url, packages=msgspec.structs.replace(packages, uv=str(wrapper)))
    await sync.start(None)
    repository.write("one.py", flow("alpha<2"))
    repository.push()
    running = asyncio.create_task(sync.run())
    while not processes_matching(SLEEP):
        await asyncio.sleep(0.02)
    assert sync.status().doing.startswith("building the environment ") and "alpha<2" in sync.status().doing
    daemon.installed.clean()  # nor does who cleans up
    await asyncio.wait_for(sync.authoring.save_flow("new", FLOW, author="Ada"), 30)  # who writes does not wait for it
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert processes_matching(SLEEP) == [] and built(daemon) == []


@pytest.fixture
def private_index(shop):
    """An index (PEP 503) that lets nobody in but Ada."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rstrip("/").rpartition("/")[2]
            known = self.headers.get("Authorization") == f"Basic {base64.b64encode(b'ada:lovelace').decode()}"
            files = sorted(path.name for path in shop.glob(f"{name.partition('-')[0]}-*.whl"))
            body = "".join(f'<a href="/files/{file}">{file}</a>' for file in files).encode()
            kind = "text/html"
            if name.endswith(".whl"):
                body, kind = (shop / name).read_bytes(), "application/octet-stream"
            self.send_response(200 if known and files else 401 if not known else 404)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body) if known and files else 0))
            self.end_headers()
            if known and files and self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the library calls it so

        def log_message(self, *_):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        server.shutdown()
        thread.join()


async def test_an_index_of_ones_own_is_asked_with_the_password_of_a_file(repository, daemon, private_index, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password lovelace\n")
    repository.write("one.py", flow("beta"))
    repository.push()
    shut = daemon.synchroniser(repository.url, environments.Packages(index_url=private_index))
    await shut.start(None)
    await daemon.synced(shut)
    assert "beta" in shut.flows.find("one").broken.reason
    sync = await daemon.started(
        repository.url, packages=environments.Packages(index_url=private_index, netrc=str(netrc))
    )
    await daemon.synced(sync)
    assert sync.flows.find("one").broken is None
    assert version(daemon, sync, "one") == "1.0"


async def test_several_sources_share_environments_and_none_takes_away_what_another_needs(
    tmp_path, repository, daemon, packages
):
    other = Repository(tmp_path / "other")
    repository.write("one.py", flow("alpha<2"))
    repository.push()
    other.write("one.py", flow("alpha<2"))
    other.write("two.py", flow("alpha>=2"))
    other.push()
    both = sources.Sources(
        [Source(url=repository.url), Source(url=other.url, prefix="team")],
        daemon.state,
        publications=daemon,
        commits_in_use=daemon.commits_in_use,
        clock=daemon.clock,
        has_cluster=False,
        packages=packages,
    )
    await both.start({})
    async with asyncio.TaskGroup() as group:
        running = group.create_task(both.run())
        status = await both.sync_now(60)
        mine, theirs, two = (both.flows.find(name) for name in ("one", "team/one", "team/two"))
        assert (status.flows, status.broken, mine.venv == theirs.venv) == (3, (), True)
        daemon.clock.ahead_s += environments.GRACE_S + 1
        repository.write("more.py")
        repository.push()
        await both.sync_now(60)
        assert built(daemon) == sorted({mine.venv, two.venv})
        shutil.rmtree(daemon.state / "envs" / two.venv)
        assert says(await both.python(two.venv, two.commit), "import alpha; print(alpha.VERSION)") == "2.0"
        assert await both.python("", two.commit) == ""
        with pytest.raises(errors.NotAccepting, match="the environment f+ of packages is not here"):
            await both.python("f" * 24, two.commit)
        shutil.rmtree(daemon.state / "envs" / two.venv)
        shop = Path(packages.find_links[0])
        shop.rename(away := shop.with_name("away"))
        shop.mkdir()
        for _ in range(2):  # tried once
            with pytest.raises(errors.NotAccepting, match="is not here: its environment cannot be built: .*alpha"):
                await both.python(two.venv, two.commit)
        shop.rmdir()
        away.rename(shop)
        with pytest.raises(errors.NotAccepting, match="cannot be built"):
            await both.python(two.venv, two.commit)
        daemon.clock.ahead_s += 61
        await both.python(two.venv, two.commit)
        running.cancel()


async def test_what_another_source_has_just_had_built_is_not_removed(daemon, packages):
    installed = daemon.environments(packages)
    recipe = requirements.Recipe(("alpha",))
    installed.build({recipe: ("a",)})
    installed.clean()
    assert installed.has(recipe.id)  # nothing refers to it yet
    daemon.clock.ahead_s += environments.GRACE_S + 1
    shared = requirements.shared({requirements.DEFAULT: b"alpha"})
    assert installed.missing({}, shared, retry=True) == {}
    installed.clean()
    assert installed.has(recipe.id)  # somebody is about to
    daemon.clock.ahead_s += environments.GRACE_S + 1
    installed.clean()
    assert built(daemon) == []


def test_the_setting_refuses_what_cannot_work(tmp_path):
    for wrong, said in [
        ({"index_url": "https://me:secret@index.example/simple"}, "credentials"),
        ({"index_url": "ftp://index.example/simple"}, "https"),
        ({"find_links": (str(tmp_path / "nowhere"),)}, "folder"),
        ({"netrc": str(tmp_path / "nowhere")}, "not a file"),
        ({"no_index": True, "index_url": "https://index.example/simple"}, "no_index"),
        ({"timeout_s": 0}, "seconds"),
    ]:
        with pytest.raises(ValueError, match=said):
            environments.Packages(**wrong)


def test_equal_lists_have_one_name_and_another_lock_or_list_another():
    def name(*texts, lock=b""):
        files = {requirements.LOCK: lock}
        return requirements.shared(files).recipe(requirements.normalised(("", text) for text in texts)).id

    assert name("Alpha_X>=1,<3", "beta") == name("beta", "alpha-x <3, >=1", "beta")
    assert (
        len(
            {
                name("a"),
                name("a>1"),
                name("a[x]"),
                name("a", "b"),
                name("a", lock=b"a==1"),
                name("a; sys_platform=='x'"),
            }
        )
        == 6
    )
    assert name("a", lock=b"# said\nA==1  # more\n\nb==2") == name("a", lock=b"b==2\na==1")
