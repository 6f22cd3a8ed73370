"""The client: how it finds the daemon, what it makes of bad answers, and that it outlives broken connections."""

import json
import socket
import threading
import time

import pytest

from headrace.daemon import client, endpoint
from headrace.engine import errors
from tests.support.contract_server import TOKEN, ContractServer


@pytest.fixture
def near(server):
    return client.Client.find(state=str(server.state), environ={})


@pytest.fixture
def far(server):
    return client.Client.find(server.url, TOKEN, environ={})


@pytest.fixture(params=["near", "far"])
def either(request):
    """The same daemon over the unix socket and over TCP."""
    return request.getfixturevalue(request.param)


def test_the_catalogue_is_read(either):
    assert [flow["name"] for flow in either.flows()][:2] == ["hello", "reports/daily"]
    assert "def handler" in either.flow("reports/daily")["script"]


def test_a_flow_is_run_and_waited_for(either):
    execution = either.run("reports/daily", {"name": "Ada"})

    ended = either.wait(execution["id"])

    assert ended["status"] == "ENDED_SUCCESS"
    assert ended["output_value"] == {"greeting": "hello Ada"}


def test_waiting_ends_when_the_execution_does(server, near):
    id_ = near.run("slow")["id"]
    seen = []

    def unended(execution):
        seen.append(execution["status"])
        server.finish(id_, output_value=7)

    assert near.wait(id_, on_unended=unended)["output_value"] == 7
    assert seen == ["RUNNING"]


def test_waiting_gives_up_after_its_time_and_shows_what_there_is(near):
    id_ = near.run("slow")["id"]

    assert near.wait(id_, timeout_s=0.05)["status"] == "RUNNING"


def test_inputs_that_json_cannot_hold_are_refused_before_they_are_sent(near, server):
    for wrong in (float("inf"), object(), {1: {2}}):
        with pytest.raises(errors.InvalidRequest):
            near.run("hello", {"x": wrong})
    assert server.seen == []


def test_lists_are_filtered_and_paged(server, near):
    for number in range(5):
        server.create("hello", status="ENDED_ERROR" if number % 2 else "ENDED_SUCCESS")

    first = near.executions(limit=2)
    second = near.executions(limit=2, cursor=first["next"])

    assert len(first["items"]) == len(second["items"]) == 2
    assert len(near.all_executions(limit=100)) == 5
    assert len(near.all_executions(limit=3)) == 3
    assert len(near.all_executions(limit=100, status=["ENDED_ERROR", "RUNNING"])) == 2


def test_an_id_may_be_latest_or_the_beginning_of_one(server, near):
    first, second = server.create(), server.create()
    server.create(kind="TASK")

    assert near.execution_id("latest") == second
    assert near.execution_id(first) == first
    assert near.execution_id("0001") == first
    assert near.execution_id("0002") == second
    assert near.execution_id("00000001") == first
    with pytest.raises(errors.InvalidRequest, match="several executions begin or end with '000'"):
        near.execution_id("000")
    with pytest.raises(endpoint.NotFound):
        near.execution_id("ffff")


def test_latest_of_nothing_says_how_to_begin(near):
    with pytest.raises(errors.NotFound) as caught:
        near.execution_id("latest")
    assert "headrace run" in caught.value.hint


def test_tasks_sync_and_records_are_read(server, near):
    id_ = near.run("hello")["id"]

    assert [task["name"] for task in near.tasks()] == ["REST"]
    assert near.task("rest")["aliases"] == ["HTTP"]
    assert near.sync()["commit"] == near.sync_state()["commit"]
    assert [line["text"] for line in near.log(id_)] == ["hello from hello", "printed\n"]
    assert [line["seq"] for line in near.record(id_)] == [100, 101]


def test_a_running_one_is_cancelled_and_an_ended_one_is_not(near):
    id_ = near.run("slow")["id"]

    assert near.cancel(id_)["cancel_requested"]
    near.wait(id_)
    with pytest.raises(endpoint.Conflict, match="already ended"):
        near.cancel(id_)


def test_a_refusal_carries_status_reason_and_advice(near, server):
    with pytest.raises(endpoint.NotFound) as missing:
        near.flow("helo")
    assert (missing.value.status, missing.value.exit_code) == (404, 3)
    assert missing.value.detail == "there is no flow 'helo'"
    assert missing.value.hint == "did you mean hello?"
    assert isinstance(missing.value, errors.NotFound)

    with pytest.raises(errors.InvalidRequest) as broken:
        near.run("bad")
    assert broken.value.exit_code == 2

    with pytest.raises(errors.NotAllowed) as denied:
        client.Client.find(server.url, "wrong", environ={}).flows()
    assert denied.value.exit_code == 4


def test_a_repeated_key_does_not_run_it_twice(near, server):
    assert near.run("hello", key="k")["id"] == near.run("hello", key="k")["id"]
    assert near.run("hello")["id"] != near.run("hello")["id"]


def test_a_run_whose_answer_was_lost_is_asked_for_again_and_happens_once(near, server):
    server.refuse_once = [True]

    near.run("hello")

    assert server.paths() == ["POST /flows/hello/run"] * 2
    assert len(server.executions) == 1


def test_a_dropped_stream_is_resumed_without_gap_or_repetition(either, server):
    id_ = server.create()
    for number in range(6):
        server.log(id_, f"line {number}")
    server.drop_after = [2, 1, 0]

    events = list(either.follow_log(id_))

    assert [event.data["text"] for event in events[:-1]] == [f"line {number}" for number in range(6)]
    assert [event.event for event in events] == ["log"] * 6 + ["end"]
    assert events[-1].data == {"status": "ENDED_SUCCESS"}
    resumed_at = [headers.get("Last-Event-ID") for _, path, headers in server.seen if path.endswith("/log")]
    assert resumed_at == [None, "101", "102", "102"]


def test_events_can_be_followed_from_where_one_was(near, server):
    id_ = server.create()
    for number in range(3):
        server.log(id_, f"line {number}")

    assert [event.id for event in near.events(id_, "101")] == ["102", ""]


def test_following_what_does_not_exist_fails_at_once(near):
    with pytest.raises(endpoint.NotFound):
        list(near.follow_log("nothing"))


def test_waiting_outlives_a_restart_of_the_daemon(tmp_path):
    with ContractServer(tmp_path) as before:
        near = client.Client.find(state=str(tmp_path), environ={})
        id_ = near.run("slow")["id"]
    after = ContractServer(tmp_path)
    after.executions, after.logs = before.executions, before.logs

    def restart(event):
        time.sleep(0.15)
        after.__enter__()
        after.finish(id_)
        event.set()

    up = threading.Event()
    threading.Thread(target=restart, args=(up,), name="restart").start()
    try:
        assert near.wait(id_)["status"] == "ENDED_SUCCESS"
    finally:
        assert up.wait(5)
        after.__exit__()


def test_nobody_there_is_said_with_the_way_out(tmp_path):
    nobody = client.Client.find(state=str(tmp_path), environ={})
    with pytest.raises(endpoint.Unreachable) as caught:
        nobody.flows()
    assert caught.value.exit_code == 69
    assert str(tmp_path) in caught.value.message
    assert "headrace up" in caught.value.hint
    with pytest.raises(endpoint.Unreachable):
        list(nobody.follow_log("x"))

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(endpoint.Unreachable, match="Connection refused"):
            client.Client.find(f"http://127.0.0.1:{silent.getsockname()[1]}", environ={}).flows()


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\n\r\n<html>", b"HTTP/1.1 200 OK\r\n\r\n[]", b"SSH-2.0\r\n", b"HTTP/1.1 502 Bad\r\n\r\n<html>"],
)
def test_somebody_else_listening_there_is_not_mistaken_for_a_daemon(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def once():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=once, name="stranger")
        thread.start()
        with pytest.raises((endpoint.Unreachable, endpoint.Unavailable)) as caught:
            client.Client.find(f"http://127.0.0.1:{listener.getsockname()[1]}", environ={}).flows()
        thread.join()
    assert caught.value.exit_code == 69


def test_a_log_cut_off_midway_is_not_taken_for_whole():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def once():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"seq":1}\n')

        thread = threading.Thread(target=once, name="stranger")
        thread.start()
        lines = client.Client.find(f"http://127.0.0.1:{listener.getsockname()[1]}", environ={}).log("x")
        assert next(lines) == {"seq": 1}
        with pytest.raises(endpoint.Unreachable):
            next(lines)
        thread.join()


def test_the_daemon_is_found_in_a_fixed_order(tmp_path):
    (tmp_path / "client.json").write_text(json.dumps({"url": "http://127.0.0.1:8420", "token": "hr_theirs"}))
    state = {"STATE_DIRECTORY": f"{tmp_path}:/elsewhere"}

    def found(*args, **kwargs):
        return str(client.Client.find(*args, **kwargs).endpoint)

    assert found("http://a:1", environ={"HEADRACE_URL": "http://b:2"}) == "http://a:1"
    assert found(environ={"HEADRACE_URL": "http://b:2"} | state) == "http://b:2"
    assert found(environ=state) == "http://127.0.0.1:8420"
    (tmp_path / "daemon.sock").touch()
    assert found(environ=state) == f"unix://{tmp_path}/daemon.sock"
    assert found(state="/srv", environ=state) == "unix:///srv/daemon.sock"


@pytest.mark.parametrize(
    ("url", "environ", "sent"),
    [
        ("http://127.0.0.1:8420", {}, "hr_theirs"),
        ("http://localhost:8420", {}, "hr_theirs"),
        ("http://127.0.0.1:8420", {"HEADRACE_TOKEN": "hr_own"}, "hr_own"),
        ("https://forge.example:8420", {}, ""),
        ("http://127.0.0.1:8421", {}, ""),
    ],
)
def test_a_token_is_sent_to_the_daemon_that_gave_it_and_to_no_other(tmp_path, url, environ, sent):
    (tmp_path / "client.json").write_text(json.dumps({"url": "http://127.0.0.1:8420", "token": "hr_theirs"}))

    assert client.Client.find(url, state=str(tmp_path), environ=environ).token == sent


def test_a_damaged_client_file_says_nothing(tmp_path):
    (tmp_path / "client.json").write_text('{"url"')

    assert client.Client.find("http://a:1", state=str(tmp_path), environ={}).token == ""


def test_a_state_directory_too_deep_for_a_socket_address_is_reached(tmp_path, server):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    (tmp_path / "daemon.sock").rename(deep / "daemon.sock")

    assert client.Client.find(state=str(deep), environ={}).flows()


@pytest.mark.parametrize("url", ["forge", "ftp://forge", "http://", "http://h:99999", "unix://", "http://[::1"])
def test_what_is_not_an_address_is_refused(url):
    with pytest.raises(errors.InvalidRequest):
        endpoint.Endpoint.parse(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://[::1]:80/", "http://[::1]:80"),
        ("https://h/pre/", "https://h:443/pre"),
        ("unix:///a%20b", "unix:///a b"),
    ],
)
def test_an_address_is_shown_as_it_is_used(url, shown):
    assert str(endpoint.Endpoint.parse(url)) == shown


def test_an_event_cut_off_midway_is_none():
    stream = [
        b": hi\n",
        b"\n",
        b"id: 1\r\n",
        b"event: log\r\n",
        b"data: {\r\n",
        b'data: "a": 1}\r\n',
        b"\r\n",
        b"data: {}",
    ]

    assert list(endpoint.parse_events(stream)) == [("1", "log", {"a": 1})]
