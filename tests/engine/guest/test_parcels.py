"""Folders on their way to another machine: the same bytes whatever made them, and nothing else is kept on a node."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine.guest import link, parcels, stock

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
)
TREES = st.recursive(
    st.binary(max_size=2000),
    lambda inner: st.dictionaries(NAMES.filter(lambda n: n not in (".", "..")), inner, max_size=5),
)


def write(path: Path, tree: bytes | dict) -> None:
    if isinstance(tree, bytes):
        path.write_bytes(tree)
        return
    path.mkdir()
    for name, inner in tree.items():
        write(path / name, inner)


def packed(folder: Path) -> bytes:
    return b"".join(parcels.pack(str(folder)))


@settings(deadline=None, max_examples=50)
@given(TREES.filter(lambda tree: isinstance(tree, dict)))
def test_a_folder_arrives_as_it_was(tmp_path_factory, tree):
    base = tmp_path_factory.mktemp("parcel")
    write(base / "sent", tree)
    for path in sorted((base / "sent").rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000.75))
    parcels.unpack(io.BytesIO(packed(base / "sent")), str(base / "came"))
    assert parcels.digest(str(base / "came")) == parcels.digest(str(base / "sent"))


def test_modes_links_and_seconds_arrive_and_nothing_tells_who_packed(tmp_path):
    sent = tmp_path / "sent"
    sent.mkdir()
    (sent / "program").write_text("#!/bin/sh\n")
    (sent / "program").chmod(0o755)
    (sent / "same").hardlink_to(sent / "program")
    (sent / "link").symlink_to("program")
    os.utime(sent / "program", (5, 1_234_567_890.5))
    parcels.unpack(io.BytesIO(packed(sent)), str(tmp_path / "came"))
    came = tmp_path / "came"
    assert (came / "program").stat().st_mode & 0o777 == 0o755
    assert (came / "link").readlink() == Path("program") and (came / "same").read_text() == "#!/bin/sh\n"
    assert (came / "program").stat().st_mtime == 1_234_567_890
    assert b"root" not in packed(sent)


@pytest.mark.parametrize("name", ["../out", "{}/out", "link/out", "below/../../out"])
def test_what_leads_out_of_the_folder_is_refused(tmp_path, name):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        link_out = tarfile.TarInfo("link")
        link_out.type, link_out.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link_out)
        archive.addfile(tarfile.TarInfo(name.format(tmp_path)), io.BytesIO(b""))
    with pytest.raises(tarfile.TarError, match="leads out"):
        parcels.unpack(io.BytesIO(stream.getvalue()), str(tmp_path / "in"))
    assert not (tmp_path / "out").exists()


def test_folders_are_unpacked_by_a_python_without_filters_too(tmp_path, monkeypatch):
    """Debian 12's is one: ``extract`` has no such parameter there."""

    def extract(self, member, path="", set_attrs=True, *, numeric_owner=False):
        return whole(self, member, path, set_attrs, numeric_owner=numeric_owner)

    whole = tarfile.TarFile.extract
    monkeypatch.setattr(tarfile.TarFile, "extract", extract)
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "out").symlink_to("/usr/bin/python3")
    parcels.unpack(io.BytesIO(packed(tmp_path / "sent")), str(tmp_path / "came"))
    assert (tmp_path / "came" / "out").readlink() == Path("/usr/bin/python3")


# -- what a node keeps -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    (made / "file").write_bytes(os.urandom(1000))
    return made


@pytest.fixture
def kept(tmp_path: Path) -> stock.Stock:
    return stock.Stock(stock.root(str(tmp_path / "stock")))


def nothing() -> None:
    pass


def test_a_folder_is_fetched_once(kept, folder):
    digest, fetched = parcels.digest(str(folder)), []

    def fetch() -> Iterator[bytes]:
        fetched.append(1)
        return parcels.pack(str(folder))

    paths = {kept.get(digest, fetch, nothing) for _ in range(3)}
    assert len(fetched) == len(paths) == 1
    assert (Path(*paths) / "file").read_bytes() == (folder / "file").read_bytes()


@pytest.mark.parametrize("spoil", ["flip", "cut", "other"])
def test_something_else_is_not_kept(kept, folder, spoil):
    digest, whole = parcels.digest(str(folder)), packed(folder)
    told = {
        "flip": whole[:600] + bytes([whole[600] ^ 1]) + whole[601:],
        "cut": whole[:700],
        "other": b"".join(parcels.pack(str(folder.parent))),
    }[spoil]
    with pytest.raises(stock.Spoilt):
        kept.get(digest, lambda: iter([told]), nothing)
    assert not Path(kept.where(digest)).exists()
    assert kept.get(digest, lambda: parcels.pack(str(folder)), nothing)


def test_who_comes_second_waits_and_does_something_meanwhile(kept, folder):
    digest, meanwhile, fetched = parcels.digest(str(folder)), [], []

    def slowly() -> Iterator[bytes]:
        fetched.append(1)
        for chunk in parcels.pack(str(folder)):
            time.sleep(0.3)
            yield chunk

    first = threading.Thread(target=lambda: kept.get(digest, slowly, nothing))
    first.start()
    time.sleep(0.1)
    kept.get(digest, slowly, lambda: meanwhile.append(1))
    first.join()
    assert len(fetched) == 1 and meanwhile


def test_a_stock_that_others_may_write_to_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PermissionError, match="others may write"):
        stock.root(str(tmp_path / "open"))


def test_what_nobody_used_for_long_goes_when_there_is_much(kept, folder, monkeypatch):
    monkeypatch.setattr(stock, "FOLDERS_MAX", 3)
    old = [Path(kept.where(f"{number:064}")) for number in range(4)]
    for path in old:
        path.mkdir()
        os.utime(path, (1, 1))
    kept.get(parcels.digest(str(folder)), lambda: parcels.pack(str(folder)), nothing)
    assert [path.exists() for path in old] == [False, False, True, True]


# -- messages ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([link.CHANNEL, link.OUT, link.PULSE]), st.binary(max_size=300))), st.data())
def test_messages_come_whole_however_they_are_cut(sent, data):
    stream = b"".join(link.message(*one) for one in sent)
    buffer, came = bytearray(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        buffer += stream[:cut]
        stream = stream[cut:]
        came += link.split(buffer)
    assert came == sent and not buffer


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\n\r\n", link.HEAD.pack(link.CHANNEL, 1 << 31)])
def test_what_is_no_message_ends_the_link(text):
    with pytest.raises(link.Broken):
        link.split(bytearray(text))
