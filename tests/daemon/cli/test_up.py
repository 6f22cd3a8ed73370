"""The verb ``up`` until the daemon itself begins: where settings come from and how wrong ones are refused."""

import subprocess
import sys

import pytest

from headrace.daemon.cli import main


@pytest.fixture
def up(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "headrace").mkdir(parents=True)

    def run(*args):
        status = main.main(["up", *map(str, args)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_every_setting_is_printed_with_its_origin(up, tmp_path, monkeypatch):
    (tmp_path / "config" / "headrace" / "headrace.toml").write_text("[run]\nmax_running = 7")
    monkeypatch.setenv("HEADRACE_LOG__LEVEL", "debug")

    status, out, err = up("https://bot:s3cret@forge.example/f.git", "--listen", "[::1]:0", "--print-config")

    assert (status, err) == (0, "")
    lines = {line.split(" = ")[0]: line for line in out.splitlines()}
    assert "s3cret" not in out
    assert lines["url"].endswith("# command line")
    assert lines["address"].startswith('address = "[::1]:0"')
    assert lines["max_running"].endswith(f"# {tmp_path}/config/headrace/headrace.toml")
    assert lines["level"].endswith("# HEADRACE_LOG__LEVEL")
    assert lines["policy"].endswith("# default")


def test_the_file_that_is_named_is_the_only_one_read(up, tmp_path):
    (tmp_path / "config" / "headrace" / "headrace.toml").write_text("nonsense")
    (tmp_path / "mine.toml").write_text("[source]\nurl = 'https://forge.example/f.git'\n[state]\ndirectory = '/srv'")

    status, out, _ = up("--config", tmp_path / "mine.toml", "--print-config")

    assert status == 0
    assert 'directory = "/srv"' in out


def test_the_state_directory_may_be_named_before_or_behind_the_verb(up, capsys):
    assert 'directory = "/srv/a"' in up("x", "--state", "/srv/a", "--print-config")[1]
    main.main(["--state", "/srv/b", "up", "x", "--print-config"])
    assert 'directory = "/srv/b"' in capsys.readouterr().out


def test_wrong_settings_stop_the_start_and_are_all_told(up):
    status, out, err = up("--listen", "0.0.0.0:80", "--print-config")

    assert (status, out) == (2, "")
    assert "source.url is missing" in err
    assert "listen.behind_proxy" in err


def test_a_file_that_cannot_be_read_is_named(up, tmp_path):
    assert up("x", "--config", tmp_path / "none.toml")[0] == 2
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    status, _, err = up("x", "--config", tmp_path / "bad.toml")
    assert status == 2
    assert "bad.toml cannot be read" in err
    assert up("x", "--config", tmp_path)[0] == 2


def test_a_daemon_takes_in_no_library_that_it_may_never_need():
    """Each of these is megabytes, and most daemons stay for weeks without a page, a schema or a list of packages."""
    code = (
        "import sys; from headrace.daemon.cli import main; "
        "main.main(['up', 'x', '--print-config']); print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "headrace.daemon.app" in loaded
    assert not loaded & {"rich", "jinja2", "jsonschema_rs", "packaging", "headrace.tasks.docker"}
