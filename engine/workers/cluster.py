"""A Ray cluster on which flow processes run: placing executions there, and the links of the nodes that took them.

Ray decides where and when: each execution is one of its tasks, asked for through a driver process (``ray_driver``). The
task comes back to us over TLS with a token that is good for this execution, once. Whoever comes with another token is
turned away: a node that was given up and returns late can change nothing. A node that is silent for the whole lease is
given up; by then it has killed what it ran (``guest.node``). When the driver or the cluster goes, what waits for a
place goes on waiting and is asked for again; nothing of it is in Ray alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import ipaddress
import json
import platform
import secrets
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from .. import errors, policy, ports
from ..guest import link, node, parcels
from . import remote_process

log = structlog.get_logger()

#: A place that Ray could not give is asked for again after so long, longer each time.
_AGAIN_S, _AGAIN_MAX_S = 0.5, 30.0
#: The same for the driver, which is what reaches the cluster.
_DRIVER_AGAIN_S, _DRIVER_AGAIN_MAX_S = 0.5, 15.0
#: A node without a process yet may be fetching a large environment.
_PREPARING_S = 300.0
_NODES_EVERY_S = 2.0
_NODES_SILENT_S = 30.0
_HELLO_S = 20.0
_FAREWELL_S = 5.0
_DRIVER_LINE_BYTES_MAX = 16 * 1024 * 1024
_PARCEL_BYTES_UNSENT_MAX = 4 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How the cluster is used. ``listen``: where nodes find us, ``host:port``; empty is any port of the address that
    Ray knows this machine by."""

    address: str = "auto"
    listen: str = ""
    cpu: float = 1.0  # of each execution whose flow says nothing
    lease_s: float = 20.0
    stock: str = ""  # folder of the nodes


class Node(msgspec.Struct, frozen=True):
    """A machine of the cluster as Ray last told of it."""

    id: str
    host: str
    alive: bool
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}


class Hello(msgspec.Struct, frozen=True):
    """What a node says first."""

    token: str
    node: str
    host: str
    python: str
    platform: str


class Want(msgspec.Struct, frozen=True):
    """A folder the node does not have, by digest."""

    folder: str


class Place:
    """Where one execution runs next: asked for now, ``taken`` when a node has come for it."""

    def __init__(self, cluster: Cluster, identity: str, execution: str, wants: policy.Placement) -> None:
        self.identity = identity
        self.execution = execution
        self.wants = wants
        self.token = secrets.token_hex(32)
        self.asked_at = cluster.clock.monotonic()
        self.taken: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self.link: Link | None = None
        self.refusal = ""  # why Ray did not give it the last time
        self.tries = 0
        self._cluster = cluster

    @property
    def node(self) -> str:
        """The name of the machine that came for it."""
        return self.link.hello.host if self.link is not None and self.link.hello is not None else ""

    async def take(
        self, kind: str, *, snapshot: Path, environment: Path | None, fresh: bool
    ) -> remote_process.RemoteProcess:
        """Return a flow process there; raises ``NodeLost``."""
        assert self.link is not None
        digests = await self._cluster.digests(snapshot, *([environment] if environment else []))
        offer = {
            "kind": kind,
            "snapshot": digests[snapshot],
            "environment": digests[environment] if environment else "",
            "fresh": fresh,
        }
        return await self.link.begin(offer, {digest: folder for folder, digest in digests.items()})

    def give_back(self) -> None:
        """The execution ended well: let the node keep the process for another of its kind."""
        if self.link is not None:
            self.link.keep()

    def cancel(self) -> None:
        """It is not wanted any more, taken or not. Harmless when it is over."""
        self._cluster.forget(self)
        if self.link is not None:
            self.link.abandon("given up")
        if not self.taken.done():
            self.taken.cancel()


class Link:
    """The connection of one worker of a node, which serves one place after the other."""

    def __init__(self, cluster: Cluster, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.place: Place | None = None
        self.hello: Hello | None = None
        self.process: remote_process.RemoteProcess | None = None
        self._cluster = cluster
        self._reader = reader
        self._writer = writer
        self._folders: Mapping[str, Path] = {}
        self._begun: asyncio.Future[remote_process.RemoteProcess] | None = None
        self._heard = cluster.clock.monotonic()
        self._buffer = bytearray()

    # -- what the place asks for ------------------------------------------------------------------------------------

    async def begin(self, offer: Mapping[str, Any], folders: Mapping[str, Path]) -> remote_process.RemoteProcess:
        """Have a flow process made; raises ``NodeLost``."""
        if self._writer.is_closing():
            raise remote_process.NodeLost(f"node {self.name} was lost")
        self._folders = folders
        self._begun = asyncio.get_running_loop().create_future()
        self.send(link.OFFER, json.dumps(offer).encode())
        return await self._begun

    def send(self, kind: bytes, content: bytes = b"") -> None:
        """Send a message; nothing if the link is over, which the process tells."""
        if not self._writer.is_closing():
            self._writer.write(link.message(kind, content))

    def keep(self) -> None:
        """The process did well."""
        self.process = None
        self.send(link.KEEP)

    def abandon(self, why: str) -> None:
        """End the link, and what it serves."""
        self._lost(why)
        self._writer.close()

    @property
    def name(self) -> str:
        """Of the node, for people."""
        return self.hello.host if self.hello is not None else "?"

    # -- its life ---------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Take what the node says until it is gone."""
        why = "its connection ended"
        try:
            async with asyncio.timeout(_HELLO_S):
                await self._take_next()
            while await self._take_next():
                pass
        except (link.Broken, msgspec.MsgspecError) as error:
            why = f"it broke the protocol: {error}"
        except TimeoutError:
            why = "it did not say who it is"
        except (OSError, ssl.SSLError) as error:
            why = str(error)
        finally:
            self._lost(why)
            self._writer.close()

    async def _take_next(self) -> bool:
        """Read once and act on it; False at the end."""
        chunk = await self._reader.read(256 * 1024)
        if not chunk:
            return False
        self._heard = self._cluster.clock.monotonic()
        self._buffer += chunk
        for kind, content in link.split(self._buffer):
            if self.hello is None and kind != link.HELLO:
                raise link.Broken(f"{kind!r} before it said who it is")
            if kind == link.HELLO:
                if not self._greet(msgspec.json.decode(content, type=Hello)):
                    return False
            elif kind == link.WANT:
                await self._deliver(msgspec.json.decode(content, type=Want).folder)
            elif kind == link.READY:
                self._ready(msgspec.json.decode(content, type=remote_process.Ready))
            elif kind == link.KEPT:
                self._over()
            elif kind == link.EXITED:
                if self.process is not None:
                    self.process.gone(msgspec.json.decode(content, type=remote_process.Exited).status)
                self._over()
            elif self.process is not None:
                await self.process.take(kind, content)
        return True

    def _greet(self, hello: Hello) -> bool:
        """Whether its token is good."""
        place = self._cluster.claim(hello.token)
        if place is None or self.place is not None:
            log.warning("cluster.refused", node=hello.host[:100], reason="its token is not good, or not any more")
            return False
        self.hello, self.place = hello, place
        place.link = self
        wrong = _unlike_ours(hello)
        if wrong:
            self._cluster.ask_again(place, wrong)
            self.place = None
            return False
        place.taken.set_result(self)
        return True

    async def _deliver(self, digest: str) -> None:
        folder = self._folders.get(digest)
        if folder is None:
            raise link.Broken("it asked for a folder that is none of its business")
        chunks = parcels.pack(str(folder))
        try:
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                self.send(link.PARCEL, chunk)
                self._heard = self._cluster.clock.monotonic()
                await self._writer.drain()
        except OSError as error:
            raise link.Broken(f"{folder.name} cannot be read: {error}") from None
        self.send(link.PARCEL)

    def _ready(self, said: remote_process.Ready) -> None:
        if self._begun is None or self._begun.done():
            raise link.Broken("it is ready for nothing")
        self.process = remote_process.RemoteProcess(self, said, self._cluster.burial_s)
        self._begun.set_result(self.process)

    def _over(self) -> None:
        """The place is served; another one may come."""
        if self.place is not None:
            self._cluster.served(self.place)
        self.place = self.process = self._begun = None
        self._folders = {}

    def _lost(self, why: str) -> None:
        """What it served is cut off."""
        place, process, begun = self.place, self.process, self._begun
        self.place = self.process = self._begun = None
        lost = remote_process.NodeLost(f"node {self.name} was lost: {why}")
        if begun is not None and not begun.done():
            begun.set_exception(lost)
            begun.exception()  # whoever waited may have left
        if process is not None:
            process.lose(lost)
        if place is not None:
            self._cluster.lost(place, process, self._heard)

    def check(self, now: float) -> None:
        """Give the node up if it was silent for too long, else let it know of us."""
        if self.place is None or (self.process is not None and self.process.is_stopped):
            return
        patience_s = self._cluster.options.lease_s if self.process is not None else _PREPARING_S
        if now - self._heard > patience_s:
            self.abandon(f"silent for {now - self._heard:.0f} s")
            self._writer.transport.abort()
        else:
            self.send(link.PULSE)


class Cluster:
    """The cluster: the driver, who waits for a place, who has one."""

    def __init__(self, options: Options, clock: ports.Clock) -> None:
        self.options = options
        self.clock = clock
        self.nodes: tuple[Node, ...] = ()
        self.reason = f"the Ray cluster ({options.address}) has not been reached yet"
        self.watchers: list[Callable[[], None]] = []
        self._nodes_at = clock.monotonic()
        self._places: dict[str, Place] = {}  # asked for and not over
        self._tokens: dict[str, Place] = {}  # those that nobody has come for
        self._links: dict[Link, asyncio.Task[None] | None] = {}
        self._digests: dict[Path, asyncio.Task[str]] = {}
        self._lost: dict[str, tuple[remote_process.RemoteProcess, float]] = {}
        self._driver: asyncio.subprocess.Process | None = None
        self._to_driver: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None
        self._address: tuple[str, int] = ("", 0)
        self._context: ssl.SSLContext | None = None
        self._certificate = ""
        self._chores: list[asyncio.Task[None]] = []
        self._timers: set[asyncio.TimerHandle] = set()

    @property
    def burial_s(self) -> float:
        """How long the end of a process may take to be certain: a lost node has until the end of its lease."""
        return self.options.lease_s + 10

    @property
    def running(self) -> list[tuple[str, str, str]]:
        """What runs where: execution, id and name of the node."""
        return [
            (each.place.execution, each.hello.node, each.hello.host)
            for each in self._links
            if each.place is not None and each.hello is not None
        ]

    @property
    def waiting(self) -> int:
        """How many executions nobody has come for."""
        return sum(1 for place in self._places.values() if not place.taken.done())

    # -- start and stop ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look for the cluster. Raises ``ConfigurationInvalid`` without what that takes."""
        self._context, self._certificate = await asyncio.to_thread(_identity)
        self._chores = [
            asyncio.create_task(self._keep_driver(), name="driver of the cluster"),
            asyncio.create_task(self._keep_time(), name="leases of the cluster"),
        ]

    async def stop(self) -> None:
        """Let go of everything; nodes kill what they run when their link ends."""
        for chore in self._chores:
            chore.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await chore
        for timer in self._timers:
            timer.cancel()
        for place in list(self._places.values()):
            place.cancel()
        if self._server is not None:
            self._server.close()
        for each in list(self._links):
            each.abandon("the daemon stops")
        if serving := [task for task in self._links.values() if task is not None]:
            await asyncio.wait(serving, timeout=_FAREWELL_S)
        await self._end_driver()

    # -- places -----------------------------------------------------------------------------------------------------

    def place(self, execution: str, wants: policy.Placement) -> Place:
        """Ask for a place for an execution."""
        place = Place(self, secrets.token_hex(8), execution, wants)
        self._places[place.identity] = place
        self._ask(place)
        return place

    def _ask(self, place: Place) -> None:
        place.token = secrets.token_hex(32)
        self._tokens[place.token] = place
        if self._to_driver is None or not self._address[0]:
            return  # the next driver hears of all that wait
        ticket = {
            "address": self._address,
            "certificate": self._certificate,
            "token": place.token,
            "lease_s": self.options.lease_s,
            "stock": self.options.stock,
        }
        options = _ray_options(place.wants, self.options.cpu, place.execution)
        self._tell({"place": place.identity, "options": options, "ticket": ticket})

    def claim(self, token: str) -> Place | None:
        """Return the place that a token is for; it is good once."""
        place = self._tokens.pop(token, None)
        return place if place is not None and not place.taken.done() else None

    def ask_again(self, place: Place, why: str) -> None:
        """It did not come to pass: ask once more, in a while."""
        self._tokens.pop(place.token, None)
        place.link = None
        place.refusal = why
        place.tries += 1
        if place.tries > 1:
            log.warning("cluster.not_placed", execution=place.execution, reason=why, tries=place.tries)
        after_s = min(_AGAIN_MAX_S, _AGAIN_S * 2 ** min(place.tries - 1, 10))
        timer = asyncio.get_running_loop().call_later(after_s, lambda: (self._timers.discard(timer), self._retry(place)))
        self._timers.add(timer)

    def _retry(self, place: Place) -> None:
        if place.identity in self._places and not place.taken.done():
            self._ask(place)

    def served(self, place: Place) -> None:
        """Its execution has ended, or given its process back."""
        self._places.pop(place.identity, None)

    def forget(self, place: Place) -> None:
        """Nobody waits for it any more."""
        self._tokens.pop(place.token, None)
        if self._places.pop(place.identity, None) is not None:
            self._tell({"cancel": place.identity})

    def lost(self, place: Place, process: remote_process.RemoteProcess | None, heard: float) -> None:
        """The link of a place broke. Its process is dead when Ray says that its task is over, or with the lease."""
        if process is not None and not process.exited.done():
            self._lost[place.identity] = (process, heard + self.options.lease_s)
        self.forget(place)

    def why(self, place: Place) -> str:
        """Return in words why a place is not taken yet."""
        if self.reason:
            return self.reason
        if place.refusal:
            return f"no node took it: {place.refusal}"
        missing = _missing(place.wants, self.options.cpu, self.nodes)
        return missing or "waits for room on the cluster"

    # -- folders ----------------------------------------------------------------------------------------------------

    async def digests(self, *folders: Path) -> dict[Path, str]:
        """Return the digests of folders that never change. Raises ``NotAccepting`` for one that cannot be read."""
        for folder in folders:
            if folder not in self._digests:
                self._digests[folder] = asyncio.create_task(asyncio.to_thread(parcels.digest, str(folder)))
        try:
            return {folder: await asyncio.shield(self._digests[folder]) for folder in folders}
        except OSError as error:
            for folder in folders:
                self._digests.pop(folder, None)
            raise errors.NotAccepting(f"what the flow needs cannot be read: {error}") from None

    # -- links ------------------------------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = Link(self, reader, writer)
        self._links[one] = asyncio.current_task()
        try:
            await one.serve()
        finally:
            del self._links[one]

    async def _keep_time(self) -> None:
        """Watch the leases."""
        while True:
            await asyncio.sleep(self.options.lease_s / 5)
            now = self.clock.monotonic()
            for each in list(self._links):
                each.check(now)
            for identity, (process, until) in list(self._lost.items()):
                if now > until or process.exited.done():
                    process.gone(-signal.SIGKILL)
                    del self._lost[identity]

    # -- the driver -------------------------------------------------------------------------------------------------

    async def _keep_driver(self) -> None:
        """Start the driver again whenever it is gone."""
        tries = 0
        while True:
            reached = await self._drive()
            tries = 0 if reached else tries + 1
            self._to_driver = None
            log.warning("cluster.lost", address=self.options.address, reason=self.reason)
            self._notice()
            await asyncio.sleep(min(_DRIVER_AGAIN_MAX_S, _DRIVER_AGAIN_S * 2 ** min(tries, 10)))

    async def _drive(self) -> bool:
        """See one driver through its life; whether it ever reached the cluster."""
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as said:
            words = ["-P", "-m", f"{__package__}.ray_driver", str(theirs.fileno()), self.options.address]
            self._driver = await asyncio.create_subprocess_exec(
                sys.executable,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=said,
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_DRIVER_LINE_BYTES_MAX)
            reached = False
            try:
                while line := await reader.readline():
                    reached = await self._hear(msgspec.json.decode(line), writer) or reached
            except (OSError, msgspec.MsgspecError, ValueError) as error:
                self.reason = f"the driver of the Ray cluster broke off: {error}"
            finally:
                self._to_driver = None
                writer.close()
                await self._end_driver()
            if reached or not self.reason:
                self.reason = f"the Ray cluster ({self.options.address}) was lost{_last_line(said)}"
        return reached

    async def _hear(self, line: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Take one line of the driver; whether it says that the cluster was reached."""
        if "ready" in line:
            await self._listen(line["ready"]["host"])
            self._to_driver = writer
            self.reason = ""
            self._nodes_at = self.clock.monotonic()
            log.info("cluster.reached", address=self.options.address, ray=line["ready"]["version"])
            for place in list(self._places.values()):
                if not place.taken.done():
                    self._tokens.pop(place.token, None)
                    self._ask(place)
            self._ask_for_nodes()
            self._notice()
            return True
        if "failed" in line:
            self.reason = f"the Ray cluster ({self.options.address}) cannot be reached: {line['failed']}"
        elif "nodes" in line:
            self.nodes = tuple(msgspec.convert(line["nodes"], list[Node]))
            self._nodes_at = self.clock.monotonic()
            self.reason = ""
        elif "ended" in line:
            self._ended(line["ended"], line["error"])
        return False

    def _ended(self, identity: str, said: str) -> None:
        """Ray says that a task is over."""
        if identity in self._lost:
            process, _ = self._lost.pop(identity)
            process.gone(-signal.SIGKILL)
        place = self._places.get(identity)
        if place is not None and not place.taken.done():
            self.ask_again(place, said or "its task ended before it began")

    async def _listen(self, host: str) -> None:
        """Listen where nodes reach us, from the first time that the cluster is there."""
        if self._server is not None:
            return
        wanted, _, port = self.options.listen.rpartition(":")
        assert self._context is not None
        self._server = await asyncio.start_server(
            self._connected, wanted.strip("[]") or host, int(port or 0), ssl=self._context, backlog=1024
        )
        bound = self._server.sockets[0].getsockname()
        open_to_all = ipaddress.ip_address(bound[0]).is_unspecified
        self._address = (host if open_to_all else bound[0], bound[1])
        log.info("cluster.listening", host=self._address[0], port=self._address[1])

    def _ask_for_nodes(self) -> None:
        if self._to_driver is None:
            return
        if self.clock.monotonic() - self._nodes_at > _NODES_SILENT_S:
            self.reason = f"the Ray cluster ({self.options.address}) does not answer"
        self._tell({"nodes": True})
        timer = asyncio.get_running_loop().call_later(
            _NODES_EVERY_S, lambda: (self._timers.discard(timer), self._ask_for_nodes())
        )
        self._timers.add(timer)

    def _tell(self, line: dict[str, Any]) -> None:
        if self._to_driver is not None:
            self._to_driver.write(json.dumps(line).encode() + b"\n")

    def _notice(self) -> None:
        for watcher in self.watchers:
            watcher()

    async def _end_driver(self) -> None:
        if self._driver is not None:
            with contextlib.suppress(ProcessLookupError):
                self._driver.kill()
            await self._driver.wait()
            self._driver = None


def _ray_options(wants: policy.Placement, cpu: float, execution: str) -> dict[str, Any]:
    """Return the options of a Ray task."""
    options: dict[str, Any] = {"name": f"headrace {execution}", "num_cpus": cpu if wants.cpu is None else wants.cpu}
    if wants.gpu:
        options["num_gpus"] = wants.gpu
    if wants.memory:
        options["memory"] = wants.memory
    if wants.resources:
        options["resources"] = wants.resources
    if wants.worker:
        options["label_selector"] = {"worker": wants.worker}
    return options


def _missing(wants: policy.Placement, cpu: float, nodes: tuple[Node, ...]) -> str:
    """Return what no node of the cluster has, in words; empty if one has all of it."""
    needs = {"CPU": cpu if wants.cpu is None else wants.cpu, "GPU": wants.gpu, "memory": float(wants.memory)}
    needs |= wants.resources
    alive = [each for each in nodes if each.alive]
    labelled = [each for each in alive if not wants.worker or each.labels.get("worker") == wants.worker]
    if not labelled:
        return f"no node has the label worker={wants.worker}" if wants.worker else "the cluster has no nodes"
    if not any(all(each.resources.get(name, 0) >= amount for name, amount in needs.items()) for each in labelled):
        told = ", ".join(f"{name} {amount:g}" for name, amount in needs.items() if amount)
        return f"no node{f' with the label worker={wants.worker}' if wants.worker else ''} has {told}"
    return ""


def _unlike_ours(hello: Hello) -> str:
    """Return why flows of this daemon would not run there as they do here; empty if they would."""
    ours = node.platform_name()
    if hello.platform != ours:
        return f"{hello.host} is {hello.platform}, and the daemon {ours}"
    if hello.python.split(".")[:2] != platform.python_version().split(".")[:2]:
        return f"{hello.host} has Python {hello.python}, and the daemon {platform.python_version()}"
    return ""


def _last_line(said: Any) -> str:
    """Return what a driver wrote last, for people."""
    said.seek(0)
    lines = [line for line in said.read()[-4000:].decode(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1].strip()[:300]}" if lines else ""


def _identity() -> tuple[ssl.SSLContext, str]:
    """Return a TLS context with a key made for this life of the daemon, and its certificate (PEM), which nodes get."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise errors.ConfigurationInvalid(
            "run.executor names a Ray cluster, and what it takes is not installed", hint="pip install 'headrace[ray]'"
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "headrace")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.NamedTemporaryFile() as file:  # the library reads keys from files only
        file.write(
            pem
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        file.flush()
        context.load_cert_chain(file.name)
    return context, pem.decode()
