"""A push becomes the version that runs."""

from tests.support.daemons import until
from tests.support.repositories import Repository

VERSION = """
import time
def handler(system, this, inputs):
    this.save(message='begun')
    if inputs.get('wait'):
        this.sleep(inputs['wait'])
    from lib.version import VERSION
    return {{'flow': {n}, 'helper': VERSION, 'commit': this.get('commit')}}
"""


def push_version(repository: Repository, n: int) -> str:
    repository.write("which.py", VERSION.format(n=n))
    repository.write("lib/version.py", f"VERSION = {n}\n")
    return repository.push(f"version {n}")


def test_a_pushed_version_runs_while_an_older_execution_finishes_on_its_own_commit(tmp_path, make_daemon):
    repository = Repository(tmp_path)
    first = push_version(repository, 1)
    daemon = make_daemon(repository.url).start()
    old = daemon.client.run("which", {"wait": 3})
    until(lambda: daemon.client.execution(old["id"])["message"] == "begun", "the old one has begun")

    second = push_version(repository, 2)
    until(lambda: daemon.client.flow("which")["commit"] == second, "the push is live")
    new = daemon.run("which")

    assert new["output_value"] == {"flow": 2, "helper": 2, "commit": second}
    assert daemon.client.execution(old["id"])["status"] in ("RUNNING", "WAITING")
    assert daemon.client.wait(old["id"])["output_value"] == {"flow": 1, "helper": 1, "commit": first}


def test_a_broken_push_keeps_the_last_good_version_and_says_file_line_and_reason(tmp_path, make_daemon):
    repository = Repository(tmp_path)
    good = push_version(repository, 1)
    daemon = make_daemon(repository.url).start()
    repository.write("which.py", "def handler(system, this:\n    pass\n")
    repository.write("other.py")
    broken = repository.push("break it")
    until(lambda: daemon.client.flow("which")["broken"], "the broken push was seen")

    flow = daemon.client.flow("which")
    assert (flow["broken"]["file"], flow["broken"]["line"], flow["broken"]["commit"]) == ("which.py", 1, broken)
    assert "was never closed" in flow["broken"]["reason"]
    assert daemon.run("which")["output_value"] == {"flow": 1, "helper": 1, "commit": good}
    assert daemon.run("other")["commit"] == broken


def test_a_child_runs_the_version_of_its_parents_commit(tmp_path, make_daemon):
    repository = Repository(tmp_path)
    push_version(repository, 1)
    repository.write(
        "parent.py",
        "def handler(system, this):\n    this.save(message='begun')\n    this.sleep(2)\n"
        "    return this.flow('which').get('output_value')\n",
    )
    first = repository.push("parent")
    daemon = make_daemon(repository.url).start()
    parent = daemon.client.run("parent")
    until(lambda: daemon.client.execution(parent["id"])["message"] == "begun", "the parent has begun")
    second = push_version(repository, 2)
    until(lambda: daemon.client.flow("which")["commit"] == second, "the push is live")
    assert daemon.client.wait(parent["id"])["output_value"]["commit"] == first


def test_everything_runs_with_the_forge_gone_also_after_a_restart(tmp_path, make_daemon):
    repository = Repository(tmp_path)
    commit = push_version(repository, 1)
    daemon = make_daemon(repository.url).start()
    daemon.stop()
    repository.upstream.rename(tmp_path / "gone")
    daemon.start()
    assert daemon.run("which")["commit"] == commit
    state = until(lambda: (s := daemon.client.sync_state())["state"] == "degraded" and s, "sync says degraded")
    assert state["error"] and state["commit"] == commit
