"""docs/access.md: its commands work, its lists are those of the code, and its examples have the shape of real ones."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.daemon import audit, limits, principals, written
from tests.support.daemons import Daemon

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "access.md").read_text()
EXAMPLES = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    home = tmp_path_factory.mktemp("docs")
    (home / "flows").mkdir()
    (home / "flows" / "idle.py").write_text("def handler(system, this):\n    return this.success()\n")
    daemon = Daemon(home / "s", home / "flows").start()
    yield daemon
    assert daemon.stop() == 0


def test_the_commands_for_tokens_work_in_their_order(daemon):
    typed = [line[2:] for line in re.findall(r"^\$ headrace token .*$", DOCUMENT, re.MULTILINE)]
    command = [sys.executable, "-m", "headrace", "--state", str(daemon.state)]
    create, list_, revoke = [
        subprocess.run([*command, *shlex.split(line)[1:]], capture_output=True, text=True, check=True) for line in typed
    ]
    assert create.stdout.startswith("hr_") and "ci" in list_.stdout and "is revoked" in revoke.stderr
    assert daemon.client.tokens() == []


def test_a_token_and_a_line_of_the_audit_log_look_as_shown(daemon):
    made = daemon.client.create_token("ci", ["operator"], flows=["deploy/*"], valid="90d")
    assert list(made) == list(EXAMPLES[0])
    assert made["scopes"] == EXAMPLES[0]["scopes"]
    assert list(EXAMPLES[1]) == list(audit.Entry.__struct_fields__)
    assert list(daemon.client.audit(1)[0]) == list(EXAMPLES[1])
    named = {
        name for row in re.findall(r"^\| (`[^|]*) \|", DOCUMENT, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert set(EXAMPLES[1]) - {"at"} <= named


def test_scopes_roles_and_limits_are_those_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \|", DOCUMENT.partition("| scope | lets |")[2].partition("\n\n")[0], re.MULTILINE)
    assert tuple(rows) == principals.SCOPES
    assert all(f"`{role}`" in DOCUMENT for role in principals.ROLES)
    assert limits.FAILURES_MAX == 10 and written.duration_s("5m") == limits.WITHIN_S
