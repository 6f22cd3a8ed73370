"""What a flow answers the caller of its webhook: as it says, but nothing that reaches beyond this answer."""

import base64
import json

import msgspec
import pytest

from headrace.daemon import replies
from headrace.engine import errors, events


def reply(body="", status=200, binary=False, **headers):
    said = events.WebhookAnswered(
        execution="e",
        call=1,
        status=status,
        headers={k.replace("_", "-"): v for k, v in headers.items()},
        binary=binary,
    )
    return replies.reply(said, msgspec.Raw(json.dumps(body).encode()))


def test_status_headers_and_text_go_out_as_they_are():
    found = reply("grüß", 418, content_type="text/x-tea", x_own="1")
    assert (found.status, found.body.decode()) == (418, "grüß")
    assert (found.headers["content-type"], found.headers["x-own"]) == ("text/x-tea", "1")
    assert found.refused == ()


def test_bytes_come_as_base64():
    found = reply(base64.b64encode(b"\x00\xff").decode(), binary=True)
    assert (found.body, found.headers["Content-Type"]) == (b"\x00\xff", "application/octet-stream")
    with pytest.raises(errors.InvalidRequest):
        reply("not base64!", binary=True)


@pytest.mark.parametrize(
    "name",
    ["Content-Length", "transfer-encoding", "Connection", "Upgrade", "Clear-Site-Data", "Alt-Svc", "X-Accel-Redirect",
     "X-Sendfile", "Service-Worker-Allowed", "Strict-Transport-Security", "bad name", "x\r\nSet-Cookie", ""],
)  # fmt: skip
def test_headers_of_the_connection_and_of_the_whole_origin_are_dropped(name):
    said = events.WebhookAnswered(execution="e", call=1, headers={name: "1", "x-good": "1"})
    found = replies.reply(said, msgspec.Raw(b'""'))
    assert name not in found.headers
    assert found.headers["x-good"] == "1"
    assert found.refused == (name,)


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\nb", "a\0b", "\x7f", "\ud800"])
def test_nothing_breaks_out_of_a_header(value):
    assert reply(x_evil=value).refused == ("x-evil",)


@pytest.mark.parametrize("cookie", ["headrace", "headrace-8420", "__Host-headrace", "HEADRACE-1", " headrace "])
def test_the_cookies_of_our_sessions_cannot_be_set(cookie):
    assert reply(set_cookie=f"{cookie}=stolen; Path=/").refused == ("set-cookie",)
    assert reply(set_cookie="basket=headrace").refused == ()


def test_a_page_is_kept_apart_from_ours_unless_the_flow_has_a_policy_of_its_own():
    assert reply("<h1>", content_type="text/html").headers["Content-Security-Policy"] == replies.SANDBOX
    own = reply("<h1>", content_security_policy="default-src 'self'")
    assert own.headers["content-security-policy"] == "default-src 'self'"
    assert "Content-Security-Policy" not in own.headers
    assert "allow-same-origin" not in replies.SANDBOX


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_without_a_body_has_none(status):
    assert reply("ignored", status).body == b""


@pytest.mark.parametrize("status", [0, 101, 199, 600, 1000, -1])
def test_a_status_that_ends_no_request_is_refused(status):
    with pytest.raises(errors.InvalidRequest, match=str(status)):
        reply(status=status)
