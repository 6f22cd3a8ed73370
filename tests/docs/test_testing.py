"""docs/testing.md: its flow and its tests, as they stand there, and that it names what there is."""

import inspect
import json
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from headrace.daemon.testing import plugin, rehearsal
from tests.support.daemons import Daemon

DOCUMENT = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
FILES = dict(re.findall(r"^```python\n# ([\w/]+\.py)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL))


class Stock(BaseHTTPRequestHandler):
    """The service that the recorded order really asked."""

    def do_GET(self):
        body = json.dumps({"left": 3}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def stock():
    with HTTPServer(("127.0.0.1", 0), Stock) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/items"
        server.shutdown()
        thread.join()


def test_its_tests_pass_with_an_execution_that_really_ran(tmp_path, stock):
    folder = tmp_path / "flows"
    (folder / "tests").mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text.replace("https://stock.example/items", stock))
    daemon = Daemon(tmp_path / "s", folder).start()
    try:
        daemon.client.keep("settings", "ordered", {"value": []})
        ran = daemon.run("orders", item="cup")
        (folder / "tests" / "cup.jsonl").write_bytes(b"".join(daemon.client.export(ran["id"])))
    finally:
        daemon.stop()
    command = [sys.executable, "-m", "headrace", "test", str(folder), "-o", "headrace_scope=module"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(text.count("def test_") for text in FILES.values())
    assert f"{count + 1} passed" in done.stdout  # one of them has two parameters


def test_it_names_what_there_is():
    parameters = inspect.signature(rehearsal.Rehearsal.run_flow).parameters
    assert re.search(r"`run_flow\((.*?)\)`", DOCUMENT)[1] == (
        "flow, inputs=None, *, answers=(), fails=False, timeout_s=30, **more_inputs"
    )
    assert [*parameters] == ["self", "flow", "inputs", "answers", "fails", "timeout_s", "more"]
    ended = {name for name, value in vars(rehearsal.Ended).items() if isinstance(value, property)} | {"log", "raw"}
    table = DOCUMENT.partition("| of what it returns |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z]+)`", "".join(line.rpartition(" | ")[0] for line in table.splitlines())))
    assert ended - named == {"id", "name", "type"}
    assert named <= ended
    assert all(f"`{scope}`" in DOCUMENT for scope in plugin._SCOPES)
