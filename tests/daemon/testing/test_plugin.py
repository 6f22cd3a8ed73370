"""The pytest plugin: `headrace test` in a repository whose tests try everything the fixtures promise.

Two runs: one with a daemon for the whole module, and after a flow was changed one with a daemon for each test. What
each inner test came to is asked for by name.
"""

import os
import signal
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.support.daemons import processes_matching, until

FLOWS = {
    "orders": """
        def handler(system, this, inputs):
            found = this.task('REST', url='http://stock.invalid/', params={'item': inputs['item']})
            left = found.get('output_value')['json']['left']
            this.log('left', left)
            this.flow('packs', item=inputs['item'])
            this.set_output('left', left)
            return this.success('packed')
        """,
    "packs": """
        def handler(system, this, inputs):
            with this.lock('table'):
                setting = system.setting('packed')
                if setting.exists():
                    setting.set(value=setting.get('value') + 1)
                    setting.save()
                else:
                    system.setting('packed', value=1)
            system.file('label.txt').save_text_content(inputs['item'])
        """,
    "careless": """
        def handler(system, this, inputs):
            try:
                this.task('REST', url='http://stock.invalid/')
            except Exception:
                this.log('never mind')
        """,
    "asks": """
        def handler(system, this, inputs):
            first = this.message('First?', request='one').get('response')['string']
            second = this.message('Second?', request='two').get('response')['string']
            return {'said': [first, second]}
        """,
    "pages": """
        def handler(system, this, inputs):
            return [this.task('PAGER', who=who).get('output_value')['ok'] for who in inputs['people']]
        """,
    "wrong": """
        def handler(system, this, inputs):
            this.task('REST', url='http://stock.invalid/', colour='red')
        """,
    "falls": """
        # /// script
        # [tool.headrace]
        # on_failure = "careless"
        # schedule = "* * * * *"
        # ///
        def handler(system, this, inputs):
            raise ValueError('down')
        """,
    "test_site": """
        raise RuntimeError('a flow is no test, whatever it is called')

        def handler(system, this, inputs):
            pass
        """,
    "waits": """
        def handler(system, this, inputs):
            this.sleep(600)
        """,
}
TESTS = """
    import pathlib
    import time
    import pytest

    LEFT = {'status_code': 200, 'json': {'left': 3}}

    def test_a_flow_runs_with_its_children_settings_files_and_locks(run_flow, fake_task, rehearsal):
        rest = fake_task('REST', LEFT)
        ended = run_flow('orders', {'item': 'cup'})
        assert (ended.output, ended.message, ended.log) == ({'left': 3}, 'packed', ('left 3',))
        assert [(one.type, one.name, one.status) for one in ended.children] == [
            ('TASK', 'REST', 'ENDED_SUCCESS'), ('FLOW', 'packs', 'ENDED_SUCCESS')]
        assert rest.calls == [{'url': 'http://stock.invalid/', 'params': {'item': 'cup'}}]
        assert (rehearsal.setting('packed'), rehearsal.file('label.txt')) == (1, b'cup')

    def test_a_test_can_keep_something_before(run_flow, rehearsal):
        rehearsal.set_setting('packed', 41)
        run_flow('packs', item='pot')
        assert rehearsal.setting('packed') == 42

    def test_what_another_test_kept_is_not_there(run_flow, rehearsal):
        run_flow('packs', item='pot')
        assert rehearsal.setting('packed') == 1

    def test_answers_come_one_after_another_and_the_last_one_stays(run_flow, fake_task):
        fake_task('PAGER', {'ok': 1}, {'ok': 2})
        assert run_flow('pages', people=['a', 'b', 'c']).output == [1, 2, 2]

    def test_calls_are_told_apart_by_their_inputs_and_functions_answer(run_flow, fake_task):
        fake_task('PAGER', lambda inputs: {'ok': inputs['who'].upper()})
        bob = fake_task('PAGER', {'ok': False}, who='bob')
        assert run_flow('pages', people=['ada', 'bob']).output == ['ADA', False]
        assert bob.calls == [{'who': 'bob'}]

    def test_a_task_can_fail(run_flow, fake_task):
        fake_task('PAGER', ValueError('out of order'))
        assert 'out of order' in run_flow('pages', people=['ada'], fails=True).message

    def test_inputs_are_checked_although_the_task_is_played(run_flow, fake_task):
        fake_task('REST', LEFT)
        assert "has no input 'colour'" in run_flow('wrong', fails=True).message

    def test_people_are_played_too(run_flow):
        assert run_flow('asks', answers=[{'string': 'a'}, {'string': 'b'}]).output == {'said': ['a', 'b']}

    def test_executions_can_be_started_and_cancelled(rehearsal):
        started = rehearsal.start_flow('waits')
        rehearsal.client.cancel(started)
        assert rehearsal.wait(started).status == 'ENDED_CANCELLED'

    def test_what_follows_a_flow_is_not_its_own(run_flow, rehearsal):
        run_flow('falls', fails=True)
        until = time.monotonic() + 20
        while not rehearsal.client.executions(flow='careless', status='ENDED_SUCCESS')['items']:
            assert time.monotonic() < until
            time.sleep(0.02)
        run_flow('packs', item='pot')

    def test_BAD_nobody_plays_it(run_flow):
        run_flow('orders', item='cup')

    def test_BAD_nobody_plays_it_and_the_flow_does_not_care(run_flow):
        run_flow('careless')

    def test_BAD_it_fails(run_flow):
        run_flow('orders')

    def test_BAD_it_does_not_fail(run_flow):
        run_flow('packs', item='cup', fails=True)

    def test_BAD_nobody_answers(run_flow):
        run_flow('asks', answers=[{'string': 'a'}], timeout_s=3)

    FILE = pathlib.Path(__file__).parent / 'orders.jsonl'

    def test_it_is_recorded(run_flow, fake_task, rehearsal):
        if FILE.exists():
            pytest.skip('it was, before')
        fake_task('REST', LEFT)
        with FILE.open('wb') as file:
            file.writelines(rehearsal.client.export(run_flow('orders', item='cup').id))

    def test_the_recording_is_replayed(replay_recording):
        assert [outcome.verdict.value for outcome in replay_recording('orders.jsonl', strict=True)] == ['same']

    def test_recorded_tasks_answer(run_flow, fake_task):
        fake_task.recorded('orders.jsonl')
        assert run_flow('orders', item='cup').output == {'left': 3}

    def test_BAD_recorded_tasks_know_their_inputs(run_flow, fake_task):
        fake_task.recorded('orders.jsonl')
        run_flow('orders', item='saucer')
"""


def headrace_test(folder: Path, *words: str) -> tuple[int, dict[str, str], str]:
    """Run `headrace test` there; returns its status, what each test came to ('' if it passed), and all it printed."""
    report, scratch = folder.parent / "report.xml", folder.parent / "tmp"
    report.unlink(missing_ok=True)
    scratch.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "headrace", "test", str(folder), "-q", "--junitxml", str(report), *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        command, env=environment | {"TMPDIR": str(scratch)}, cwd=folder.parent, capture_output=True, text=True
    )
    found = {}
    for case in ET.parse(report).iter("testcase") if report.exists() else ():
        bad = next((child for child in case if child.tag in ("failure", "error")), None)
        found[case.get("name")] = "" if bad is None else f"{bad.get('message')}\n{bad.text}"
    return done.returncode, found, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin") / "flows"
    (folder / "tests").mkdir(parents=True)
    for name, text in FLOWS.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    (folder / "tests" / "test_orders.py").write_text(textwrap.dedent(TESTS))
    return folder


@pytest.fixture(scope="module")
def first(folder):
    return headrace_test(folder, "-k", "not is_not_there", "-o", "headrace_scope=module")


@pytest.fixture(scope="module")
def changed(folder, first):
    """The same after a change that asks one more thing of the world, and no longer packs."""
    text = (folder / "orders.py").read_text()
    (folder / "orders.py").write_text(text.replace("this.flow('packs', ", "this.task('PAGER', "))
    return headrace_test(folder, "-k", "record or kept or keep")


GOOD = [line.partition("(")[0].split()[-1] for line in TESTS.splitlines() if "def test_" in line and "BAD" not in line]
GOOD.remove("test_what_another_test_kept_is_not_there")


@pytest.mark.parametrize("name", GOOD)
def test_what_the_fixtures_promise_is_so(first, name):
    assert first[1].get(name, first[2]) == ""


def test_each_test_has_a_daemon_of_its_own(changed):
    names = ("test_a_test_can_keep_something_before", "test_what_another_test_kept_is_not_there")
    assert [changed[1][name] for name in names] == ["", ""]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody_plays_it", "nobody plays the task REST with the inputs url, params: fake_task('REST', {…}) does"),
        ("nobody_plays_it_and_the_flow_does_not_care", "nobody plays the task REST with the inputs url"),
        ("it_fails", "orders ENDED_ERROR: KeyError: 'item'"),
        ("it_does_not_fail", "packs ENDED_SUCCESS"),
        ("nobody_answers", "nobody answers 'Second?': give answers=[…]"),
        ("recorded_tasks_know_their_inputs", "nobody plays the task REST"),
    ],
)
def test_what_goes_wrong_is_said(first, name, said):
    assert first[0] == 1
    assert said in first[1][f"test_BAD_{name}"]


def test_no_daemon_and_no_state_is_left(first, folder):
    assert first[1]
    assert list((folder.parent / "tmp").glob("headrace-test-*")) == []


def test_a_recording_shows_where_a_changed_flow_differs(changed):
    said = changed[1]["test_the_recording_is_replayed"]
    assert "orders does not do what orders.jsonl records" in said
    assert "recorded is flow 'packs' (orders.py:6), the handler now did task 'PAGER' (orders.py:6)" in said


def test_a_changed_flow_asks_for_more_than_was_recorded(changed):
    assert "there is no task type 'PAGER'" in changed[1]["test_recorded_tasks_answer"]


def test_where_there_are_no_tests_it_says_what_one_is(tmp_path):
    (tmp_path / "flows").mkdir()
    status, found, said = headrace_test(tmp_path / "flows")
    assert (status, found) == (3, {})
    assert "a test is a function `test_…(run_flow)`" in said


BUSY = "98765.4321"  # seconds; nobody else sleeps so long


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_broken_off_leaves_no_process(tmp_path, ending):
    folder, scratch = tmp_path / "flows", tmp_path / "tmp"
    (folder / "tests").mkdir(parents=True)
    scratch.mkdir()
    text = f"import subprocess\n\ndef handler(system, this):\n    subprocess.run(['sleep', '{BUSY}'])\n"
    (folder / "busy.py").write_text(text)
    (folder / "tests" / "test_busy.py").write_text("def test_busy(run_flow):\n    run_flow('busy')\n")
    command = [sys.executable, "-m", "headrace", "test", str(folder)]
    with subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(scratch)}, stdout=subprocess.DEVNULL, start_new_session=True
    ) as run:
        until(lambda: processes_matching(BUSY), "the flow is at work", 90)
        os.killpg(run.pid, ending)
        status = run.wait(60)
    until(lambda: not processes_matching(BUSY), "what it started is gone")
    if ending == signal.SIGINT:  # it has the time to clean up
        assert status == 130
        assert list(scratch.glob("headrace-test-*")) == []
