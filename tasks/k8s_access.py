"""How a cluster of Kubernetes is reached: as a kubeconfig says it, or by address and token.

A kubeconfig is a text here, never a file of the daemon's host, and nothing in it is executed: one that names a program
or a file is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any

import msgspec
import yaml


class Access(msgspec.Struct, kw_only=True, frozen=True):
    """Where the cluster is, and who we are there."""

    url: str
    namespace: str = "default"
    token: str | None = None
    cacert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    verify_ssl: bool = True


def parsed(text: str, context: str | None) -> Access:
    """Return what a kubeconfig says of a context, or of its current one; raises ``ValueError`` with the reason."""
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise ValueError("it is not YAML") from None
    if not isinstance(config, dict):
        raise ValueError("it is no kubeconfig")
    name = context or config.get("current-context")
    chosen = _named(config, "contexts", name).get("context") or {}
    cluster = _named(config, "clusters", chosen.get("cluster")).get("cluster") or {}
    user = _named(config, "users", chosen.get("user")).get("user") or {}
    for place in (cluster, user):
        _refuse(place, ("exec", "auth-provider"), "it names a program: give 'url' and 'token'")
        files = [
            key for key in place if key in ("certificate-authority", "client-certificate", "client-key", "tokenFile")
        ]
        _refuse(place, files, "it names a file: give one with the data inside (kubectl config view --flatten)")
    return Access(
        url=str(cluster.get("server", "")),
        namespace=str(chosen.get("namespace") or "default"),
        token=user.get("token"),
        cacert=_data(cluster, "certificate-authority-data"),
        client_cert=_data(user, "client-certificate-data"),
        client_key=_data(user, "client-key-data"),
        verify_ssl=not cluster.get("insecure-skip-tls-verify", False),
    )


def _named(config: dict[str, Any], section: str, name: Any) -> dict[str, Any]:
    entries = config.get(section)
    for one in entries if isinstance(entries, list) else ():
        if isinstance(one, dict) and one.get("name") == name:
            return one
    raise ValueError(f"it has nothing called {name!r} among its {section}")


def _refuse(place: dict[str, Any], keys: Iterable[str], why: str) -> None:
    if any(key in place for key in keys):
        raise ValueError(why)


def _data(place: dict[str, Any], key: str) -> str | None:
    if key not in place:
        return None
    try:
        return base64.b64decode(str(place[key]), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError(f"its {key} is not base64") from None
