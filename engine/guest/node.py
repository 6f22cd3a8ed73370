"""A node: runs flow processes for a daemon on another machine, one execution at a time in each worker.

``Node`` lives in a worker process of the cluster, for as long as the cluster keeps that. Each task of the cluster is
one call of ``host``: it takes the connection of the one before or makes one, and says which token it has. For each
execution that the daemon then offers it fetches what is not here, has a fork server make a flow process (or takes the
one that waits warm), and passes on what the two say to each other.

The daemon decides, the node obeys: whoever does not hear of the daemon for most of the lease kills what it runs, also
when it was itself asleep meanwhile, so a daemon that has waited for the whole lease knows that nothing goes on here.
When the worker dies, its fork servers see the end of their control socket and leave nothing behind.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from . import fork_server, link, stock

#: The daemon is given up after so much of its lease without a word.
LEASE_SHARE = 0.7
_CONNECT_S = 20.0
_READ_BYTES = 64 * 1024
_IDLE_FLOWS_MAX = 4
#: How Ray says which devices a task has to itself (``ray._private.accelerators``): programs see no others by these.
_DEVICES = (
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR"),
    *("ZE_AFFINITY_MASK", "NEURON_RT_VISIBLE_CORES", "ASCEND_RT_VISIBLE_DEVICES", "HABANA_VISIBLE_MODULES"),
    *("TPU_VISIBLE_CHIPS", "TPU_CHIPS_PER_HOST_BOUNDS", "TPU_HOST_BOUNDS"),
    *("FURIOSA_DEVICES", "RBLN_DEVICES", "QBRUNTIME_VISIBLE_DEVICES", "TT_VISIBLE_DEVICES"),
)
#: What the daemon may have said to a process before it heard that it had ended.
_OF_THE_LAST = frozenset({link.CHANNEL, link.KILL, link.KEEP})
_ENTRY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")


class Lost(Exception):
    """The daemon is gone, or does not want this."""


class Host:
    """The worker's side of the link to one daemon."""

    def __init__(self, ticket: dict[str, Any]) -> None:
        self.key = (tuple(ticket["address"]), ticket["certificate"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the one certificate that is believed is the daemon's own
        context.load_verify_locations(cadata=ticket["certificate"])
        try:
            plain = socket.create_connection(self.key[0], _CONNECT_S)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = context.wrap_socket(plain)
        except OSError as error:
            raise Lost(
                f"the daemon at {ticket['address'][0]}:{ticket['address'][1]} cannot be reached: {error}"
            ) from None
        self.socket.setblocking(False)
        self.heard = _now()
        self.lease_s = float(ticket["lease_s"])
        self._buffer = bytearray()
        self._messages: list[tuple[bytes, bytes]] = []

    def close(self) -> None:
        """End it."""
        self.socket.close()

    def send(self, kind: bytes, content: bytes = b"") -> None:
        """Send a message, taking in what comes meanwhile; raises ``Lost``."""
        rest = memoryview(link.message(kind, content))
        while rest:
            try:
                rest = rest[self.socket.send(rest) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                select.select([self.socket], [self.socket], [], 1.0)
                self._take_in()
                self.refuse_if_over()
            except OSError as error:
                raise Lost(f"the connection to the daemon broke: {error}") from None

    def received(self) -> list[tuple[bytes, bytes]]:
        """Return what has come; raises ``Lost``."""
        self._take_in()
        messages, self._messages = self._messages, []
        return messages

    def next(self, *wanted: bytes, late: frozenset[bytes] = frozenset()) -> tuple[bytes, bytes]:
        """Wait for a message of one of these kinds; raises ``Lost`` also for any other but a pulse and what comes too
        ``late``."""
        while True:
            self._take_in()
            while self._messages:
                kind, content = self._messages.pop(0)
                if kind == link.PULSE:
                    self.send(link.PULSE)
                elif kind in wanted:
                    return kind, content
                elif kind not in late:
                    raise Lost(f"the daemon said {kind!r} where one of {wanted} was due")
            self.refuse_if_over()
            if not self.socket.pending():
                select.select([self.socket], [], [], 1.0)

    def keep_up(self) -> None:
        """Answer pulses while something else takes its time; raises ``Lost``."""
        self._take_in()
        others = [message for message in self._messages if message[0] != link.PULSE]
        for _ in range(len(self._messages) - len(others)):
            self.send(link.PULSE)
        self._messages = others
        self.refuse_if_over()

    def refuse_if_over(self) -> None:
        """Raise ``Lost`` if nothing was heard for too long."""
        if _now() - self.heard > LEASE_SHARE * self.lease_s:
            raise Lost("the daemon was silent for too long")

    def _take_in(self) -> None:
        while True:
            try:
                chunk = self.socket.recv(_READ_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                raise Lost(f"the connection to the daemon broke: {error}") from None
            if not chunk:
                raise Lost("the daemon closed the connection")
            self.refuse_if_over()  # asleep for so long: what comes now is of a life that is over
            self.heard = _now()
            self._buffer += chunk
            try:
                self._messages += link.split(self._buffer)
            except link.Broken as error:
                raise Lost(f"the daemon broke the protocol: {error}") from None


class Flow:
    """A flow process of this node."""

    def __init__(self, server: Server, number: int, channel: socket.socket, out: int, err: int) -> None:
        self.server = server
        self.number = number
        self.channel = channel
        self.pipes = {out: link.OUT, err: link.ERR}
        self.pid = 0
        self.pidfd = -1
        self.status: int | None = None
        self.outgoing = bytearray()
        self.spoke_last = False  # its end of the channel is closed

    def kill(self) -> None:
        """Kill it with all it started; ``status`` tells when that is done."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def send(self, content: bytes = b"") -> None:
        """Give it bytes of its channel, as many as it takes now; the rest when it is writable."""
        self.outgoing += content
        try:
            while self.outgoing:
                del self.outgoing[: self.channel.send(self.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self.outgoing.clear()  # it died, which ``status`` tells

    def written(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield what lies in its pipes, then what it said, as messages."""
        for pipe, kind in list(self.pipes.items()):
            while (chunk := _read(pipe)) is not None:
                if not chunk:
                    os.close(pipe)
                    del self.pipes[pipe]
                    break
                yield kind, chunk
        if self.spoke_last:
            return
        try:
            if chunk := self.channel.recv(_READ_BYTES):
                yield link.CHANNEL, chunk
            else:
                self.spoke_last = True
        except BlockingIOError:
            pass
        except OSError:
            self.spoke_last = True

    def close(self) -> None:
        """Let go of it; an idle process leaves by itself then."""
        self.channel.close()
        for descriptor in (*self.pipes, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self.pipes.clear()
        self.pidfd = -1


class Server:
    """A fork server of this worker, for one interpreter and what Ray gave the task of devices."""

    def __init__(self, python: str, devices: dict[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [python or sys.executable, "-P", _ENTRY, str(theirs.fileno()), "{}"],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=fork_server.environment(python) | devices,
                start_new_session=True,
            )
        self.control = ours
        self.flows: dict[int, Flow] = {}
        self._numbers = itertools.count(1)

    @property
    def lives(self) -> bool:
        """Whether it can make processes."""
        return self.process.poll() is None

    def spawn(self) -> Flow:
        """Return a new flow process; raises ``Lost`` if none can be made."""
        ours, theirs = socket.socketpair()
        out, err = os.pipe(), os.pipe()
        ours.setblocking(False)
        os.set_blocking(out[0], False)
        os.set_blocking(err[0], False)
        flow = Flow(self, next(self._numbers), ours, out[0], err[0])
        self.flows[flow.number] = flow
        try:
            socket.send_fds(self.control, [b"%d " % flow.number], [out[1], err[1], theirs.fileno()])
        except OSError as error:
            raise Lost(f"the fork server of this node died: {error}") from None
        finally:
            theirs.close()
            os.close(out[1])
            os.close(err[1])
        while not flow.pid and flow.status is None:
            self.hear()
        return flow

    def hear(self) -> None:
        """Take one message of the fork server; raises ``Lost`` when it is gone."""
        try:
            message, descriptors, _flags, _address = socket.recv_fds(self.control, fork_server.MESSAGE_BYTES_MAX, 1)
        except OSError:
            message, descriptors = b"", []
        if not message:
            raise Lost("the fork server of this node died")
        news = json.loads(message)
        if "spawned" in news:
            flow = self.flows[news["spawned"]]
            flow.pid, flow.pidfd = news["pid"], descriptors[0]
        elif news["exited"] in self.flows:
            self.flows.pop(news["exited"]).status = news["status"]


class Node:
    """One worker of a node, with what it keeps between two executions."""

    def __init__(self, folder: str, about: dict[str, str]) -> None:
        self._stock = stock.Stock(folder)
        self._about = about
        self._host: Host | None = None
        self._servers: dict[tuple[str, str], Server] = {}  # by interpreter and devices
        self._idle: dict[str, Flow] = {}  # by kind

    def host(self, ticket: dict[str, Any]) -> str:
        """Run executions, one after the other, until the daemon has no more for ``ticket``; returns why if it was cut
        off. What else hinders it, a full disk say, is raised, and the connection ended: Ray tells the daemon why."""
        try:
            host = self._reach(ticket)
            while True:
                said, content = host.next(link.OFFER, link.LEAVE, late=_OF_THE_LAST)
                if said == link.LEAVE:
                    return ""
                self._serve(host, json.loads(content))
        except (Lost, stock.Spoilt) as error:
            self._let_go()
            return str(error)
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        """End the connection: what it served is cut off."""
        if self._host is not None:
            self._host.close()
            self._host = None

    def _serve(self, host: Host, offer: dict[str, Any]) -> None:
        """Run one execution, until it gives its process back."""
        flow, kind = self._begin(host, offer)
        try:
            self._pass_on(host, flow, kind)
        finally:
            if flow not in self._idle.values():
                flow.kill()
                flow.close()

    def _reach(self, ticket: dict[str, Any]) -> Host:
        """Return the link, and say hello on it."""
        told = json.dumps(
            {"token": ticket["token"], "python": platform.python_version(), "platform": platform_name(), **self._about}
        ).encode()
        if self._host is not None and self._host.key == (tuple(ticket["address"]), ticket["certificate"]):
            self._host.heard = _now()  # nobody spoke while there was nothing to do
            try:
                self._host.keep_up()
                self._host.send(link.HELLO, told)
                return self._host
            except Lost:
                self._host.close()
        self._host = Host(ticket)
        self._host.send(link.HELLO, told)
        return self._host

    def _begin(self, host: Host, offer: dict[str, Any]) -> tuple[Flow, str]:
        """Return a flow process for what the daemon offers, and its kind."""
        snapshot = self._folder(host, offer["snapshot"])
        environment = self._folder(host, offer["environment"]) if offer["environment"] else ""
        devices = {name: os.environ[name] for name in _DEVICES if name in os.environ}
        kind = f"{offer['kind']} {offer['environment']} {devices}"
        flow = None if offer["fresh"] else self._warm(kind)
        if flow is None:
            flow = self._server(stock.python_of(environment) if environment else "", devices).spawn()
        if flow.status is not None:
            raise Lost("this node can make no more processes")
        try:
            host.send(link.READY, json.dumps({"pid": flow.pid, "snapshot": snapshot}).encode())
        except Lost:
            flow.kill()
            flow.close()
            raise
        return flow, kind

    def _folder(self, host: Host, digest: str) -> str:
        return self._stock.get(digest, lambda: _parcels(host, digest), host.keep_up)

    def _server(self, python: str, devices: dict[str, str]) -> Server:
        server = self._servers.get(key := (python, str(devices)))
        if server is None or not server.lives:
            server = self._servers[key] = Server(python, devices)
        return server

    def _warm(self, kind: str) -> Flow | None:
        """Return the process that waits for another execution of its kind, if it still lives."""
        flow = self._idle.pop(kind, None)
        if flow is None:
            return None
        with contextlib.suppress(Lost):
            while select.select([flow.server.control], [], [], 0)[0]:
                flow.server.hear()
            if flow.status is None:
                return flow
        flow.close()
        return None

    def _pass_on(self, host: Host, flow: Flow, kind: str) -> None:
        """Pass on what both sides say until the process is gone or is to be kept."""
        server = flow.server
        while True:
            reading: list[Any] = [host.socket, server.control, *flow.pipes]
            reading += [] if flow.spoke_last else [flow.channel]
            writing = [flow.channel] if flow.outgoing else []
            ready, writable, _ = select.select(
                reading, writing, [], 0.0 if host.socket.pending() else host.lease_s * 0.1
            )
            host.refuse_if_over()
            if writable:
                flow.send()
            for spoken in host.received():
                match spoken:
                    case link.CHANNEL, content:
                        flow.send(content)
                    case link.KILL, _:
                        flow.kill()
                    case link.PULSE, _:
                        host.send(link.PULSE)
                    case link.KEEP, _:
                        self._keep(kind, flow)
                        host.send(link.KEPT)
                        return
            for what, content in flow.written():
                host.send(what, content)
            if server.control in ready:
                server.hear()
            if flow.status is not None:
                while rest := list(flow.written()):
                    for what, content in rest:
                        host.send(what, content)
                host.send(link.EXITED, json.dumps({"status": flow.status}).encode())
                return

    def _keep(self, kind: str, flow: Flow) -> None:
        if (earlier := self._idle.pop(kind, None)) is not None:
            earlier.close()
        self._idle[kind] = flow
        while len(self._idle) > _IDLE_FLOWS_MAX:
            self._idle.pop(next(iter(self._idle))).close()


def _parcels(host: Host, digest: str) -> Iterator[bytes]:
    """Yield the content of a folder from the daemon."""
    host.send(link.WANT, json.dumps({"folder": digest}).encode())
    while chunk := host.next(link.PARCEL)[1]:
        yield chunk


def _read(pipe: int) -> bytes | None:
    """Read once; None if there is nothing for now."""
    try:
        return os.read(pipe, _READ_BYTES)
    except BlockingIOError:
        return None


def _now() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def platform_name() -> str:
    """Return what has to be the same where a flow runs: interpreter, system, machine."""
    return f"{sys.implementation.cache_tag} {platform.system()} {platform.machine()}"


_node: Node | None = None


def host(ticket: dict[str, Any], about: dict[str, str]) -> str:
    """Serve one ticket in this worker; ``about`` is who this node is. The entry point of the cluster's task."""
    global _node
    if _node is None:
        _node = Node(stock.root(ticket["stock"]), about)
    return _node.host(ticket)
