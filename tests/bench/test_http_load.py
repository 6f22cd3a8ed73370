"""The load generator: what it found arrives whole, also where it is stopped while it writes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import time

import pytest

from tests.bench import http_load

_PIPE_BYTES = 65_536


def unread(descriptor: int) -> int:
    """How many bytes lie in a pipe."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_what_a_load_found_arrives_whole_when_its_writer_is_stopped_in_the_middle():
    """A pause of the machine, a debugger or Ctrl-Z cuts a write to a full pipe short; unbuffered, the rest was lost."""
    requests = 6_000
    words = {"server": ["-m", "tests.bench.bare_server"], "generator": ["-u", "-m", "tests.bench.http_load"]}
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen([sys.executable, *words["server"]], **piped) as server,
        subprocess.Popen([sys.executable, *words["generator"]], **piped) as generator,
    ):
        try:
            text = http_load.request("POST", "/", b"{}").decode()
            order = {"port": int(server.stdout.readline()), "text": text, "requests": requests, "callers": 8}
            generator.stdin.write(json.dumps(order).encode())
            generator.stdin.close()
            deadline = time.monotonic() + 60
            while unread(generator.stdout.fileno()) < _PIPE_BYTES:
                assert generator.poll() is None and time.monotonic() < deadline, "it never filled the pipe"
                time.sleep(0.02)
            for number in (signal.SIGSTOP, signal.SIGCONT):
                os.kill(generator.pid, number)
                time.sleep(0.05)
            assert len(json.loads(generator.stdout.read())["latencies_s"]) == requests
        finally:
            server.kill()
            generator.kill()


def test_a_server_that_does_not_answer_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with pytest.raises(AssertionError, match="2 requests were not answered within 1 s"):
            http_load.generate(port, http_load.request("POST", "/"), requests=2, timeout_s=1.0)
