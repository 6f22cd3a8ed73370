"""Files: content as text, bytes and base64, both ways."""

import base64

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.engine.guest import flow_api


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def written(content: bytes, name="a.txt"):
    return ("file.write", name, {"content": encoded(content)})


@pytest.mark.parametrize(
    ("write", "content"),
    [
        (lambda file: file.save_text_content("Grüß"), "Grüß".encode()),
        (lambda file: file.save_bytes_content(b"\xff\x00"), b"\xff\x00"),
        (lambda file: file.save_base64_content("/wA="), b"\xff\x00"),
        (lambda file: file.save_base64_content("/w\nA=\n"), b"\xff\x00"),
        (lambda file: file.save(content="text"), b"text"),
        (lambda file: file.save(content=b"\xff"), b"\xff"),
        (lambda file: file.save(content="text", convert_binary=True), b"text"),
        (lambda file: file.save(content="/wA=", convert_binary=False), b"\xff\x00"),
        (lambda file: file.save(text="text"), b"text"),
        (lambda file: file.set(content="later").save(), b"later"),
        (lambda file: file.save(content=""), b""),
    ],
)
def test_content_is_written_in_one_call_however_it_is_given(system, daemon, write, content):
    file = system.file("a.txt")
    assert write(file) is file
    assert daemon.call == written(content)


def test_content_is_read_as_what_is_wanted(system, daemon):
    daemon.answers("file.read", {"content": encoded("Grüß".encode())}).answers("file.get", {"size": 6})
    file = system.file("a.txt")
    assert file.get_text_content() == file.get("text") == file.get("content") == "Grüß"
    assert file.get_bytes_content() == "Grüß".encode()
    assert file.get_base64_content() == encoded("Grüß".encode())
    assert file.content_size_bytes() == 6
    assert daemon.calls[0] == ("file.read", "a.txt", {})
    assert daemon.calls[-1] == ("file.get", "a.txt", {"by": "name", "fields": ["size"]})


def test_content_that_is_no_text_is_base64_and_says_so_where_text_was_asked_for(system, daemon):
    daemon.answers("file.read", {"content": "/wA="})
    file = system.file("a.bin")
    assert file.get("content") == "/wA="
    for read in (file.get_text_content, lambda: file.get("text")):
        with pytest.raises(flow_api.InvalidInputError, match=r"a\.bin.*get_bytes_content"):
            read()


def test_content_and_fields_come_together(system, daemon):
    daemon.answers("file.read", {"content": encoded(b"x")}).answers("file.get", {"size": 1})
    file = system.file("a.txt")
    assert file.get("size", "content") == (1, "x")
    file.save(content="y", description="d")
    assert daemon.calls[2:] == [
        written(b"y"),
        ("file.save", "a.txt", {"by": "name", "fields": {"description": "d"}}),
    ]
    assert file.get("content") == "x"  # read anew


def test_a_file_is_made_by_its_path_or_name_and_without_content_only_pointed_at(system, daemon):
    system.file(path="a.txt", content="x")
    system.file(name="a.txt", text="y")
    system.file("a.txt", content="z")
    system.file(path="a.txt")
    system.file(name="a.txt")
    assert daemon.calls == [written(b"x"), written(b"y"), written(b"z")]


def test_a_file_is_renamed_by_saving_another_name(system, daemon):
    daemon.answers("file.save", {"id": "f1", "name": "b.txt"})
    system.file("a.txt").save(name="b.txt").save_text_content("x")
    assert daemon.calls == [("file.save", "a.txt", {"by": "name", "fields": {"name": "b.txt"}}), written(b"x", "b.txt")]


@pytest.mark.parametrize(
    "write",
    [
        lambda system: system.file("a").save_base64_content("no base64!"),
        lambda system: system.file("a").save(content="%", convert_binary=False),
        lambda system: system.file("a").save_bytes_content("text"),
        lambda system: system.file("a").save_text_content(b"bytes"),
        lambda system: system.file("a").save(content=7),
        lambda system: system.file(content="for whom?"),
    ],
)
def test_what_cannot_be_content_is_refused_here(system, daemon, write):
    with pytest.raises(flow_api.InvalidInputError):
        write(system)
    assert daemon.calls == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_bytes_survive_the_way_to_the_daemon_and_back(system, daemon, content):
    file = system.file("a")
    file.save_bytes_content(content)
    daemon.answers("file.read", {"content": daemon.calls[-1][2]["content"]})
    assert file.get_bytes_content() == content
    assert file.save_base64_content(file.get_base64_content()).get_bytes_content() == content
