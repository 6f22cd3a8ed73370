import pytest

from headrace.engine import errors
from headrace.engine.state.files import Files


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path / "files")


def test_a_file_is_there_whole_or_not_at_all(files, tmp_path):
    writer = files.write("a/b.txt")
    writer.write(b"one ")
    with pytest.raises(errors.NotFound, match="no file 'a/b.txt'"):
        files.read("a/b.txt")
    writer.write(b"two")
    writer.commit()
    assert files.read("a/b.txt") == b"one two"
    writer.abort()
    given_up = files.write("a/b.txt")
    given_up.write(b"three")
    given_up.abort()
    assert files.read("a/b.txt") == b"one two"
    assert [path.name for path in (tmp_path / "files" / "a").iterdir()] == ["b.txt"]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a\0b", "x" * 2000])
def test_a_path_that_leaves_the_store_is_refused(files, path):
    with pytest.raises(errors.InvalidRequest):
        files.write(path)
