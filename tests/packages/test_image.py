"""The image, really built and run by podman: as docs/install.md says, without rights, on a disk that it may not write.

Its base is the machine that debootstrap made, so no registry is asked. Containers have no network of their own and no
limits: who tests in a container may not give them any.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import until
from tests.support.repositories import Repository
from tests.support.services import free_port

#: What `make test-image` gives: a tree that debootstrap made.
BASE = Path(os.environ["BASE"]) if "BASE" in os.environ else None
SOURCE = Path(__file__).resolve().parents[2]
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
USER = 842
READY_S = 120
FLOW = "def handler(system, this, inputs):\n    return inputs['number'] * 7\n"
WAITS = "def handler(system, this):\n    this.sleep(3600)\n"


class Podman:
    """Podman with images and containers of its own, all of them below ``home``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        limits = ", ".join(
            f'"{name}={most}:{most}"'
            for name, most in {
                "nofile": min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
                "nproc": min(4096, resource.getrlimit(resource.RLIMIT_NPROC)[1]),
            }.items()
        )
        (home / "containers.conf").write_text(
            f'[containers]\nnetns = "host"\ndefault_ulimits = [{limits}]\n'
            '[engine]\nruntime = "runc"\nevents_logger = "none"\ncgroup_manager = "cgroupfs"\n'
        )
        (home / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{home}/root"\nrunroot = "{home}/run"\n'
        )
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home),
            "CONTAINERS_CONF": str(home / "containers.conf"), "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
            "DISABLE_HC_SYSTEMD": "true",  # no timer looks at its health: we do
        }  # fmt: skip

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run podman and return what came of it."""
        done = subprocess.run(
            ["podman", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def bring_base(self, tree: Path) -> str:
        """Make an image of the tree, which trusts whom this machine trusts; return its name."""
        about = [f"--change=ENV {name}={AUTHORITIES}" for name in ("PIP_CERT", "NODE_EXTRA_CA_CERTS")]
        packed = self.home / "base.tar"
        with tarfile.open(packed, "w") as archive:
            archive.add(tree, ".", filter=lambda one: None if f"/{one.name[2:]}" == str(AUTHORITIES) else one)
            entry = tarfile.TarInfo(f".{AUTHORITIES}")
            content = AUTHORITIES.read_bytes()
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
        self.run("import", *about, str(packed), "localhost/base")
        packed.unlink()
        return "localhost/base"

    def close(self) -> None:
        """End and remove everything."""
        self.run("rm", "--all", "--force", "--time", "0", check=False)
        shutil.rmtree(self.home / "root", ignore_errors=True)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman, with the image of what is committed."""
    assert BASE is not None, "make test-image gives what this needs"
    made = Podman(tmp_path_factory.mktemp("podman"))
    with contextlib.closing(made):
        clone = made.home / "source"
        subprocess.run(["git", "clone", "--quiet", str(SOURCE), str(clone)], check=True)
        base = made.bring_base(BASE)
        subprocess.run(["make", "image", f"BASE={base}"], cwd=clone, env=made.environment, check=True, timeout=1800)
        yield made


class Container:
    """The daemon as a container with two flows; its state is in a volume that outlives it."""

    def __init__(self, podman: Podman, upstream: Path) -> None:
        self.podman, self.upstream, self.port = podman, upstream, free_port()

    def start(self) -> None:
        """Run it and wait until its flows are published."""
        self.podman.run(
            "run", "--detach", "--name", "headrace", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
            "--volume", "headrace:/var/lib/headrace", "--volume", f"{self.upstream}:/srv/flows.git:ro",
            "--env", "HEADRACE_SOURCE__URL=file:///srv/flows.git",
            "--env", f"HEADRACE_LISTEN__ADDRESS=127.0.0.1:{self.port}", "headrace",
        )  # fmt: skip
        until(self.ready, "flows are published", READY_S)

    def stop(self) -> tuple[int, list[dict[str, Any]]]:
        """Ask it to stop, remove it, and return its status and what it logged."""
        self.podman.run("stop", "--time", "60", "headrace")
        status = self.podman.run("inspect", "--format", "{{.State.ExitCode}}", "headrace").stdout
        said = self.podman.run("logs", "headrace")
        self.podman.run("rm", "headrace")
        return int(status), [json.loads(line) for line in (said.stdout + said.stderr).splitlines() if line[:1] == "{"]

    def headrace(self, *words: str) -> str:
        """Run a verb inside and return what it printed."""
        return self.podman.run("exec", "headrace", "headrace", *words).stdout

    def ask(self, path: str, token: str = "", body: Any = None) -> Any:
        """Ask it over HTTP."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=READY_S) as answer:
            return json.load(answer)

    def ready(self) -> bool:
        """Whether a commit is published."""
        try:
            self.ask("/readyz")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True


def test_it_runs_flows_stops_at_once_and_keeps_what_it_did(podman, tmp_path):
    repository = Repository(tmp_path / "flows")
    repository.write("sevenfold.py", FLOW)
    repository.write("waits.py", WAITS)
    commit = repository.push()
    subprocess.run(["chown", "--recursive", f"{USER}:{USER}", str(repository.upstream)], check=True)
    container = Container(podman, repository.upstream)
    container.start()
    token = container.headrace("token", "create", "test", "--role", "operator").split()[-1]
    begun = container.ask("/api/v1/flows/sevenfold/run", token, {"inputs": {"number": 6}})
    ended = until(lambda: (found := container.ask(f"/api/v1/executions/{begun['id']}", token))["ended_at"] and found,
                  "it ends")  # fmt: skip
    assert (ended["status"], ended["output_value"], ended["commit"]) == ("ENDED_SUCCESS", 42, commit)
    waiting = container.ask("/api/v1/flows/waits/run", token, {})["id"]
    podman.run("healthcheck", "run", "headrace")
    assert podman.run("exec", "headrace", "id", "--user").stdout.strip() == str(USER)
    container.headrace("doctor")  # it ends with 0: all is well

    status, logged = container.stop()
    assert (status, logged[-1]["event"]) == (0, "daemon.stopped")

    container.start()
    assert container.ask(f"/api/v1/executions/{begun['id']}", token) == ended
    assert container.ask(f"/api/v1/executions/{waiting}", token)["status"] == "WAITING"
    container.headrace("records", "verify")
    status, logged = container.stop()
    assert (status, logged[-1]["event"]) == (0, "daemon.stopped")


def test_without_tls_it_is_not_reached_from_outside(podman):
    """As it comes it listens to everybody, and says what that takes."""
    ended = podman.run("run", "--rm", "--env", "HEADRACE_SOURCE__URL=file:///srv/flows.git", "headrace", check=False)
    assert ended.returncode != 0
    assert "tls" in (ended.stdout + ended.stderr).lower()
