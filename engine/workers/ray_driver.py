"""The process that speaks to Ray: a driver of its cluster, kept apart from the daemon.

Ray's library brings threads of its own and ends the process it is in when the raylet of this machine dies; that must
not be the daemon. Started as ``python -m …ray_driver <descriptor> <address>``; both sides speak lines of JSON:

    driver -> daemon   {"ready": {"host": …, "version": …}}  or  {"failed": "why"} and it leaves
                       {"ended": ID, "error": "" | "why"}      the task of a seat is over, however
                       {"nodes": [{"id", "host", "alive", "resources", "labels"}]}
    daemon -> driver   {"seat": ID, "options": {…}, "ticket": {…}}
                       {"cancel": ID}                           kill its worker if it runs
                       {"nodes": true}

The task that nodes run brings the guest's own code along, so a node needs Ray and nothing of ours. Each task is tried
once: whoever is cut off is replayed by the daemon. ``ray`` is imported here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import io
import json
import os
import signal
import socket
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..guest import frames

_PR_SET_PDEATHSIG = 1
_LINE_BYTES_MAX = 1024 * 1024


def bundle() -> bytes:
    """Return the guest package as an archive whose bytes depend on nothing but its files."""
    folder = Path(frames.__file__).parent
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.glob("*.py")):
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return packed.getvalue()


def task(packed: bytes, digest: str) -> Callable[[dict[str, Any]], str]:
    """Return the function that nodes run. It is sent to them by value, and imports what it needs there."""

    def host(ticket: dict[str, Any]) -> str:
        import importlib.util
        import io
        import os
        import shutil
        import socket
        import sys
        import tempfile
        import zipfile
        from pathlib import Path

        import ray

        name = "headrace_guest.node"
        if name not in sys.modules:
            root = Path(ticket["stock"] or f"/var/tmp/headrace-{os.getuid()}")  # noqa: S108 - as in guest.stock
            root.mkdir(0o700, parents=True, exist_ok=True)
            folder = root / f"guest-{digest}"
            if not folder.is_dir():
                beside = Path(tempfile.mkdtemp(dir=root, prefix=f"{folder.name}.tmp-"))
                zipfile.ZipFile(io.BytesIO(packed)).extractall(beside)
                try:
                    beside.rename(folder)
                except OSError:  # another worker was quicker
                    shutil.rmtree(beside, ignore_errors=True)
            spec = importlib.util.spec_from_file_location("headrace_entry", folder / "__main__.py")
            assert spec is not None
            assert spec.loader is not None
            entry = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(entry)
            entry.load_package(str(folder))
            importlib.import_module(name)
        about = {"node": ray.get_runtime_context().get_node_id(), "host": socket.gethostname()}
        return str(sys.modules[name].host(ticket, about))

    return host


class Driver:
    """What the daemon asked for and is not over."""

    def __init__(self, ray: Any, say: Callable[[dict[str, Any]], None]) -> None:
        self._ray = ray
        self._say = say
        packed = bundle()
        host = task(packed, hashlib.sha256(packed).hexdigest()[:20])
        host.__module__ = "__main__"  # by value: nodes have no module of ours
        self._task = ray.remote(max_retries=0)(host)
        self._references: dict[str, Any] = {}
        self._watching: set[asyncio.Task[None]] = set()

    def take(self, line: dict[str, Any]) -> None:
        """Do what one line of the daemon says."""
        if "seat" in line:
            self._place(line["seat"], line["options"], line["ticket"])
        elif "cancel" in line:
            reference = self._references.get(line["cancel"])
            if reference is not None:
                self._begin(asyncio.to_thread(self._cancel, reference))
        elif "nodes" in line:
            self._begin(self._tell_nodes())

    def _place(self, identity: str, options: dict[str, Any], ticket: dict[str, Any]) -> None:
        try:
            reference = self._task.options(**options).remote(ticket)
        except Exception as error:  # noqa: BLE001 - Ray refuses what it cannot mean with exceptions of many kinds
            self._say({"ended": identity, "error": f"Ray refuses it: {error}"})
            return
        self._references[identity] = reference
        self._begin(self._watch(identity, reference))

    async def _watch(self, identity: str, reference: Any) -> None:
        said = ""
        try:
            said = await reference
        except Exception as error:  # noqa: BLE001 - of the task, its worker, its node: all of them end it
            said = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
        del self._references[identity]
        self._say({"ended": identity, "error": said})

    def _cancel(self, reference: Any) -> None:
        with contextlib.suppress(Exception):  # it is over already, or will be
            self._ray.cancel(reference, force=True)

    async def _tell_nodes(self) -> None:
        try:
            found = await asyncio.to_thread(self._ray.nodes)
        except Exception:  # noqa: BLE001 - the head does not answer: nothing is what the daemon hears
            return
        told = [
            {
                "id": node["NodeID"],
                "host": node.get("NodeManagerHostname") or node["NodeManagerAddress"],
                "alive": bool(node["Alive"]),
                "resources": {
                    name: amount
                    for name, amount in node.get("Resources", {}).items()
                    if not name.startswith(("node:", "object_store"))
                },
                "labels": node.get("Labels") or {},
            }
            for node in found
        ]
        self._say({"nodes": told})

    def _begin(self, work: Any) -> None:
        started = asyncio.ensure_future(work)
        self._watching.add(started)
        started.add_done_callback(self._watching.discard)


async def _serve(connection: socket.socket, address: str) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_LINE_BYTES_MAX)

    def say(line: dict[str, Any]) -> None:
        writer.write(json.dumps(line).encode() + b"\n")

    import ray

    try:
        await asyncio.to_thread(
            ray.init, address=address, namespace="headrace", log_to_driver=False, configure_logging=False
        )
    except Exception as error:  # noqa: BLE001 - whatever the reason, it cannot be reached now
        said = str(error).strip().splitlines()
        say({"failed": said[0][:500] if said else type(error).__name__})
        await writer.drain()
        return
    driver = Driver(ray, say)
    host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    say({"ready": {"host": host, "version": ray.__version__}})
    while line := await reader.readline():
        driver.take(json.loads(line))


def main() -> None:
    """Serve the daemon until it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2]))
    os._exit(0)  # Ray's own farewell may take long, and the daemon is gone


if __name__ == "__main__":
    main()
