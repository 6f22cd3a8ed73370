"""PowerShell by WinRM, through pypsrp in a thread: one runspace, one script, whose end the task sees to.

pypsrp speaks through requests; its connections are made here, to an address that the operator's policy allows, and
their answers are bounded. The script is asked for its output every few moments, so that a task that is cancelled or out
of time stops it at the machine, too; a machine that does not answer is left.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from . import blocking, extras, host, ps_script, tls
from .egress import Egress

PORT, TLS_PORT = 5985, 5986
#: What one answer may take; machines say at most some hundred KiB at once.
ANSWER_BYTES_MAX = 16 * 1024 * 1024
#: How long the machine may hold back an answer when there is nothing to say; it is given up 2 s later.
_POLL_S = 3
#: How long it may take to stop a script, and to say goodbye.
_STOP_S = 8.0
_FORBIDDEN = b"<!doctype"


class Winrm:
    """One script on one machine. ``inputs`` are those of PS; ``report`` is what it said so far."""

    def __init__(self, inputs: Any, addresses: Sequence[str], report_characters_max: int) -> None:
        self._inputs = inputs
        self._addresses = addresses
        self._report_max = report_characters_max
        self._guard = threading.Lock()
        self._lines: list[socket.socket] = []
        self._stopped = threading.Event()
        self._cut = False
        self._entered = False
        self._too_late = False
        self._pieces: list[str] = []
        self._size = 0

    @property
    def report(self) -> str:
        """What the script said so far."""
        return "".join(self._pieces)

    def stop(self) -> None:
        """End it soon, from another thread: in order if the machine answers, else by cutting the connection."""
        self._stopped.set()
        if self._entered:
            timer = threading.Timer(_STOP_S, self.cut)
            timer.daemon = True
            timer.start()
        else:
            self.cut()

    def cut(self) -> None:
        """End whatever waits for the machine."""
        with self._guard:
            self._cut = True
            for line in self._lines:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Run the script to its end; raises ``host.Failed``, passing only before the script may have begun."""
        library = modules(self._inputs.task)
        timer = threading.Timer(self._inputs.connect_timeout, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            self._performed(library)
        except library.exceptions.AuthenticationError:
            raise host.Failed(f"the server refused the password of {self._inputs.username}") from None
        except (library.exceptions.WinRMTransportError, library.exceptions.WSManFaultError) as error:
            raise self._broken(f"the server answers: {host.quoted(_said(error))}") from None
        except (library.requests.RequestException, OSError) as error:
            raise self._explained(error) from None
        except (library.errors.WinRMError, library.etree.ParseError, *host.GARBAGE) as error:
            raise self._broken(f"what the server says is not understood: {host.quoted(str(error))}") from None
        finally:
            timer.cancel()
            self._hang_up()

    def _performed(self, library: Any) -> None:
        inputs = self._inputs
        with contextlib.ExitStack() as stack:
            wsman = library.wsman.WSMan(
                inputs.hostname,
                port=inputs.where,
                username=inputs.username,
                password=inputs.password,
                ssl=inputs.encrypted,
                auth=inputs.authentication_method,
                cert_validation=self._trusted(stack),
                encryption="auto",
                no_proxy=True,
                connection_timeout=inputs.connect_timeout,
                operation_timeout=20,
                read_timeout=60,
            )
            stack.callback(wsman.close)
            self._prepare(library, wsman.transport)
            pool = library.powershell.RunspacePool(wsman)
            pool.open()
            self._entered = True
            try:
                self._executed(library, pool)
            finally:
                with contextlib.suppress(Exception):
                    pool.close()

    def _trusted(self, stack: contextlib.ExitStack) -> str | bool:
        inputs = self._inputs
        if not inputs.verify_ssl:
            return False
        if inputs.cacert is not None:
            return stack.enter_context(tls.as_file(inputs.cacert))
        return ssl.get_default_verify_paths().cafile or True

    def _prepare(self, library: Any, transport: Any) -> None:
        """Have the library connect as we want it to."""
        session = transport._build_session()  # there is no other way to say how it connects
        session.trust_env = False
        session.proxies = {}
        for scheme in ("http://", "https://"):
            session.mount(scheme, library.adapter(self._connected, self._bounded))
        transport.session = session

    def _connected(self, port: int, timeout: Any) -> socket.socket:
        made = self._first(port)
        with self._guard:
            self._lines.append(made.dup())
            if self._cut:
                made.close()
                raise ConnectionAbortedError(103, "cut")
        return made

    def _first(self, port: int) -> socket.socket:
        """Return a connection to the first address that takes one; raises the last ``OSError``."""
        for address in self._addresses[:-1]:
            with contextlib.suppress(OSError):
                return socket.create_connection((address, port), self._inputs.connect_timeout)
        return socket.create_connection((self._addresses[-1], port), self._inputs.connect_timeout)

    def _bounded(self, response: Any) -> None:
        body = bytearray()
        for chunk in response.raw.stream(65536, decode_content=False):
            body += chunk
            if len(body) > ANSWER_BYTES_MAX:
                raise host.Failed(f"the server sent an answer of more than {ANSWER_BYTES_MAX >> 20} MiB")
        if _FORBIDDEN in bytes(body).replace(b"\0", b"").lower():
            raise host.Failed("the answer declares a document type: it is not read")
        response._content, response._content_consumed = bytes(body), True

    def _executed(self, library: Any, pool: Any) -> None:
        inputs, began = self._inputs, time.monotonic()
        shell = library.powershell.PowerShell(pool)
        shell.add_script(ps_script.wrapped()).add_argument(inputs.script)
        shell.begin_invoke()
        why = ""
        while shell.state == library.objects.PSInvocationState.RUNNING:
            shell.poll_invoke(timeout=_POLL_S)
            self._take(shell)
            if self._stopped.is_set():
                why = "cancelled"
            elif time.monotonic() - began > inputs.script_timeout:
                why = f"the script did not end within {inputs.script_timeout:g} s"
            elif self._size > self._report_max:
                why = f"the script wrote more than {self._report_max >> 20} Mi characters: it was stopped"
            if why:
                self._stop(shell)
                raise host.Failed(why)
        self._take(shell)
        said = [str(one) for one in shell.streams.error]
        self._pieces += [f"{one}\n" for one in said]
        if shell.had_errors or shell.state != library.objects.PSInvocationState.COMPLETED:
            words = f": {host.quoted(said[-1])}" if said else ", without a word"
            raise host.Failed(f"the script ended with an error{words}")

    def _take(self, shell: Any) -> None:
        for one in shell.output:
            text = f"{one}\n" if isinstance(one, str) else ""
            self._pieces.append(text)
            self._size += len(text)
        shell.output.clear()
        for stream in (shell.streams.progress, shell.streams.debug, shell.streams.verbose, shell.streams.information):
            stream.clear()

    def _stop(self, shell: Any) -> None:
        timer = threading.Timer(_STOP_S, self.cut)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(Exception):
                shell.stop()
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        if not self._entered:
            self._too_late = True
            self.cut()

    def _hang_up(self) -> None:
        with self._guard:
            for line in self._lines:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
                line.close()
            self._lines.clear()

    def _explained(self, error: Exception) -> host.Failed:
        if self._too_late:
            return host.explained(TimeoutError(), self._inputs, self._inputs.where)
        cause = next((one for one in _causes(error) if isinstance(one, OSError) and not hasattr(one, "request")), None)
        failed = host.explained(cause or OSError(host.quoted(str(error))), self._inputs, self._inputs.where)
        return self._broken(failed.words, passing=failed.passing)

    def _broken(self, words: str, *, passing: bool = False) -> host.Failed:
        if self._too_late:
            return host.explained(TimeoutError(), self._inputs, self._inputs.where)
        if self._entered:
            return host.Failed(f"{words}; the script may go on at the machine for some time")
        return host.Failed(words, passing=passing)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what is behind it, the innermost first."""
    seen: list[BaseException] = []
    waiting: list[BaseException] = [error]
    while waiting and len(seen) < 50:
        one = waiting.pop()
        seen.append(one)
        inner = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        waiting += [each for each in inner if isinstance(each, BaseException) and each not in seen]
    yield from reversed(seen)


def _said(error: Any) -> str:
    code = getattr(error, "code", None)
    return str(getattr(error, "reason", None) or error) if code is None else f"{error} ({code})"


class _Modules:
    """What is used of pypsrp, and of what it stands on."""

    def __init__(self, task: str) -> None:
        wanted = functools.partial(extras.require, extra="winrm", task=task)
        wanted("pypsrp")
        self.wsman: Any = wanted("pypsrp.wsman")
        self.powershell: Any = wanted("pypsrp.powershell")
        self.objects: Any = wanted("pypsrp.complex_objects")
        self.exceptions: Any = wanted("pypsrp.exceptions")
        self.errors: Any = self.exceptions
        self.etree: ModuleType = wanted("xml.etree.ElementTree")
        self.requests: Any = wanted("requests")
        self._adapters: Any = wanted("requests.adapters")
        self._urllib3: Any = wanted("urllib3")
        for name in ("pypsrp", "urllib3"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # their lines quote whole messages

    def adapter(self, connected: Any, bounded: Any) -> Any:
        """Return how requests connects: by ``connected``; every answer passes ``bounded``."""
        connections = self._urllib3.connection
        pools = self._urllib3.connectionpool

        def opened(connection: Any) -> socket.socket:
            made: socket.socket = connected(connection.port, connection.timeout)
            return made

        plain = type("Plain", (connections.HTTPConnection,), {"_new_conn": opened})
        secured = type("Secured", (connections.HTTPSConnection,), {"_new_conn": opened})
        kinds = {
            "http": type("PlainPool", (pools.HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("SecuredPool", (pools.HTTPSConnectionPool,), {"ConnectionCls": secured}),
        }

        class Adapter(self._adapters.HTTPAdapter):  # type: ignore[misc, name-defined]
            def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
                super().init_poolmanager(*arguments, **named)
                self.poolmanager.pool_classes_by_scheme = kinds

            def send(self, *arguments: Any, **named: Any) -> Any:
                response = super().send(*arguments, **{**named, "stream": True})
                try:
                    bounded(response)
                except BaseException:
                    response.close()  # nobody takes the rest of it
                    raise
                return response

        return Adapter(max_retries=0)


def modules(task: str) -> _Modules:
    """Return the libraries; raises ``TaskFailed`` where they are missing."""
    return _Modules(task)


async def performed(inputs: Any, egress: Egress, report_characters_max: int) -> str:
    """Run the script and return its report; raises ``host.Failed``."""
    await blocking.call(modules, inputs.task)
    addresses = await host.addresses(inputs, inputs.where, egress)
    work = Winrm(inputs, addresses, report_characters_max)
    try:
        await blocking.alone(work.run, on_cancel=work.stop)
    except host.Failed as failed:
        raise host.Failed(failed.words, passing=failed.passing, output=work.report) from None
    return work.report
