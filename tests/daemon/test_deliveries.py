"""A delivery as the flow gets it: every kind of body, repeated names, files, and never the key."""

import base64
import contextlib
import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.daemon import deliveries
from headrace.engine import errors

FORM = "application/x-www-form-urlencoded"


def delivery(body=b"", type_="application/json", *, query=(), headers=(), header=None):
    said = (("Content-Type", header or type_), *headers) if header or type_ else tuple(headers)
    return deliveries.Delivery(
        method="POST",
        path="a/b",
        query=tuple(query),
        headers=said,
        content_type=(type_ or "application/octet-stream").lower(),
        body=body,
    )


def inputs(body=b"", type_="application/json", *, keyed=True, **more):
    one = delivery(body, type_, **more)
    return deliveries.inputs(one, deliveries.content(one), keyed=keyed)


def multipart(*parts, boundary="XX"):
    text = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return text + b"--" + boundary.encode() + b"--\r\n"


def field(name, value, filename=None, type_=None):
    file = f'; filename="{filename}"' if filename is not None else ""
    kind = f"Content-Type: {type_}\r\n" if type_ else ""
    head = f'Content-Disposition: form-data; name="{name}"{file}\r\n{kind}\r\n'
    return head.encode() + value


@pytest.mark.parametrize("value", [{"a": [1, None]}, [1, 2], "text", 3.5, True, None])
@pytest.mark.parametrize("type_", ["application/json", "application/cloudevents+json", "text/json"])
def test_json_of_any_kind_is_parsed(value, type_):
    found = inputs(json.dumps(value).encode(), type_)
    assert (found["json"], found["body"]) == (value, json.dumps(value))


@pytest.mark.parametrize("type_", [FORM, "text/plain", None])
def test_json_is_recognised_where_nothing_says_so(type_):
    assert inputs(b' {"a": 1}', type_)["json"] == {"a": 1}
    assert inputs(b"{not json", type_)["json"] == {}


@pytest.mark.parametrize(("body", "type_"), [(b"", "application/json"), (b" \n", FORM), (b"hello", "text/plain")])
def test_a_body_without_fields_gives_an_empty_object(body, type_):
    assert inputs(body, type_)["json"] == {}


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'"\\ud800"'])
def test_a_body_that_says_it_is_json_must_be(body):
    with pytest.raises(errors.InvalidRequest, match="not JSON"):
        inputs(body)


def test_names_that_stand_once_are_texts_and_others_lists_in_query_and_form():
    found = inputs(b"a=1&b=x%20y&a=2&c=", FORM, query=[("q", "1"), ("r", ""), ("q", "2")])
    assert found["json"] == {"a": ["1", "2"], "b": "x y", "c": ""}
    assert found["query"] == {"q": ["1", "2"], "r": ""}


def test_headers_have_small_letters_are_joined_and_hold_no_credentials():
    secret = [("Authorization", "Bearer s"), ("X-API-Key", "s"), ("Cookie", "s"), ("Proxy-Authorization", "s")]
    found = inputs(headers=[("X-Two", "a"), ("x-two", "b"), *secret])
    assert found["headers"] == {"content-type": "application/json", "x-two": "a, b"}


def test_a_body_that_is_not_text_is_base64():
    found = inputs(b"\xff\x00", "image/png")
    assert (found["body"], found["body_encoding"]) == ("/wA=", "base64")
    assert "body_encoding" not in inputs(b"text", "text/plain")


def test_fields_and_files_of_a_multipart_form_arrive():
    body = multipart(
        field("a", "ä\r\n\r\n--X".encode()),
        field("a", b"2"),
        field("f", b"\x00\xff\r\n--XXtra\r\n", "na%22me.bin", "image/png"),
        field("e", b"", ""),
    )
    found = inputs(body, "multipart/form-data", header='multipart/form-data; boundary="XX"')
    assert found["json"]["a"] == ["ä\r\n\r\n--X", "2"]
    file = found["json"]["f"]
    assert (file["filename"], file["content_type"]) == ('na"me.bin', "image/png")
    assert base64.b64decode(file["content"]) == b"\x00\xff\r\n--XXtra\r\n"
    assert found["json"]["e"] == {"filename": "", "content_type": "application/octet-stream", "content": ""}
    assert found["body"] == "", "files are not there twice"


def test_a_multipart_form_without_files_keeps_its_body():
    body = multipart(field("a", b"1"))
    found = inputs(body, "multipart/form-data", header="multipart/form-data; boundary=XX")
    assert (found["json"], found["body"]) == ({"a": "1"}, body.decode())
    empty = inputs(multipart(), "multipart/form-data", header="multipart/form-data; boundary=XX")
    assert empty["json"] == {}


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (b"x", "multipart/form-data"),
        (b"x", "multipart/form-data; boundary=XX"),
        (multipart(field("a", b"1"))[:-6], "multipart/form-data; boundary=XX"),
        (multipart(b"no headers"), "multipart/form-data; boundary=XX"),
        (multipart(b"Content-Disposition: form-data\r\n\r\nx"), "multipart/form-data; boundary=XX"),
        (multipart(*[field("a", b"1")] * 1001), "multipart/form-data; boundary=XX"),
    ],
)
def test_a_multipart_form_that_does_not_hold_together_is_refused(body, header):
    with pytest.raises(errors.InvalidRequest):
        inputs(body, "multipart/form-data", header=header)


def test_forms_have_a_limit_of_fields():
    assert len(inputs(b"&".join(b"a%d=1" % n for n in range(1000)), FORM)["json"]) == 1000
    with pytest.raises(errors.InvalidRequest, match="1,000"):
        inputs(b"&".join(b"a%d=1" % n for n in range(1001)), FORM)


SECRET = "sesame-4711"


@pytest.mark.parametrize(
    ("body", "type_", "header"),
    [
        (json.dumps({"key": SECRET, "a": 1}).encode(), "application/json", None),
        (json.dumps({"key": SECRET, "a": 1}).encode(), FORM, None),
        (f"a=1&key={SECRET}&key=x".encode(), FORM, None),
        (multipart(field("key", SECRET.encode()), field("a", b"1")), "multipart/form-data", "x; boundary=XX"),
    ],
)
def test_the_key_is_nowhere_in_what_the_flow_gets(body, type_, header):
    found = inputs(body, type_, header=header, query=[("key", SECRET), ("key", "old")], headers=[("x-api-key", SECRET)])
    assert SECRET not in json.dumps(found)
    assert set(found["json"]) == {"a"}
    assert found["query"] == {}


def test_where_a_signature_says_who_sends_a_field_called_key_is_data():
    found = inputs(b'{"key":  "PROJ-1"}', keyed=False)
    assert (found["json"], found["body"]) == ({"key": "PROJ-1"}, '{"key":  "PROJ-1"}')


def test_the_key_is_found_in_a_body_of_any_kind():
    for body, type_ in ((b'{"key": "s"}', "application/json"), (b"key=s", FORM)):
        assert deliveries.content(delivery(body, type_)).key == "s"
    for body in (b'{"key": 1}', b"[]", b'"key"'):
        assert deliveries.content(delivery(body)).key == ""


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=20))
def test_a_form_comes_back_as_it_was_sent(pairs):
    try:
        body = urllib.parse.urlencode(pairs).encode()
    except UnicodeEncodeError:
        return
    found = inputs(body, FORM, keyed=False)["json"]
    for name in {name for name, _ in pairs}:
        values = [value for n, value in pairs if n == name]
        assert found[name] == (values[0] if len(values) == 1 else values)


@given(st.binary(max_size=300), st.sampled_from(["XX", "a-b", "()+?."]))
def test_any_bytes_travel_in_a_multipart_file(content, boundary):
    body = multipart(field("f", content, "f.bin"), boundary=boundary)
    if b"--" + boundary.encode() in content:
        return
    found = inputs(body, "multipart/form-data", header=f'multipart/form-data; boundary="{boundary}"')
    assert base64.b64decode(found["json"]["f"]["content"]) == content


@given(st.binary(max_size=200))
def test_whatever_comes_as_multipart_is_read_or_refused(body):
    with contextlib.suppress(errors.InvalidRequest):
        inputs(b"--XX\r\n" + body, "multipart/form-data", header="multipart/form-data; boundary=XX")


# -- which delivery it is ---------------------------------------------------------------------------------------------


def delivered(body, content_type="application/json", headers=()):
    return deliveries.Delivery(
        method="POST", path="", query=(), headers=tuple(headers), content_type=content_type, body=body
    )


def named(auth="github", body=b"{}", content_type="application/json", **headers):
    one = delivered(body, content_type, [(name.replace("_", "-"), value) for name, value in headers.items()])
    return deliveries.id_of(one, auth, deliveries.content(one))


@pytest.mark.parametrize(
    "header",
    ["X_GitHub_Delivery", "X_Gitea_Delivery", "X_Forgejo_Delivery", "X_Gogs_Delivery", "Webhook_Id", "Idempotency_Key"],
)
def test_a_delivery_is_named_by_its_header_and_bound_to_its_body(header):
    id_, digest = named(**{header: "d-1"})
    assert id_ == "d-1" and digest != named(body=b"[]", **{header: "d-1"})[1]
    assert len(named(**{header: "x" * 500})[0]) == 200


def test_a_request_of_bitbucket_has_a_name_and_that_of_others_is_only_a_proxys():
    assert named("bitbucket", X_Request_UUID="r-1")[0] == "r-1"
    assert named("github", X_Request_UUID="r-1") == ("", "")


@pytest.mark.parametrize(
    ("auth", "first", "again", "another"),
    [
        ("stripe", b'{"id":"evt_1","pending_webhooks":2}', b'{"id":"evt_1","pending_webhooks":1}', b'{"id":"evt_2"}'),
        ("slack", b'{"event_id":"Ev1","x":1}', b'{"event_id":"Ev1","x":2}', b'{"event_id":"Ev2","x":1}'),
    ],
)
def test_an_event_that_is_named_inside_is_the_same_when_its_sender_tries_again(auth, first, again, another):
    assert named(auth, first) == named(auth, again) != named(auth, another)
    assert named("key", first) == ("", "") == named(auth, b'{"id":7,"event_id":null}')


def test_cloud_events_are_named_by_source_and_id_in_either_mode():
    inside = {"content_type": "application/cloudevents+json"}
    one = named("none", b'{"specversion":"1.0","source":"/a","id":"1","type":"t"}', **inside)
    assert one == named("none", b'{"specversion":"1.0","source":"/a","id":"1","type":"t","data":{}}', **inside)
    assert one[0] and one != named("none", b'{"specversion":"1.0","source":"/b","id":"1","type":"t"}', **inside)
    binary = named("none", ce_specversion="1.0", ce_source="/a", ce_id="1")
    assert binary == one != named("none", ce_specversion="1.0", ce_source="/a", ce_id="2")
    assert named("none", ce_source="/a", ce_id="1") == ("", "") == named("none", b"[]", **inside)
    assert named("none", ce_specversion="1.0", ce_source="/a1", ce_id="")[0] == ""


def test_slack_is_told_what_it_asks_and_nobody_else_is():
    def challenge(auth, body):
        return deliveries.challenge(auth, deliveries.content(delivered(body)))

    asks = b'{"type":"url_verification","challenge":"3eZbrw1a"}'
    assert challenge("slack", asks) == "3eZbrw1a"
    assert challenge("none", asks) is None
    for other in (b'{"type":"event"}', b'{"type":"url_verification"}', b"[]", asks.replace(b'"3eZbrw1a"', b"1")):
        assert challenge("slack", other) is None
