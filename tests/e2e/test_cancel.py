"""Cancel, timeouts, and that nothing is left of an execution that has ended."""

import time

from tests.support.daemons import processes_matching, until


def test_cancel_kills_a_flow_that_spins_and_everything_it_started(workshop):
    workshop.flow(
        "spins",
        """
        import subprocess
        def handler(system, this):
            subprocess.Popen(['sleep', '86401'])
            subprocess.Popen('setsid sleep 86402 & setsid sh -c "sleep 86403; true" &', shell=True)
            subprocess.Popen(['sh', '-c', 'trap "" TERM; (trap "" TERM HUP; sleep 86404) & wait'])
            this.save(message='spinning')
            while True:
                pass
        """,
    )
    client = workshop.daemon.client
    execution = client.run("spins")["id"]
    until(lambda: client.execution(execution)["message"] == "spinning", "it spins")
    until(lambda: all(processes_matching(f"sleep 8640{n}") for n in (1, 2, 3, 4)), "its children are there")
    client.cancel(execution)
    ended = client.wait(execution, 20)
    assert (ended["status"], ended["reason"]) == ("ENDED_CANCELLED", "killed")
    assert processes_matching("sleep 8640") == []


def test_a_waiting_handler_meets_the_cancel_in_its_call_and_may_clean_up(workshop):
    workshop.flow(
        "cleans up",
        """
        import flow_api
        def handler(system, this):
            try:
                this.save(message='waiting')
                this.sleep(3600)
            except flow_api.ExecutionCancel:
                print('cleaning up')
                raise
            finally:
                print('finally')
        """,
    )
    client = workshop.daemon.client
    execution = client.run("cleans up")["id"]
    until(lambda: client.execution(execution)["status"] == "WAITING", "it waits")
    client.cancel(execution)
    ended = client.wait(execution, 20)
    assert (ended["status"], ended["reason"]) == ("ENDED_CANCELLED", "")
    assert "cleaning up\nfinally" in "\n".join(line["text"] for line in client.log(execution))


def test_a_flow_that_swallows_the_cancel_meets_it_again_and_is_killed_in_the_end(workshop):
    workshop.flow(
        "swallows",
        """
        def handler(system, this):
            this.save(message='waiting')
            while True:
                try:
                    this.sleep(3600)
                except:
                    print('swallowed')
        """,
    )
    client = workshop.daemon.client
    execution = client.run("swallows")["id"]
    until(lambda: client.execution(execution)["status"] == "WAITING", "it waits")
    client.cancel(execution)
    ended = client.wait(execution, 30)
    assert (ended["status"], ended["reason"]) == ("ENDED_CANCELLED", "killed")


def test_cancelling_a_parent_cancels_the_children_it_waits_for_and_no_others(workshop):
    workshop.flow("sleeps", "def handler(system, this, inputs):\n    this.sleep(inputs['s'])\n")
    workshop.flow(
        "parent of two",
        """
        def handler(system, this):
            free = this.flow('sleeps', s=2, wait=False)
            this.save(message=free.id)
            this.flow('sleeps', s=3600)
        """,
    )
    client = workshop.daemon.client
    parent = client.run("parent of two")["id"]
    until(lambda: client.execution(parent)["status"] == "WAITING", "it waits")
    free = client.execution(parent)["message"]
    (waited,) = [c for c in client.executions(parent=parent)["items"] if c["id"] != free]
    client.cancel(parent)
    assert client.wait(parent, 20)["status"] == "ENDED_CANCELLED"
    assert client.wait(waited["id"], 20)["status"] == "ENDED_CANCELLED"
    assert client.wait(free, 20)["status"] == "ENDED_SUCCESS"


def test_those_that_shall_not_outlive_their_parent_are_asked_to_end_in_the_same_moment(workshop):
    workshop.flow("sleeps", "def handler(system, this, inputs):\n    this.sleep(inputs['s'])\n")
    workshop.flow(
        "parent of dependents",
        """
        def handler(system, this):
            for _ in range(2):
                this.flow('sleeps', s=3600, wait=False, init={'orphan': False})
            this.save(message='made')
            this.sleep(3600)
        """,
    )
    client = workshop.daemon.client
    parent = client.run("parent of dependents")["id"]
    until(lambda: client.execution(parent)["message"] == "made", "its children are there")
    client.cancel(parent)
    children = [child["id"] for child in client.executions(parent=parent)["items"]]
    for one in (parent, *children):
        assert client.wait(one, 20)["status"] == "ENDED_CANCELLED"
    lines = [line for line in workshop.daemon.lines() if line["event"] == "cancel.requested"][-3:]
    assert [line["execution"] for line in lines] == [parent, *reversed(children)]  # the list has the newest first
    assert [line.get("with_next", False) for line in lines] == [True, True, False]


def test_a_running_task_is_stopped_by_cancel(workshop):
    workshop.flow(
        "asks",
        "def handler(system, this, inputs):\n    this.save(message='asking')\n"
        "    this.task('REST', url=inputs['url'])\n",
    )
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = workshop.daemon.client
        execution = client.run("asks", {"url": f"http://127.0.0.1:{silent.getsockname()[1]}/"})["id"]
        connection, _ = silent.accept()
        connection.recv(10)
        client.cancel(execution)
        assert client.wait(execution, 20)["status"] == "ENDED_CANCELLED"
        (task,) = client.executions(parent=execution)["items"]
        assert task["status"] == "ENDED_CANCELLED"
        connection.settimeout(10)
        while connection.recv(65536):
            pass  # the rest of the request, then the end: the connection was closed
        connection.close()


def test_a_flow_that_takes_longer_than_its_timeout_is_ended_with_that_reason(workshop):
    workshop.flow(
        "too slow",
        """
        # /// script
        # [tool.headrace]
        # timeout = "300ms"
        # ///
        import time
        def handler(system, this):
            time.sleep(3600)
        """,
    )
    ended = workshop.daemon.run("too slow")
    assert (ended["status"], ended["reason"], ended["message"]) == ("ENDED_ERROR", "timeout", "timed out after 0.3 s")


def test_time_that_is_over_before_there_is_a_process_is_over_all_the_same(workshop):
    workshop.flow(
        "no time at all",
        """
        # /// script
        # [tool.headrace]
        # timeout = 0.000001
        # ///
        def handler(system, this):
            while True:
                pass
        """,
    )
    workshop.flow("asks for no time", "def handler(system, this):\n    this.flow('no time at all')\n")
    ended = workshop.daemon.run("asks for no time")
    assert (ended["status"], ended["error"]["type"]) == ("ENDED_ERROR", "DependencyFailedError")
    assert "timed out" in ended["message"]


def test_a_queued_execution_is_cancelled_before_it_runs_and_what_has_ended_cannot_be(tmp_path, make_daemon):
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "spin.py").write_text("def handler(system, this):\n    this.save(message='on')\n    while True: pass\n")
    daemon = make_daemon(flows)
    daemon.environment |= {"HEADRACE_RUN__MAX_RUNNING": "1", "HEADRACE_RUN__CANCEL_GRACE": "0s"}
    daemon.start()
    first, second = daemon.client.run("spin")["id"], daemon.client.run("spin")["id"]
    until(lambda: daemon.client.execution(first)["message"] == "on", "the first one runs")
    assert daemon.client.execution(second)["status"] == "QUEUED"
    assert daemon.client.cancel(second)["status"] == "ENDED_CANCELLED"
    daemon.client.cancel(first)
    assert daemon.client.wait(first, 20)["status"] == "ENDED_CANCELLED"
    status, body, _ = daemon.raw(
        "POST", f"/api/v1/executions/{first}/cancel", {}, {"Authorization": f"Bearer {daemon.token()}"}
    )
    assert status == 409 and "has ended already" in body["detail"]


def test_waiting_parents_leave_room_for_their_children(tmp_path, make_daemon):
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "tree.py").write_text(
        "def handler(system, this, inputs):\n    n = inputs['n']\n"
        "    return n and this.flow('tree', n=n - 1).get('output_value') + 1\n"
    )
    daemon = make_daemon(flows)
    daemon.environment["HEADRACE_RUN__MAX_RUNNING"] = "1"
    daemon.start()
    began = time.monotonic()
    assert daemon.run("tree", n=20)["output_value"] == 20
    assert time.monotonic() - began < 30
