"""Sessions in a browser: how they begin, how long they last, and what another site cannot do with them."""

import pytest

from headrace.daemon import principals, sessions


def somebody(name, **more):
    return principals.Principal(name, frozenset({"read"}), **more)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now

    def monotonic(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def people(clock):
    return sessions.Sessions(clock)


def test_a_login_token_is_good_once(people):
    token = people.issue_login()
    assert [people.redeem_login(token), people.redeem_login(token), people.redeem_login("made up")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(("age_s", "good"), [(sessions.LOGIN_S - 1, True), (sessions.LOGIN_S, False)])
def test_a_login_token_is_good_for_an_hour(people, clock, age_s, good):
    token = people.issue_login()
    clock.now += age_s
    assert people.redeem_login(token) is good


def test_tokens_and_ids_are_long_random_and_kept_as_hashes_alone(people):
    secrets = {people.issue_login() for _ in range(10)} | {people.open(somebody("ada")) for _ in range(10)}
    assert len(secrets) == 20 and min(map(len, secrets)) >= 43  # 256 bits in base64
    assert not any(secret in repr(vars(people)) for secret in secrets)


@pytest.mark.parametrize(
    ("steps_s", "found"),
    [
        ([sessions.IDLE_S - 1], True),
        ([sessions.IDLE_S], False),
        ([sessions.IDLE_S - 1] * 12, True),  # used again and again
        ([sessions.IDLE_S - 1] * 13, False),  # twelve hours are over all the same
    ],
)
def test_a_session_ends_an_hour_after_its_last_use_and_twelve_after_the_login(people, clock, steps_s, found):
    session = people.open(somebody("ada"))
    for step_s in steps_s:
        clock.now += step_s
        last = people.find(session)
    assert (last is not None) is found


def test_a_session_that_is_closed_is_gone_and_others_stay(people):
    mine, hers = people.open(somebody("me")), people.open(somebody("ada"))
    people.close(mine)
    people.close("never was")
    assert people.find(mine) is None and people.find(hers).principal.name == "ada"


def test_the_longest_unused_session_makes_room(people, clock):
    first = people.open(somebody("first"))
    for _ in range(sessions._SESSIONS_MAX):
        clock.now += 1
        people.open(somebody("another"))
    assert people.find(first) is None and len(people._sessions) == sessions._SESSIONS_MAX


def test_a_form_token_belongs_to_one_session(people):
    mine, hers = people.open(somebody("me")), people.open(somebody("ada"))
    assert sessions.is_form_token(mine, sessions.form_token(mine))
    assert not sessions.is_form_token(mine, sessions.form_token(hers))
    assert not sessions.is_form_token(mine, "") and not sessions.is_form_token(mine, "ü\ud800")


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example"}, True),  # a proxy changed Host
        ({"Origin": "http://here:1"}, True),
        ({"Origin": "https://here:1"}, True),  # a proxy ended TLS
        ({}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://here:1"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://here:2"}, False),
        ({"Origin": "http://[broken"}, False),
        ({"Origin": "http://here:1.evil.example"}, False),
    ],
)
def test_only_a_page_of_ours_may_send_forms(headers, same):
    assert sessions.same_origin({"Host": "here:1", **headers}) is same


def test_a_session_ends_with_the_token_that_began_it(people, clock):
    short = people.open(somebody("ci", keys=("t1",), expires_s=clock.time() + 60))
    long = people.open(somebody("ops", keys=("t2",)))
    clock.now += 59
    assert people.find(short).principal.keys[0] == "t1"
    clock.now += 1
    assert people.find(short) is None and people.find(long) is not None
    people.close_all("t2")
    assert people.find(long) is None
