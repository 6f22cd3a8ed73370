"""Addresses and refs, before git sees them."""

from __future__ import annotations

import pytest

from headrace.tasks import git_address
from headrace.tasks.git_address import Address


@pytest.mark.parametrize(
    ("text", "address", "origin"),
    [
        ("https://h.example/a/b.git", Address("https", "https://h.example/a/b.git", "h.example", 443), "https://h.example"),
        ("https://h:8443/x", Address("https", "https://h:8443/x", "h", 8443), "https://h:8443"),
        ("https://me:p%40w@h/x", Address("https", "https://h/x", "h", 443, "me", "p@w"), "https://h"),
        ("https://token@h/x", Address("https", "https://h/x", "h", 443, "token"), "https://h"),
        ("http://[::1]:80/x", Address("http", "http://[::1]/x", "::1", 80), "http://[::1]"),
        ("ssh://git@h:2222/x", Address("ssh", "ssh://h:2222/x", "h", 2222, "git"), "ssh://h:2222"),
        ("git@h:group/x.git", Address("ssh", "h:group/x.git", "h", 22, "git"), "ssh://h"),
        (" h:x ", Address("ssh", "h:x", "h", 22), "ssh://h"),
    ],
)  # fmt: skip
def test_addresses_are_taken_apart(text: str, address: Address, origin: str) -> None:
    assert (git_address.parsed(text), git_address.parsed(text).origin) == (address, origin)


def test_a_file_address_has_no_host() -> None:
    assert git_address.parsed("file:///srv/x.git") == Address("file", "file:///srv/x.git")


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "/srv/x", "./x", "-x", "ext::sh -c x", "fd::3", "git://h/x", "ftp://h/x", "https://h", "https:///x",
        "https://h:0/x", "https://h:65536/x", "https://-h/x", "https://h/a b", "https://h/x\0", "https://h/x\ry",
        "ssh://u:p@h/x", "ssh://-u@h/x", "-u@h:x", "u@-h:x", "h:-x", "h::x//y", "file://host/x", "file:x", "https:/h/x",
        "https://a%0ab@h/x",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        git_address.parsed(text)


@pytest.mark.parametrize("ref", ["main", "feature/x-1", "v1.2.3", "refs/pull/1/head", "a" * 40, "ünder_score", "a@b"])
def test_names_git_could_have_pass(ref: str) -> None:
    assert git_address.is_ref(ref)


@pytest.mark.parametrize(
    "ref",
    ["", "-x", "--exec=x", "a b", "a..b", "a:b", "a~1", "a^", "a?", "a*", "a[b", "a\\b", "a@{1}", "a.lock", "a/.b",
     "a//b", "a/", "a.", "/a", "+a", "a\n", "a\x7f"],
)  # fmt: skip
def test_names_git_cannot_have_are_refused(ref: str) -> None:
    assert not git_address.is_ref(ref)
