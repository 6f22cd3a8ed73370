"""The way to an OpenID provider and back, with a clock that tests move; the whole login is in tests/e2e."""

import time
import urllib.parse

import msgspec
import pytest
from joserfc.jwk import RSAKey

from headrace.daemon import front, id_token, oidc
from tests.support import identity_provider
from tests.support.clocks import Clock

SETTING = {"issuer": "https://id.example", "client_id": "c", "url": "https://flows.example", "roles": {"ops": "viewer"}}


@pytest.fixture
def server():
    with identity_provider.running() as server:
        yield server


@pytest.fixture
async def provider(server):
    setting = oidc.Oidc(
        issuer=server.issuer, client_id=identity_provider.CLIENT, url="http://localhost", roles={"ops": "operator"}
    )
    provider = oidc.Provider(setting, identity_provider.SECRET, Clock(time.time()))
    yield provider
    await provider.close()


async def log_in(provider, server, wait_s=0.0):
    address, state = await provider.begin("/")
    back = urllib.parse.urlsplit(server.authorize(address))
    provider._clock.now_s += wait_s
    return (await provider.finish(dict(urllib.parse.parse_qsl(back.query)), state))[0]


async def test_keys_that_were_changed_are_asked_for_again_but_not_all_the_time(provider, server):
    assert (await log_in(provider, server)).name == "ada"
    server.key = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})
    token = server.token
    server.token = lambda **claims: token({"kid": "two"}, **claims)
    with pytest.raises(id_token.Refused):
        await log_in(provider, server)  # within a minute
    assert server.asked.count("/keys") == 1
    provider._clock.now_s += 61
    assert (await log_in(provider, server)).name == "ada"
    assert server.asked.count("/keys") == 2


async def test_who_takes_too_long_has_to_begin_again(provider, server):
    with pytest.raises(id_token.Refused, match="too long"):
        await log_in(provider, server, wait_s=oidc.VISIT_S)


async def test_what_the_provider_says_about_itself_is_kept_while_it_does_not_answer(provider, server):
    await provider.begin("/")
    server.is_down = True
    provider._clock.now_s += 7200
    await provider.begin("/")
    assert server.asked.count("/.well-known/openid-configuration") >= 2


async def test_a_provider_that_was_never_there_says_so(provider, server):
    server.is_down = True
    with pytest.raises(id_token.Refused, match="answered 503"):
        await provider.begin("/")
    server.close()
    with pytest.raises(id_token.Refused, match="does not answer") as caught:
        await provider.begin("/")
    assert "a token still logs you in" in caught.value.hint


async def test_a_provider_that_calls_itself_otherwise_is_refused(provider, server):
    server.issuer += "/other"
    with pytest.raises(id_token.Refused, match="calls itself"):
        await provider.begin("/")


async def test_no_more_people_are_on_their_way_than_there_is_room_for(provider, server, monkeypatch):
    monkeypatch.setattr(oidc, "_VISITS_MAX", 3)
    states = [(await provider.begin("/"))[1] for _ in range(5)]
    assert list(provider._visits) == states[2:]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "http://id.example"}, "https://"),
        ({"issuer": "id.example"}, "not an address"),
        ({"issuer": "https://user:secret@id.example"}, "not an address"),
        ({"url": "http://flows.example"}, "https://"),
        ({"client_id": ""}, "client_id"),
        ({"scopes": ["email"]}, "openid"),
        ({"roles": {}}, "nobody would get in"),
        ({"roles": {"ops": "root"}}, "neither a scope nor a role"),
        ({"client_secret_file": "/nowhere"}, "is not a file"),
        ({"secret": "in clear"}, "unknown field"),
    ],
)
def test_a_setting_that_cannot_be_used_says_why(changes, words):
    assert msgspec.convert(SETTING, oidc.Oidc)
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(SETTING | changes, oidc.Oidc)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"networks": []}, "names nobody"),
        ({"networks": ["everybody"]}, "everybody"),
        ({"networks": ["10.0.0.1/8"]}, "host bits"),
        ({"networks": ["10.0.0.0/8"], "user_header": "X User", "roles": {"*": "viewer"}}, "not the name of a header"),
        ({"networks": ["10.0.0.0/8"], "user_header": "X-User"}, "nobody would get in"),
        ({"networks": ["10.0.0.0/8"], "groups_header": "X-Groups"}, "user_header"),
        ({"networks": ["10.0.0.0/8"], "user_header": "X-User", "roles": {"a": "b"}}, "neither a scope nor a role"),
    ],
)
def test_a_proxy_that_cannot_be_believed_says_why(setting, words):
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(setting, front.Proxy)
