"""Under a locale that knows no letters but ASCII's, names and texts are what they are."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.repositories import Repository

NAME = "größe/часы ☕"
FLOW = """
import pathlib
def handler(system, this, inputs):
    print('gedrückt: ' + inputs['was'])
    this.log('geloggt: ☕')
    system.file('übersicht.txt').save_text_content('naïve ☕')
    here = pathlib.Path('notiz-☕.txt')
    here.write_text('ø', encoding='utf-8')
    return {'files': [one.name for one in pathlib.Path().glob('notiz*')], 'was': inputs['was'],
            'kept': system.file('übersicht.txt').get_text_content(), 'declared': system.setting('größe').get('value')}
"""


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"LANG": "", "LC_ALL": ""}],
                         ids=["C", "POSIX", "none"])  # fmt: skip
def test_a_daemon_without_a_locale_keeps_every_letter(make_daemon, tmp_path, variables):
    repository = Repository(tmp_path / "r")
    repository.write(f"{NAME}.py", FLOW)
    repository.write("settings/größe.yaml", "groß\n")
    repository.write("kaputt ☕.py", "def handler(system, this)\n    'ä'\n")
    repository.push("mit Umlauten: ä ☕")
    daemon = make_daemon(repository.url)
    daemon.environment = variables
    daemon.start()
    expected = {"files": ["notiz-☕.txt"], "was": "日本", "kept": "naïve ☕", "declared": "groß"}
    ended = daemon.run(NAME, was="日本")
    assert ended["output_value"] == expected, ended["message"]
    environment = {**os.environ, **variables}
    command = [sys.executable, "-m", "headrace", "--state", str(daemon.state)]
    for verb in (["logs", ended["id"]], ["flows"], ["flow", "history", NAME], ["files", "show", "übersicht.txt"]):
        told = subprocess.run([*command, *verb], capture_output=True, env=environment, check=True)
        assert told.stdout.decode(), verb
    logged = subprocess.run([*command, "logs", ended["id"]], capture_output=True, env=environment, check=True)
    assert "geloggt: ☕" in logged.stdout.decode() and "gedrückt: 日本" in logged.stdout.decode()
    ran = subprocess.run([*command, "run", NAME, "was=日本"], capture_output=True, env=environment, check=True)
    assert json.loads(ran.stdout)["kept"] == "naïve ☕"
    listed = subprocess.run([*command, "flows"], capture_output=True, env=environment, check=True).stdout.decode()
    assert NAME in listed and "kaputt ☕" in listed
    daemon.client.save_flow("neu ☕", "def handler(system, this):\n    return 'ß'\n")
    assert daemon.client.sync()["state"] == "ok"
    assert daemon.run("neu ☕")["status"] == "ENDED_SUCCESS"
    assert daemon.stop() == 0
