"""One flow process as the daemon sees it: a channel, a queue, two pipes, a pidfd; and each execution's turn in it.

Everything here is driven by the event loop and nothing blocks. A process is spoken to before it exists: what it is told
lies in its buffers until the fork server has made the child. It is killed through its pidfd only, never by number; its
group and its orphans are the fork server's to clear away.

Executions that are soon over are handed to a process that still runs another one. Both sides are spared the waiting: on
two cores with 32 callers that gave 15 to 22 % more executions a second, each for 18 to 22 % less CPU. What is handed
over is one message in a queue that both ends of it can take from: the process to run it, the daemon to take it back.
The kernel gives each message to one of them. So what was taken back has not begun, and whatever was not taken back has,
if its process is dead.

The channel tells whose its frames are: an end is followed by what the next one says. The pipes do not. So while there
are several turns nobody reads the pipes, and a process that left something there asks for that (``Settle``) before it
says that an execution has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
from collections import deque
from pathlib import Path
from typing import NamedTuple

from .. import errors
from ..guest import frames
from . import pipes, protocol

_READ_BYTES = 64 * 1024
#: Frames not yet taken up, after which reading pauses: log lines come without waiting for an answer.
_UNREAD_FRAMES_MAX = 1_000
#: So long an execution may hold up those behind it before they are taken back.
_HELD_UP_S = 0.01


class TakenBack(Exception):
    """This execution has not begun in this process, and is not going to."""


class Ends(NamedTuple):
    """The daemon's ends of what connects it with a flow process."""

    channel: socket.socket
    starts: socket.socket  # the queue, where they go in
    waiting: socket.socket  # and where they come out, for both
    out: int
    err: int


class Turn:
    """One execution's time in a flow process: from its start, which may have to wait for the end of another one, to its
    end."""

    #: How long a killed process may take to vanish before its end is recorded all the same.
    burial_s = 10.0

    def __init__(self, process: FlowProcess) -> None:
        self.process = process
        self.exited = process.exited
        self.listener: pipes.Listener | None = None
        self.number = b""  # of it in this process, as it stands before its start in the queue
        self.text = b""  # its start, until it has begun
        self.told: list[bytes] = []  # frames it gets when it is its turn
        self.said: deque[protocol.Said] = deque()
        self._end: Exception | None = None  # nothing more comes
        self._waiter: asyncio.Future[None] | None = None

    @property
    def pid(self) -> int:
        """Of its process, 0 while that does not exist."""
        return self.process.pid

    @property
    def overdrawn(self) -> bool:
        """Whether the process was killed because it took more memory than it may have."""
        return self.process.overdrawn

    def listen(self, listener: pipes.Listener | None) -> None:
        """Give what it writes to ``listener(stream, bytes)``. Returning False pauses that stream until ``resume``."""
        self.listener = listener

    def resume(self, stream: str) -> None:
        """Go on reading a paused stream."""
        self.process.pipes.resume(stream)

    def locate(self, snapshot: Path) -> str:
        """Return where its process finds a snapshot."""
        return str(snapshot)

    def start(self, text: bytes) -> None:
        """Have the process run what ``protocol.start`` made, now or when it comes to it."""
        self.process.start(self, text)

    def send(self, frame: bytes) -> None:
        """Send a frame; silently nothing if the process is gone, which ``receive`` tells."""
        if self.process.serves(self):
            self.process.send(frame)
        else:
            self.told.append(frame)

    async def receive(self) -> protocol.Said:
        """Return what it says next; raises ``EOFError`` when the process is gone, with how it died in words,
        ``InvalidRequest`` when it broke the protocol, and ``TakenBack``."""
        while not self.said:
            if self._end is not None:
                raise self._end
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        said = self.said.popleft()
        if len(self.said) < _UNREAD_FRAMES_MAX / 10:
            self.process.read_on(self)
        return said

    def kill(self) -> None:
        """Kill the process with all it started. ``exited`` tells when it is done. If another execution runs in it, only
        this one is kept from beginning there."""
        self.process.kill_for(self)

    def dismiss(self) -> None:
        """Let the process, which is not needed any more, leave by itself."""
        self.process.dismiss()

    # -- what the process tells it ----------------------------------------------------------------------------------

    def hear(self, said: protocol.Said) -> None:
        """This came from the process."""
        self.said.append(said)
        self._wake()

    def end(self, why: Exception) -> None:
        """Nothing more comes."""
        self._end = self._end or why
        if isinstance(why, TakenBack):
            self.exited = asyncio.get_running_loop().create_future()
            self.exited.set_result(0)  # nothing of it is there
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class FlowProcess:
    """A process that runs executions of one flow at one commit, one at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ends: Ends) -> None:
        self.exited: asyncio.Future[int] = loop.create_future()
        self.pid = 0
        self.python = ""  # of the environment it belongs to
        self.overdrawn = False  # it was killed because it took more memory than it may have
        self.idle_since = 0.0
        self.stalled = False  # what it runs has held others up
        self.last_took_s = 0.0  # its last execution
        self._loop = loop
        self._channel, self._starts, self._waiting, out, err = ends
        self._turns: deque[Turn] = deque()  # in the order in which they were started; the first is served
        self._numbers = itertools.count(1)
        self._early: list[protocol.Said] = []  # said while it ran nothing, by a finalizer say
        self._buffer = bytearray()
        self._outgoing = bytearray()
        self._closed = ""
        self._spent = False  # it takes no more
        self._pidfd = -1
        self._kill_wanted = False
        self._crowded: Turn | None = None  # this one is behind with reading, so the channel is not read
        self.pipes = pipes.Pipes(loop, out, err, self._hear_output)
        self._patience: asyncio.TimerHandle | None = None  # with the first of several turns
        loop.add_reader(self._channel.fileno(), self._readable)

    # -- what the pool tells it -------------------------------------------------------------------------------------

    def spawned(self, pid: int, pidfd: int) -> None:
        """The child exists."""
        self.pid = pid
        self._pidfd = pidfd
        if self._kill_wanted:
            self.kill()

    def gone(self, status: int, memory: str = "") -> None:
        """The child is dead and buried: ``status`` as from ``waitpid``, ``memory`` as of ``cgroups.why_killed``."""
        self.overdrawn = memory == "limit"
        if not self.exited.done():
            self.exited.set_result(status)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._read_all()  # its last words, sent before it died
        how = "was killed: no memory was left" if memory == "machine" else how_it_died(status)
        self._close(EOFError(f"the flow process {how}"))

    def kill(self) -> None:
        """Kill it with all it started. ``exited`` tells when it is done."""
        self._kill_wanted = True
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def dismiss(self) -> None:
        """Let an idle process leave by itself: it sees the end of its channel and of its queue."""
        self._kill_wanted = True
        self._close(EOFError("the flow process was dismissed"))

    # -- its turns --------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it can take work."""
        return not (self._closed or self._kill_wanted or self._spent)

    @property
    def turns(self) -> int:
        """How many executions it has, the one it runs included."""
        return len(self._turns)

    def turn(self) -> Turn:
        """Return the turn of another execution, which is to be started."""
        return Turn(self)

    def serves(self, turn: Turn) -> bool:
        """Whether it is this one's turn, as far as is known here."""
        return bool(self._turns) and self._turns[0] is turn

    def start(self, turn: Turn, text: bytes) -> None:
        """Put the start of an execution into the queue."""
        turn.number, turn.text = frames.HEADER.pack(next(self._numbers)), text
        if not (self.alive and self._put(turn)):
            turn.end(TakenBack(self._closed or "the flow process takes no more"))
        elif len(self._turns) > 1:
            self._attend()
            self._watch_first()
        else:
            turn.said.extend(self._early)
            self._early.clear()
            self._tell(turn)

    def _put(self, turn: Turn) -> bool:
        text = turn.text if len(turn.text) <= frames.START_BYTES_MAX else frames.OVER_THE_CHANNEL
        try:
            self._starts.send(turn.number + text)
        except OSError:  # it is gone, or the queue is full
            return False
        self._turns.append(turn)
        return True

    def _take_back(self, why: str, *, keep: Turn | None = None) -> None:
        """Take back who waits in the queue; ``keep`` may go on waiting.

        Meanwhile the process may take what comes behind something that was taken back."""
        if not self._turns:  # nobody waits: most processes end so
            return
        numbers: set[bytes] = set()
        with contextlib.suppress(BlockingIOError):
            while number := self._waiting.recv(frames.HEADER.size, socket.MSG_DONTWAIT):
                numbers.add(number)
        for turn in [each for each in self._turns if each.number in numbers]:
            self._turns.remove(turn)
            if turn is not keep or not turn.text or not self._put(turn):
                turn.end(TakenBack(why))
        if self._turns:
            self._tell(self._turns[0])
        self._attend()

    def kill_for(self, turn: Turn) -> None:
        """Kill it on behalf of ``turn``, unless another execution runs here: then ``turn`` does not begin.

        The queue is emptied first. Whoever was taken out of it before, by the process, comes after an end that was sent
        before that, and is read now."""
        self.read_on(turn)
        if not self._closed:
            self._take_back("an execution before it was killed")
            self._read_all()
        if not self._turns or self.serves(turn):
            self.kill()
        else:
            turn.end(TakenBack("the execution was ended before it began"))

    def _watch_first(self) -> None:
        """See to it that those behind the first are not held up for long."""
        if self._patience is None:
            self._patience = self._loop.call_later(_HELD_UP_S, self._look_at_first, self._turns[0])

    def _look_at_first(self, first: Turn) -> None:
        self._patience = None
        if self.serves(first):
            self._read_channel()
        if len(self._turns) < 2:
            return
        if self.serves(first):
            self.stalled = True
            self._take_back("an execution before it took long", keep=first)
        else:
            self._watch_first()

    def _tell(self, turn: Turn) -> None:
        for frame in turn.told:
            self.send(frame)
        turn.told.clear()

    # -- the channel ------------------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Send a frame; silently nothing if it is gone."""
        if self._closed:
            return
        if not self._outgoing:
            try:
                sent = self._channel.send(frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # it died: end-of-file on the channel says so
            if sent == len(frame):
                return
            frame = frame[sent:]
            self._loop.add_writer(self._channel.fileno(), self._writable)
        self._outgoing += frame

    def read_on(self, turn: Turn) -> None:
        """``turn`` is behind with reading no more."""
        if self._crowded is turn:
            self._crowded = None
            if not self._closed:
                self._loop.add_reader(self._channel.fileno(), self._readable)

    def _readable(self) -> None:
        """Take what has arrived.

        How the process died comes from the fork server in a moment, so end-of-file alone only stops the reading;
        without a word from there it is all we will ever know.
        """
        if self._read_channel() == 0:
            self._loop.remove_reader(self._channel.fileno())
            self._loop.call_later(5, self._close, EOFError("the flow process closed its channel"))

    def _read_all(self) -> None:
        while self._read_channel():
            pass

    def _read_channel(self) -> int | None:
        """Read once and return how many bytes; 0 at the end, None if there is nothing for now.

        What lies in the pipes was written by subprocesses before the frames that came now, so it is taken first; unless
        we are behind, or there are several turns: then nobody can tell."""
        if self._closed:
            return None
        try:
            chunk = self._channel.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return 0
        if len(self._turns) == 1 and not self._turns[0].said:
            self.pipes.drain()
        self._buffer += chunk
        try:
            for text in frames.split(self._buffer):
                self._hear(protocol.decode(text))
        except (frames.FrameTooLarge, errors.InvalidRequest) as error:
            self.kill()
            self._close(errors.InvalidRequest(f"the flow process broke the protocol: {error}"))
            return None
        return len(chunk)

    def _hear(self, said: protocol.Said) -> None:
        """Give what came to the one whose turn it is."""
        if isinstance(said, protocol.Begin):
            self.send(frames.pack(self._turns[0].text if self._turns else b"{}"))
            return
        if isinstance(said, protocol.Settle):
            self.pipes.drain(whole=True)
        if not self._turns:
            if isinstance(said, protocol.Ended) or len(self._early) == _UNREAD_FRAMES_MAX:
                raise errors.InvalidRequest("it says such things without running anything")
            self._early.append(said)
            return
        turn = self._turns[0]
        turn.text = b""
        turn.hear(said)
        if isinstance(said, protocol.Ended):
            self._end_turn(said)
        elif len(turn.said) > _UNREAD_FRAMES_MAX and self._crowded is None:
            self._crowded = turn
            self._loop.remove_reader(self._channel.fileno())

    def _end_turn(self, ended: protocol.Ended) -> None:
        self._turns.popleft()
        self.stalled, self.last_took_s = False, ended.took_s
        if not ended.again:
            self._spent = True
            self._take_back("an execution before it left something behind")
        if self._turns:
            self._tell(self._turns[0])
        self._attend()

    def _writable(self) -> None:
        try:
            sent = self._channel.send(self._outgoing)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._outgoing)
        del self._outgoing[:sent]
        if not self._outgoing:
            self._loop.remove_writer(self._channel.fileno())

    # -- the pipes --------------------------------------------------------------------------------------------------

    def _attend(self) -> None:
        """Read from the pipes as long as it is clear whose that is."""
        self.pipes.hold(len(self._turns) > 1)

    def _hear_output(self, stream: str, chunk: bytes) -> bool:
        listener = self._turns[0].listener if self._turns else None
        return listener is None or listener(stream, chunk)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _close(self, why: Exception) -> None:
        if self._closed:
            return
        self._take_back(str(why))
        self._closed = str(why)
        descriptor = self._channel.fileno()
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        for each in (self._channel, self._starts, self._waiting):
            each.close()
        self.pipes.close()
        if self._patience is not None:
            self._patience.cancel()
        while self._turns:
            self._turns.popleft().end(why)


def make_ends() -> tuple[Ends, list[int]]:
    """Return our ends, and the descriptors of the child's: stdout, stderr, channel, queue.

    Raises ``NotAccepting`` when this host has no descriptors left.
    """
    piped: list[int] = []
    try:
        channel, theirs = socket.socketpair()
        starts, waiting = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        also_waiting = waiting.dup()  # it blocks there, so here as well: ``MSG_DONTWAIT`` asks it not to
        piped += os.pipe()
        piped += os.pipe()
    except OSError as error:
        for descriptor in piped:
            os.close(descriptor)
        raise errors.NotAccepting(f"no flow process can be made: {error}", hint="raise LimitNOFILE") from error
    out, written_out, err, written_err = piped
    for ours in (channel, starts):
        ours.setblocking(False)
    for descriptor in (out, err):
        os.set_blocking(descriptor, False)
    ends = Ends(channel, starts, waiting, out, err)
    return ends, [written_out, written_err, theirs.detach(), also_waiting.detach()]


def how_it_died(status: int) -> str:
    """Say what a wait status means."""
    if status < 0:
        return "could not be started"
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited by itself with status {os.WEXITSTATUS(status)}"
