"""TLS contexts from PEM texts, as task inputs carry them. For every task type that speaks TLS.

Python's ``ssl`` reads certificates and keys from files only, so they pass through anonymous memory: a private key never
touches a disk. Building a context reads the system's trust store and takes milliseconds: call it off the event loop.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator


class TlsInputInvalid(ValueError):
    """A PEM text cannot be used; ``name`` says which input it came from."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(problem)
        self.name = name


def context(*, cacert: str | None, client_cert: str | None, client_key: str | None, verify: bool) -> ssl.SSLContext:
    """Return a client context that trusts ``cacert`` (else the system) and shows ``client_cert``.

    Raises ``TlsInputInvalid``; its message never contains key material."""
    made = _with_texts(cacert, client_cert, client_key)
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif cacert is None:
        made.load_default_certs()
    return made


def check(*, cacert: str | None, client_cert: str | None, client_key: str | None) -> None:
    """Raise ``TlsInputInvalid`` for texts that make no context. Takes well under a millisecond."""
    _with_texts(cacert, client_cert, client_key)


def _with_texts(cacert: str | None, client_cert: str | None, client_key: str | None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cacert is not None:
        try:
            made.load_verify_locations(cadata=cacert)
        except (ssl.SSLError, ValueError):
            raise TlsInputInvalid("cacert", "expected certificates as PEM text") from None
    if client_cert is not None:
        with _as_file(client_cert) as certificate, _as_file(client_key or client_cert) as key:
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


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
