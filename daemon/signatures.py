"""Who sent this webhook? Pure functions over the raw request, verified before anything is parsed.

Each scheme fails closed: no secret, no header or a header of another form all mean no. Comparisons take the same time
whatever is compared.

GitHub's scheme: https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

_GITHUB_PREFIX = "sha256="


def github(body: bytes, headers: Mapping[str, str], secret: str) -> bool:
    """Whether ``X-Hub-Signature-256`` is the HMAC-SHA256 of the raw body under ``secret``."""
    given = headers.get("X-Hub-Signature-256", "")
    if not secret or not given.startswith(_GITHUB_PREFIX):
        return False
    return _same(given.removeprefix(_GITHUB_PREFIX), github_signature(body, secret))


def github_signature(body: bytes, secret: str) -> str:
    """Return the hex digest GitHub sends for ``body``."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def key(given: str, secret: str) -> bool:
    """Whether the key that came with the request is the right one."""
    return bool(secret) and bool(given) and _same(given, secret)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def delivery_id(headers: Mapping[str, str]) -> str:
    """Return what names this delivery for good, so that a repeated one is known; empty if nothing does."""
    for name in ("X-GitHub-Delivery", "webhook-id", "Idempotency-Key"):
        if value := headers.get(name, ""):
            return value[:200]
    return ""
