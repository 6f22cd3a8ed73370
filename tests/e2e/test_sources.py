"""Several sources in one daemon, what is run unmerged, what a sync would do, and what a conflict shows."""

import hmac
import json
import subprocess
import sys

import pytest

from headrace.daemon import endpoint
from headrace.engine import errors
from tests.support.browser import Browser
from tests.support.daemons import Daemon, until
from tests.support.repositories import Repository, git

HELPER = "def answer():\n    return {n!r}\n"
PARENT = """
from lib.helper import answer
def handler(system, this, inputs):
    child = this.flow(inputs.get('child', 'leaf')).get('output_value')
    setting = system.setting('who').get('value')['value']
    return {{'me': answer(), 'child': child, 'commit': this.get('commit'), 'setting': setting, 'n': {n}}}
"""
LEAF = """
from lib.helper import answer
def handler(system, this):
    return answer()
"""


def fill(repository, name, n=1):
    repository.write("lib/helper.py", HELPER.format(n=name))
    repository.write("parent.py", PARENT.format(n=n))
    repository.write("leaf.py", LEAF)
    repository.write("settings/who.yaml", f"value: {name}\n")
    return repository.push(f"{name} {n}")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A daemon with two repositories, which have modules and flows of the same names."""
    home = tmp_path_factory.mktemp("w")
    main, team = Repository(home / "main"), Repository(home / "team")
    fill(main, "main")
    fill(team, "team")
    (home / "secret").write_text("team's secret")
    config = home / "headrace.toml"
    config.write_text(
        f'[[source]]\nurl = "{main.url}"\npreview = {{refs = ["feature/*"]}}\n\n'
        f'[[source]]\nprefix = "team"\nurl = "{team.url}"\npush = {{secret_file = "{home / "secret"}"}}\n'
    )
    daemon = Daemon(home / "s", main.url, "--config", str(config)).start()
    until(lambda: len(daemon.client.flows()) == 4, "both are published")
    yield daemon, main, team
    assert daemon.stop() == 0


def live(daemon, name, commit):
    """Wait until a flow is there as a commit has it."""
    daemon.client.sync()
    until(lambda: {one["name"]: one["commit"] for one in daemon.client.flows()}.get(name) == commit, f"{name} is live")


def cli(daemon, *words):
    command = [sys.executable, "-m", "headrace", *words]
    return subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", "HEADRACE_URL": f"unix://{daemon.state}/daemon.sock"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_each_source_has_its_flows_modules_and_commits(world):
    daemon, main, team = world
    assert sorted(flow["name"] for flow in daemon.client.flows()) == ["leaf", "parent", "team/leaf", "team/parent"]
    mine, theirs = daemon.run("parent")["output_value"], daemon.run("team/parent")["output_value"]
    assert (mine["me"], mine["child"], mine["commit"]) == ("main", "main", git(main.upstream, "rev-parse", "main"))
    # A repository's flows call each other as if it were the only one.
    assert (theirs["me"], theirs["child"], theirs["commit"]) == (
        "team",
        "team",
        git(team.upstream, "rev-parse", "main"),
    )


def test_flows_reach_into_another_source_by_its_prefix(world):
    assert world[0].run("parent", child="team/leaf")["output_value"]["child"] == "team"


def test_what_both_declare_is_the_first_ones_and_the_other_is_told(world):
    daemon, _, _ = world
    assert daemon.run("team/parent")["output_value"]["setting"] == "main"
    state = daemon.client.sync_state()
    assert [one["prefix"] for one in state["sources"]] == ["", "team"]
    assert state["flows"] == 4
    assert [(one["file"], one["reason"]) for one in state["problems"]] == [
        ("team/settings/who.yaml", "another source declares 'who' too, and comes first")
    ]


def test_the_command_line_shows_each_source(world):
    daemon, main, team = world
    said = cli(daemon, "sync")
    assert said.returncode == 0, said.stderr
    assert f"team    {team.url} (team)  main" in said.stdout
    assert "team/settings/who.yaml: another source declares 'who' too" in said.stdout
    said = cli(daemon, "doctor")
    assert said.returncode == 0, said.stdout
    for repository in (main, team):
        assert f"source: {repository.url}" in said.stdout
    assert "files: cannot be used: team/settings/who.yaml" in said.stdout
    page = Browser(daemon.url).logged_in(daemon.token()).get("/sync")
    assert "team/settings/who.yaml</code> another source declares" in page


def test_a_push_to_one_source_leaves_the_other_alone(world):
    daemon, main, team = world
    before = daemon.client.flow("leaf")["commit"]
    commit = fill(team, "team", 2)
    live(daemon, "team/parent", commit)
    assert daemon.run("team/parent")["output_value"]["n"] == 2
    assert daemon.client.flow("leaf")["commit"] == before == git(main.upstream, "rev-parse", "main")


def test_changes_go_to_the_source_that_the_name_says(world):
    daemon, main, team = world
    daemon.client.save_flow("team/made", LEAF, message="Make it")
    assert git(team.upstream, "show", "main:made.py") == LEAF.strip()
    assert "made.py" not in git(main.upstream, "ls-tree", "-r", "--name-only", "main").split()
    daemon.client.rename_flow("team/made", "team/deep/made")
    assert daemon.run("team/deep/made")["output_value"] == "team"
    history = daemon.client.flow_history("team/deep/made")
    assert [(one["change"], one["name"], one["before"]) for one in history] == [
        ("renamed", "team/deep/made", "team/made"),
        ("added", "team/made", ""),
    ]
    with pytest.raises(endpoint.Invalid, match="different sources"):
        daemon.client.rename_flow("team/deep/made", "made")
    daemon.client.delete_flow("team/deep/made")
    with pytest.raises(errors.NotFound):
        daemon.client.flow("team/deep/made")


def test_a_flow_that_asks_for_a_cluster_runs_here_and_its_author_is_told(world):
    daemon, _, _ = world
    block = '# /// script\n# [tool.headrace]\n# worker = "dmz"\n# on_failure = "nobody"\n# ///'
    daemon.client.save_flow("team/far", block + LEAF, message="Run it in the DMZ")
    told = "there is no flow 'nobody'", "worker: there is no cluster here, so it runs on this machine"
    assert daemon.run("team/far")["output_value"] == "team"
    assert all(text in daemon.client.sync_state()["warnings"]["team/far.py"] for text in told)
    assert all(text in cli(daemon, "sync", "--status").stdout for text in told)
    page = Browser(daemon.url).logged_in(daemon.token()).get("/sync")
    assert f"team/far.py</code> on_failure: there is no flow &#39;nobody&#39;; {told[1]}" in page
    daemon.client.delete_flow("team/far")
    until(lambda: daemon.client.sync_state()["warnings"] == {}, "they are gone with it")


def test_all_of_it_is_there_after_a_restart_without_the_repositories(world):
    daemon, main, team = world
    daemon.stop()
    hidden = [one.upstream.rename(one.upstream.with_name("hidden.git")) for one in (main, team)]
    try:
        daemon.start()
        assert daemon.run("team/parent")["output_value"]["me"] == "team"
        state = until(lambda: (s := daemon.client.sync_state())["state"] == "degraded" and s, "that is seen")
        assert "(team)" in state["error"] or main.url in state["error"]
    finally:
        for one, path in zip((main, team), hidden, strict=True):
            path.rename(one.upstream)
    assert daemon.client.sync()["state"] == "ok"


def test_a_push_event_is_believed_by_the_source_whose_secret_signed_it(world):
    daemon = world[0]
    body = json.dumps({"ref": "refs/heads/main"}).encode()
    for secret, status in ((b"team's secret", 202), (b"another", 401)):
        signature = hmac.new(secret, body, "sha256").hexdigest()
        headers = {
            "X-GitHub-Event": "push",
            "X-Hub-Signature-256": f"sha256={signature}",
            "Content-Type": "application/json",
        }
        assert daemon.raw("POST", "/api/v1/sync/push", body, headers)[0] == status


def test_a_dry_run_says_what_a_sync_would_do(tmp_path, make_daemon):
    repository = Repository(tmp_path / "r")
    first = fill(repository, "main")
    daemon = make_daemon(repository.url)
    daemon.environment["HEADRACE_SOURCE__POLICY"] = "strict"
    daemon.start()
    said = cli(daemon, "sync", "--dry-run")
    assert said.returncode == 0
    assert f"{first[:12]} of main is published already" in said.stdout
    repository.write("leaf.py", "def handler(system, this:\n")
    repository.write("more.py")
    second = repository.push()
    daemon.client.sync()

    said = cli(daemon, "sync", "--dry-run")
    assert said.returncode == 1
    assert f"{second[:12]} of main would be refused" in said.stdout
    assert "! broken   leaf" in said.stdout
    assert "+ added    more" in said.stdout
    assert "leaf.py" in said.stdout
    assert "was never closed" in said.stdout
    (plan,) = json.loads(cli(daemon, "sync", "--dry-run", "--json").stdout)["items"]
    assert (plan["result"], plan["commit"], plan["published"]) == ("reject", second, first)
    assert daemon.client.flow("leaf")["commit"] == first


def test_a_branch_that_is_allowed_runs_without_being_merged(world):
    daemon, main, _ = world
    git(main.directory, "checkout", "--quiet", "-b", "feature/x")
    main.branch = "feature/x"
    commit = fill(main, "feature", 9)
    main.branch = "main"
    git(main.directory, "checkout", "--quiet", "main")
    published = daemon.client.flow("parent")

    done = daemon.client.wait(daemon.client.run("parent", ref="feature/x")["id"])
    assert done["output_value"] == {
        "me": "feature", "child": "feature", "commit": commit, "setting": "main", "n": 9,
    }  # fmt: skip
    assert done["flow_id"] == published["id"]
    assert daemon.client.flow("parent") == published
    assert daemon.run("parent")["output_value"]["me"] == "main"
    script = "from lib.helper import answer\ndef handler(system, this): return answer()\n"
    tried = daemon.client.wait(daemon.client.run_script(script, ref="feature/x")["id"])
    assert (tried["output_value"], tried["commit"]) == ("feature", commit)
    daemon.client.sync()  # which cleans, and leaves it
    main.branch = "feature/x"
    git(main.directory, "checkout", "--quiet", "feature/x")
    main.write("fresh.py")
    commit = main.push()
    fresh = daemon.client.wait(daemon.client.run("fresh", ref="feature/x")["id"])
    main.branch = "main"
    git(main.directory, "checkout", "--quiet", "main")
    assert daemon.client.wait(daemon.client.run("parent", ref=commit)["id"])["output_value"]["n"] == 9
    git(main.directory, "merge", "--quiet", "--ff-only", "feature/x")
    git(main.directory, "push", "--quiet", "origin", "main")
    live(daemon, "fresh", commit)
    assert daemon.client.flow("fresh")["id"] == fresh["flow_id"]  # merged, it is the flow that ran before
    fill(main, "main")
    daemon.client.sync()


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("other", "neither a commit that is kept nor among the refs"),
        ("feature/none", "has no branch or tag 'feature/none'"),
        ("--upload-pack=x", "neither"),
        ("feature/..", "ref"),
        ("0" * 40, "not kept any more"),
    ],
    ids=["not allowed", "not there", "an option", "no ref", "unknown commit"],
)
def test_other_refs_are_refused_with_the_reason(world, ref, said):
    with pytest.raises(errors.HeadraceError, match=said):
        world[0].client.run("parent", ref=ref)


def test_a_conflict_shows_what_somebody_else_changed(world):
    daemon, main, _ = world
    tag = daemon.client.flow_with_tag("leaf")[1]
    main.write("leaf.py", LEAF + "# theirs\n")
    commit = main.push("Theirs")
    live(daemon, "leaf", commit)
    with pytest.raises(errors.Conflict) as caught:
        daemon.client.save_flow("leaf", LEAF + "# mine\n", tag=tag)
    assert "+# theirs" in caught.value.diff
    # A blob that never was this flow's is not shown to anybody.
    setting = git(main.upstream, "rev-parse", "main:settings/who.yaml")
    with pytest.raises(errors.Conflict) as caught:
        daemon.client.save_flow("leaf", LEAF, tag=f'"{setting}"')
    assert caught.value.diff == ""


def test_a_change_by_a_flow_names_it_and_the_person_who_had_it_done(world):
    daemon, main, _ = world
    main.write(
        "writer.py", "def handler(system, this):\n    system.flow('written').save(script='def handler(s, t): 0')\n"
    )
    commit = main.push()
    live(daemon, "writer", commit)
    done = daemon.run("writer")
    said = git(main.upstream, "log", "-1", "--format=%an%n%B", "main", "--", "written.py")
    assert said.splitlines()[0] == f"writer ({done['id']})"
    assert f"Co-authored-by: {done['created_by']} <headrace@localhost>" in said
