"""Libraries of single task types: what is said when one is missing or broken."""

from __future__ import annotations

import importlib

import pytest

from headrace.engine import errors
from headrace.tasks import extras


def test_a_library_that_is_there_is_returned() -> None:
    assert extras.require("json.decoder", extra="x", task="X").JSONDecoder


def _said(module: str) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        extras.require(module, extra="mail", task="SMTP")
    assert failed.value.kind == "LibraryMissing"
    return failed.value.message


def test_a_missing_library_is_named_with_what_installs_it() -> None:
    assert _said("no_such_library") == (
        "SMTP needs the library no_such_library, which is not installed where the daemon runs: "
        "pip install 'headrace[mail]', then start the daemon again"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import what_it_needs", "it lacks what_it_needs"),
        ("raise ImportError('libz.so.9: not found')", "libz.so.9: not found"),
    ],
)
def test_a_broken_library_is_told_apart_from_a_missing_one(tmp_path, monkeypatch, text: str, why: str) -> None:
    (tmp_path / "half_there.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert _said("half_there") == (
        f"SMTP cannot use the library half_there ({why}): pip install --force-reinstall 'headrace[mail]'"
    )
