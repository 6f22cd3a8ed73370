import os
import stat

import pytest

from headrace.engine import errors
from headrace.engine.state.masks import Masks
from headrace.engine.state.sealed import Sealed


@pytest.fixture
def masks():
    return Masks()


@pytest.fixture
def sealed(tmp_path, masks):
    return Sealed(tmp_path / "sealed", masks)


def test_what_was_put_is_got_again_and_again(sealed, tmp_path, masks):
    value = '{"password":"hünter-two","n":[1.50,null]}'.encode()
    first, second = sealed.put(value, ["hünter-two"]), sealed.put(b"null")
    assert first != second
    again = Sealed(tmp_path / "sealed", masks)
    assert (again.get(first), again.get(second)) == (value, b"null")


def test_nobody_else_may_read_it(sealed, tmp_path):
    old = os.umask(0)
    try:
        id_ = sealed.put(b'"x"')
        (tmp_path / "open").mkdir(mode=0o777)
        Sealed(tmp_path / "open", Masks())
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "sealed").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "sealed" / id_).stat().st_mode) == 0o600


def test_the_secrets_in_it_are_masked_once_it_is_used(sealed, masks):
    id_ = sealed.put(b'{"a":"hunter-two"}', iter(["hunter-two"]))
    assert masks.text("hunter-two") == "hunter-two"
    sealed.get(id_)
    assert masks.text("hunter-two") == "[masked]"


def test_what_was_removed_is_gone(sealed):
    id_ = sealed.put(b"1")
    sealed.remove(id_)
    sealed.remove(id_)
    with pytest.raises(errors.NotFound, match="no sealed value"):
        sealed.get(id_)


@pytest.mark.parametrize(
    "id_", ["", "..", "../secret", "/etc/passwd", "a" * 31, "A" * 32, "a" * 32 + "\n", "a" * 31 + "/"]
)
def test_an_id_never_is_a_path(sealed, id_, tmp_path):
    (tmp_path / "secret").write_text('{"value":1}')
    with pytest.raises(errors.NotFound, match="cannot be the id"):
        sealed.get(id_)
    with pytest.raises(errors.NotFound):
        sealed.remove(id_)


def test_a_damaged_file_is_told_from_a_value(sealed, tmp_path):
    id_ = sealed.put(b'"long enough"', ["hunter-two"])
    path = tmp_path / "sealed" / id_
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(errors.NotFound, match="damaged") as caught:
        sealed.get(id_)
    assert "hunter-two" not in caught.value.message


def test_nothing_is_left_of_a_daemon_that_died_in_between(sealed, tmp_path, masks):
    (tmp_path / "sealed" / ".0123.tmp").write_text("half")
    id_ = sealed.put(b"1")
    Sealed(tmp_path / "sealed", masks)
    assert [one.name for one in (tmp_path / "sealed").iterdir()] == [id_]


def test_its_folder_has_a_durable_name_before_anything_is_put_there(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def noted(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    sealed = Sealed(tmp_path / "sealed", Masks())
    assert synced == [str(tmp_path)]
    sealed.put(b"null")
    assert synced[-1] == str(tmp_path / "sealed")


def test_a_full_disk_leaves_nothing_behind(sealed, tmp_path):
    with pytest.raises(OSError):
        _on_a_full_disk(lambda: sealed.put(b'"' + b"x" * 100_000 + b'"'))
    assert list((tmp_path / "sealed").iterdir()) == []


def _on_a_full_disk(write):
    import resource
    import signal

    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
