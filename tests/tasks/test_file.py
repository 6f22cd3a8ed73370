"""FILE: kept files copied, packed, unpacked, checked and written."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
import uuid
import zipfile

import pytest

from headrace.engine import errors
from headrace.tasks import archives, file
from tests.support import machines


@pytest.fixture(autouse=True)
def unique(context):
    """What a task starts carries its id, and is ended by it, also what tests beside this one start."""
    context.execution_id = uuid.uuid4().hex


@pytest.fixture
def store(context):
    """Write kept files, or return what there is."""

    def put(**files: bytes) -> dict[str, bytes]:
        for name, content in files.items():
            path = context.files.root / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return {name: (context.files.root / name).read_bytes() for name in context.files.names()}

    return put


@pytest.fixture
def failure(call):
    async def failed(**inputs) -> str:
        with pytest.raises(errors.TaskFailed) as raised:
            await call("FILE", **inputs)
        return raised.value.message

    return failed


async def test_a_file_is_copied(call, store):
    store(a=b"hallo")
    assert await call("FILE", command="copy", src="headrace:a", dst="headrace:x/b") == {"size": 5}
    assert store()["x/b"] == b"hallo"


async def test_a_file_is_moved_and_only_that_may_not_be_repeated(call, store, failure, tasks):
    store(a=b"hallo", x__b=b"old")
    given = {"command": "move", "src": "headrace:a", "dst": "headrace:x/b"}
    assert await call("FILE", **given) == {"size": 5}
    assert store() == {"x/b": b"hallo"}
    assert await failure(**given) == "FILE move: cannot move the file 'a': there is no file a"
    assert not tasks.prepare("FILE", json.dumps(given).encode()).idempotent
    assert tasks.prepare("FILE", json.dumps({**given, "command": "copy"}).encode()).idempotent


@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tgz"])
async def test_files_are_packed_and_unpacked(call, store, ending):
    store(in__a=b"1" * 1000, in__sub__b=b"\0\xff")
    given = {"src": ["headrace:in/a", "headrace:in/sub/b"], "dst": f"headrace:x.{ending}"}
    made = await call("FILE", command="archive", **given)
    packed = store()[f"x.{ending}"]
    assert made == {"size": len(packed)} and len(packed) < 600
    await call("FILE", command="archive", **given)
    assert store()[f"x.{ending}"] == packed  # the same files, the same archive
    output = await call("FILE", command="extract", src=f"headrace:x.{ending}", dst="headrace:out")
    assert output == {"size": 1002, "files": ["headrace:out/a", "headrace:out/sub/b"]}
    assert store()["out/sub/b"] == b"\0\xff"


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha384", "sha512", "blake2b"])
async def test_checksums(call, failure, store, algorithm):
    store(a=b"hallo")
    right = hashlib.new(algorithm, b"hallo").hexdigest()
    look = {"command": "checksum", "src": "headrace:a", "algorithm": algorithm}
    assert await call("FILE", **look, expected=right.upper()) == {"size": 5, "checksum": right}
    said = await failure(**look, expected="0")
    assert said == f"FILE checksum: the checksum is {right}, not the one that is expected"


def zipped(*names: str, content: bytes = b"x", link: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            about = zipfile.ZipInfo(name)
            about.external_attr = (0o120777 if link else 0o100644) << 16
            made.writestr(about, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def tarred(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as made:
        for one in members:
            made.addfile(one, io.BytesIO(b"x" * one.size))
    return buffer.getvalue()


def member(name: str, **about) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in about.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.zip", zipped("fine", "../evil"), "a name in it leaves its folder or cannot be used"),
        ("x.zip", zipped("/etc/passwd"), "a name in it leaves its folder or cannot be used"),
        ("x.zip", zipped("a\\b"), "a name in it leaves its folder or cannot be used"),
        ("x.tgz", tarred(member("a/../../b")), "a name in it leaves its folder or cannot be used"),
        ("x.zip", b"PK nonsense", "it is damaged, encrypted, or no such archive"),
        ("x.tgz", b"nonsense", "it is damaged, encrypted, or no such archive"),
        ("x.tgz", tarred(member("a", size=100))[:-30], "it is damaged, encrypted, or no such archive"),
        ("x.zip", zipped("a", content=bytes(2000)), "its files are larger than 0 MiB together"),
        ("x.zip", zipped(*map(str, range(6))), "it has more than 5 files"),
    ],
    ids=range(9),
)
async def test_an_archive_that_means_harm_leaves_nothing(failure, store, monkeypatch, name, content, message):
    monkeypatch.setattr(archives, "BYTES_MAX", 1000)
    monkeypatch.setattr(archives, "FILES_MAX", 5)
    store(**{name: content})
    said = await failure(command="extract", src=f"headrace:{name}", dst="headrace:out")
    assert said == f"FILE extract: cannot take '{name}' apart: {message}"
    assert list(store()) == [name]


async def test_links_and_devices_in_archives_are_left_out(call, store):
    link = member("l", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    hard, device = member("h", type=tarfile.LNKTYPE, linkname="l"), member("d", type=tarfile.CHRTYPE)
    store(**{"x.tgz": tarred(link, hard, device, member("a")), "y.zip": zipped("l", link=True)})
    assert (await call("FILE", command="extract", src="headrace:x.tgz", dst="headrace:o"))["files"] == ["headrace:o/a"]
    assert (await call("FILE", command="extract", src="headrace:y.zip", dst="headrace:o"))["files"] == []


async def test_templates_are_filled(call, store):
    store(t=b"{% for one in names %}{{ loop.index }}. {{ one }}\n{% endfor %}")
    given = {"command": "template", "values": {"names": ["ü", "<b>"]}}
    output = await call("FILE", **given, template="headrace:t")
    assert output == {"size": 13, "text": "1. ü\n2. <b>\n"}
    assert "text" not in await call("FILE", **given, template="headrace:t", autoescape=True, dst="headrace:out")
    assert store()["out"] == "1. ü\n2. &lt;b&gt;\n".encode()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for %}", "line 1: Expected an expression, got 'end of statement block'"),
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe."),
        ("{{ values.append(1) }}", "'values' is undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ range(10000000) }}", "Range too big."),
        ("{% include 'x' %}", "no loader for this environment specified"),
        ("{{ 'x' * 10**10 }}", "MemoryError"),
    ],
    ids=range(8),
)
async def test_a_template_that_cannot_be_filled_says_why(failure, template, message):
    said = await failure(command="template", template=template)
    assert said.startswith("FILE template: the template cannot be filled: ") and message in said


async def test_a_template_that_never_ends_ends_with_the_task(call):
    loop = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    assert machines.processes_with("headrace.tasks.rendering") == []
    work = asyncio.create_task(call("FILE", command="template", template=loop))
    while not machines.processes_with("headrace.tasks.rendering"):
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert machines.processes_with("headrace.tasks.rendering") == []


async def test_a_template_that_grows_and_grows_is_a_failure(failure, monkeypatch):
    monkeypatch.setattr(file, "TEXT_BYTES_MAX", 10000)
    loop = "{% for a in range(90000) %}aaaaaaaaaa{% endfor %}"
    assert "the program wrote more than 0 MiB" in await failure(command="template", template=loop)


async def test_files_that_are_not_there(failure):
    assert await failure(command="copy", src="headrace:a", dst="headrace:b") == (
        "FILE copy: cannot read the file 'a': there is no file a"
    )
    assert "leaves the store" in await failure(command="template", template="x", dst="headrace:../x")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"command": "copy", "src": "headrace:a"}, "FILE needs the input 'dst': the command copy is about it"),
        (
            {"command": "copy", "src": "a", "dst": "headrace:b"},
            "FILE cannot use the input 'src': expected headrace:<path>",
        ),
        (
            {"command": "copy", "src": ["headrace:a"], "dst": "headrace:b"},
            "FILE cannot use the input 'src': expected one file",
        ),
        (
            {"command": "archive", "src": "headrace:a", "dst": "headrace:b.zip"},
            "FILE cannot use the input 'src': expected a list of files",
        ),
        (
            {"command": "archive", "src": ["headrace:a"], "dst": "headrace:b.rar"},
            "FILE cannot use the input 'dst': expected a name that ends with .zip, .tar.gz or .tgz",
        ),
        ({"command": "template"}, "FILE needs the input 'template': the command template is about it"),
        (
            {"command": "burn", "src": "headrace:a", "dst": "headrace:b"},
            "FILE cannot use the input 'command': it is not one of the values that are possible",
        ),
    ],
    ids=range(7),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("FILE", json.dumps(inputs).encode())
    assert refused.value.message == message
