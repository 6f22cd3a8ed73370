"""``headrace init``: what it writes, that it overwrites nothing, and what it does about git."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from headrace.daemon import scaffold
from headrace.daemon.cli import main


@pytest.fixture(autouse=True)
def _git_at_home(monkeypatch, tmp_path):
    """No git of the developer: neither its identity nor its hooks."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def git(folder, *words):
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_new_repository_has_its_files_and_a_first_commit(tmp_path, capsys):
    folder = tmp_path / "new" / "flows"
    assert main.main(["init", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(folder / path) for path in scaffold.files()]
    assert "first commit" in err and f"headrace up {folder}" in err
    assert git(folder, "status", "--porcelain") == ""
    assert set(git(folder, "ls-files").split()) == set(scaffold.files())
    assert git(folder, "log", "--format=%s") == "Begin with two flows and a setting\n"
    assert git(folder, "branch", "--show-current") == "main\n"


def test_every_file_can_be_read_by_what_reads_it():
    for path, text in scaffold.files().items():
        if path.endswith((".py", ".pyi")):
            ast.parse(text)
        assert text.endswith("\n")
        assert max(map(len, text.splitlines())) <= 120 or path.startswith("typings/")
        if path.endswith((".yml", ".yaml")):
            assert yaml.safe_load(text)
    assert tomllib.loads(scaffold.files()["pyproject.toml"])["tool"]["pyright"]["stubPath"] == "typings"


def test_nothing_is_overwritten_and_nothing_written_beside_it(tmp_path, capsys):
    (tmp_path / "hello.py").write_text("mine")
    assert main.main(["init", str(tmp_path)]) == 2
    assert "hello.py" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["hello.py"]
    assert main.main(["init", str(tmp_path / "hello.py")]) == 2


def test_other_files_may_be_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert main.main(["init"]) == 0
    assert "notes.txt" not in git(tmp_path, "ls-files").split()


def test_in_a_repository_no_other_one_is_made(tmp_path, capsys):
    git(tmp_path, "init", "--quiet")
    assert main.main(["init", str(tmp_path / "flows")]) == 0
    assert "part of a git repository" in capsys.readouterr().err
    assert not (tmp_path / "flows" / ".git").exists()


def test_without_git_the_files_are_there_all_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main.main(["init", str(tmp_path / "flows")]) == 0
    assert "git is not installed" in capsys.readouterr().err
    assert (tmp_path / "flows" / "hello.py").is_file()


def commit(folder, path, text):
    """Stage a file and commit it as a user does, with ``headrace`` on the path; return what came of it."""
    (folder / path).write_text(text)
    git(folder, "add", path)
    found = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "--message", path],
        cwd=folder,
        env={**os.environ, "PATH": found},
        capture_output=True,
        text=True,
    )


def test_the_hook_refuses_a_commit_that_breaks_something(tmp_path, capsys):
    folder = tmp_path / "flows"
    assert main.main(["init", str(folder)]) == 0
    assert main.main(["check", str(folder)]) == 0
    assert "problems: 0, warnings: 0" in capsys.readouterr().err
    git(folder, "config", "core.hooksPath", ".githooks")
    refused = commit(folder, "late.py", "def handler(system, this):\n    return (\n")
    assert refused.returncode != 0
    assert "late.py:2: syntax error" in refused.stderr
    # What lies in the folder helps nothing: what is staged counts.
    (folder / "late.py").write_text("def handler(system, this):\n    return 1\n")
    again = commit(folder, "notes.txt", "mine")
    assert (again.returncode != 0, "late.py:2: syntax error" in again.stderr) == (True, True)
    good = commit(folder, "late.py", "def handler(system, this):\n    return 1\n")
    assert good.returncode == 0, good.stderr
    assert git(folder, "log", "--format=%s").splitlines() == ["late.py", "Begin with two flows and a setting"]
    assert git(folder, "status", "--porcelain") == ""
