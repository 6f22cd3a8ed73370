"""Podman's engine on a socket of its own, with an image made of busybox, and a registry to pull from.

It runs where it may not do much: without limits that only a whole machine's root may set, and without a network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import pathlib
import resource
import signal
import subprocess
import tarfile
from collections.abc import Iterator

import pytest
from aiohttp import encode_basic_auth, web

from tests.support.services import PASSWORD, folder, free_port, program, started

IMAGE = "localhost/box:1"


@dataclasses.dataclass(frozen=True)
class Engine:
    """An engine that runs, by its socket."""

    socket: pathlib.Path
    registry_port: int
    arguments: list[str]
    environment: dict[str, str]

    def ask(self, *arguments: str, given: bytes = b"") -> str:
        """Run podman beside the engine, on the same containers."""
        done = subprocess.run(
            [*self.arguments, *arguments], env=self.environment, input=given, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @property
    def names(self) -> list[str]:
        """The names of all containers."""
        return self.ask("ps", "-a", "--format", "{{.Names}}").split()


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """The engine, with the image; skips where no container can run."""
    server, _ = program("podman"), program("runc")
    if os.geteuid() != 0:
        pytest.skip("containers are run as root here")
    with folder() as base:
        base.chmod(0o711)
        registry_port = free_port()
        limits = {
            "nofile": min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
            "nproc": min(4096, resource.getrlimit(resource.RLIMIT_NPROC)[1]),
        }
        own = ", ".join(f'"{name}={most}:{most}"' for name, most in limits.items())
        (base / "conf").write_text(
            f'[containers]\ndefault_ulimits = [{own}]\nnetns = "none"\n'
            '[engine]\nruntime = "runc"\nevents_logger = "none"\ncgroup_manager = "cgroupfs"\n'
        )
        (base / "registries").write_text(f'[[registry]]\nlocation = "127.0.0.1:{registry_port}"\ninsecure = true\n')
        environment = {
            "PATH": os.defpath + ":/usr/sbin:/sbin", "HOME": str(base), "CONTAINERS_CONF": str(base / "conf"),
            "CONTAINERS_REGISTRIES_CONF": str(base / "registries"), "TMPDIR": str(base),
        }  # fmt: skip
        arguments = [server, "--root", f"{base}/root", "--runroot", f"{base}/run", "--storage-driver", "vfs"]
        arguments += ["--tmpdir", f"{base}/tmp", "--network-config-dir", f"{base}/net"]
        made = Engine(base / "socket", registry_port, arguments, environment)
        made.ask("import", "-", IMAGE, given=_layer())
        try:
            try:
                made.ask("run", "--rm", IMAGE, "/bin/busybox", "true")
            except AssertionError as refused:
                pytest.skip(f"no container can run here: {refused}")
            command = [*arguments, "system", "service", "--time", "0", f"unix://{made.socket}"]
            with started(command, made.socket.exists, base / "log", environment, ourselves=True):
                yield made
        finally:
            made.ask("rm", "--all", "--force", "--time", "0")
            _end_those_below(base)


def _end_those_below(base: pathlib.Path) -> None:
    """Podman keeps a process of each program it let in for minutes."""
    for about in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{base}/".encode() in about.read_bytes():
                os.kill(int(about.parent.name), signal.SIGKILL)


def _layer() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(program("busybox"), "bin/busybox")
        for name in ("dev", "proc", "sys", "tmp", "etc"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            archive.addfile(entry)
    return packed.getvalue()


class Registry:
    """Holds one image, for the user ``app``, as the OCI's specification of distribution says."""

    def __init__(self) -> None:
        layer = _layer()
        self._blobs: dict[str, bytes] = {}
        config = {
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/busybox", "echo", "pulled"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }  # fmt: skip
        kind = "application/vnd.oci.image"
        manifest = {
            "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
            "config": self._kept(f"{kind}.config.v1+json", json.dumps(config).encode()),
            "layers": [self._kept(f"{kind}.layer.v1.tar+gzip", gzip.compress(layer, 1))],
        }  # fmt: skip
        self._manifest = json.dumps(manifest).encode()

    def _kept(self, kind: str, content: bytes) -> dict:
        self._blobs[_digest(content)] = content
        return {"mediaType": kind, "size": len(content), "digest": _digest(content)}

    async def handler(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != encode_basic_auth("app", PASSWORD):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="tests"'})
        what, name = request.path.rstrip("/").split("/")[-2:]
        if what == "manifests" and name in ("latest", _digest(self._manifest)):
            headers = {"Docker-Content-Digest": _digest(self._manifest)}
            content_type = "application/vnd.oci.image.manifest.v1+json"
            return web.Response(body=self._manifest, content_type=content_type, headers=headers)
        if what == "blobs" and name in self._blobs:
            return web.Response(body=self._blobs[name])
        return web.Response(status=200 if name == "v2" else 404)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
