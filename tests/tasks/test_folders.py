"""The folders of tasks under way, and what a killed daemon left of them."""

from __future__ import annotations

import tempfile

import pytest

from headrace.tasks import folders


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A place for temporary files of this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def test_a_folder_is_for_this_user_alone_and_gone_after_the_block(temporary):
    async with folders.of_daemon(temporary / "state").opened("git") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "key").write_text("secret")
    assert list(temporary.iterdir()) == []


async def test_what_a_killed_daemon_left_goes_and_that_of_others_stays(temporary):
    one, other = folders.of_daemon(temporary / "one"), folders.of_daemon(temporary / "other")
    left = temporary / f"headrace-{one.owner}-git-12345678"
    (left / "sub").mkdir(parents=True)
    (left / "sub" / "key").write_text("secret")
    async with other.opened("git") as theirs:
        (temporary / f"headrace-{one.owner}-link").symlink_to(theirs)
        one.clear()
        assert theirs.exists() and not left.exists()
