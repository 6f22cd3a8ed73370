import base64
import hashlib
import hmac

import pytest

from headrace.daemon import signatures

# GitHub's documented example: https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
SECRET, BODY = "It's a Secret to Everybody", b"Hello, World!"
SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def test_githubs_own_example_verifies():
    assert signatures.github(BODY, {"X-Hub-Signature-256": SIGNATURE}, SECRET)


def test_any_flipped_bit_of_body_or_signature_is_refused():
    for position in range(len(BODY) * 8):
        flipped = bytearray(BODY)
        flipped[position // 8] ^= 1 << position % 8
        assert not signatures.github(bytes(flipped), {"X-Hub-Signature-256": SIGNATURE}, SECRET)
    for position in range(len(SIGNATURE)):
        changed = SIGNATURE[:position] + chr(ord(SIGNATURE[position]) ^ 1) + SIGNATURE[position + 1 :]
        assert not signatures.github(BODY, {"X-Hub-Signature-256": changed}, SECRET)


@pytest.mark.parametrize(
    "given", ["", SIGNATURE[7:], SIGNATURE.upper(), "sha1=abc", "sha256=", "sha256=ä", "sha256=\udcff"]
)
def test_signatures_of_another_form_are_refused(given):
    assert not signatures.github(BODY, {"X-Hub-Signature-256": given}, SECRET)


def test_a_missing_secret_lets_nobody_in():
    empty = "sha256=" + signatures.github_signature(BODY, "")
    assert not signatures.github(BODY, {"X-Hub-Signature-256": empty}, "")
    assert not signatures.github(BODY, {}, SECRET)
    assert not signatures.key("", "") and not signatures.key("x", "") and not signatures.key("", "x")
    assert signatures.key("x", "x")


def test_deliveries_are_named_by_their_sender():
    assert signatures.delivery_id({"X-GitHub-Delivery": "a"}) == "a"
    assert signatures.delivery_id({"webhook-id": "b"}) == "b"
    assert signatures.delivery_id({"Idempotency-Key": "c"}) == "c"
    assert signatures.delivery_id({}) == ""


def hmac_of(text: bytes, key: bytes = SECRET.encode()) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()


NOW = 1_700_000_000
AT = str(NOW)
STANDARD_KEY = b"\x00\x01 any bytes"
SIGNED = {
    "github": {"X-Hub-Signature-256": SIGNATURE},
    "gitlab": {"X-Gitlab-Token": SECRET},
    "gitea": {"X-Gitea-Signature": hmac_of(BODY).hex()},
    "bitbucket": {"X-Hub-Signature": "sha256=" + hmac_of(BODY).hex()},
    "slack": {
        "X-Slack-Request-Timestamp": AT,
        "X-Slack-Signature": "v0=" + hmac_of(f"v0:{AT}:".encode() + BODY).hex(),
    },
    "stripe": {"Stripe-Signature": f"t={AT},v0=x,v1=old,v1={hmac_of(f'{AT}.'.encode() + BODY).hex()}"},
    "standard-webhooks": {
        "webhook-id": "msg_1",
        "webhook-timestamp": AT,
        "webhook-signature": "v1,old v1," + base64.b64encode(hmac_of(f"msg_1.{AT}.".encode() + BODY)).decode(),
    },
    "hmac": {"X-Signature": hmac_of(BODY).hex()},
}


@pytest.mark.parametrize("scheme", SIGNED)
def test_each_scheme_takes_what_is_signed_and_nothing_else(scheme):
    verify, headers = signatures.SCHEMES[scheme], SIGNED[scheme]
    assert verify(BODY, headers, SECRET, NOW)
    assert not verify(BODY, headers, "another secret", NOW)
    assert not verify(BODY, headers, "", NOW)
    assert not verify(BODY, {}, SECRET, NOW)
    assert scheme == "gitlab" or not verify(BODY + b"!", headers, SECRET, NOW)
    for name, text in headers.items():
        assert not verify(BODY, {n: v for n, v in headers.items() if n != name}, SECRET, NOW)
        assert not verify(BODY, headers | {name: text[:-1]}, SECRET, NOW)
        assert not verify(BODY, headers | {name: "\udcff"}, SECRET, NOW)


def test_every_scheme_is_tried_here():
    assert SIGNED.keys() == signatures.SCHEMES.keys()


@pytest.mark.parametrize("scheme", ["slack", "stripe", "standard-webhooks"])
def test_a_signature_with_its_time_is_good_for_five_minutes(scheme):
    verify, headers = signatures.SCHEMES[scheme], SIGNED[scheme]
    assert verify(BODY, headers, SECRET, NOW + 300) and verify(BODY, headers, SECRET, NOW - 300)
    assert not verify(BODY, headers, SECRET, NOW + 301) and not verify(BODY, headers, SECRET, NOW - 301)


def test_the_secret_of_standard_webhooks_may_be_written_in_base64():
    secret = "whsec_" + base64.b64encode(STANDARD_KEY).decode()
    digest = base64.b64encode(hmac_of(f"msg_1.{AT}.".encode() + BODY, STANDARD_KEY)).decode()
    headers = {"webhook-id": "msg_1", "webhook-timestamp": AT, "webhook-signature": f"v1,{digest}"}
    assert signatures.standard(BODY, headers, secret, NOW)
    assert not signatures.standard(BODY, headers, "whsec_not base64", NOW)
    assert not signatures.standard(BODY, headers, "whsec_", NOW)


def test_forgejo_and_gogs_sign_as_gitea_does_and_a_plain_hmac_may_say_how_it_was_made():
    digest = hmac_of(BODY).hex()
    for name in ("X-Forgejo-Signature", "X-Gogs-Signature"):
        assert signatures.gitea(BODY, {name: digest}, SECRET)
    assert signatures.plain(BODY, {"X-Signature": f"sha256={digest}"}, SECRET)
