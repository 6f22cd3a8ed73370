"""docs/cli.md: it is what the verbs say of themselves, and what `--json` prints is what stands there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import msgspec
import pytest

from headrace.daemon import shapes
from headrace.daemon.cli import main, manual
from tests.support.daemons import Daemon, until

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"
#: How each verb of the table is typed, once for each of its shapes; words in capitals stand for what there is.
TYPED = {
    "run": "run hello name=Ada",
    "try": "try FILE",
    "flow edit": "flow edit hello",
    "flow history": "flow history hello",
    "flow rename": "flow rename spare renamed",
    "flow show": "flow show hello",
    "show": "show ID",
    "logs": "logs ID",
    "tree": "tree ID",
    "cancel": ("cancel WAITING", "cancel --failed --dry-run"),
    "pause": "pause WAITING",
    "resume": "resume WAITING",
    "rerun": ("rerun ID", "rerun --failed --dry-run"),
    "acknowledge": ("acknowledge FAILED", "acknowledge --failed --dry-run"),
    "messages show": "messages show MESSAGE",
    "answer": "answer MESSAGE string=yes",
    "settings set": "settings set limits 3",
    "settings show": "settings show limits",
    "files set": "files set a.txt @FILE",
    "connections set": "connections set db connection_type=REST value:={}",
    "connections show": "connections show db",
    "webhooks set": "webhooks set told flow_name=hello auth=none",
    "webhooks show": "webhooks show told",
    "webhooks test": "webhooks test told",
    "schedules set": "schedules set nightly flow_name=hello cron=@daily",
    "schedules show": "schedules show nightly",
    "vault-configs set": "vault-configs set main url=https://vault.example token=secret.env(X)",
    "vault-configs show": "vault-configs show main",
    "backup": "backup BACKUP",
    "records prune": "records prune --dry-run",
    "replay": "replay ID",
    "sync": ("sync", "sync --dry-run"),
    "tasks": ("tasks", "tasks REST"),
    "token create": "token create ci --role viewer",
}
#: A record has the fields of its kind besides, and what was committed those of the flow as soon as it is published.
OPEN = (shapes.Record, shapes.Committed)
#: Tried elsewhere: what is restored needs a repository or an empty directory, what is salvaged a daemon that is gone.
ELSEWHERE = {"flow restore", "restore", "records salvage", "flow edit"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    home = tmp_path_factory.mktemp("cli")
    flows = {
        "hello": "def handler(system, this, inputs):\n    this.log('hi')\n    return inputs\n",
        "spare": "def handler(system, this):\n    pass\n",
        "fails": "def handler(system, this):\n    raise ValueError('no')\n",
        "asks": "def handler(system, this):\n    this.message('Well?', request='yes or no')\n",
        "locks": "def handler(system, this):\n    with this.lock('press'):\n        this.sleep(600)\n",
    }
    (home / "flows").mkdir()
    for name, text in flows.items():
        (home / "flows" / f"{name}.py").write_text(text)
    (home / "script.py").write_text(flows["hello"])
    daemon = Daemon(home / "s", home / "flows").start()
    yield daemon
    assert daemon.stop() == 0


@pytest.fixture(scope="module")
def words(daemon):
    """What stands for what there is."""
    waiting = daemon.client.run("locks")["id"]
    daemon.client.run("asks")
    message = until(lambda: daemon.client.messages(pending=True), "it asks")[0]["id"]
    until(lambda: daemon.client.locks(), "it has the lock")
    failed = daemon.run("fails")["id"]
    return {
        "ID": daemon.run("hello")["id"],
        "WAITING": waiting,
        "FAILED": failed,
        "MESSAGE": message,
        "BACKUP": str(daemon.state.parent / "backup.tar"),
        "FILE": str(daemon.state.parent / "script.py"),
        "@FILE": f"@{daemon.state.parent / 'script.py'}",
    }


def printed(daemon: Daemon, command: str, words: dict[str, str], capsys: pytest.CaptureFixture[str]) -> list[Any]:
    typed = [words.get(word, word) for word in command.split()]
    main.main(["--state", str(daemon.state), *typed, "--json"])
    out, err = capsys.readouterr()
    assert out, err
    return [json.loads(line) for line in out.splitlines()] if typed[0] == "logs" else [json.loads(out)]


def test_the_page_is_what_the_verbs_say():
    done = subprocess.run(
        [sys.executable, "-m", "headrace.daemon.cli.manual"], capture_output=True, text=True, check=True
    )
    assert DOCUMENT.read_text() == done.stdout, "python -m headrace.daemon.cli.manual > docs/cli.md"


def test_every_verb_with_json_stands_in_the_table_and_no_other():
    with_json = {
        words for words, command in manual.verbs(main.headrace) if any(p.name == "as_json" for p in command.params)
    }
    assert with_json == manual.OUTPUTS.keys()


def test_every_reading_verb_has_json():
    without = {words for words, _ in manual.verbs(main.headrace)} - manual.OUTPUTS.keys()
    assert without == {
        *(
            "up",
            "init",
            "check",
            "unit",
            "test",
            "login",
            "logout",
            "openapi",
            "completion",
            "token revoke",
            "locks release",
        ),
        *("flow delete", "records export", "records reindex", "files show", "webhooks sign"),
        *(f"{plural} delete" for plural in ("settings", "files", "connections", "webhooks", "schedules")),
        "vault-configs delete",
    }


def test_every_verb_and_every_option_says_what_it_does():
    for words, command in manual.verbs(main.headrace):
        assert command.help, words
        for option in (p for p in command.params if isinstance(p, click.Option)):
            assert option.help, f"{words} --{option.name}"


@pytest.mark.parametrize("verb", [verb for verb in manual.OUTPUTS if verb not in ELSEWHERE])
def test_what_is_printed_has_the_shape_that_stands_there(daemon, words, verb, capsys):
    typed = TYPED.get(verb, verb)
    for command, shape in zip([typed] if isinstance(typed, str) else typed, manual.OUTPUTS[verb], strict=True):
        whole = get_origin(shape) is not shapes.Items
        one = shape if whole else get_args(shape)[0]
        for found in printed(daemon, command, words, capsys):
            msgspec.convert(found, shape, strict=True)
            for object_ in [found] if whole else found["items"]:
                assert one in OPEN or object_.keys() <= fields(one)


def fields(shape: type) -> set[str]:
    """What an object of a shape may have."""
    return set(msgspec.json.schema_components([shape])[1][shape.__name__]["properties"])
