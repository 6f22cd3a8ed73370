"""Throw-away certificates, made by the openssl binary: an authority, a server for 127.0.0.1, a client."""

from __future__ import annotations

import dataclasses
import pathlib
import ssl
import subprocess


@dataclasses.dataclass(frozen=True)
class Certificates:
    folder: pathlib.Path

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def server_context(self, *, wants_client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.folder / "ca.crt")
        return context


def make(folder: pathlib.Path) -> Certificates:
    """Write ca, server and client ``.crt`` and ``.key`` (and ``locked.key``, encrypted) into ``folder``, and
    ``stranger``, whom no authority knows."""
    config = folder / "extensions.cnf"
    config.write_text(
        "[server]\nsubjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n"
        "[client]\nextendedKeyUsage=clientAuth\nauthorityKeyIdentifier=keyid\n"
    )
    usage = ["-addext", "keyUsage=critical,keyCertSign"]  # Python 3.13 wants an authority to have one
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl(
        "req",
        "-x509",
        *key,
        "-subj",
        "/CN=test authority",
        "-days",
        "30",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        *usage,
    )
    for name in ("server", "client"):
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"]
        extended = ["-extfile", config.name, "-extensions", name]
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, *extended, "-out", f"{name}.crt")
    own = ["-subj", "/CN=client", "-days", "30", "-keyout", "stranger.key", "-out", "stranger.crt"]
    openssl("req", "-x509", *key, *own)
    openssl("ec", "-in", "client.key", "-aes256", "-passout", "pass:locked", "-out", "locked.key")
    return Certificates(folder)
