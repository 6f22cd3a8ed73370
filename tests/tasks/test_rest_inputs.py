"""Which inputs REST takes, and what it says about the others."""

# ruff: noqa: E501 - a table of whole messages, one a line
from __future__ import annotations

import json

import msgspec
import pytest

from headrace.engine import errors
from headrace.tasks import registry, rest_request
from tests.support.certificates import Certificates


def _inputs(**given: object) -> rest_request.RestInputs:
    return msgspec.convert(given, rest_request.RestInputs)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({}, "Missing", "REST needs the input 'url': the address to call (or 'hostname')"),
        ({"url": "ftp://x/"}, "Invalid", "REST cannot use the input 'url': expected an address such as https://example.com/path"),
        ({"url": "no address"}, "Invalid", "REST cannot use the input 'url': expected an address such as https://example.com/path"),
        ({"url": "http://x:99999/"}, "Invalid", "REST cannot use the input 'url': expected an address such as https://example.com/path"),
        ({"hostname": "x/y"}, "Invalid", "REST cannot use the input 'hostname': expected a host's name or address, without scheme and path"),
        ({"hostname": "x", "scheme": "ftp"}, "Invalid", "REST cannot use the input 'scheme': expected http or https"),
        ({"hostname": "x", "port": 70000}, "Invalid", "REST cannot use the input 'port': expected a whole number <= 65535"),
        ({"url": "http://x", "method": "GE T"}, "Invalid", "REST cannot use the input 'method': expected an HTTP method such as get or post"),
        ({"url": "http://x", "json": 1, "text": "x"}, "Invalid", "REST cannot use the input 'text': there is a body already in 'json'; give one of json, data, text, urlencoded, multipart"),
        ({"url": "http://x", "data": 5}, "Invalid", "REST cannot use the input 'data': expected an object, a list or a text"),
        ({"url": "http://x", "authentication_method": "digest"}, "Invalid", "REST cannot use the input 'authentication_method': expected basic; put a bearer token into 'headers'"),
        ({"url": "http://x", "authentication_method": "basic"}, "Missing", "REST needs the input 'username': the user for basic authentication"),
        ({"url": "http://x", "username": "a:b"}, "Invalid", "REST cannot use the input 'username': basic authentication has no way to send a colon in it"),
        ({"url": "http://x", "client_key": "x"}, "Missing", "REST needs the input 'client_cert': the certificate that 'client_key' belongs to"),
        ({"url": "http://x", "cacert": "hunter2"}, "Invalid", "REST cannot use the input 'cacert': expected certificates as PEM text"),
        ({"url": "http://x", "client_cert": "hunter2"}, "Invalid", "REST cannot use the input 'client_cert': expected a certificate and its private key ('client_key') as PEM text"),
        ({"url": "http://x", "headers": {"a b": "x"}}, "Invalid", "REST cannot use the input 'headers': a header's name has characters that are not allowed there"),
        ({"url": "http://x", "headers": {"a": "x\r\nb: y"}}, "Invalid", "REST cannot use the input 'headers': the value of a contains a control character"),
        ({"url": "http://x", "cookies": {"a": "x; b=y"}}, "Invalid", "REST cannot use the input 'cookies': the value of a contains a semicolon or a control character"),
        ({"url": "http://x", "params": {"a": {"b": 1}}}, "Invalid", "REST cannot use the input 'params': the value of a must be a text, a number, true or false, or a list"),
        ({"url": "http://x", "urlencoded": {"a": {}}}, "Invalid", "REST cannot use the input 'urlencoded': the value of a must be a text, a number, true or false, or a list"),
        ({"url": "http://x", "multipart": [{"value": "x"}]}, "Invalid", "REST cannot use the input 'multipart': expected {name: value} or a list of {name, value, filename, content_type}"),
        ({"url": "http://x", "dst": "headrace:"}, "Invalid", "REST cannot use the input 'dst': expected headrace:<path>"),
        ({"url": "http://x", "expected_status_code": "200"}, "Invalid", "REST cannot use the input 'expected_status_code': expected a whole number or a list, got a text"),
        ({"url": "http://x", "max_redirects": -1}, "Invalid", "REST cannot use the input 'max_redirects': expected a whole number >= 0"),
        ({"ur": "http://x"}, "Extra", "REST has no input 'ur'; did you mean 'url'?"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_refused_before_anything_is_sent(
    tasks: registry.Registry, given: dict, kind: str, message: str
) -> None:
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("REST", json.dumps(given).encode())
    assert (refused.value.kind, refused.value.message) == (f"{kind}InputError", message)


def test_an_encrypted_or_foreign_client_key_is_named(tasks: registry.Registry, certs: Certificates) -> None:
    for key, said in (("locked.key", "its private key is encrypted"), ("server.key", "do not belong together")):
        given = {"url": "https://x", "client_cert": certs.text("client.crt"), "client_key": certs.text(key)}
        with pytest.raises(errors.InputRefused, match=said):
            tasks.prepare("REST", json.dumps(given).encode())


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({"url": "http://x"}, "http://x/"),
        ({"url": "http://x/a?b=1#c"}, "http://x/a?b=1"),
        ({"url": "http://x/a/", "path": "/b"}, "http://x/a/b"),
        ({"url": "http://x/a?k=1", "path": "b?l=2"}, "http://x/a/b?k=1&l=2"),
        ({"url": "http://x", "hostname": "y", "port": 1}, "http://x/"),
        ({"hostname": "x"}, "https://x/"),
        ({"hostname": "x", "scheme": "http", "port": 8080}, "http://x:8080/"),
        ({"hostname": "x", "base_path": "/api/", "path": "/v1/y/"}, "https://x/api/v1/y/"),
        ({"hostname": "::1", "port": 99}, "https://[::1]:99/"),
        ({"hostname": "x", "path": "a b"}, "https://x/a%20b"),
        ({"hostname": "x", "path": "a%2Fb"}, "https://x/a%2Fb"),
    ],
)
def test_the_address_is_put_together(given: dict, address: str) -> None:
    assert str(rest_request.address(_inputs(**given))) == address


@pytest.mark.parametrize(
    ("method", "repeatable"), [("get", True), ("HEAD", True), ("options", True), ("put", False), ("post", False)]
)
def test_only_safe_methods_are_repeated_after_a_crash(tasks: registry.Registry, method: str, repeatable: bool) -> None:
    text = json.dumps({"url": "http://x", "method": method}).encode()
    assert tasks.prepare("REST", text).idempotent is repeatable
