"""A small daemon of scripted answers at the other end of a real channel, and a real flow process for whole flows."""

import json
import queue
import socket
import subprocess
import sys
import threading

import pytest

from headrace.engine.guest import channel, flow_api, frames, running
from headrace.engine.workers import protocol

ENDED = {
    "id": "c1",
    "name": "child",
    "type": "FLOW",
    "status": "ENDED_SUCCESS",
    "message": "",
    "output_value": {"n": 1},
}
SERVE = """
import socket, sys
from headrace.engine.guest import flow_api, frames, run
sys.modules["flow_api"] = flow_api
sys.modules["flow_api.exceptions"] = flow_api.exceptions
connection = frames.BlockingFrames(socket.socket(fileno=int(sys.argv[1])))
process = run.FlowProcess(connection)
process.prepare()
process.serve()
"""


#: Answers a call by nothing; the test does it later.
HELD = object()


class Failure(Exception):
    """What the daemon answers a call with to make it raise."""

    def __init__(self, kind, message="", execution=None):
        super().__init__(message)
        self.wire = {"type": kind, "message": message} | ({} if execution is None else {"execution": execution})


class ScriptedDaemon:
    """Takes frames as the daemon does, by its own decoder, notes them, and answers calls as it was told to."""

    def __init__(self):
        self.socket, self.theirs = socket.socketpair()
        self.said = []
        self.ended = queue.Queue()
        self.noticed = queue.Queue()
        self.acknowledges = True
        self._answers = {}
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def answers(self, kind, *results):
        """Answer calls of ``kind`` with these results in turn; the last one goes on."""
        self._answers[kind] = list(results)
        return self

    @property
    def effects(self):
        """(event, detail) of every effect it was told of so far."""
        return [(said["event"], said["detail"]) for said in self.said if said["op"] == "effect"]

    def acknowledge(self):
        self.socket.sendall(protocol.noticed())

    @property
    def calls(self):
        """(kind, target, arguments) of every call so far, in order."""
        return [(said["kind"], said["target"], said["args"]) for said in self.said if said["op"] == "call"]

    @property
    def call(self):
        """The only call so far."""
        assert len(self.calls) == 1, self.calls
        return self.calls[0]

    @property
    def lines(self):
        """(level, first value, labels) of everything logged through Python's logging."""
        logged = [said for said in self.said if said["op"] == "log" and said.get("stream") == "logging"]
        return [(said["level"], said["args"][0], said["kwargs"]) for said in logged]

    def send(self, frame):
        self.socket.sendall(frames.encode(frame))

    def close(self):
        self.theirs.close()
        self.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self.socket.close()

    def _serve(self):
        buffer = bytearray()
        while chunk := self.socket.recv(65536):
            buffer += chunk
            for text in frames.split(buffer):
                protocol.decode(text)  # raises for what the daemon would not take
                self._take(json.loads(text))

    def _take(self, frame):
        self.said.append(frame)
        if frame["op"] == "settle":
            self.send({})
        elif frame["op"] == "ended":
            self.ended.put(frame)
        elif frame["op"] == "effect":
            self.noticed.put(frame)
            if self.acknowledges:
                self.acknowledge()
        elif frame["op"] == "call":
            results = self._answers.get(frame["kind"], [None])
            result = results.pop(0) if len(results) > 1 else results[0]
            if result is HELD:
                return
            answer = {"failure": result.wire} if isinstance(result, Failure) else {"result": result}
            self.send({"call": frame["call"], **answer})


class Process:
    """A real flow process; ``run`` gives it an execution of a script and returns how that ended."""

    def __init__(self, snapshot, *wrapper):
        self.daemon = ScriptedDaemon()
        descriptor = self.daemon.theirs.fileno()
        self._snapshot = str(snapshot)
        self._process = subprocess.Popen(
            [*wrapper, sys.executable, "-P", "-c", SERVE, str(descriptor)], pass_fds=[descriptor]
        )
        self.daemon.theirs.close()

    def run(self, body, *, whole=False, path="", webhook=False, **input_value):
        """Run a handler's body, or with ``whole`` a whole script, or the file at ``path`` of the snapshot."""
        self.start(body, whole=whole, path=path, webhook=webhook, **input_value)
        return self.daemon.ended.get(timeout=30)

    def start(self, body, *, whole=False, path="", webhook=False, **input_value):
        """The same without waiting for its end."""
        self.daemon.said.clear()
        self.daemon.noticed = queue.Queue()
        lines = "\n".join("    " + line for line in body.strip("\n").splitlines())
        script = body if whole else f"import flow_api\ndef handler(system, this, inputs):\n{lines}\n"
        frame = {
            "execution": {"id": "1a", "name": "x", "type": "SCRIPT", "input_value": input_value},
            "path": path,
            "snapshot": self._snapshot,
            "webhook": webhook,
            "system": {"user": "ada", "workspace": "works", "environment": "test"},
        }
        self.daemon.send(frame if path else frame | {"script": script})

    @property
    def pid(self):
        return self._process.pid

    def stop(self):
        self.daemon.close()
        assert self._process.wait(10) == 0

    def kill(self):
        """End it where it is."""
        self._process.kill()
        self._process.wait(10)
        self.daemon.close()


@pytest.fixture
def daemon():
    daemon = ScriptedDaemon()
    yield daemon
    daemon.close()


@pytest.fixture
def line(daemon):
    return channel.Channel(frames.BlockingFrames(daemon.theirs))


@pytest.fixture
def this(line):
    known = {"id": "t1", "name": "me", "type": "FLOW", "flow_name": "me", "input_value": {"k": 1}}
    return flow_api.Execution(line, known, running.Outcome())


@pytest.fixture
def system(line, this):
    return flow_api.System(line, this, {"user": "ada", "workspace": "works", "environment": "test"})


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    snapshot = tmp_path_factory.mktemp("snapshot")
    (snapshot / "stored.py").write_text("def handler(system, this):\n    return 'from the file'\n")
    process = Process(snapshot)
    yield process
    process.stop()
