"""A Debian machine in a folder, for the package that `make test-deb` built: installed, used, upgraded and removed.

systemd does not run in there. A stand-in for ``systemctl`` asks the test, which does what the installed units say: it
starts their command as their user, with the socket, and waits until the daemon says that it is ready.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import until

#: What `make test-deb` gives: a tree that debootstrap made, and the package.
BASE, PACKAGE = (Path(os.environ[name]) if name in os.environ else None for name in ("BASE", "PACKAGE"))
READY_S = 120
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEMCTL = """#!/bin/sh
# Hands over what is to be started and stopped to the one who plays systemd, and waits until that is done.
case " $* " in
    *" daemon-reload "*) exit 0 ;;
    *" start "*) word=start ;;
    *" stop "*) word=stop ;;
    *) exec /usr/bin/systemctl --root=/ "$@" ;;
esac
for unit in "$@"; do
    case "$unit" in
        headrace.*)
            echo "$word $unit" > /run/asked
            read -r answer < /run/answered
            [ "$answer" = done ] || exit 1 ;;
    esac
done
"""


class Machine:
    """The folder ``root`` as a machine whose systemd is this object."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.daemon: subprocess.Popen[bytes] | None = None
        self.socket: socket.socket | None = None
        self.log = root.parent / "daemon.log"
        for name in ("asked", "answered"):
            os.mkfifo(root / "run" / name)
        (root / "run/systemd/system").mkdir(parents=True)
        (root / "usr/local/bin/systemctl").write_text(SYSTEMCTL)
        (root / "usr/local/bin/systemctl").chmod(0o755)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def command(self, *words: str) -> list[str]:
        """How something is run on the machine: with a /proc and /dev that only it sees."""
        mounts = f"mount -t proc proc {self.root}/proc && mount --rbind /dev {self.root}/dev"
        return ["unshare", "--mount", "sh", "-c", f'{mounts} && exec chroot "$@"', "sh", *words]

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run something as root and return what came of it."""
        environment = {
            "PATH": PATH,
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        command = self.command(str(self.root), *words)
        done = subprocess.run(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600
        )
        assert done.returncode == 0 or not check, done.stdout
        return done

    def install(self, package: Path, *options: str) -> str:
        """Install or upgrade, and return what dpkg said."""
        shutil.copy(package, self.root / "tmp/headrace.deb")
        said = self.run("dpkg", "--install", *options, "/tmp/headrace.deb").stdout
        (self.root / "tmp/headrace.deb").unlink()
        return said

    def headrace(self, *words: str) -> str:
        """Run a verb as the service's user and return what it printed."""
        said = self.command("--userspec=headrace:headrace", str(self.root), "/usr/bin/headrace", *words)
        environment = {"PATH": PATH, "STATE_DIRECTORY": "/var/lib/headrace", "HOME": "/var/lib/headrace"}
        done = subprocess.run(said, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, path: str) -> bytes:
        """Ask the daemon over TCP, as who sends a webhook does; waits as long as it takes."""
        assert self.socket is not None
        address = "{}:{}".format(*self.socket.getsockname())
        with urllib.request.urlopen(f"http://{address}{path}", timeout=READY_S) as answer:
            return bytes(answer.read())

    def begin(self) -> None:
        """Say where flows come from, and start, as the package says."""
        self.configure()
        self.run("systemctl", "start", "headrace.socket", "headrace.service")
        assert self.asked[-2:] == ["start headrace.socket", "start headrace.service"]
        until(self.ready, "flows are published", READY_S)

    def ready(self) -> bool:
        """Whether a commit is published."""
        try:
            return bool(self.get("/readyz"))
        except urllib.error.HTTPError:
            return False

    def configure(self) -> None:
        """Say where flows come from."""
        flows = self.root / "srv/flows"
        flows.mkdir()
        (flows / "counts.py").write_text(
            '# /// script\n# [tool.headrace]\n# webhook = {name = "counts", auth = "none", methods = ["GET"]}\n# ///\n'
            "def handler(system, this, inputs):\n"
            "    return this.webhook_response(200, json={'n': int(inputs['query']['n'])})\n"
        )
        (flows / "waits.py").write_text("def handler(system, this):\n    this.sleep(3600)\n")
        (self.root / "etc/headrace/headrace.toml").write_text('[source]\nurl = "/srv/flows"\n')

    def files(self) -> set[str]:
        """Everything on the machine's disk, but for what runs leave and what dpkg itself notes."""
        own = re.compile(r"/(proc|dev|run|tmp|srv|var/(log|cache|lib/dpkg))(/|$)")
        found = {f"/{path.relative_to(self.root)}" for path in self.root.rglob("*")}
        return {path for path in found if not own.match(path)}

    def start(self, unit: str) -> None:
        """What systemd does to start a unit."""
        units = {
            name: (self.root / f"lib/systemd/system/headrace.{name}").read_text() for name in ("socket", "service")
        }
        if self.socket is None and unit == "headrace.socket":
            backlog = int(_value(units["socket"], "Backlog"))
            self.socket = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        if unit == "headrace.service" and (self.daemon is None or self.daemon.poll() is not None):
            self._start_service(units["service"])

    def _start_service(self, unit: str) -> None:
        assert self.socket is not None
        state = f"/var/lib/{_value(unit, 'StateDirectory')}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            path = self.root / "run/notify"
            path.unlink(missing_ok=True)
            notified.bind(str(path))
            path.chmod(0o777)
            user = _value(unit, "User")
            command = self.command(f"--userspec={user}:{user}", str(self.root), *_value(unit, "ExecStart").split())
            script = f'export LISTEN_PID=$$ && exec "$@" 3<&{self.socket.fileno()}'
            with self.log.open("ab") as log:
                self.daemon = subprocess.Popen(
                    ["sh", "-c", script, "sh", *command],
                    env={"PATH": PATH, "HOME": state, "STATE_DIRECTORY": state, "HEADRACE_LOG__FORMAT": "json"}
                    | {"LISTEN_FDS": "1", "NOTIFY_SOCKET": "/run/notify"},
                    pass_fds=[self.socket.fileno()],
                    stdout=log,
                    stderr=log,
                )
            notified.settimeout(READY_S)
            while b"READY=1" not in notified.recv(4096):
                assert self.daemon.poll() is None, self.log.read_text()[-3000:]

    def stop(self, unit: str) -> None:
        """What systemd does to stop a unit."""
        if unit == "headrace.service" and self.daemon is not None:
            self.daemon.terminate()
            assert self.daemon.wait(90) == 0, self.log.read_text()[-3000:]
            self.daemon = None
        if unit == "headrace.socket" and self.socket is not None:
            self.socket.close()
            self.socket = None

    def close(self) -> None:
        """Switch the machine off."""
        with contextlib.suppress(AssertionError):
            self.stop("headrace.service")
        self.stop("headrace.socket")
        (self.root / "run/asked").write_text("off\n")
        self._thread.join()

    def _serve(self) -> None:
        while (asked := (self.root / "run/asked").read_text().strip()) != "off":
            word, unit = asked.split()
            self.asked.append(asked)
            answer = "failed"
            with contextlib.suppress(Exception):
                self.start(unit) if word == "start" else self.stop(unit)
                answer = "done"
            (self.root / "run/answered").write_text(f"{answer}\n")


def _value(unit: str, key: str) -> str:
    found = re.search(rf"^{key}=(.*)$", unit, re.MULTILINE)
    assert found, f"the unit has no {key}"
    return found[1]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine on which nothing is installed yet."""
    assert BASE is not None, "make test-deb gives what this needs"
    subprocess.run(["cp", "--archive", "--reflink=auto", str(BASE), str(tmp_path / "machine")], check=True)
    machine = Machine(tmp_path / "machine")
    try:
        yield machine
    finally:
        machine.close()


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package, and the same as a newer version."""
    assert PACKAGE is not None, "make test-deb gives what this needs"
    folder = tmp_path_factory.mktemp("packages")
    tree, newer = folder / "tree", folder / "newer.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", str(PACKAGE), str(tree)], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", r"\g<0>+next", control.read_text()))
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", str(tree), str(newer)], check=True)
    return PACKAGE, newer


def listed(machine: Machine) -> dict[str, str]:
    """The executions there are: id and status."""
    items = json.loads(machine.headrace("executions", "--json", "--limit", "1000"))["items"]
    return {item["id"]: item["status"] for item in items}


def deliveries(machine: Machine) -> list[tuple[int, str]]:
    """What came in by the webhook, as the records on disk have it: its number, and the status it ended with."""
    found: dict[str, int] = {}
    ended: dict[str, str] = {}
    for segment in sorted((machine.root / "var/lib/headrace/records").glob("*.jsonl")):
        for line in map(json.loads, segment.read_text().splitlines()):
            if line["event"] == "execution.created" and line.get("flow_name") == "counts":
                found[line["execution"]] = int(line["inputs"]["query"]["n"])
            if line["event"] == "execution.ended":
                ended[line["execution"]] = line["status"]
    return [(number, ended.get(execution, "")) for execution, number in found.items()]
