"""The judgement over an ID token: who signed it, for whom, for which login, until when. Pure.

Source: OpenID Connect Core 1.0, section 3.1.3.7. The signature is checked by joserfc, an extra: most daemons have no
provider, and start without it. Called by ``oidc``.
"""

from __future__ import annotations

import base64
import hmac
from typing import Any

import msgspec

from ..engine import errors

LEEWAY_S = 60.0
#: Signed with a key that only the provider has: nothing that its public key or our secret could make.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")


class Refused(errors.Unauthenticated):
    """The login at the provider did not come to a good end; the words are for whoever tried."""


class Expected(msgspec.Struct, frozen=True):
    """What an ID token has to say; ``now_s`` in seconds since the epoch."""

    issuer: str
    client_id: str
    nonce: str
    now_s: float


def judged(token: str, keys: dict[str, Any], expected: Expected) -> dict[str, Any]:
    """Return the claims of an ID token (Core 1.0, 3.1.3.7); raises ``Refused`` for one that is not good. Pure."""
    claims = _signed(token, keys)
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
    nonce = claims.get("nonce")
    for holds, what in (
        (claims.get("iss") == expected.issuer, "it is another issuer's"),
        (expected.client_id in audiences, "it is for somebody else"),
        (len(audiences) == 1 or "azp" in claims, "it is for several, and does not say who asked for it"),
        (claims.get("azp", expected.client_id) == expected.client_id, "somebody else asked for it"),
        (_number(claims.get("exp"), expected.now_s - LEEWAY_S, float("inf")), "it has expired"),
        (_number(claims.get("iat"), 0, expected.now_s + LEEWAY_S), "it was made in the future"),
        ("nbf" not in claims or _number(claims["nbf"], 0, expected.now_s + LEEWAY_S), "it is not good yet"),
        (
            isinstance(nonce, str) and _same(nonce, expected.nonce),
            "it was not made for this login",
        ),
        (isinstance(claims.get("sub"), str) and bool(claims["sub"]), "it is nobody's"),
    ):
        if not holds:
            raise Refused(f"the ID token is not good: {what}", hint="begin again on the login page")
    return claims


def _signed(token: str, keys: dict[str, Any]) -> dict[str, Any]:
    try:
        from joserfc import errors as jose_errors
        from joserfc import jwk, jwt
    except ImportError:
        raise Refused("OpenID needs a library", hint="pip install 'headrace[oidc]'") from None
    try:
        known = jwk.KeySet.import_key_set({"keys": [key for key in keys["keys"] if _verifies(key)]})
        return dict(jwt.decode(token, known, algorithms=list(ALGORITHMS)).claims)
    except (jose_errors.JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(
            f"the ID token is not good: {type(error).__name__}", hint="begin again on the login page"
        ) from None


def _verifies(key: object) -> bool:
    """Whether a published key is one that proves something: never a shared secret, nor one for encryption."""
    return isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"


def header(token: str) -> dict[str, Any]:
    """Return what a token says about its own signature, unproved; empty if it cannot be read."""
    head = token.partition(".")[0]
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except ValueError:  # and of base64, Unicode and JSON
        return {}
    return found if isinstance(found, dict) else {}


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def _number(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
