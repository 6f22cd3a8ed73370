"""A new repository of flows: its files, and how they get there.

Owns: two flows to begin with, their tests, a setting, what editors need, a check before each commit and on the forge.
Refuses: to overwrite anything, and to make a repository inside of another one. Called by ``headrace init``; no daemon
is needed for it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ..engine import errors
from . import typings

HOOK = ".githooks/pre-commit"

_HELLO = '''# /// script
# requires-python = ">=3.11"
# [tool.headrace]
# description = "Greets somebody, as the setting example says"
# timeout = "1m"
# ///
"""A first flow. Try:  headrace run hello name=Ada"""

import flow_api


def handler(system: flow_api.System, this: flow_api.Execution, inputs: dict):
    greeting = system.setting('example').get('value')['greeting']
    name = inputs.get('name', 'World')
    this.log(f'{greeting} {name}')
    this.set_output('greeting', f'{greeting} {name}')
    return this.success(f'greeted {name}')
'''

_ASK = '''# /// script
# [tool.headrace]
# description = "Asks a person and waits for the answer"
# ///
"""A flow that asks. Run it, then:  headrace messages  and  headrace answer latest"""

import flow_api

FORM = {
    'type': 'object',
    'properties': {
        'about': {'element': 'markdown', 'description': 'Where shall this version go?', 'order': 1},
        'target': {'element': 'dropdown', 'enum': ['test', 'production'], 'default': 'test', 'order': 2},
        'reason': {'element': 'string', 'label': 'Reason', 'example': 'fixes a typo', 'order': 3},
        'deploy': {'element': 'submit', 'label': 'Deploy', 'required': ['target', 'reason'], 'order': 4},
        'stop': {'element': 'submit', 'label': 'Not now', 'required': [], 'order': 5},
    },
}


def handler(system: flow_api.System, this: flow_api.Execution):
    answer = this.message('Deploy?', body=FORM).get('response')
    if answer.get('stop'):
        return this.success('not now')
    this.set_output('target', answer['target'])
    return this.success(f'would deploy to {answer["target"]}: {answer["reason"]}')
'''

_TESTS = '''"""Tests of the flows here. Run them:  headrace test

Each test has a daemon of its own. What a flow asks the world to do is answered by fake_task, see docs/testing.md."""


def test_hello_greets_as_the_setting_says(run_flow):
    assert run_flow('hello', name='Ada').output == {'greeting': 'Hello Ada'}


def test_hello_takes_another_greeting(run_flow, rehearsal):
    rehearsal.set_setting('example', {'greeting': 'Good morning'})
    assert run_flow('hello').message == 'greeted World'
    assert run_flow('hello').log == ('Good morning World',)


def test_ask_does_nothing_when_told_so(run_flow):
    assert run_flow('ask', answers=[{'stop': True}]).message == 'not now'
'''

_SETTING = """# The value of the setting `example`. Flows read it with system.setting('example').get('value').
# What is saved at run time counts until this file changes.
greeting: Hello
"""

_PYPROJECT = """# For editors and type checkers alone: what `import flow_api` means. Headrace does not read this file.
[tool.pyright]
include = ["."]
stubPath = "typings"
pythonVersion = "3.11"

[tool.mypy]
mypy_path = "typings"
python_version = "3.11"
"""

_GITHUB = """# What `headrace check` finds stands beside the lines, before a daemon fetches the push; then the tests.
name: check
on: [push, pull_request]
permissions:
  contents: read
  security-events: write
jobs:
  check:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      - run: pip install headrace pytest
      - run: headrace check --format sarif > check.sarif
      - uses: github/codeql-action/upload-sarif@v3
        if: always()
        with:
          sarif_file: check.sarif
      - run: headrace test
"""

_GITLAB = """# What `headrace check` finds stands in the merge request, as the results of tests; so do the tests.
check:
  image: python:3.11
  script:
    - pip install headrace pytest
    - headrace check --format junit > check.xml
    - headrace test . --junitxml tests.xml
  artifacts:
    when: always
    reports:
      junit: [check.xml, tests.xml]
"""

_PRE_COMMIT = """# For those who use pre-commit; .githooks/pre-commit does the same without it.
repos:
  - repo: local
    hooks:
      - id: headrace-check
        name: headrace check
        entry: headrace check
        language: system
        pass_filenames: false
        always_run: true
"""

#: Checks what is about to be committed, which need not be what lies in the folder.
_HOOK = """#!/bin/sh
# Refuses a commit that breaks a flow or a declaration. Install it:  git config core.hooksPath .githooks
set -eu
staged=$(mktemp -d)
trap 'rm -rf "$staged"' EXIT
git checkout-index --all --prefix="$staged/"
unset $(git rev-parse --local-env-vars)
headrace check "$staged" >&2
"""

_README = """# Flows

Every `.py` file here with a `handler` is a flow; its name is its path without `.py`.

| file | is |
| --- | --- |
| `hello.py` | a flow with metadata, inputs and an output |
| `ask.py` | a flow that asks a person with a form |
| `tests/` | tests of the flows, for `headrace test` |
| `settings/example.yaml` | a setting that flows share |
| `typings/` | what editors know of `flow_api` |
| `.githooks/pre-commit` | refuses a commit that breaks a flow |
| `.pre-commit-config.yaml` | the same, for those who use pre-commit |
| `.github/workflows/check.yml`, `.gitlab-ci.yml` | the same on the forge, with file and line |

    headrace up .                 # runs the daemon on this folder: what is saved counts at once
    headrace run hello name=Ada
    headrace run ask --no-wait
    headrace answer latest

    headrace test                            # the tests; no daemon is needed
    headrace check                           # what a push would come to: file, line and reason
    git config core.hooksPath .githooks      # from now on before every commit

From a daemon elsewhere people deploy by `git push`: `headrace up URL --ref main`.
"""

_IGNORED = """.headrace/
__pycache__/
*.pyc
.pytest_cache/
"""

_FIRST_COMMIT = "Begin with two flows and a setting"
#: Who commits where git does not know its user yet.
_NOBODY = ("-c", "user.name=headrace", "-c", "user.email=headrace@localhost")
#: Set inside of hooks, they would lead to another repository.
_OTHER_REPOSITORY = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"})


def files() -> Mapping[str, str]:
    """Return the files of a new repository: path → text."""
    return {
        "hello.py": _HELLO,
        "ask.py": _ASK,
        "tests/test_flows.py": _TESTS,
        "settings/example.yaml": _SETTING,
        "pyproject.toml": _PYPROJECT,
        HOOK: _HOOK,
        ".pre-commit-config.yaml": _PRE_COMMIT,
        ".github/workflows/check.yml": _GITHUB,
        ".gitlab-ci.yml": _GITLAB,
        "README.md": _README,
        ".gitignore": _IGNORED,
        **typings.files(),
    }


def write(folder: Path) -> list[str]:
    """Write the files into ``folder`` and return their paths; raises ``InvalidRequest`` rather than overwrite one."""
    texts = files()
    if folder.exists() and not folder.is_dir():
        raise errors.InvalidRequest(f"{folder} is not a directory")
    if there := [path for path in texts if (folder / path).exists() or (folder / path).is_symlink()]:
        raise errors.InvalidRequest(
            f"{folder} has {', '.join(there)} already; nothing was written", hint="name an empty or a new directory"
        )
    for path, text in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
            if path == HOOK:
                target.chmod(0o755)  # else git passes over it
    return list(texts)


def commit(folder: Path, paths: list[str]) -> str:
    """Make a git repository of ``folder`` with a first commit of ``paths``; return why not, if it was not done."""
    try:
        if _git(folder, "rev-parse", "--is-inside-work-tree").returncode == 0:
            return "it is part of a git repository already; commit it there"
        _git(folder, "init", "--quiet", "--initial-branch=main").check_returncode()
        _git(folder, "add", "--", *paths).check_returncode()
        known = _git(folder, "config", "user.email").returncode == 0
        identity = () if known else _NOBODY
        _git(folder, *identity, "commit", "--quiet", "--message", _FIRST_COMMIT).check_returncode()
    except FileNotFoundError:
        return "git is not installed"
    except subprocess.CalledProcessError as error:
        return f"git says: {error.stderr.strip() or error.returncode}"
    return ""


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in _OTHER_REPOSITORY}
    return subprocess.run(
        ["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
