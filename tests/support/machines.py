"""Machines on loopback for the task types that log in to one: a real sshd whose users have passwords and keys."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator

from tests.support import services


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where it listens, how to get in, and what of it runs."""

    port: int
    key: str
    host_key: str
    other_key: str
    home: pathlib.Path
    process: subprocess.Popen

    @property
    def access(self) -> dict:
        """The inputs of a task that logs in."""
        return {
            "hostname": "127.0.0.1", "port": self.port, "username": getpass.getuser(), "key": self.key,
            "hostkey": self.host_key,
        }  # fmt: skip


def _made_key(path: pathlib.Path, *kind: str) -> str:
    kind = kind or ("-t", "ed25519")
    subprocess.run(["ssh-keygen", "-q", *kind, "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


@contextlib.contextmanager
def sshd(folder: pathlib.Path) -> Iterator[Machine]:
    """Serve the user who runs the tests; the keys ``key`` (OpenSSH) and ``pem`` (PKCS#1) in ``folder`` get in."""
    program = services.program("sshd")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host_key = _made_key(folder / "host")
    authorized = folder / "authorized_keys"
    authorized.write_text(_made_key(folder / "key") + _made_key(folder / "pem", "-t", "rsa", "-b", "2048", "-m", "PEM"))
    authorized.chmod(0o600)
    _made_key(folder / "other")
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)  # where it confines itself; packages make it at boot
    home = folder / "home"
    home.mkdir()
    port = services.free_port()
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {authorized}\n"
        "PasswordAuthentication yes\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\n"
        f"PermitRootLogin yes\nSubsystem sftp internal-sftp\nMaxStartups 100\nSetEnv TMPDIR={home}\n"
    )
    log = (folder / "log").open("wb")
    process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=log, start_new_session=True)
    try:
        ready = services.answers(port)
        while not ready():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.02)
        key, other = (folder / "key").read_text(), (folder / "other").read_text()
        yield Machine(port, key, host_key, other, home, process)
    finally:
        process.terminate()
        process.wait()
        log.close()


def processes_with(text: str) -> list[int]:
    """Return the processes that live whose arguments or environment mention ``text``."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                alive = " Z " not in (entry / "stat").read_text()[:200].rpartition(")")[2][:4] + " "
                if alive and text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def connections_of(process: subprocess.Popen) -> list[int]:
    """Return the children of a server, one for each connection it has."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(one) for one in children.split()]


def stop_still(process: subprocess.Popen) -> contextlib.AbstractContextManager[None]:
    """Let a server stand still while the block lasts."""

    @contextlib.contextmanager
    def still() -> Iterator[None]:
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    return still()


def cut(pid: int) -> None:
    """Kill what serves a connection, with the process that keeps its privileges."""
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"sshd" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
