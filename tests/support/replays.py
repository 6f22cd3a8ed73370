"""Replaying in tests: the verbs in this process, with their outcome as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from headrace.daemon.cli import main

COMMAND = [sys.executable, "-m", "headrace"]


def headrace(*args: object) -> tuple[int, str, str]:
    """Type a command and return its exit status and what it wrote."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main.main([str(arg) for arg in args])
    return status, out.getvalue(), err.getvalue()


def outcome(*args: object) -> dict[str, Any]:
    """Replay as ``args`` say and return the outcome, with its exit status."""
    status, out, err = headrace("replay", "--json", *args)
    assert out, err
    return {**json.loads(out), "status": status}


def checked(*args: object) -> dict[str, Any]:
    """Check records as ``args`` say and return the results, with the exit status."""
    status, out, err = headrace("check", "--records", "--format", "json", *args)
    assert out, err
    return {**json.loads(out), "status": status}


def export(daemon: Any, execution: str, to: Path) -> Path:
    """Export an execution and return the file."""
    to.write_bytes(b"".join(daemon.client.export(execution)))
    return to


def elsewhere(folder: Path, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Type a command where nothing is: an empty home and directory, no daemon, nothing of it in the environment."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE", "STATE_"))}
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    environment |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [str(word) for word in words], cwd=home, env=environment, capture_output=True, text=True, check=False, **options
    )
