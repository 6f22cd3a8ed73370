"""A real flow process: scripts, logging, webhooks' headers, and how handlers end."""

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.engine.guest import flow_api
from tests.engine.guest.conftest import ENDED


def test_a_script_runs_and_its_lines_stand_in_tracebacks(process):
    ended = process.run("this.log('x')\nreturn 1 / len(inputs)")
    assert ended["outcome"] == "error"
    assert ended["failure"]["file"] == "script.py" and ended["failure"]["line"] == 4
    assert 'File "script.py", line 4, in handler\n    return 1 / len(inputs)' in ended["failure"]["traceback"]


def test_scripts_and_the_stored_flow_do_not_mix(process):
    assert process.run("return 'one'")["returned"] == "one"
    assert process.run("", path="stored.py")["returned"] == "from the file"
    assert process.run("return 'two'")["returned"] == "two"
    assert process.run("", path="stored.py")["returned"] == "from the file"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("x = 1\n", "the script has no function called handler"),
        ("async def handler(system, this):\n    pass\n", "take away its async"),
        ("def handler(system, this)\n", "SyntaxError"),
    ],
)
def test_a_script_that_is_no_flow_says_so(process, script, words):
    ended = process.run(script, whole=True)
    assert ended["outcome"] == "error" and words in ended["failure"]["message"]


def test_a_syntax_error_in_a_script_names_its_line(process):
    failure = process.run("\n\ndef handler(system, this)\n", whole=True)["failure"]
    assert (failure["file"], failure["line"]) == ("script.py", 3)


def test_marks_count_at_the_return_and_are_no_output(process):
    assert "returned" not in process.run("return this.success('fine')")
    marked = process.run("this.error('no')\nthis.success('yes')\nreturn {'a': 1}")
    assert (marked["outcome"], marked["message"], marked["returned"]) == ("success", "yes", {"a": 1})
    raised = process.run("this.success('yes')\nraise ValueError('after all')")
    assert raised["outcome"] == "error" and raised["failure"]["message"] == "ValueError: after all"


@pytest.mark.parametrize("value", ["this", "system.setting('x')", "this.flow('x')"])
def test_a_handle_that_is_returned_is_no_output_either(process, value):
    process.daemon.answers("flow", ENDED)
    assert "returned" not in process.run(f"return {value}")


def test_the_start_says_who_and_where(process):
    ended = process.run(
        "return [system.get_own_user().get('name'), system.get_own_client().get('name'), system.get_env_name()]"
    )
    assert ended["returned"] == ["ada", "works", "test"]


# -- webhooks --------------------------------------------------------------------------------------

LOOKS = """
h = this.get('input_value')['headers']
import json
assert h is inputs['headers'] and isinstance(h, dict)
h['X-New'] = '1'
found = [h['X-HUB'], h.get('X-Hub'), h.get('none', 0), 'x-HUB' in h, 'none' in h, h.pop('x-NEW')]
found.append(h.setdefault('X-HUB', 2))
return [found, h == {'x-hub': 'a'}, json.dumps(h), dict(h)]
"""


def test_a_webhooks_headers_are_found_in_any_case(process):
    ended = process.run(LOOKS, webhook=True, headers={"x-hub": "a"})
    assert ended["returned"] == [["a", "a", 0, True, False, "1", "a"], True, '{"x-hub": "a"}', {"x-hub": "a"}]


def test_other_inputs_called_headers_are_as_they_were(process):
    assert process.run("return 'X-HUB' in inputs['headers']", headers={"x-hub": "a"})["returned"] is False


# -- logging ---------------------------------------------------------------------------------------


def test_python_logging_is_recorded_with_its_level_in_its_place(process):
    process.run("""
import logging
this.log('before')
logging.debug('unseen')
logging.info('seen %s', 1)
print('printed')
logging.getLogger('lib.part').critical('away')
this.log('after')
""")
    said = [frame for frame in process.daemon.said if frame["op"] in ("log", "out")]
    assert [frame.get("text") or frame["args"][0] for frame in said] == [
        "before",
        "seen 1",
        "printed\n",
        "away",
        "after",
    ]
    assert process.daemon.lines == [("INFO", "seen 1", {}), ("CRITICAL", "away", {"logger": "lib.part"})]
    assert [frame["call"] for frame in said if frame["op"] == "log"] == [1, 0, 0, 2]


def test_a_traceback_is_logged_whole_and_odd_levels_fall_to_the_next(process):
    process.run("""
import logging
try:
    1 / 0
except ZeroDivisionError:
    logging.exception('oh')
logging.log(35, 'between')
""")
    (level, text, _), (between, _, _) = process.daemon.lines
    assert (level, between) == ("ERROR", "WARNING")
    assert text.startswith("oh\nTraceback") and text.endswith("ZeroDivisionError: division by zero")


def test_basic_config_shapes_the_record_and_adds_no_second_line(process):
    process.run("""
import logging, sys
logging.basicConfig(level=logging.DEBUG, format='%(levelname)s|%(name)s|%(message)s', stream=sys.stderr)
logging.basicConfig(level='ERROR', format='not any more')
logging.debug('now seen')
logging.getLogger('lib').info('x')
""")
    assert process.daemon.lines == [("DEBUG", "DEBUG|root|now seen", {}), ("INFO", "INFO|lib|x", {})]
    assert not [frame for frame in process.daemon.said if frame["op"] == "out"]


def test_basic_config_by_force_and_with_files_and_handlers(process, tmp_path):
    process.run(
        f"""
import logging, sys
logging.basicConfig(level='DEBUG', style='{{', format='{{message}}!', filename={str(tmp_path / "log")!r})
logging.debug('one')
console = logging.StreamHandler(sys.stdout)
console.setFormatter(logging.Formatter('<%(message)s>'))
logging.basicConfig(force=True, level='WARNING', handlers=[console])
logging.info('no')
logging.warning('two')
"""
    )
    assert [text for _, text, _ in process.daemon.lines] == ["one!", "<two>"]
    assert (tmp_path / "log").read_text() == "one!\n"
    assert process.run("import logging\nlogging.basicConfig(colour='red')")["failure"]["type"] == "ValueError"


def test_the_next_execution_starts_with_fresh_logging(process):
    process.run("""
import logging
logging.basicConfig(level='DEBUG', format='old %(message)s')
logging.disable(logging.ERROR)
part = logging.getLogger('part')
part.setLevel('CRITICAL'); part.propagate = False; part.disabled = True
part.addHandler(logging.StreamHandler()); part.addFilter(lambda record: False)
logging.getLogger().addHandler(logging.StreamHandler()); logging.getLogger().addFilter(lambda record: False)
logging.getLogger().isEnabledFor(10)
""")
    process.run("""
import logging
logging.debug('unseen')
logging.info('fresh')
logging.getLogger('part').info('fresh too')
""")
    assert process.daemon.lines == [("INFO", "fresh", {}), ("INFO", "fresh too", {"logger": "part"})]
    assert not [frame for frame in process.daemon.said if frame["op"] == "out"]


def test_threads_may_log_and_a_mistake_in_logging_does_no_harm(process):
    ended = process.run("""
import logging, threading
thread = threading.Thread(target=logging.warning, args=('from a thread',))
thread.start(); thread.join()
logging.info('%d', 'no number')
logging.info('broken \\udcff \\x1b[31mred')
return 'done'
""")
    assert ended["returned"] == "done"
    assert [text for _, text, _ in process.daemon.lines] == ["from a thread", "broken ? \x1b[31mred"]
    told = "".join(frame["text"] for frame in process.daemon.said if frame["op"] == "out")
    assert "Logging error" in told


def test_a_process_the_flow_forks_does_not_speak_on_its_channel(process):
    ended = process.run("""
import logging, os
pid = os.fork()
if pid == 0:
    logging.warning('from the child')
    os._exit(0)
os.waitpid(pid, 0)
return 'parent'
""")
    assert ended["returned"] == "parent" and process.daemon.lines == []


def test_a_fork_server_loads_little_for_each_page_of_it_is_copied_at_each_fork():
    entry = Path(flow_api.__file__).with_name("__main__.py")
    text = (
        "import importlib, os, runpy, sys\n"
        f"runpy.run_path({str(entry)!r})['load_package'](os.path.dirname({str(entry)!r}))\n"
        "importlib.import_module('headrace_guest.fork_server'), importlib.import_module('headrace_guest.flow_api')\n"
        "print(*sys.modules)"
    )
    told = subprocess.run([sys.executable, "-I", "-S", "-c", text], check=True, capture_output=True, text=True)
    large = {"asyncio", "ast", "dataclasses", "email", "inspect", "pathlib", "signal", "socket", "ssl", "subprocess"}
    large |= {"http", "mmap", "pdb", "shutil", "tempfile", "urllib", "zipfile"}
    assert large & set(told.stdout.split()) == set()


def test_what_a_forked_process_prints_goes_into_the_pipes(process):
    body = "import os, sys\npid = os.fork()\nif pid == 0:\n    print('from the child', flush=True)\n    os._exit(0)\n"
    assert process.run(body + "os.waitpid(pid, 0)\nprint('from the parent')")["outcome"] == "success"
    assert [said["text"] for said in process.daemon.said if said["op"] == "out"] == ["from the parent\n"]


def test_modules_of_the_snapshot_are_found_and_shadow_no_library(process):
    folder = Path(process._snapshot)
    (folder / "helper.py").write_text("WORD = 'found'\n")
    (folder / "colorsys.py").write_text("raise SystemExit('shadowed')\n")
    assert process.run("import colorsys, helper\nreturn helper.WORD")["returned"] == "found"
