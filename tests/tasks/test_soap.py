"""SOAP: with a service made by spyne, and with services that are no good."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import sys

import aiohttp
import pytest
from aiohttp import web

from headrace.engine import errors
from headrace.tasks import definition, egress, registry
from tests.support import services
from tests.support.task_context import Context

SECRET = services.PASSWORD
ENVELOPE = '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>{}</e:Body></e:Envelope>'
THREE = ENVELOPE.format('<t:AddResponse xmlns:t="urn:tests"><t:AddResult>3</t:AddResult></t:AddResponse>')
ADD = {"operation": "Add", "params": {"a": 1, "b": 2}}


@pytest.fixture(scope="module")
def shop():
    with services.soap() as url:
        yield url


@pytest.fixture
async def wsdl(shop) -> str:
    """The text of the shop's WSDL."""
    async with aiohttp.ClientSession() as session, session.get(f"{shop}/?wsdl") as answer:
        return await answer.text()


@pytest.fixture
def soap(call, shop):
    async def run(operation: str, params: dict | None = None, **inputs) -> dict:
        return (await call("SOAP", wsdl=f"{shop}/?wsdl", operation=operation, params=params, **inputs))["result"]

    return run


@pytest.fixture
def failure(call, context: Context):
    """Run a task that has to fail and return what it says, which never holds a secret."""

    async def run(**inputs) -> str:
        with pytest.raises(errors.TaskFailed) as failed:
            await call("SOAP", **{**ADD, **inputs})
        said = failed.value.message
        assert SECRET not in said + context.text and "\n" not in said and len(said) < 1500
        return said.removeprefix("SOAP Add: ")

    return run


@pytest.fixture
def peer(serve, wsdl):
    """Serve the shop's WSDL, and answer calls by what is given; the peer keeps the requests."""

    async def start(answer=THREE, *, status=200, described=None, tls=None, content_type="text/xml"):
        async def handle(request):
            asked.append((request, await request.text()))
            if request.method == "GET":
                text = re.sub(r'location="http://[^"]*"', f'location="{request.url.origin()}/call"', wsdl)
                return web.Response(body=described if described is not None else text.encode())
            if callable(answer):
                return await answer(request)
            return web.Response(body=answer.encode(), status=status, content_type=content_type)

        asked = []
        url = await serve(handle, tls=tls)
        return f"{url}/?wsdl", asked

    return start


# --- what is said and understood


async def test_an_operation_is_called(soap):
    assert await soap("Add", {"a": 1, "b": 2}) == 3


async def test_every_kind_of_value_goes_there_and_back(soap):
    item = {"name": "ü <&>", "count": 7, "price": "1.10", "day": "2026-02-03", "fresh": True}
    order = {"id": 3, "items": {"Item": [item, {**item, "count": None}]}, "content": {"base64": "AP8="}}
    assert await soap("Echo", {"order": order}) == order
    assert (await soap("Stock"))[0] == {**item, "count": str(2**70)}
    assert await soap("Moment") == "2026-02-03T04:05:06+00:00"


async def test_the_wsdl_may_be_a_text_or_a_file(call, context, shop, wsdl):
    for given in (wsdl, "\ufeff\n" + wsdl, "headrace:shop.wsdl"):
        writer = context.files.write("shop.wsdl")
        writer.write(wsdl.encode())
        writer.commit()
        assert (await call("SOAP", wsdl=given, **ADD))["result"] == 3


async def test_a_service_and_its_port_may_be_chosen_and_its_address_replaced(soap, shop, peer):
    assert await soap("Add", {"a": 1, "b": 2}, service="Shop", service_port="Application") == 3
    _, asked = await peer()
    there, asked = await peer()
    assert await soap("Add", {"a": 2, "b": 2}, url=there) == 3 and len(asked) == 1


async def test_a_fault_is_a_failure_with_its_detail(call, shop):
    with pytest.raises(errors.TaskFailed) as failed:
        await call("SOAP", wsdl=f"{shop}/?wsdl", operation="Fails", params={"why": "tea"})
    assert failed.value.message == (
        "SOAP Fails: the service answered with fault soap11env:Client.Stock: nothing left of tea"
    )
    fault = json.loads(failed.value.output)["fault"]
    assert "<shelf>7</shelf>" in fault["detail"] and fault["code"] == "soap11env:Client.Stock"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"operation": "Nope"},
            "SOAP Nope: the WSDL knows no such operation; its operations are Add, Echo, Fails, Moment, Stock",
        ),
        ({"service": "x"}, "the WSDL knows no such service; its services are Shop"),
        ({"service_port": "x"}, "the service has no such port that speaks SOAP; those that do are Application"),
        (
            {"params": {"a": 1, "c": 2}},
            "the input 'params' does not fit: {urn:tests}Add() got an unexpected keyword argument 'c'. Signature: "
            "`a: xsd:integer, b: xsd:integer`",
        ),
        ({"params": {"a": 1}}, "the input 'params' does not fit: Missing element b (Add.b)"),
        (
            {"operation": "Echo", "params": {"order": {"idd": SECRET}}},
            "SOAP Echo: the input 'params' does not fit: {urn:tests}Order() got an unexpected keyword argument 'idd'.",
        ),
        (
            {"operation": "Echo", "params": {"order": {"items": {"Item": [{"name": SECRET, "day": 5}]}}}},
            "SOAP Echo: the input 'params' does not fit: a value is not of the type that the WSDL says",
        ),
    ],
    ids=range(7),
)
async def test_what_the_wsdl_does_not_know(failure, shop, wsdl, inputs, message):
    strict = wsdl.replace(' nillable="true"', "") if "Missing" in message else f"{shop}/?wsdl"
    assert (await failure(wsdl=strict, **inputs)).startswith(message)


# --- who we are


async def test_basic_authentication_opens_wsdl_and_operation(call, failure, shop):
    inside = {"wsdl": f"{shop}/secure/?wsdl"}
    assert (await call("SOAP", **inside, **ADD, username="app", password=SECRET))["result"] == 3
    refused = f"{shop}/secure/ answered with status 401"
    assert await failure(**inside) == refused
    assert await failure(**inside, username="app", password="wrong-pass-word") == refused


async def test_a_service_that_refuses_the_call_alone(failure, peer):
    there, _ = await peer("who are you, " + SECRET, status=401, content_type="text/plain")
    assert await failure(wsdl=there, username="app", password=SECRET) == "status 401: who are you, ***"


async def test_a_bearer_token_and_more_headers_are_sent(call, peer):
    there, asked = await peer()
    await call("SOAP", wsdl=there, token="t0ken", headers={"X-Tenant": "7"}, **ADD)
    for request, _ in asked:
        assert request.headers["Authorization"] == "Bearer t0ken" and request.headers["X-Tenant"] == "7"
    assert asked[-1][0].headers["Content-Type"].startswith("text/xml") and len(asked) == 2


async def test_a_username_token_stands_in_the_envelope_alone(call, peer):
    there, asked = await peer()
    access = {"username": "app", "password": SECRET}
    await call("SOAP", wsdl=there, authentication_method="wsse", **access, **ADD)
    request, envelope = asked[-1]
    assert "Authorization" not in request.headers and SECRET not in asked[0][1]
    assert re.search(rf"<\w+:Username>app</\w+:Username><\w+:Password [^>]*PasswordText\">{SECRET}</", envelope)


async def test_a_digest_does_not_tell_the_password(call, peer):
    there, asked = await peer()
    await call("SOAP", wsdl=there, authentication_method="wsse-digest", username="app", password=SECRET, **ADD)
    said = dict(re.findall(r"<\w+:(Password|Nonce|Created)[^>]*>([^<]*)<", asked[-1][1]))
    proof = base64.b64decode(said["Nonce"]) + said["Created"].encode() + SECRET.encode()
    assert base64.b64encode(hashlib.sha1(proof).digest()).decode() == said["Password"]
    assert SECRET not in asked[-1][1]


async def test_credentials_do_not_follow_a_wsdl_elsewhere(call, failure, peer, wsdl):
    elsewhere, asked = await peer()
    origin = elsewhere.partition("/?")[0]
    crooked = re.sub(r'location="http://[^"]*"', f'location="{origin}/call"', wsdl).encode()
    there, _ = await peer(described=crooked)
    for access in ({"username": "app", "password": SECRET}, {"token": SECRET}, {"headers": {"X-Api-Key": SECRET}}):
        said = await failure(wsdl=there, **access)
        assert said == (
            f"the WSDL says that the service is at {origin}, which is not where the WSDL is: give 'url' to send "
            "credentials there"
        )
    assert not asked
    assert (await call("SOAP", wsdl=there, url=f"{origin}/call", token=SECRET, **ADD))["result"] == 3
    assert (await call("SOAP", wsdl=there, **ADD))["result"] == 3  # there is nothing to tell


async def test_a_redirect_of_the_wsdl_is_followed_without_credentials(call, failure, serve, peer):
    there, asked = await peer()

    start = await serve(_redirecting(there))
    said = await failure(wsdl=f"{start}/?wsdl", token=SECRET)
    assert "give 'url' to send credentials there" in said
    assert [request.headers.get("Authorization") for request, _ in asked] == [None]
    loop = await serve(_redirecting("/?x"))
    assert await failure(wsdl=f"{loop}/") == f"{loop}/ redirects more than 5 times"
    away = await serve(_redirecting("file:///etc/passwd"))
    assert await failure(wsdl=f"{away}/") == f"{away}/ redirects to an address that is not http or https"


def _redirecting(location):
    async def answer(request):
        return web.Response(status=302, headers={"Location": location})

    return answer


# --- hosts that are no good

GROWING = "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefghy", "bcdefghyz", strict=True)
)
BOMB = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{GROWING}]><x>&z;</x>'
HIDDEN = BOMB.partition("?>")[2].replace("<", "+ADw-").replace("&z;", "").encode()
DEEP = "<a>" * 1000 + "</a>" * 1000
IMPORT = '<definitions xmlns="http://schemas.xmlsoap.org/wsdl/"><import namespace="x" location="{}"/></definitions>'


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (BOMB.encode(), "the WSDL declares a document type: it is not read"),
        (BOMB.encode("utf-16"), "the WSDL declares a document type: it is not read"),
        (b'<?xml version="1.0" encoding="UTF-7"?>' + HIDDEN, "the WSDL cannot be used: it declares a document type"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>', "the WSDL declares a document type: it is not read"),
        (IMPORT.format("file:///etc/passwd").encode(), "the WSDL imports a document that is no http address"),
        (IMPORT.format("/etc/passwd").encode(), "{} answered with status 404"),
        (b"nonsense", "the WSDL cannot be used: Invalid XML content received"),
        (b"", "the WSDL cannot be used: "),
        (b"\xff\xfe\0\xd8", "the WSDL cannot be used: "),
        (b"<html/>", "the WSDL knows no such service; its services are none"),
        (DEEP.encode(), "the WSDL cannot be used: Invalid XML content received (Excessive depth"),
    ],
    ids=range(11),
)
async def test_a_wsdl_that_is_none_is_a_failure(failure, serve, described, message):
    async def answer(request):
        return web.Response(body=described) if "wsdl" in request.query else web.Response(status=404)

    url = await serve(answer)
    assert (await failure(wsdl=f"{url}/?wsdl")).startswith(message.format(f"{url}/etc/passwd"))


async def test_a_text_cannot_import_what_lies_beside_it(failure):
    said = await failure(wsdl=IMPORT.format("other.wsdl"))
    assert said == "the WSDL imports a document that is no http address: give the WSDL's own address"


async def test_a_wsdl_that_has_no_end(failure, serve):
    async def more(request):
        name = int(request.query.get("n", 0)) + 1
        return web.Response(text=IMPORT.format(f"{request.url.origin()}/?n={name}"))

    url = await serve(more)
    assert await failure(wsdl=f"{url}/") == "the WSDL is more than 16 MiB or 200 documents"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (BOMB, "the answer declares a document type: it is not read"),
        ("nonsense", "the answer is not what the WSDL says: Server returned response (200) with invalid XML"),
        ("<html/>", "the answer is not what the WSDL says: "),
        (ENVELOPE.format(DEEP), "the answer is not what the WSDL says: "),
        (ENVELOPE.format("<e:Fault/>"), "the service answered with fault: "),
    ],
    ids=range(5),
)
async def test_an_answer_that_is_none_is_a_failure(failure, peer, answer, message):
    there, _ = await peer(answer)
    assert (await failure(wsdl=there)).startswith(message)


async def test_a_value_that_is_not_of_its_type_is_told(call, context, peer):
    there, _ = await peer(THREE.replace(">3<", ">three<"))
    assert (await call("SOAP", wsdl=there, **ADD))["result"] is None
    assert "WARNING a value of the answer is not of the type that the WSDL says" in context.text


async def test_an_answer_without_end_is_left(failure, peer):
    async def endless(request):
        response = web.StreamResponse(headers={"Content-Type": "text/xml"})
        await response.prepare(request)
        while True:
            await response.write(b"<a>" * 400_000)

    there, _ = await peer(endless)
    assert await failure(wsdl=there) == "the answer is larger than 64 MiB"


async def test_a_broken_front_is_tried_again_if_the_call_says_so(failure, pacing, peer):
    there, asked = await peer("busy", status=503, content_type="text/html")
    assert await failure(wsdl=there) == "status 503: busy" and len(asked) == 2
    said = await failure(wsdl=there, retry_backoff={"initial": 1, "deadline": 4})
    assert pacing.pauses == [1.0, 2.0] and "tried 3 times" in said


async def test_a_certificate_nobody_vouches_for(call, failure, peer, certs):
    there, asked = await peer(tls=certs.server_context())
    assert "is not trusted" in await failure(wsdl=there) and not asked
    assert (await call("SOAP", wsdl=there, cacert=certs.text("ca.crt"), **ADD))["result"] == 3
    assert (await call("SOAP", wsdl=there, verify_ssl=False, **ADD))["result"] == 3


async def test_nobody_listens(failure):
    port = services.free_port()
    assert await failure(wsdl=f"http://127.0.0.1:{port}/") == f"connection refused by 127.0.0.1:{port}"


async def test_a_service_that_says_nothing_is_left_when_time_is_up(failure, peer):
    async def silence(request):
        await asyncio.Event().wait()

    there, _ = await peer(silence)
    assert (await failure(wsdl=there, read_timeout=0.1)).endswith("sent nothing for 0.1 s")


async def test_cancelled_the_task_hangs_up(call, peer):
    came, gone = asyncio.Event(), asyncio.Event()

    async def silence(request):
        came.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    there, _ = await peer(silence)
    work = asyncio.create_task(call("SOAP", wsdl=there, **ADD))
    await came.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await gone.wait()


async def test_addresses_the_operator_forbids(context, shop, wsdl):
    tasks = registry.installed(definition.Settings(egress=egress.Egress(deny_private=True)))
    for given in (f"{shop}/?wsdl", wsdl, IMPORT.format(f"{shop}/?wsdl")):
        with pytest.raises(errors.TaskFailed, match="is not a public address, and this daemon lets tasks connect"):
            await tasks.prepare("SOAP", json.dumps({"wsdl": given, **ADD}).encode()).run(context)
    await tasks.aclose()


async def test_without_the_library_the_task_says_what_to_install(failure, monkeypatch):
    for loaded in [one for one in sys.modules if one == "zeep" or one.startswith("zeep.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, "zeep", None)
    assert "pip install 'headrace[soap]'" in await failure(wsdl="http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"wsdl": None}, "needs the input 'wsdl': What describes the service: "),
        ({"wsdl": "/x"}, "cannot use the input 'wsdl': expected an address with http or https, a WSDL as text, or "),
        ({"wsdl": "http://"}, "cannot use the input 'wsdl': expected an address such as https://service.example"),
        ({"url": "ftp://x"}, "cannot use the input 'url': expected an address with http or https"),
        ({"operation": " "}, "cannot use the input 'operation': expected the name of an operation"),
        ({"params": [1]}, "cannot use the input 'params': expected an object"),
        ({"params": {"x": {"base64": "?"}}}, "cannot use the input 'params': there is a {\"base64\": …} that is not"),
        ({"password": SECRET}, "needs the input 'username': the user whose 'password' is given"),
        ({"username": "u"}, "needs the input 'password': the password of 'username'"),
        ({"authentication_method": "wsse"}, "needs the input 'username': the user whose 'authentication_method' is"),
        ({"authentication_method": "x"}, "cannot use the input 'authentication_method': it is not one of the values"),
        ({"username": "u", "password": SECRET, "token": "t"}, "cannot use the input 'token': give either 'token' or"),
        ({"cacert": "k"}, "cannot use the input 'cacert': expected certificates as PEM text"),
        ({"client_key": "k"}, "needs the input 'client_cert': the certificate that 'client_key' belongs to"),
        ({"methd": "x"}, "has no input 'methd'"),
    ],
    ids=range(15),
)
async def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("SOAP", json.dumps({"wsdl": "http://x", **ADD, **inputs}).encode())
    assert refused.value.message.startswith(f"SOAP {message}") and SECRET not in refused.value.message


def test_a_call_may_not_simply_be_repeated(tasks):
    assert not tasks.prepare("SOAP", json.dumps({"wsdl": "http://x", **ADD}).encode()).idempotent
