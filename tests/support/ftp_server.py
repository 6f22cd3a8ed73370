"""A server of pyftpdlib in a process of its own: ``python -m tests.support.ftp_server FOLDER PORT PASSWORD [CHAIN]``.

In a process, because the library needs modules of Python that warn when they are imported.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.support import services


def _serve(folder: str, port: str, password: str, chain: str = "") -> None:
    from pyftpdlib import authorizers, handlers, servers

    authorizer = authorizers.DummyAuthorizer()
    authorizer.add_user("ada", password, folder, perm="elradfmwMT")
    handler = handlers.TLS_FTPHandler if chain else handlers.FTPHandler
    handler.authorizer, handler.auth_failed_timeout = authorizer, 0
    if chain:
        handler.certfile, handler.tls_control_required, handler.tls_data_required = chain, True, True
    servers.FTPServer(("127.0.0.1", int(port)), handler).serve_forever()


@contextlib.contextmanager
def served(folder: pathlib.Path, password: str, certificates: pathlib.Path | None = None) -> Iterator[int]:
    """Serve a folder to ada, with TLS if there are certificates; gives the port."""
    port = services.free_port()
    arguments = [str(folder), str(port), password]
    if certificates is not None:
        chain = folder.parent / f"{folder.name}.pem"
        chain.write_text((certificates / "server.key").read_text() + (certificates / "server.crt").read_text())
        arguments.append(str(chain))
    log = folder.parent / f"{folder.name}.log"
    with log.open("wb") as said:
        command = [sys.executable, "-W", "ignore", "-m", "tests.support.ftp_server", *arguments]
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        ready = services.answers(port)
        while not ready():
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
