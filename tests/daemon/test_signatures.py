import ast
import base64
import datetime
import hashlib
import hmac
import os
import random
import time
from pathlib import Path

import gidgethub.sansio
import pytest
import standardwebhooks
import stripe

from headrace.daemon import access, id_token, oidc, sessions, signatures, token_store

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


# -- what independent libraries sign and verify -----------------------------------------------------------------------

GREETING = '{"text": "grüß dich"}'
PAYLOADS = [b"{}", b'{"ref": "refs/heads/main"}', GREETING.encode(), b'{"a":1}\n', b"x" * 100_000]


@pytest.mark.parametrize("body", PAYLOADS)
def test_github_as_gidgethub_verifies_it(body):
    headers = signatures.signed("github", body, SECRET, NOW, "d-1")
    gidgethub.sansio.validate_event(body, signature=headers["X-Hub-Signature-256"], secret=SECRET)
    assert signatures.github(body, headers, SECRET)
    with pytest.raises(gidgethub.ValidationFailure):
        gidgethub.sansio.validate_event(body + b" ", signature=headers["X-Hub-Signature-256"], secret=SECRET)


@pytest.mark.parametrize("body", PAYLOADS)
@pytest.mark.parametrize("scheme", ["standard-webhooks", "gitlab"])
def test_standard_webhooks_as_its_own_library_signs_and_verifies_it(body, scheme):
    secret = "whsec_" + base64.b64encode(b"thirty-two bytes of a real secret").decode()
    theirs = standardwebhooks.Webhook(secret)
    now = datetime.datetime.now(datetime.UTC)
    signature = theirs.sign(msg_id="msg_1", timestamp=now, data=body.decode())
    at = str(int(now.timestamp()))
    headers = {"webhook-id": "msg_1", "webhook-timestamp": at, "webhook-signature": signature}
    assert signatures.SCHEMES[scheme](body, headers, secret, now.timestamp())
    assert not signatures.SCHEMES[scheme](body + b" ", headers, secret, now.timestamp())
    ours = signatures.signed("standard-webhooks", body, secret, now.timestamp(), "msg_2")
    if body.startswith(b"{"):  # it parses what it has verified
        theirs.verify(body, ours)


@pytest.mark.parametrize("body", PAYLOADS)
def test_stripe_as_its_own_library_signs_and_verifies_it(body):
    secret, now = "whsec_not_base64_here", time.time()
    covered = stripe.WebhookSignature._compute_signature(f"{int(now)}.{body.decode()}", secret)
    assert signatures.stripe(body, {"Stripe-Signature": f"t={int(now)},v1={covered}"}, secret, now)
    ours = signatures.signed("stripe", body, secret, now, "x")["Stripe-Signature"]
    assert stripe.WebhookSignature.verify_header(body.decode(), ours, secret, tolerance=300)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header(body.decode() + " ", ours, secret, tolerance=300)


def test_slacks_own_example_verifies():
    # https://docs.slack.dev/authentication/verifying-requests-from-slack
    secret, at = "8f742231b10e8888abcd99yyyzzz85a5", "1531420618"
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    given = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    headers = {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": given}
    assert signatures.slack(body, headers, secret, float(at))
    assert not signatures.slack(body, headers, secret, float(at) + 301)


# -- rotation, forgery, and what may not rescue what ------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [*signatures.SCHEMES, "key"])
def test_while_a_secret_is_replaced_both_are_good_and_no_third_one_is(scheme):
    both = "the new one\nthe old one\n"

    def taken(secret):
        headers = signatures.signed(scheme, BODY, secret, NOW, "d")
        if scheme == "key":
            return signatures.keyed(headers["X-Api-Key"], both)
        return signatures.verified(scheme, BODY, headers, both, NOW)

    assert taken("the new one") and taken("the old one")
    assert not taken("the newest one") and not taken("the new one the old one")


def test_a_secret_of_empty_lines_is_none():
    for empty in ("", "\n", "\r\n\n"):
        assert signatures.secrets_of(empty) == []
        assert not signatures.keyed("", empty) and not signatures.keyed("x", empty)
        assert not signatures.verified("github", BODY, SIGNED["github"], empty, NOW)
    assert len(signatures.secrets_of("\n".join("abcdefgh"))) == signatures._SECRETS_MAX


def test_a_bad_signature_of_forgejo_is_not_rescued_by_a_good_one_of_gitea():
    good = hmac_of(BODY).hex()
    assert signatures.gitea(BODY, {"X-Gitea-Signature": good, "X-Forgejo-Signature": good}, SECRET)
    for other in ({"X-Forgejo-Signature": "0" * 64}, {"X-Gogs-Signature": ""}):
        assert not signatures.gitea(BODY, {"X-Gitea-Signature": good, **other}, SECRET)


@pytest.mark.parametrize("scheme", signatures.SCHEMES)
def test_what_a_sender_signs_is_taken_and_no_changed_bit_of_it_is(scheme, record_property):
    """``HEADRACE_FLIPS`` says how many changes are tried."""
    chance, flips = random.Random(scheme), int(os.environ.get("HEADRACE_FLIPS", "300"))
    record_property("tries", flips)
    for _ in range(flips):
        body = chance.randbytes(chance.randrange(1, 60))
        headers = signatures.signed(scheme, body, SECRET, NOW, "id-1")
        assert signatures.verified(scheme, body, headers, SECRET, NOW)
        what = chance.choice([*(name for name in headers if name in EXACT), "body", "secret"])
        if what == "secret":
            assert not signatures.verified(scheme, body, headers, SECRET[:-1] + chance.choice("abc"), NOW)
        elif what == "body":
            changed = bytearray(body)
            position = chance.randrange(len(body) * 8)
            changed[position // 8] ^= 1 << position % 8
            assert signatures.verified(scheme, bytes(changed), headers, SECRET, NOW) is (scheme == "gitlab")
        else:
            text = headers[what]
            position = chance.randrange(len(text))
            forged = text[:position] + chr(ord(text[position]) ^ 1 << chance.randrange(7)) + text[position + 1 :]
            assert not signatures.verified(scheme, body, headers | {what: forged}, SECRET, NOW), (what, forged)


#: Headers of which every bit counts; of the others blanks, or the order of their parts, may be another.
EXACT = {
    *("X-Hub-Signature-256", "X-Gitlab-Token", "X-Gitea-Signature", "X-Hub-Signature", "X-Slack-Signature"),
    *("X-Slack-Request-Timestamp", "webhook-id", "webhook-timestamp"),
}


def test_no_secret_is_compared_but_in_constant_time():
    """How long ``==`` takes tells how much of a guess was right. What is found by its hash needs no comparison."""
    told = {"given", "expected", "secret", "signature", "token", "key_", "digest", "state", "nonce"}
    for module in (signatures, access, sessions, token_store, id_token, oidc):
        tree = ast.parse(Path(module.__file__).read_text())
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.Compare)):
            sides = {side.id for side in [node.left, *node.comparators] if isinstance(side, ast.Name)}
            equal = any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)
            constants = any(isinstance(side, ast.Constant) for side in [node.left, *node.comparators])
            assert not (equal and sides & told) or constants, f"{module.__name__}:{node.lineno}"


@pytest.mark.parametrize("scheme", signatures.SCHEMES)
def test_a_guess_that_is_nearly_right_takes_as_long_as_any(scheme):
    """Printed, for people to look at: times are none of a test's business on a machine that does other things."""
    body, now_s = b'{"a": 1}', 1_700_000_000.0
    good = signatures.signed(scheme, body, "a secret of some length", now_s, "d")
    spent = {}
    for name, back in (("early", 20), ("last", 1)):
        wrong = {
            key: value[:at] + ("0" if value[at] != "0" else "1") + value[at + 1 :]
            for key, value in good.items()
            for at in [max(0, len(value) - back)]
        }
        rounds = int(os.environ.get("HEADRACE_TIMINGS", "200"))
        began = time.perf_counter()
        for _ in range(rounds):
            assert not signatures.verified(scheme, body, wrong, "a secret of some length", now_s)
        spent[name] = (time.perf_counter() - began) / rounds * 1e6
    print(f"{scheme}: wrong early {spent['early']:.2f} µs, in the last letter {spent['last']:.2f} µs")
