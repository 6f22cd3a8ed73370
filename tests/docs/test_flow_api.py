"""docs/flow-api.md and the editor stubs: made from what runs, and of use."""

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from headrace.daemon import typings
from headrace.engine.guest import flow_api

PAGE = Path(__file__).parents[2] / "docs" / "flow-api.md"
GOOD = """
import datetime
from typing import Any

import flow_api
from flow_api.exceptions import LockTimeoutError


def handler(system: flow_api.System, this: flow_api.Execution) -> Any:
    inputs = this.get('input_value')
    child: flow_api.Execution = this.flow('hello', {'a': 1}, who='Ada', wait=system.return_when.ALL_ENDED)
    template = this.task('REST', url='u', save=False, init={'orphan': False})
    children = [template.clone(path=path, wait=False) for path in inputs['paths']]
    this.wait_for(*children, child, return_when=flow_api.ReturnWhen.FIRST_ENDED, timeout=1.5)
    with this.lock('x', timeout=3), system.setting('y'):
        this.sleep_until(this.now() + datetime.timedelta(hours=1))
    system.setting('z', value=1).set(value=2).save().list_append(3)
    text: str = system.file('a', content='x').save_text_content('y').get_text_content()
    sizes = [file.content_size_bytes() for file in system.files(dir='d', glob='*')]
    answer = this.message('s', request='q').wait().get('response')['string']
    try:
        this.using('wrap').connect('c', timeout=3)
    except LockTimeoutError:
        raise
    except flow_api.DependencyFailedError as error:
        this.log(error.execution.get('status'), level='ERROR', text=text, sizes=sizes, answer=answer)
        return this.error('no')
    host: object = this.step('host', lambda: 'a')
    system.vault_config('v').write_secret('p', {'k': host})
    return this.success('all done')
"""
BAD = """
import flow_api


def handler(system: flow_api.System, this: flow_api.Execution) -> None:
    this.fow('hello')
    system.seting('x')
    this.sleep('long')
    this.flow('x', run='yes')
    system.file('a').save_text_content(b'')
    flow_api.LockTimeoutEror
    this._channel
    return this.success()
"""


def checked(folder, flow):
    """Run mypy as an editor would, with the stubs of ``headrace init``, and return what it says, line by line."""
    pytest.importorskip("mypy")
    assert typings.main([str(folder)]) == 0
    (folder / "flow.py").write_text(flow)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-incremental", "flow.py"]
    environment = {"MYPYPATH": "typings", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_page_is_what_the_docstrings_say():
    assert PAGE.read_text() == typings.page(), "run: python -m headrace.daemon.typings --page > docs/flow-api.md"


def test_a_good_flow_satisfies_a_strict_checker(tmp_path):
    assert checked(tmp_path, GOOD) == []


def test_a_bad_flow_is_told_line_by_line(tmp_path):
    said = checked(tmp_path, BAD)
    lines = [int(line.split(":")[1]) for line in said if ": error:" in line]
    assert lines == [6, 7, 8, 9, 10, 11, 12], said
    assert any('"Execution" has no attribute "fow"' in line for line in said)


@pytest.mark.parametrize(("name", "code"), typings.examples(), ids=[name for name, _ in typings.examples()])
def test_an_example_is_the_body_of_a_handler(name, code):
    compile(f"def handler(system, this, inputs):\n{textwrap.indent(code, '    ')}\n", name, "exec")


def test_there_are_examples_where_they_help():
    named = {name for name, _ in typings.examples()}
    assert len(named) == len(typings.examples()) > 50
    assert {"Execution.flow", "Execution.using", "Execution.clone", "System.message", "File.save"} <= named


def test_every_public_method_stands_on_the_page():
    text = PAGE.read_text()
    for title, owner in (("Execution", flow_api.Execution), ("System", flow_api.System), ("File", flow_api.File)):
        inherited = dir(flow_api.Record) if title == "File" else dir(object)
        for name, member in inspect.getmembers(owner, inspect.isfunction):
            if not name.startswith("_") and name not in inherited and member.__name__ == name:
                assert f"### {title}.{name}\n" in text


def test_every_exception_stands_on_the_page():
    text = PAGE.read_text()
    assert all(f"| `{name}` |" in text for name in flow_api.exceptions.__all__)


def test_the_stubs_say_nothing_private():
    for text in typings.files().values():
        assert "_channel" not in text and "def __init__" not in text
        compile(text, "stub", "exec")


def test_other_arguments_are_answered_with_how_it_is_called(capsys):
    assert typings.main([]) == typings.main(["--what"]) == 2
    assert "usage:" in capsys.readouterr().err
    assert typings.main(["--page"]) == 0
    assert capsys.readouterr().out == typings.page()
