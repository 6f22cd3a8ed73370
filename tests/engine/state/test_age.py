import sys

import pytest

from headrace.engine import errors
from headrace.engine.state.age import Keys

pyrage = pytest.importorskip("pyrage")


@pytest.fixture
def identity():
    return pyrage.x25519.Identity.generate()


class Repository:
    """Holds files, encrypted for some identities."""

    def __init__(self, *identities):
        self.recipients = [one.to_public() for one in identities]
        self.files = {}

    def add(self, name, text, **options):
        content = text if isinstance(text, bytes) else text.encode()
        self.files[name] = pyrage.encrypt(content, self.recipients, **options)

    def find(self, name):
        if name not in self.files:
            raise errors.NotFound(f"there is no file secrets/{name}")
        return self.files[name]


@pytest.fixture
def repository(identity):
    return Repository(identity)


@pytest.fixture
def keys(identity, repository, tmp_path):
    (tmp_path / "key.txt").write_text(f"# created: today\n# public key: {identity.to_public()}\n{identity}\n\n")
    return Keys(str(tmp_path / "key.txt"), {}, repository.find)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hunter2\n", "hunter2"),
        ("two\nlines\n\n", "two\nlines\n"),
        ("12345", "12345"),
        ("[1, 2]", "[1, 2]"),
        ("postgres://u:p@h/db", "postgres://u:p@h/db"),
        ("%broken: [yaml", "%broken: [yaml"),
        ('{"a": "\\ud83d\\ude00", "n": 1.5, "o": {"x": null}}', {"a": "😀", "n": 1.5, "o": {"x": None}}),
        ("password: hunter2\nport: 5432\nfloat: 1e3\non: true\nnone:\n", {
            "password": "hunter2", "port": 5432, "float": 1000.0, "on": True, "none": None,
        }),
        ("pin: 0123\nday: 2024-01-01\ntime: 12:30:00\nno: no\nhex: 0x1F\nunder: 1_000\n", {
            "pin": "0123", "day": "2024-01-01", "time": "12:30:00", "no": "no", "hex": "0x1F", "under": "1_000",
        }),
        ("key: |\n  a\n  b\nlist: [1, a]\n2: x\n", {"key": "a\nb\n", "list": [1, "a"], "2": "x"}),
        ("a: !!python/object/apply:os.getcwd []", "a: !!python/object/apply:os.getcwd []"),
        ("a: &x [1]\nb: [*x, *x]", "a: &x [1]\nb: [*x, *x]"),
        ("{}", {}),
    ],
)  # fmt: skip
def test_a_file_holds_an_object_or_a_text(keys, repository, text, value):
    repository.add("x.age", text)
    assert keys.value("x") == value
    assert keys.text("x.age") == text


def test_armoured_files_and_folders_will_do(keys, repository):
    repository.add("team/db-1.age", "hunter2", armored=True)
    assert keys.value("team/db-1") == "hunter2"


def test_the_identity_may_be_a_credential_of_the_service(identity, repository, tmp_path):
    (tmp_path / "age-identity").write_text(f"{identity}\n")
    repository.add("x.age", "hunter2")
    assert Keys("", {"CREDENTIALS_DIRECTORY": str(tmp_path)}, repository.find).value("x") == "hunter2"


def test_any_of_several_identities_will_do(identity, repository, tmp_path):
    (tmp_path / "keys").write_text(f"{pyrage.x25519.Identity.generate()}\n{identity}\n")
    repository.add("x.age", "hunter2")
    assert Keys(str(tmp_path / "keys"), {}, repository.find).value("x") == "hunter2"


@pytest.mark.parametrize("name", ["", "../x", "a/../b", "/etc/passwd", ".hidden", "a//b", "x\n"])
def test_a_name_that_is_a_path_elsewhere_is_refused(keys, name):
    with pytest.raises(errors.InvalidRequest, match="not a file of encrypted secrets"):
        keys.value(name)


def test_a_file_for_somebody_else_cannot_be_read_and_the_others_can(keys, repository):
    repository.add("x.age", "hunter2")
    theirs = Repository(pyrage.x25519.Identity.generate())
    theirs.add("theirs.age", "not yours")
    repository.files |= theirs.files
    with pytest.raises(errors.NotAllowed, match=r"secrets/theirs\.age cannot be decrypted with .*key\.txt"):
        keys.value("theirs")
    repository.files["junk.age"] = b"hunter2 in clear"
    with pytest.raises(errors.NotAllowed, match="cannot be decrypted") as caught:
        keys.value("junk")
    assert "hunter2" not in caught.value.message
    repository.add("binary.age", b"\xff\xfe")
    with pytest.raises(errors.InvalidRequest, match="UTF-8"):
        keys.value("binary")
    assert keys.value("x") == "hunter2"
    with pytest.raises(errors.NotFound):
        keys.value("nothing")


def test_a_passphrase_is_not_asked_for(keys, repository):
    repository.files["x.age"] = pyrage.passphrase.encrypt(b"hunter2", "correct horse")
    with pytest.raises(errors.NotAllowed, match="cannot be decrypted"):
        keys.value("x")


def test_a_missing_identity_is_named_and_never_made(repository, tmp_path):
    repository.add("x.age", "hunter2")
    with pytest.raises(errors.NotFound, match="there is no age identity") as caught:
        Keys("", {}, repository.find).value("x")
    assert "age-identity" in caught.value.hint
    with pytest.raises(errors.NotFound, match="key.txt cannot be read: FileNotFoundError"):
        Keys(str(tmp_path / "key.txt"), {}, repository.find).value("x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "# only a comment", "AGE-SECRET-KEY-1NOTREALLY", "ssh-ed25519 AAAA", "a\nb"])
def test_an_identity_file_that_is_none_is_said_so_without_showing_it(repository, tmp_path, content):
    (tmp_path / "key.txt").write_text(content)
    repository.add("x.age", "hunter2")
    with pytest.raises(errors.InvalidRequest, match="is not an age identity file") as caught:
        Keys(str(tmp_path / "key.txt"), {}, repository.find).value("x")
    assert "NOTREALLY" not in caught.value.message + caught.value.hint


def test_the_extra_is_named_where_it_is_missing(keys, repository, monkeypatch):
    repository.add("x.age", "hunter2")
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(errors.InvalidRequest, match="needs? the extra 'age'") as caught:
        keys.value("x")
    assert caught.value.hint == "pip install 'headrace[age]'"
