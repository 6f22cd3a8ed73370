"""A Ray cluster on which flow processes run: placing executions there, and the links of the nodes that took them.

Ray decides where and when: it runs tasks, asked for through a driver process (``ray_driver``), each of which is a seat
for some executions (``seats``). Such a task comes back to us over TLS with a token that is good once. Whoever comes
with another token is turned away: a node that was given up and returns late can change nothing. A node that is silent
for the whole lease is given up; by then it has killed what it ran (``guest.node``). When the driver or the cluster
goes, what waits for a place goes on waiting and seats are asked for again; nothing of it is in Ray alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from .. import errors, policy, ports
from ..guest import parcels
from . import credentials, driver, node_link, processes, remote_process, seats, wishes

log = structlog.get_logger()

_FAREWELL_S = 5.0
#: Ray says why a task ended within so long of that.
_TOLD_S = 5.0


class Options(msgspec.Struct, frozen=True):
    """How the cluster is used. ``listen``: where nodes find us, ``host:port``; empty is any port of the address that
    Ray knows this machine by."""

    address: str = "auto"
    listen: str = ""
    cpu: float = 1.0  # of each execution whose flow says nothing
    lease_s: float = 20.0
    stock: str = ""  # folder of the nodes


class _Lost(msgspec.Struct, frozen=True):
    """A process on a node that was given up, perhaps not dead yet."""

    process: remote_process.RemoteProcess
    until: float  # monotonic; it is, then
    silent: bool  # the node said nothing any more: Ray's word counts for nothing either


class Place:
    """Where one execution runs next: waited for from now on, ``taken`` when a worker has come for it."""

    def __init__(self, cluster: Cluster, execution: str, wants: policy.Placement) -> None:
        self.execution = execution
        self.wants = wants
        self.asked_at = cluster.clock.monotonic()
        self.taken: asyncio.Future[node_link.Link] = asyncio.get_running_loop().create_future()
        self.link: node_link.Link | None = None
        self._cluster = cluster

    @property
    def node(self) -> str:
        """The name of the machine that came for it."""
        return self.link.hello.host if self.link is not None and self.link.hello is not None else ""

    async def take(
        self, kind: processes.Kind, *, snapshot: Path, python: str, fresh: bool, alone: bool
    ) -> remote_process.RemoteProcess:
        """Return a flow process there, with the snapshot and the environment of ``python``; raises ``NodeLost``."""
        assert self.link is not None
        environment = Path(python).parents[2] if python else None
        digests = await self._cluster.digests(snapshot, *([environment] if environment else []))
        offer = {
            "kind": " ".join(kind),
            "snapshot": digests[snapshot],
            "environment": digests[environment] if environment else "",
            "fresh": fresh,
        }
        return await self.link.begin(offer, {digest: folder for folder, digest in digests.items()})

    def give_back(self) -> None:
        """The execution ended well: let the node keep the process for another of its kind."""
        if self.link is not None and self.link.place is self:
            self.link.keep()

    def sit(self, worker: seats.Worker) -> None:
        """A worker serves it now."""
        assert isinstance(worker, node_link.Link)
        self.link = worker
        worker.place = self
        self.taken.set_result(worker)

    def cancel(self) -> None:
        """It is not wanted any more, taken or not. Harmless when it is over."""
        self._cluster.seats.drop(self)
        if self.link is not None and self.link.place is self:
            self.link.abandon("given up")
        if not self.taken.done():
            self.taken.cancel()


class Cluster:
    """Who waits for a place, who has one, and what is known of the nodes."""

    def __init__(self, options: Options, clock: ports.Clock) -> None:
        self.options = options
        self.clock = clock
        self.lease_s = options.lease_s
        self.nodes: tuple[wishes.Node, ...] = ()
        self._driver = driver.Driver(options.address, self._hear)
        self.seats = seats.Seats(clock, self._ask, self._call_off)
        self._links: dict[node_link.Link, asyncio.Task[None] | None] = {}
        self._digests: dict[Path, asyncio.Task[str]] = {}
        self._lost: dict[str, _Lost] = {}
        self._unserved: dict[str, Callable[[str], None]] = {}  # by seat: who wants to know why
        self._server: asyncio.Server | None = None
        self._address: tuple[str, int] | None = None  # where nodes reach us
        self._context: ssl.SSLContext | None = None
        self._certificate = ""
        self._chores: list[asyncio.Task[None]] = []

    @property
    def reason(self) -> str:
        """Why the cluster cannot be reached now, in words; empty while it can."""
        return self._driver.reason

    @property
    def running(self) -> list[tuple[str, str]]:
        """What runs where: executions, and the ids of their nodes."""
        return [
            (each.place.execution, each.hello.node)
            for each in self._links
            if each.place is not None and each.hello is not None
        ]

    @property
    def waiting(self) -> int:
        """How many executions nobody has come for."""
        return self.seats.waiting

    # -- start and stop ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look for the cluster. Raises ``ConfigurationInvalid`` without what that takes."""
        self._context, self._certificate = await asyncio.to_thread(credentials.make)
        self._chores = [
            asyncio.create_task(self._driver.run(), name="driver of the cluster"),
            asyncio.create_task(self._keep_time(), name="leases of the cluster"),
        ]

    async def stop(self) -> None:
        """Let go of everything; nodes kill what they run when their link ends."""
        self.seats.stop()
        if self._server is not None:
            self._server.close()
        for each in list(self._links):
            each.abandon("the daemon stops")
        if serving := [task for task in self._links.values() if task is not None]:
            await asyncio.wait(serving, timeout=_FAREWELL_S)
        for chore in self._chores:
            chore.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await chore

    # -- places -----------------------------------------------------------------------------------------------------

    def place(self, execution: str, wants: policy.Placement) -> Place:
        """Ask for a place for an execution."""
        place = Place(self, execution, wants)
        self.seats.wait(place)
        return place

    def _ask(self, seat: seats.Seat) -> bool:
        """Have Ray run a task for a seat. Without a driver it cannot be asked: the next one hears of all who wait."""
        if self._address is None or not self._driver.is_ready:
            return False
        ticket = {
            "address": self._address,
            "certificate": self._certificate,
            "token": seat.token,
            "lease_s": self.lease_s,
            "stock": self.options.stock,
        }
        options = wishes.ray_options(seat.line.wants, self.options.cpu)
        self._driver.tell({"seat": seat.identity, "options": options, "ticket": ticket})
        return True

    def _call_off(self, seat: seats.Seat) -> None:
        self._driver.tell({"cancel": seat.identity})

    def lost(
        self, seat: seats.Seat, process: remote_process.RemoteProcess | None, heard: float, *, silent: bool
    ) -> None:
        """The link of a seat broke while it served. Its process is certainly gone with the end of the lease; or, when
        the node's own kernel ended the connection, as soon as Ray says that the worker is no more."""
        if process is not None and not process.exited.done():
            self._lost[seat.identity] = _Lost(process, heard + self.lease_s, silent)
        self._call_off(seat)

    def unserved(self, seat: seats.Seat, tell: Callable[[str], None]) -> None:
        """A worker left before it had a process: ``tell`` why when Ray does, or nothing if it does not."""
        self._unserved[seat.identity] = tell
        asyncio.get_running_loop().call_later(_TOLD_S, self._ask_no_more, seat)

    def _ask_no_more(self, seat: seats.Seat) -> None:
        if (tell := self._unserved.pop(seat.identity, None)) is not None:
            self._call_off(seat)
            tell("")

    def why(self, place: Place) -> str:
        """Return in words why a place is not taken yet."""
        if self.reason:
            return self.reason
        missing = wishes.missing(place.wants, self.options.cpu, self.nodes)
        refusal = self.seats.refusal(place)
        if missing or not refusal:
            return missing or "waits for room on the cluster"
        return f"no node took it: {refusal}"

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

    async def _listen(self, host: str) -> None:
        """Listen where nodes reach us, from the first time that the cluster is there."""
        if self._server is not None:
            return
        wanted, _, port = self.options.listen.rpartition(":")
        self._server = await asyncio.start_server(
            self._connected, wanted.strip("[]") or host, int(port or 0), ssl=self._context, backlog=1024
        )
        bound = self._server.sockets[0].getsockname()
        open_to_all = ipaddress.ip_address(bound[0]).is_unspecified
        self._address = (host if open_to_all else bound[0], bound[1])
        log.info("cluster.listening", host=self._address[0], port=self._address[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = node_link.Link(self, reader, writer)
        self._links[one] = asyncio.current_task()
        try:
            await one.serve()
        finally:
            del self._links[one]

    async def _keep_time(self) -> None:
        """Watch the leases."""
        while True:
            await asyncio.sleep(self.lease_s / 5)
            self.seats.look()
            now = self.clock.monotonic()
            for each in list(self._links):
                each.check(now)
            for identity, lost in list(self._lost.items()):
                if now > lost.until or lost.process.exited.done():
                    self._bury(identity)

    def _bury(self, identity: str) -> None:
        self._lost.pop(identity).process.gone(signal.SIGKILL)

    # -- what the driver says ---------------------------------------------------------------------------------------

    async def _hear(self, line: driver.Line) -> None:
        if "ready" in line:
            await self._listen(line["ready"]["host"])
            log.info("cluster.reached", address=self.options.address, ray=line["ready"]["version"])
            self.seats.ask_anew()
        elif "nodes" in line:
            self.nodes = tuple(msgspec.convert(line["nodes"], list[wishes.Node]))
        elif "ended" in line:
            self._ended(line["ended"], line["error"])

    def _ended(self, identity: str, said: str) -> None:
        """Ray says that a task is over."""
        for each in list(self._links) if said else ():
            if each.is_preparing and each.seat is not None and each.seat.identity == identity:
                each.abandon(said, silent=False)  # Ray was quicker than the end of the connection
        if (tell := self._unserved.pop(identity, None)) is not None:
            tell(said)
        lost = self._lost.get(identity)
        if lost is not None and not lost.silent:
            self._bury(identity)
        self.seats.ended(identity, said or "its task ended before it began")
