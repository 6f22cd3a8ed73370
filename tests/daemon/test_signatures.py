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
