"""Forges are told what became of each commit, and of runs where that is wanted."""

import json

import pytest

from tests.support.daemons import Daemon, until
from tests.support.forge import Forge
from tests.support.repositories import Repository

FAILING = "def handler(system, this):\n    raise ValueError('no luck')\n"


@pytest.fixture(params=["github", "gitlab", "gitea"])
def forge(request):
    made = Forge(request.param)
    yield made
    made.close()


def daemon_for(forge, repository, home, **more):
    (home / "token").write_text(f"{forge.token}\n")
    daemon = Daemon(home / "s", repository.url)
    setting = {"forge": forge.kind, "token_file": str(home / "token"), "api": forge.api, "repository": "ops/flows"}
    daemon.environment["HEADRACE_SOURCE__STATUSES"] = json.dumps(setting | more)
    return daemon


def test_each_commit_and_run_is_marked_at_every_kind_of_forge(forge, tmp_path):
    repository = Repository(tmp_path / "r")
    repository.write("a.py")
    repository.write("bad.py", FAILING)
    first = repository.push()
    daemon = daemon_for(forge, repository, tmp_path, runs=True, url="https://flows.example/").start()
    failed = "failed" if forge.kind == "gitlab" else "failure"
    try:
        until(lambda: (first, "headrace", "success") in forge.contexts(), "the commit is green")
        good, bad = daemon.run("a"), daemon.run("bad")
        until(lambda: (first, "headrace/bad", failed) in forge.contexts(), "the failed run is red")
        until(lambda: (first, "headrace/a", "success") in forge.contexts(), "the good run is green")
        told = {(context, state): body for _, context, state, body in forge.statuses}
        assert told["headrace", "success"]["target_url"] == "https://flows.example/sync"
        assert told["headrace", "success"]["description"] == "published: 2 flows"
        assert told["headrace/bad", failed]["target_url"] == f"https://flows.example/executions/{bad['id']}"
        assert "no luck" in told["headrace/bad", failed]["description"]
        assert good["status"] == "ENDED_SUCCESS"

        repository.write("a.py", "def handler(:\n")
        second = repository.push()
        daemon.client.sync()
        until(lambda: (second, "headrace", failed) in forge.contexts(), "the broken commit is red")
        assert forge.token not in daemon.log.read_text()
        assert not any(forge.token.encode() in path.read_bytes() for path in (tmp_path / "s" / "records").iterdir())
    finally:
        assert daemon.stop() == 0


def test_a_refused_commit_is_red_with_the_reason_and_told_anew_after_a_restart(tmp_path):
    forge = Forge("gitea")
    repository = Repository(tmp_path / "r")
    repository.write("a.py")
    first = repository.push()
    daemon = daemon_for(forge, repository, tmp_path)
    daemon.environment["HEADRACE_SOURCE__POLICY"] = "strict"
    daemon.start()
    try:
        repository.write("a.py", "def handler(:\n" + "# " + "x" * 200)
        second = repository.push()
        daemon.client.sync()
        until(lambda: (second, "headrace", "failure") in forge.contexts(), "the refused commit is red")
        assert (first, "headrace", "success") in forge.contexts()
        forge.statuses.clear()
        daemon.kill()
        daemon.start()
        until(lambda: (first, "headrace", "success") in forge.contexts(), "it is told again")
        assert not any(context != "headrace" for _, context, _ in forge.contexts())  # runs were not asked for
    finally:
        assert daemon.stop() == 0
        forge.close()


def test_a_forge_that_refuses_or_is_gone_holds_up_nothing(tmp_path):
    forge = Forge("github")
    forge.refusals = [403]
    repository = Repository(tmp_path / "r")
    repository.write("a.py")
    first = repository.push()
    daemon = daemon_for(forge, repository, tmp_path, runs=True).start()
    try:
        until(lambda: "status.not_told" in daemon.log.read_text(), "the refusal is in the log")
        assert daemon.run("a")["status"] == "ENDED_SUCCESS"
        until(lambda: (first, "headrace/a", "success") in forge.contexts(), "the next one is told")
        forge.close()
        repository.write("b.py")
        repository.push()
        daemon.client.sync()
        assert daemon.run("b")["status"] == "ENDED_SUCCESS"
    finally:
        assert daemon.stop() == 0


def test_settings_without_a_token_or_a_forge_stop_the_start(tmp_path):
    repository = Repository(tmp_path / "r")
    repository.write("a.py")
    repository.push()
    daemon = Daemon(tmp_path / "s", repository.url)
    for setting, said in (
        ({"forge": "gitea"}, "source.statuses has no token"),
        ({"forge": "gitea", "token_file": __file__}, "does not say where its forge is"),
        ({"forge": "forgejo"}, "Invalid enum value"),
        ({"forge": "gitea", "api": "http://forge.example"}, "has to begin with https://"),
    ):
        daemon.environment["HEADRACE_SOURCE__STATUSES"] = json.dumps(setting)
        daemon.log.write_text("")
        daemon.start(wait=False)
        assert daemon.process.wait(30) != 0
        assert said in daemon.log.read_text()
