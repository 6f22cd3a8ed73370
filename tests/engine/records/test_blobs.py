"""Blobs: kept once under their hash, checked when read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from headrace.engine import errors, events
from headrace.engine.records import blobs


def test_what_was_put_is_got(tmp_path: Path) -> None:
    store = blobs.Blobs(tmp_path / "blobs")
    text = b'{"x":"' + b"y" * 100_000 + b'"}'
    blob = store.put(text)
    assert blob == events.Blob(hashlib.sha256(text).hexdigest(), len(text))
    assert store.get(blob) == text
    path = tmp_path / "blobs" / blob.sha256[:2] / blob.sha256[2:4] / blob.sha256
    assert path.stat().st_mode & 0o777 == 0o400


def test_putting_it_again_leaves_one_file(tmp_path: Path) -> None:
    store = blobs.Blobs(tmp_path)
    assert store.put(b'"same"') == store.put(b'"same"')
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_lost_blob_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match="abcd"):
        blobs.Blobs(tmp_path).get(events.Blob("abcd" * 16, 7))


def test_a_damaged_blob_is_never_returned_and_mended_by_the_next_put(tmp_path: Path) -> None:
    store = blobs.Blobs(tmp_path)
    blob = store.put(b'"value"')
    path = next(path for path in tmp_path.rglob("*") if path.is_file())
    path.chmod(0o600)
    path.write_bytes(b'"valuf"')
    with pytest.raises(errors.JournalCorrupt, match="hash in its name"):
        store.get(blob)
    assert store.put(b'"value"') == blob
    assert store.get(blob) == b'"value"'
