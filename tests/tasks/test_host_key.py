"""SSH host keys in the forms people paste."""

from __future__ import annotations

import base64

import pytest

from headrace.tasks import host_key


def _key(kind: str) -> str:
    return base64.b64encode(len(kind).to_bytes(4, "big") + kind.encode() + b"\0\0\0\x04rest").decode()


ED = _key("ssh-ed25519")


@pytest.mark.parametrize(
    "text", [f"ssh-ed25519 {ED}", f"ssh-ed25519 {ED} me@here", ED, f" {ED}\n", f"[host]:2222 ssh-ed25519 {ED}"]
)
def test_every_form_gives_type_and_key(text: str) -> None:
    assert host_key.parsed(text) == f"ssh-ed25519 {ED}"


def test_an_rsa_key_may_be_named_by_its_signatures() -> None:
    assert host_key.parsed(f"rsa-sha2-256 {_key('ssh-rsa')}") == f"ssh-rsa {_key('ssh-rsa')}"


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "x y z", "AAAA", base64.b64encode(b"\0\0\0\xffx").decode()])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 'type key'"):
        host_key.parsed(text)


def test_a_key_of_another_type_than_named_is_refused() -> None:
    with pytest.raises(ValueError, match="the key is of type ssh-ed25519, not ssh-rsa"):
        host_key.parsed(f"ssh-rsa {ED}")
