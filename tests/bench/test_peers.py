"""The peers' figures: the tables tell what a run found, what failed and why, and a ledger is judged by its lines."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tests.bench.peers import __main__ as peers
from tests.bench.peers import headrace, installing, n8n, node_red, page, trials
from tests.bench.peers.peer import Amount, Peer, free_port
from tests.bench.results import Row


def a_run(*rows: tuple[str, Row], **failed: str) -> dict:
    """A run of one peer, as its file holds it."""
    about = {key: f"its {key}" for key in ("version", "settings", "done", "waits")}
    return json.loads(
        json.dumps(
            {
                "at": "2026-01-02T03:04:05+00:00", "quick": False, "cpus": 2, "processor": "P", "machine": "M",
                "memory_gib": 24, "python": "3.11", "left_out": ["C"], "load_before": 0.5, "load_after": 9.7,
                "rows": [{"group": group, **row.as_json()} for group, row in rows],
                "peers": [{"name": "A", **about, "failed": failed}],
            }
        )
    )  # fmt: skip


def cells(text: str, start: str) -> list[list[str]]:
    """The cells of the lines of tables that begin with a word, bare."""
    return [re.split(r" ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith(f"| {start} |")]


def test_a_figure_stands_with_its_spread_and_how_many_waited_where_it_is_not_a_thousand():
    text = page.tables(
        a_run(
            ("A", Row(trials.P50, "ms", [3.0, 1.0, 2.0], 30)),
            ("A", Row(trials.WAITING, "KB", [79_000.0], 10, also={"waiting": 10})),
            (
                "A",
                Row(
                    trials.FINISHED,
                    "",
                    [20, 0],
                    2,
                    also={"unfinished": 20, "effects repeated": 3, "waited s": 15.0, "told": "20 as Running"},
                ),
            ),
            ("machine", Row("limit: fdatasync", "ms", [0.2], 3)),
            ("B", Row(trials.P99, "ms", [77.0], 1)),
        )
    )
    speed, cost, killed, versions = cells(text, "A")
    assert speed == ["A", "2 ms (1–3)", "–", "–", "–"]
    assert cost[4] == "79,000 KB, of 10"
    assert killed == ["A", "20 · 0", "20", "3", "15 s", "20 as Running"]
    assert versions == ["A", "its version", "its settings", "its done", "its waits"]
    assert cells(text, "fdatasync") == [["fdatasync", "0.2 ms"]]
    assert "77" not in text and "24 GiB" in text and "* C: not asked for in this run." in text and "failed" not in text
    assert "load before the run 0.5, after it 9.7." in text


def test_who_is_ahead_of_headrace_is_said_best_first():
    def both(ours: float, theirs: float, name: str, unit: str) -> list[tuple[str, Row]]:
        also = {"unfinished": 0, "effects repeated": 0, "waited s": 1.0, "told": ""}
        rows = [Row(name, unit, [figure], 1, also=also) for figure in (ours, theirs)]
        return list(zip(("Headrace", "A"), rows, strict=True))

    text = page.tables(
        a_run(
            *both(2, 1, trials.P50, "ms"),
            ("B", Row(trials.P50, "ms", [0.5], 1)),
            *both(1, 2, trials.PARENT, "ms"),
            *both(100, 200, trials.RATE, "/s"),
            *both(20, 0, trials.FINISHED, ""),
        )
    )
    _, _, told = text.partition("ahead of Headrace in this run:\n\n")
    assert told.split("\n\n")[0].splitlines() == [
        f"* {trials.P50}, 2 ms here: B (0.5 ms), A (1 ms)",
        f"* {trials.RATE}, 100 /s here: A (200 /s)",
    ]


def test_what_failed_is_said_with_its_reason_and_the_rest_stands():
    run = a_run(("A", Row(trials.P50, "ms", [1.0], 3)), **{trials.PARENT: "it fell | over"})
    text = page.tables(run)
    assert cells(text, "A")[0] == ["A", "1 ms", "–", "–", "failed, see below"]
    assert f"* A, {trials.PARENT}: failed: it fell | over" in text
    run["peers"][0]["failed"] = {"all": "not to be had"}
    run["rows"] = []
    assert cells(page.tables(run), "A")[0][1:] == ["failed, see below"] * 4


def test_the_page_keeps_its_words_and_gets_the_new_tables(tmp_path, monkeypatch):
    path = tmp_path / "benchmarks.md"
    path.write_text(f"before\n{page.BEGIN}old\n{page.END}after\n")
    monkeypatch.setattr(page, "PAGE", path)
    for _ in range(2):
        page.write(a_run())
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("its version") == 1
    path.write_text("no marks")
    with pytest.raises(AssertionError, match="lost its marks"):
        page.write(a_run())


def test_the_page_of_this_repository_has_the_marks_and_names_who_is_absent():
    _, mark, rest = page.PAGE.read_text().partition(page.BEGIN)
    assert mark and page.END in rest
    assert all(f"* {name}: {why}" in rest for name, why in page.ABSENT.items())


def test_a_ledger_tells_who_finished_who_did_not_and_what_came_twice(tmp_path):
    ledger = tmp_path / "ledger"
    assert trials.lines(ledger, "began") == []
    ledger.write_text("began 1\nbegan 2\nbegan 1\nended 1\nbegan 3\nended 3\nended 3\n")
    outcome = trials.judged(trials.lines(ledger, "began"), trials.lines(ledger, "ended"))
    assert outcome == trials.Outcome(finished=2, unfinished=1, repeated=2)


def test_a_trial_that_fails_is_told_and_the_others_go_on(tmp_path):
    class Broken(Peer):
        name = "broken"

        def start(self):
            self.spawn(["sh", "-c", "echo no database in /some/where/here; exit 3"])

    work = trials.Trials(Broken, tmp_path, Broken.amount)
    assert list(work.rows()) == []
    assert set(work.failed) == {trials.P50, trials.PARENT, trials.WAITING, trials.FINISHED}
    assert "a process ended with 3; it said: no database in …/here" in work.failed[trials.P50]
    assert not list(tmp_path.iterdir())


_FORGETFUL = """
import http.server, os, urllib.parse

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        for number in urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("number", ()):
            with open(os.environ["LEDGER"], "a") as ledger:
                ledger.write(f"began {number}\\n")
        self.send_response(200)
        self.send_header("Content-Length", "13")
        self.end_headers()
        self.wfile.write(b"DONE ACCEPTED")

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.mark.parametrize("silent", [False, True])
def test_what_became_of_those_that_did_not_finish_the_peer_is_asked(tmp_path, monkeypatch, silent):
    class Forgetful(Peer):
        sleep_s = 1.0
        settle_s = 0.0

        def start(self):
            self.port = self.port or free_port()
            self.spawn([sys.executable, "-c", _FORGETFUL])

        def unfinished(self):
            if silent:
                raise TimeoutError("no answer")
            return f"lost, says {len(self.processes)}"

    monkeypatch.setattr(trials, "_WINDOW_S", 0.0)
    told = "it does not say: no answer" if silent else "lost, says 1"
    outcome = trials.Trials(Forgetful, tmp_path, Amount())._outcome()
    assert outcome == trials.Outcome(finished=0, unfinished=trials.KILLED, repeated=0, told=told)


def test_every_peer_says_how_it_is_set_up_and_is_pinned():
    for kind in peers.PEERS.values():
        assert all((kind.name, kind.settings, kind.done, kind.waits)), kind
    pins = [pin for group in ("python", "npm") for packages in installing.PINS[group].values() for pin in packages]
    assert all(re.fullmatch(r"@?[\w./\[\]-]+(==|@)\d[\w.]*", pin) for pin in pins)


def test_flows_of_nodes_are_wired_to_nodes_that_exist():
    nodes = {node["id"]: node for node in node_red._flows("ledger")}
    assert all(target in nodes for node in nodes.values() for wires in node.get("wires", ()) for target in wires)
    assert nodes["begin1"]["wires"] == [["begin2", "begin3"]]
    for workflow in n8n._workflows().values():
        names = {node["name"] for node in workflow["nodes"]}
        assert {wire["node"] for outs in workflow["connections"].values() for wire in outs["main"][0]} < names


def test_headrace_takes_the_requests_of_the_trials(tmp_path):
    with trials.Trials(headrace.Headrace, tmp_path, Amount()).started() as peer:
        assert len(peer.pids) > 1
        assert len(trials.loaded(peer, peer.children(3), requests=1, callers=1).latencies_s) == 1
        trials.loaded(peer, peer.begin(0), requests=3, callers=3)
        peer.until(lambda: len(trials.lines(peer.ledger, "ended")) == 3, "three ends", 20)
        assert trials.judged(*(trials.lines(peer.ledger, word) for word in ("began", "ended"))).repeated == 0
    assert not peer.pids
