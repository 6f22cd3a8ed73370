"""What an ID token must be to let somebody in: each attack alone, with real keys and signatures."""

import base64
import hmac
import json

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from headrace.daemon import id_token

NOW = 1_800_000_000.0
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"})
SEALING = RSAKey.generate_key(2048, {"kid": "sealing"})  # published as one for encryption
SHARED = OctKey.generate_key(256, {"kid": "shared"})
KEYS = {"keys": [key.as_dict(private=False) for key in (RSA, EC, ED)]}
KEYS["keys"] += [SEALING.as_dict(private=False) | {"use": "enc"}, SHARED.as_dict()]
EXPECTED = id_token.Expected("https://id.example", "headrace", "the nonce", NOW)
GOOD = {
    "iss": "https://id.example",
    "aud": "headrace",
    "sub": "u1",
    "nonce": "the nonce",
    "iat": int(NOW),
    "exp": int(NOW) + 300,
}
ABSENT = object()


def signed(changes=None, key=RSA, **header):
    claims = {name: value for name, value in (GOOD | (changes or {})).items() if value is not ABSENT}
    named = {"alg": "RS256", "kid": key.kid} | header
    return jwt.encode({k: v for k, v in named.items() if v is not ABSENT}, claims, key, algorithms=[named["alg"]])


def raw(header, claims, signature=b""):
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def with_public_key_as_secret(algorithm):
    """The classic: an HMAC whose key is the text of the provider's public key."""
    told = raw({"alg": algorithm, "kid": "rsa"}, GOOD).removesuffix(".")
    signature = hmac.digest(RSA.as_pem(private=False), told.encode(), algorithm.replace("HS", "sha"))
    return f"{told}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


@pytest.mark.parametrize(
    "token",
    [
        signed(),
        signed(key=EC, alg="ES256"),
        signed(key=ED, alg="Ed25519"),
        signed(alg="PS256"),
        signed({"aud": ["headrace"]}),
        signed({"aud": ["headrace", "other"], "azp": "headrace"}),
        signed({"azp": "headrace"}),
        signed({"exp": int(NOW) - 30}),  # within what clocks may differ
        signed({"nbf": int(NOW) + 30}),
        signed(key=EC, alg="ES256", kid="ec", typ="JWT"),
    ],
    ids=lambda _: "token",  # each has other keys
)
def test_a_good_token_is_read(token):
    assert id_token.judged(token, KEYS, EXPECTED)["sub"] == "u1"


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("iss", "https://id.example/"),
        ("iss", "https://evil.example"),
        ("iss", "HTTPS://ID.EXAMPLE"),
        ("iss", ["https://id.example"]),
        ("iss", ABSENT),
        ("aud", "other"),
        ("aud", "Headrace"),
        ("aud", ["other", "another"]),
        ("aud", ["headrace", "other"]),  # and no azp
        ("aud", []),
        ("aud", {"headrace": 1}),
        ("aud", "headrace other"),
        ("aud", ABSENT),
        ("azp", "other"),
        ("azp", ["headrace"]),
        ("azp", None),
        ("exp", int(NOW) - 61),
        ("exp", 0),
        ("exp", -1),
        ("exp", "9999999999"),
        ("exp", True),
        ("exp", ABSENT),
        ("iat", int(NOW) + 61),
        ("iat", "now"),
        ("iat", ABSENT),
        ("nbf", int(NOW) + 61),
        ("nbf", "later"),
        ("nonce", "another nonce"),
        ("nonce", ""),
        ("nonce", ["the nonce"]),
        ("nonce", "the nonce "),
        ("nonce", ABSENT),
        ("sub", ""),
        ("sub", 7),
        ("sub", ABSENT),
    ],
)
def test_a_claim_that_is_not_as_it_must_be_lets_nobody_in(claim, value):
    with pytest.raises(id_token.Refused):
        id_token.judged(signed({claim: value}), KEYS, EXPECTED)


WHOLE = signed()
HEAD, BODY, SIGNATURE = WHOLE.split(".")
FORGED = base64.urlsafe_b64encode(json.dumps(GOOD | {"sub": "root"}).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        raw({"alg": "none"}, GOOD),
        raw({"alg": "None"}, GOOD),
        raw({"alg": "nOnE", "kid": "rsa"}, GOOD),
        raw({"alg": "none", "kid": "rsa"}, GOOD, b"x"),
        raw({"kid": "rsa"}, GOOD),
        raw({"alg": ["RS256"], "kid": "rsa"}, GOOD),
        raw({"alg": "RS256", "kid": "rsa"}, GOOD),
        with_public_key_as_secret("HS256"),
        with_public_key_as_secret("HS512"),
        signed(key=SHARED, alg="HS256"),
        signed(key=OTHER),
        signed(key=OTHER, kid="ec"),
        signed(key=OTHER, kid="unknown"),
        signed(key=OTHER, jwk=OTHER.as_dict(private=False)),
        signed(key=SEALING),
        f"{HEAD}.{FORGED}.{SIGNATURE}",
        f"{HEAD}.{BODY}.{SIGNATURE[:-4]}AAAA",
        f"{HEAD}.{BODY}.",
        f"{HEAD}.{BODY}",
        f".{BODY}.{SIGNATURE}",
        f"{HEAD}..{SIGNATURE}",
        f"{WHOLE}.x",
        WHOLE.replace(".", ".."),
        "",
        "...",
        "no token",
        "\u00fc.\u00fc.\u00fc",
        raw({"alg": "RS256", "kid": "rsa", "crit": ["odd"], "odd": 1}, GOOD),
        raw({"alg": "dir", "enc": "A256GCM"}, GOOD),
    ],
    ids=lambda _: "token",
)
def test_a_token_that_the_provider_did_not_sign_lets_nobody_in(token):
    with pytest.raises(id_token.Refused):
        id_token.judged(token, KEYS, EXPECTED)


@pytest.mark.parametrize(
    "keys", [{"keys": []}, {"keys": [None, 3, "x"]}, {"keys": [{"kty": "RSA"}]}, {"keys": [SHARED.as_dict()]}]
)
def test_keys_that_prove_nothing_let_nobody_in(keys):
    with pytest.raises(id_token.Refused):
        id_token.judged(WHOLE, keys, EXPECTED)
