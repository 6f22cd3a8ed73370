"""The verbs of who may do what: log in from afar, tokens, the audit log."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def headrace(workshop, tmp_path):
    """Run the command as somebody far away: with a home of their own, no daemon near."""

    def run(*args, stdin="", status=0, **environment):
        home = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE") and k != "STATE_DIRECTORY"}
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *args],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=kept | home | environment,
        )
        assert done.returncode == status, done
        return done

    return run


def test_a_token_is_made_used_from_afar_and_revoked(workshop, headrace, tmp_path):
    near, url = ("--state", str(workshop.daemon.state)), workshop.daemon.url
    token = headrace(*near, "token", "create", "far", "--role", "operator", "--flow", "i*").stdout.strip()
    headrace("flows", status=69)  # nobody is meant yet
    said = headrace("login", url, "--token-file", "-", stdin=token + "\n")
    assert f"logged in to {url} as far: read, run, for i*" in said.stderr and token not in said.stderr + said.stdout
    assert (tmp_path / "config/headrace/logins.json").stat().st_mode & 0o777 == 0o600
    assert json.loads(headrace("flows", "--json").stdout)["items"][0]["name"] == "idle"
    assert json.loads(headrace("run", "idle", "--json").stdout)["created_by"] == "far"
    headrace("token", "list", status=4)
    (listed,) = json.loads(headrace(*near, "token", "list", "--json").stdout)["items"]
    assert (listed["name"], listed["flows"]) == ("far", ["i*"]) and listed["last_used_at"]
    headrace(*near, "token", "revoke", "far")
    headrace("flows", status=4)
    headrace("logout")
    headrace("flows", status=69)
    headrace("logout", url, status=3)


def test_a_wrong_token_is_not_remembered_and_the_token_of_one_daemon_is_not_sent_to_another(workshop, headrace):
    headrace("login", workshop.daemon.url, "--token-file", "-", stdin="hr_wrong", status=4)
    headrace("flows", status=69)
    headrace("login", workshop.daemon.url, "--token-file", "-", stdin=workshop.daemon.token())
    elsewhere = workshop.daemon.url.replace("127.0.0.1", "localhost")
    headrace("flows", "--url", elsewhere, status=4)
    headrace("flows", HEADRACE_TOKEN="hr_wrong", status=4)  # what is said for this command counts


def test_the_audit_log_is_read_by_people(workshop, headrace):
    near = ("--state", str(workshop.daemon.state))
    headrace(*near, "token", "create", "watched", "--scope", "read")
    text = headrace(*near, "audit", "--limit", "5").stdout
    assert "/api/v1/tokens" in text and "admin" in text and "socket" in text
    headrace(*near, "token", "create", "nothing", status=2)
    headrace(*near, "audit", "--verify", "/not/there", status=2)
