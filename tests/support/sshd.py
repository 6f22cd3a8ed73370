"""A real sshd on loopback with throw-away keys, serving git to the user who runs the tests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import getpass
import pathlib
import socket
import subprocess
from collections.abc import AsyncIterator

PROGRAM = pathlib.Path("/usr/sbin/sshd")


@dataclasses.dataclass(frozen=True)
class Server:
    port: int
    user: str
    key: str
    host_key: str


def _made_key(path: pathlib.Path) -> str:
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


@contextlib.asynccontextmanager
async def running(folder: pathlib.Path, port: int = 0) -> AsyncIterator[Server]:
    """Serve until the block ends, with the keys in ``folder``, which are made if they are not there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host_key = _made_key(folder / "host")
    authorized = folder / "authorized_keys"
    authorized.write_text(_made_key(folder / "client"))
    authorized.chmod(0o600)
    with socket.create_server(("127.0.0.1", port)) as free:
        port = free.getsockname()[1]
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)  # where it confines itself; packages make it at boot
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {authorized}\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\n"
        "PermitRootLogin yes\n"
    )
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "-D", "-e", "-f", str(config), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while b"Server listening" not in await asyncio.wait_for(process.stderr.readline(), 10):
            assert process.returncode is None
        drained = asyncio.create_task(process.stderr.read(), name="sshd's log")
        yield Server(port, getpass.getuser(), (folder / "client").read_text(), host_key)
    finally:
        process.terminate()
        await process.wait()
    await drained
