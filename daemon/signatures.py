"""Who sent this webhook? Pure functions over the raw request, verified before anything is parsed.

Each scheme fails closed: no secret, no header or a header of another form all mean no. Comparisons take the same time
whatever is compared. A signature that covers its time is good for five minutes around it. A secret of several lines is
several secrets, each of which is good: so one is replaced by another without losing a delivery.

    github             https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
    gitlab             https://docs.gitlab.com/user/project/integrations/webhooks/ (a token, sent as it is; or signed as
                       Standard Webhooks)
    gitea              https://docs.gitea.com/usage/webhooks (also Forgejo and Gogs, under their own names)
    bitbucket          https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/
    slack              https://docs.slack.dev/authentication/verifying-requests-from-slack
    stripe             https://docs.stripe.com/webhooks#verify-manually
    standard-webhooks  https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    hmac               ours: ``X-Signature``, the HMAC-SHA256 in hex, with or without ``sha256=`` before it
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping

TOLERANCE_S = 300.0
_SECRETS_MAX = 5
_PREFIX = "sha256="
_STANDARD_SECRET = "whsec_"  # noqa: S105 - what secrets of that scheme begin with

#: Body, headers, secret, now (seconds since the epoch) → whether they belong together.
Scheme = Callable[[bytes, Mapping[str, str], str, float], bool]


def github(body: bytes, headers: Mapping[str, str], secret: str, now_s: float = 0) -> bool:
    """Whether ``X-Hub-Signature-256`` is the HMAC-SHA256 of the raw body under ``secret``."""
    return _prefixed(body, headers.get("X-Hub-Signature-256", ""), secret)


def gitlab(body: bytes, headers: Mapping[str, str], secret: str, now_s: float = 0) -> bool:
    """Whether ``X-Gitlab-Token`` is the secret, or the delivery is signed as Standard Webhooks are."""
    if "webhook-signature" in headers:
        return standard(body, headers, secret, now_s)
    return key(headers.get("X-Gitlab-Token", ""), secret)


def gitea(body: bytes, headers: Mapping[str, str], secret: str, now_s: float = 0) -> bool:
    """Whether ``X-Gitea-Signature``, Forgejo's and Gogs', those that came, are the HMAC-SHA256 of the raw body."""
    names = ("X-Gitea-Signature", "X-Forgejo-Signature", "X-Gogs-Signature")
    given = [headers[name] for name in names if name in headers]
    expected = github_signature(body, secret)
    return bool(secret) and bool(given) and all(_same(one, expected) for one in given)


def bitbucket(body: bytes, headers: Mapping[str, str], secret: str, now_s: float = 0) -> bool:
    """Whether ``X-Hub-Signature`` is the HMAC-SHA256 of the raw body."""
    return _prefixed(body, headers.get("X-Hub-Signature", ""), secret)


def slack(body: bytes, headers: Mapping[str, str], secret: str, now_s: float) -> bool:
    """Whether ``X-Slack-Signature`` covers time and body, and the time is now."""
    at = headers.get("X-Slack-Request-Timestamp", "")
    expected = "v0=" + github_signature(f"v0:{at}:".encode("utf-8", "replace") + body, secret)
    return bool(secret) and _is_now(at, now_s) and _same(headers.get("X-Slack-Signature", ""), expected)


def stripe(body: bytes, headers: Mapping[str, str], secret: str, now_s: float) -> bool:
    """Whether a ``v1`` signature of ``Stripe-Signature`` covers its time and the body, and the time is now."""
    pairs = [part.strip().partition("=") for part in headers.get("Stripe-Signature", "").split(",")]
    at = next((value for name, _, value in pairs if name == "t"), "")
    expected = github_signature(f"{at}.".encode("utf-8", "replace") + body, secret)
    given = [value for name, _, value in pairs if name == "v1"]
    return bool(secret) and _is_now(at, now_s) and any(_same(value, expected) for value in given)


def standard(body: bytes, headers: Mapping[str, str], secret: str, now_s: float) -> bool:
    """Whether one of the ``v1`` signatures covers id, time and body, and the time is now.

    The secret is base64 after ``whsec_``, or the key itself without that."""
    id_, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    expected = _standard_signature(f"{id_}.{at}.".encode("utf-8", "replace") + body, secret)
    given = headers.get("webhook-signature", "").split()
    return bool(expected) and bool(id_) and _is_now(at, now_s) and any(_same(one, expected) for one in given)


def _standard_signature(signed_: bytes, secret: str) -> str:
    """Return the ``v1`` signature, empty if the secret is none."""
    try:
        key_ = base64.b64decode(secret.removeprefix(_STANDARD_SECRET)) if _is_standard(secret) else secret.encode()
    except (binascii.Error, ValueError):
        return ""
    if not key_:
        return ""
    return "v1," + base64.b64encode(hmac.new(key_, signed_, hashlib.sha256).digest()).decode()


def plain(body: bytes, headers: Mapping[str, str], secret: str, now_s: float = 0) -> bool:
    """Whether ``X-Signature`` is the HMAC-SHA256 of the raw body."""
    given = headers.get("X-Signature", "").removeprefix(_PREFIX)
    return bool(secret) and _same(given, github_signature(body, secret))


#: What ``auth`` of a webhook may say beside ``none`` and ``key``.
SCHEMES: Mapping[str, Scheme] = {
    "github": github,
    "gitlab": gitlab,
    "gitea": gitea,
    "bitbucket": bitbucket,
    "slack": slack,
    "stripe": stripe,
    "standard-webhooks": standard,
    "hmac": plain,
}


def verified(scheme: str, body: bytes, headers: Mapping[str, str], secret: str, now_s: float) -> bool:
    """Whether ``body`` was signed with the secret, or with one of its lines."""
    return any(SCHEMES[scheme](body, headers, one, now_s) for one in secrets_of(secret))


def keyed(given: str, secret: str) -> bool:
    """Whether the key that came with the request is the secret, or one of its lines."""
    return any(key(given, one) for one in secrets_of(secret))


def secrets_of(secret: str) -> list[str]:
    """Return the secrets that are good at the moment: the lines of the text, a few at most."""
    lines = [line.strip("\r") for line in secret.split("\n")]
    return [line for line in lines if line][:_SECRETS_MAX]


def signed(scheme: str, body: bytes, secret: str, now_s: float, id_: str) -> dict[str, str]:
    """Return the headers with which a sender of that scheme sends ``body`` now; ``id_`` names the delivery."""
    first, at = secrets_of(secret)[0], str(int(now_s))
    digest = github_signature(body, first)
    match scheme:
        case "key":
            return {"X-Api-Key": first, "Idempotency-Key": id_}
        case "github":
            return {"X-Hub-Signature-256": _PREFIX + digest, "X-GitHub-Delivery": id_}
        case "gitlab":
            return {"X-Gitlab-Token": first, "Idempotency-Key": id_}
        case "gitea":
            return {"X-Gitea-Signature": digest, "X-Gitea-Delivery": id_}
        case "bitbucket":
            return {"X-Hub-Signature": _PREFIX + digest, "X-Request-UUID": id_}
        case "slack":
            covered = github_signature(f"v0:{at}:".encode() + body, first)
            return {"X-Slack-Signature": f"v0={covered}", "X-Slack-Request-Timestamp": at}
        case "stripe":
            return {"Stripe-Signature": f"t={at},v1={github_signature(f'{at}.'.encode() + body, first)}"}
        case "standard-webhooks":
            signature = _standard_signature(f"{id_}.{at}.".encode() + body, first) or ""
            return {"webhook-id": id_, "webhook-timestamp": at, "webhook-signature": signature}
        case "hmac":
            return {"X-Signature": _PREFIX + digest, "Idempotency-Key": id_}
        case _:
            return {"Idempotency-Key": id_}


def github_signature(body: bytes, secret: str) -> str:
    """Return the hex digest GitHub and others send for ``body``."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def key(given: str, secret: str) -> bool:
    """Whether the key that came with the request is the right one."""
    return bool(secret) and bool(given) and _same(given, secret)


def _prefixed(body: bytes, given: str, secret: str) -> bool:
    if not secret or not given.startswith(_PREFIX):
        return False
    return _same(given.removeprefix(_PREFIX), github_signature(body, secret))


def _is_now(at: str, now_s: float) -> bool:
    return at.isascii() and at.isdecimal() and len(at) <= 12 and abs(now_s - int(at)) <= TOLERANCE_S


def _is_standard(secret: str) -> bool:
    return secret.startswith(_STANDARD_SECRET)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
