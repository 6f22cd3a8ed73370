"""TLS contexts from PEM texts, as task inputs carry them. For every task type that speaks TLS.

Python's ``ssl`` reads certificates and keys from files only, so they pass through anonymous memory: a private key never
touches a disk. Building a context reads the system's trust store and takes milliseconds: call it off the event loop.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from typing import Any


class TlsInputInvalid(ValueError):
    """A PEM text cannot be used; ``name`` says which input it came from."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(problem)
        self.name = name


def context(
    *,
    cacert: str | None,
    client_cert: str | None,
    client_key: str | None,
    verify: bool,
    expected_name: str | None = None,
) -> ssl.SSLContext:
    """Return a client context that trusts ``cacert`` (else the system) and shows ``client_cert``.

    With ``expected_name`` the certificate is checked for that name, whatever address a library connects to.
    Raises ``TlsInputInvalid``; its message never contains key material."""
    made = _with_texts(cacert, client_cert, client_key, expected_name)
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif cacert is None:
        made.load_default_certs()
    return made


def check(*, cacert: str | None, client_cert: str | None, client_key: str | None) -> None:
    """Raise ``TlsInputInvalid`` for texts that make no context. Takes well under a millisecond."""
    _with_texts(cacert, client_cert, client_key)


def _with_texts(
    cacert: str | None, client_cert: str | None, client_key: str | None, expected_name: str | None = None
) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if expected_name is None else _pinned(expected_name)
    if cacert is not None:
        try:
            made.load_verify_locations(cadata=cacert)
        except (ssl.SSLError, ValueError):
            raise TlsInputInvalid("cacert", "expected certificates as PEM text") from None
    if client_cert is not None:
        with as_file(client_cert) as certificate, as_file(client_key or client_cert) as key:
            try:
                made.load_cert_chain(certificate, key, password=_refuse_password)
            except (ssl.SSLError, ValueError) as error:
                raise TlsInputInvalid("client_cert", _chain_problem(error)) from None
    return made


def _refuse_password() -> str:
    """Without this OpenSSL would ask for the passphrase on the daemon's terminal."""
    raise ValueError("the key is encrypted")


def _chain_problem(error: ssl.SSLError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the certificate and 'client_key' do not belong together"
        return "expected a certificate and its private key ('client_key') as PEM text"
    return "its private key is encrypted, expected one without a passphrase"


class _Pinned(ssl.SSLContext):
    """It checks for this name whatever a library asks for, which may turn the check off to have one of its own."""

    expected_name = ""

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return super().wrap_bio(*arguments, **{**named, "server_hostname": self._insisted()})

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*arguments, **{**named, "server_hostname": self._insisted()})

    def _insisted(self) -> str:
        self.check_hostname = self.verify_mode is not ssl.CERT_NONE
        return self.expected_name


def _pinned(expected_name: str) -> ssl.SSLContext:
    made = _Pinned(ssl.PROTOCOL_TLS_CLIENT)
    made.expected_name = expected_name
    return made


@contextlib.contextmanager
def as_file(text: str) -> Iterator[str]:
    """Give the path of a file that holds ``text``, in memory and for this process alone, while the block lasts."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)  # some libraries refuse a key that others may read
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
