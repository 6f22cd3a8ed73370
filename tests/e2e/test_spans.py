"""Executions and calls as spans at a collector: one trace, each span once, whatever dies or is away meanwhile."""

import http.server
import json
import re
import subprocess
import sys
import threading

import pytest

from headrace.daemon import span_exporter
from headrace.engine import traces
from headrace.engine.state import masks
from tests.support.collector import Collector
from tests.support.daemons import Daemon, until
from tests.support.front_door import ask

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SECRET = "hush-hush-4711"
HOOK = "# /// script\n# [tool.headrace]\n# webhook = {name = 'hook', auth = 'none'}\n# ///\n"
FLOWS = {
    "outer": HOOK + "def handler(system, this):\n    url = system.setting('url').get('value')\n"
    "    this.sleep(0.01)\n    this.flow('inner', url=url)\n",
    "inner": "def handler(system, this, inputs):\n    this.task('REST', url=inputs['url'] + '?key=k')\n",
    "fails": "# /// script\n# [tool.headrace.retry]\n# attempts = 2\n# delay = '10ms'\n# ///\n"
    "def handler(system, this):\n    raise ValueError('no luck')\n",
    "leaks": "def handler(system, this, inputs):\n"
    "    asked = this.task('REST', url=inputs['url'], headers={'X-Word': 'secret.env(WORD)'})\n"
    "    said = asked.get('output_value')['text']\n    this.save(message=said)\n    raise ValueError(said)\n",
    "waits": "def handler(system, this):\n    this.sleep(1)\n    return {}\n",
    "tries": "def handler(system, this, inputs):\n    try:\n        this.task('REST', url=inputs['url'])\n"
    "    except Exception:\n        return this.success('caught')\n",
}


class Listener:
    """An HTTP server that remembers ``traceparent``s, and answers only while it is ``open``."""

    def __init__(self):
        self.seen, self.open = [], threading.Event()
        self.open.set()
        listener = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                listener.seen.append(self.headers["traceparent"])
                listener.open.wait(30)
                try:
                    self.send_response(404 if "missing" in self.path else 200)
                    said = self.headers.get("X-Word", "")
                    self.send_header("Content-Length", str(len(said)))
                    self.end_headers()
                    self.wfile.write(said.encode())
                except OSError:  # who asked was killed
                    pass

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.open.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def listener():
    made = Listener()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_collector():
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def collector(shared_collector, listener):
    del shared_collector.spans[:], shared_collector.headers[:], listener.seen[:]
    return shared_collector


def environment(address, **export):
    said = {"endpoint": address, **export}
    return {"HEADRACE_TRACES__EXPORT": json.dumps(said), "OTEL_BSP_SCHEDULE_DELAY": "20", "WORD": SECRET}


def write_flows(folder):
    folder.mkdir()
    for name, text in FLOWS.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, shared_collector):
    home = tmp_path_factory.mktemp("spans")
    daemon = Daemon(home / "s", write_flows(home / "flows"))
    daemon.environment = environment(shared_collector.address, service="mill")
    yield daemon.start()
    assert daemon.stop() == 0


@pytest.fixture
def make(make_daemon, tmp_path, collector):
    def daemon(**export):
        made = make_daemon(write_flows(tmp_path / "flows"))
        made.environment = environment(collector.address, **export)
        return made

    return daemon


def figure(daemon, name):
    text = ask(daemon, "GET", "/metrics", daemon.token()).body.decode()
    return float((re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE) or ["0"])[0])


def one(spans):
    (found,) = spans
    return found


def test_a_webhook_a_flow_its_child_and_a_task_are_one_trace_that_goes_on_outside(daemon, listener, collector):
    ask(daemon, "PUT", "/api/v1/settings/url", daemon.token(), body={"value": listener.url})
    header = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    outer = ask(daemon, "POST", "/webhook/hook", headers=header).headers["location"].rpartition("/")[2]
    until(lambda: collector.named("flow outer"), "the last span is there")
    assert {span.trace for span in collector.spans} == {TRACE}
    names = ["flow outer", "sleep", "flow inner", "flow inner", "task REST", "task REST"]
    assert sorted(span.name for span in collector.spans) == sorted(names)
    assert len({span.id for span in collector.spans}) == len(names)
    own = one(collector.named("flow outer"))
    assert (own.id, own.parent, own.kind, own.status) == (traces.span(outer), CALLER, 2, 1)
    call, inner = sorted(collector.named("flow inner"), key=lambda span: span.parent != own.id)
    asked, task = sorted(collector.named("task REST"), key=lambda span: span.parent != inner.id)
    assert [call.parent, inner.parent, asked.parent, task.parent] == [own.id, call.id, inner.id, asked.id]
    assert one(collector.named("sleep")).parent == own.id
    assert own.began <= call.began <= inner.began <= task.began < task.ended <= inner.ended <= call.ended <= own.ended
    assert listener.seen == [f"00-{TRACE}-{task.id}-01"]
    assert task.kind == 3 and task.attributes["http.request.method"] == "GET"
    assert (task.attributes["url.full"], task.attributes["http.response.status_code"]) == (listener.url, 200)
    assert (call.attributes["headrace.call.number"], call.attributes["code.file.path"]) == (3, "outer.py")
    assert call.attributes["code.line.number"] == 8
    assert own.attributes["headrace.execution.id"] == own.attributes["faas.invocation_id"] == outer
    assert (own.attributes["faas.trigger"], own.attributes["headrace.execution.status"]) == ("http", "ENDED_SUCCESS")
    assert [name for name, _ in own.events] == ["execution.started"]
    assert (own.resource["service.name"], own.resource["telemetry.sdk.language"]) == ("mill", "python")


def test_failures_retries_and_reruns_say_so(daemon, listener, collector):
    daemon.run("fails")
    first, second = until(lambda: len(found := collector.named("flow fails")) == 2 and found, "both attempts")
    assert (first.status, first.description, first.attributes["error.type"]) == (2, "ValueError: no luck", "ValueError")
    name, exception = first.events[-1]
    assert (name, exception["exception.type"], exception["exception.message"]) == ("exception", "ValueError", "no luck")
    assert "fails.py" in exception["exception.stacktrace"]
    assert (first.parent, second.trace, second.parent) == ("", first.trace, first.id)
    assert second.links == [(first.trace, first.id, {"headrace.link": "retry of"})]

    caught = daemon.run("tries", url=listener.url + "missing")
    until(lambda: collector.named("flow tries"), "the end of it")
    call, task = sorted(collector.named("task REST"), key=lambda span: span.kind)
    assert (call.status, task.status, task.attributes["http.response.status_code"]) == (2, 2, 404)
    before = one(collector.named("flow tries"))
    assert (before.parent, before.status) == ("", 1)

    path = f"/api/v1/executions/{caught['id']}/rerun?wait=20"
    again = ask(daemon, "POST", path, daemon.token(), body={"inputs": {"url": listener.url}}).json
    assert again["rerun_of"] == caught["id"]
    until(lambda: len(collector.named("flow tries")) == 2, "the rerun")
    after = collector.named("flow tries")[-1]
    assert after.trace != before.trace
    assert after.links == [(before.trace, before.id, {"headrace.link": "rerun of"})]


def test_what_a_record_masks_no_span_shows(daemon, listener, collector):
    assert daemon.run("leaks", url=listener.url)["status"] == "ENDED_ERROR"
    span = one(until(lambda: collector.named("flow leaks"), "the end of it"))
    assert (span.description, span.status) == (f"ValueError: {masks.MARKER}", 2)
    assert not any(SECRET.encode() in one.bytes for one in collector.spans)


def marked(daemon):
    return json.loads((daemon.state / span_exporter.FILE_NAME).read_text())["seq"]


def test_each_span_comes_once_although_the_daemon_is_killed_in_the_midst(make, listener, collector):
    daemon = make().start()
    ask(daemon, "PUT", "/api/v1/settings/url", daemon.token(), body={"value": listener.url})
    daemon.run("waits")
    until(lambda: collector.named("flow waits"), "what ended before")
    listener.open.clear()
    outer = daemon.client.run("outer")["id"]
    until(lambda: listener.seen, "the task is under way")
    until(lambda: collector.named("sleep") and len(collector.spans) == 3, "what ended before the kill")
    ended = [line["seq"] for line in daemon.lines() if line["event"] == "call.ended" and line["execution"] == outer]
    until(lambda: marked(daemon) >= ended[-1], "that is marked")
    daemon.kill()
    listener.open.set()
    daemon.start()
    assert daemon.client.wait(outer)["status"] == "ENDED_SUCCESS"
    until(lambda: collector.named("flow outer"), "the end of it")
    assert len(collector.spans) == len({span.id for span in collector.spans}) == 8
    own = one(collector.named("flow outer"))
    assert [name for name, _ in own.events] == ["execution.started", "execution.started"]
    assert own.id == traces.span(outer)
    by_id = {span.id for span in collector.spans}
    assert all(span.parent in by_id for span in collector.spans if span.trace == own.trace and span is not own)

    # Whoever dies between the collector's answer and the mark sends the same span again.
    daemon.kill()
    mark = json.loads((daemon.state / span_exporter.FILE_NAME).read_text())
    (daemon.state / span_exporter.FILE_NAME).write_text(json.dumps(mark | {"seq": ended[-1]}))
    before = {span.id: span.bytes for span in collector.spans}
    del collector.spans[:]
    daemon.start()
    until(lambda: collector.named("flow outer"), "they come again")
    assert len(collector.spans) == 5
    assert all(before[span.id] == span.bytes for span in collector.spans)
    assert daemon.stop() == 0


def test_what_ended_while_nobody_listened_is_sent_later_and_too_much_is_dropped_and_counted(make):
    gone = Collector()
    gone.close()
    daemon = make(endpoint=gone.address)
    daemon.environment |= {"OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "0.2"}
    daemon.start()
    for _ in range(3):
        assert daemon.run("waits")["status"] == "ENDED_SUCCESS"
    until(lambda: figure(daemon, 'headrace_spans_total{result="dropped"}') == 2, "two of six are dropped")
    assert figure(daemon, "headrace_spans_waiting") == 4
    assert "spans.stalled" in daemon.log.read_text()
    again = Collector(gone.port)
    try:
        daemon.kill()
        daemon.environment["OTEL_BSP_MAX_QUEUE_SIZE"] = "100"
        daemon.start()
        until(lambda: len(again.spans) == 6, "a daemon with more room makes them of the record")
        assert len({span.id for span in again.spans}) == 6
        again.status = 503
        daemon.run("waits")
        until(lambda: daemon.log.read_text().count("spans.stalled") == 2, "the collector has enough")
        again.status = 200
        until(lambda: len(again.named("flow waits")) == 4, "it takes them again")
        until(lambda: "spans.resumed" in daemon.log.read_text(), "that is said")
        again.status = 400
        daemon.run("waits")
        until(lambda: figure(daemon, 'headrace_spans_total{result="refused"}') == 2, "what it refuses is not repeated")
        assert daemon.stop() == 0
    finally:
        again.close()


def test_who_began_the_trace_decides_if_it_is_kept_else_the_ratio_and_the_usual_variables_count(
    make, listener, collector, tmp_path
):
    (tmp_path / "headers").write_text(f"Authorization: Bearer {SECRET}\n")
    daemon = make(endpoint="", ratio=0, headers_file=str(tmp_path / "headers"))
    daemon.environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address.removesuffix("/v1/traces"),
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=ops",
        "OTEL_SERVICE_NAME": "named-outside",
        "OTEL_RESOURCE_ATTRIBUTES": "team=mill",
    }
    daemon.start()
    for flags in ("00", "01"):
        header = {"traceparent": f"00-{TRACE}-{CALLER}-{flags}"}
        path, body = "/api/v1/flows/inner/run?wait=20", {"inputs": {"url": listener.url}}
        assert ask(daemon, "POST", path, daemon.token(), body=body, headers=header).status == 200
    unkept = daemon.run("inner", url=listener.url)
    assert unkept["traceparent"].endswith("-00") and unkept["trace_url"] == ""
    until(lambda: collector.named("flow inner"), "the one that is kept")
    assert daemon.stop() == 0
    assert len(collector.spans) == 3 and {span.trace for span in collector.spans} == {TRACE}
    assert [seen[-2:] for seen in listener.seen] == ["00", "01", "00"]
    assert listener.seen[2].split("-")[1] == unkept["traceparent"].split("-")[1]
    assert collector.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert collector.headers[0]["x-tenant"] == "ops"
    resource = collector.spans[0].resource
    assert (resource["service.name"], resource["team"]) == ("named-outside", "mill")
    assert SECRET not in daemon.log.read_text()
    assert not any(SECRET.encode() in path.read_bytes() for path in (daemon.state / "records").iterdir())


def test_without_the_libraries_it_does_not_start_and_says_what_to_install(make):
    daemon = make()
    hidden = "import sys; sys.modules['opentelemetry'] = None; "
    daemon.program = ("-c", hidden + "from headrace.daemon.cli.main import main; sys.exit(main())")
    daemon.start(wait=False)
    assert daemon.process.wait(30) != 0
    assert "pip install 'headrace[otel]'" in daemon.log.read_text()


def test_without_the_setting_nothing_of_opentelemetry_is_loaded():
    names = "import sys, headrace.daemon.app; print('opentelemetry' in sys.modules, 'requests' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", names], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
