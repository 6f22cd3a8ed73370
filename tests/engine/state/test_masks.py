"""Secrets do not survive, in any spelling; everything else does."""

import base64
import html
import json
import string
import threading
import typing
import urllib.parse

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace.engine import events
from headrace.engine.state import masks as masks_module
from headrace.engine.state.masks import MARKER, Masks, Stream

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nEFAASCBKcwggSjAgEAAoIBAQ==\n-----END PRIVATE KEY-----\n"
HARD = [
    "correct horse battery staple", "+++++++", r"\Q\E\Q\E", "$1$2$3", 'say "please" now', PEM, "pässwörter",
    "geheim-😀😀", "a/b+c=d/e", "[a-z]*(x)|y{2}", "<b>&'\"</b>", "tab\tand\x01control", "100%25 %s %d",
    "it's so", "AKIA0123456789ABCDEF",
    "postgresql://user:p%40ss@db:5432/x?y=z", "a" * 40, "trailing backslash\\",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module", params=[masks_module._FEW_MAX, 0], ids=["few", "many"])
def _both_ways_to_look(request):
    """Few spellings are looked for one by one, many another way; the second time these few are many."""
    before, masks_module._FEW_MAX = masks_module._FEW_MAX, request.param
    yield
    masks_module._FEW_MAX = before


def knowing(*secrets):
    masks = Masks()
    for secret in secrets:
        masks.learn(secret)
    return masks


def upper_hex(text):
    plain = (json.dumps(character)[1:-1] for character in text)
    return "".join(f"\\u{one[2:].upper()}".replace("\\U", "\\u") if one[:2] == "\\u" else one for one in plain)


def quoted(byte):
    return len(urllib.parse.quote(bytes([byte]), safe="")) > 1


ENCODINGS = {
    "as it is": lambda s: s,
    "json": lambda s: json.dumps(s)[1:-1],
    "json in utf-8": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "json with slashes escaped": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "json with capitals": upper_hex,
    "json in json": lambda s: json.dumps(json.dumps(s))[3:-3],
    "quote": urllib.parse.quote,
    "quote all": lambda s: urllib.parse.quote(s, safe=""),
    "quote plus": urllib.parse.quote_plus,
    "quote in small letters": lambda s: "".join(f"%{b:02x}" if quoted(b) else chr(b) for b in s.encode()),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "urlsafe base64": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "repr": lambda s: repr(s)[1:-1],
    "repr of bytes": lambda s: repr(s.encode())[2:-1],
    "html": html.escape,
}  # fmt: skip


@pytest.mark.parametrize("how", ENCODINGS)
@pytest.mark.parametrize("secret", HARD)
def test_a_secret_is_found_as_programs_spell_it(secret, how):
    spelled = ENCODINGS[how](secret.strip())
    masked = knowing(secret).text(f"before ({spelled}) after")
    assert spelled not in masked
    assert masked.startswith(f"before ({MARKER}") and masked.endswith(") after")


@pytest.mark.parametrize("before", ["", "u", "us", "use", "user"])
@pytest.mark.parametrize("secret", HARD)
def test_a_secret_inside_of_something_encoded_is_found(secret, before):
    """As in the header of basic authentication, wherever in a group of three bytes it begins."""
    secret = secret.strip()
    masks = knowing(secret)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(f"{before}:{secret}:after it".encode()).decode()
        masked = masks.text(f"Basic {whole}")
        assert MARKER in masked
        assert len(masked) - len(f"Basic {MARKER}") <= len(whole) - len(secret.encode()) * 4 // 3 + 2


def test_base64_in_lines_is_found():
    secret = "".join(string.ascii_letters[i * 7 % 52] for i in range(200))
    wrapped = base64.encodebytes(secret.encode()).decode()
    assert knowing(secret).text(wrapped).split("\n") == [MARKER, MARKER, MARKER, f"{MARKER}A=", ""]


@pytest.mark.parametrize("secret", HARD)
def test_a_value_stays_json_and_loses_the_secret_alone(secret):
    masks = knowing(secret)
    value = {"a": ["x", {"b": f"<{secret.strip()}>"}], "n": [1, -0.5, True, None], "ü": "ok"}
    shown = value | {"a": ["x", {"b": f"<{MARKER}>"}]}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value, indent=1)):
        assert json.loads(masks.json(text.encode())) == shown
    assert json.loads(masks.json(json.dumps(json.dumps(value)).encode()))  # an answer logged as text
    assert secret.strip() not in masks.json(msgspec.json.encode([{secret: 1}])).decode()


def test_every_way_to_escape_a_string_is_seen_through():
    masks = knowing("hunter2!")
    assert masks.json(rb'{"a":"\u0068unter2\u0021","b":"\/"}') == b'{"a":"[masked]","b":"/"}'


def test_numbers_are_masked_whole_and_others_keep_their_digits():
    masks = knowing(31337421)
    masks.learn({"pin": 12345, "on": True, "off": False, "none": None, "pi": 3.14159265})
    text = b'[31337421,1313374210,12345,3.14159265,1.50e3,0.10000000000000000001,12345678901234567890123,"31337421"]'
    assert masks.json(text) == (
        b'["[masked]","[masked]",12345,"[masked]",1.50e3,0.10000000000000000001,12345678901234567890123,"[masked]"]'
    )
    assert masks.text("12345 true null") == "12345 true null"


def test_what_is_short_counts_only_as_a_whole():
    masks = knowing("abc", 'a"b', "ü1")
    assert masks.text("abc") == MARKER
    assert masks.text("say abc") == "say abc"
    assert masks.text("one\nabc\ntwo") == f"one\n{MARKER}\ntwo"
    assert (
        masks.json(b'{"abc":["abc","abcd"," abc","x\\nabc"]}') == b'{"abc":["[masked]","abcd"," abc","x\\n[masked]"]}'
    )
    assert masks.json(rb'["a\"b","\u00fc1","\u0061bc"]') == b'["[masked]","[masked]","[masked]"]'
    assert masks.json(rb'["a\"bc","\u00fc12"]') == rb'["a\"bc","\u00fc12"]'


@pytest.mark.parametrize("nothing", ["", "  ", "\n", None, True, False, 0, 12345, {}, [], {"password": ""}, "masked"])
def test_what_is_no_secret_is_not_learned(nothing):
    masks = knowing(nothing)
    assert not masks.knows()
    assert masks.text("a password true null 12345") == "a password true null 12345"


def test_all_of_an_object_is_learned_but_its_keys():
    masks = knowing({"password": "hunter-two", "more": [{"token": "tok-tok-tok"}]})
    assert masks.text("password hunter-two token tok-tok-tok") == "password [masked] token [masked]"


def test_lines_of_a_secret_count_alone():
    masks = knowing(PEM)
    assert masks.text(PEM) == f"{MARKER}\n"
    assert masks.text("key: MIIEvQIBADANBgkqhkiG9w0BAQ") == f"key: {MARKER}"
    assert masks.text(PEM.replace("\n", "\r\n").strip()) == "\r\n".join([MARKER] * 4)
    assert knowing("long enough line\n}\n").text("}") == "}"


def test_secrets_that_overlap_leave_nothing_of_each_other():
    masks = knowing("abcdef123", "123xyz789", "def123x")
    assert masks.text("<abcdef123xyz789>") == f"<{MARKER}>"
    assert knowing("secret-one", "secret-one-longer").text("secret-one-longer, secret-one") == f"{MARKER}, {MARKER}"
    assert knowing("aaaaaa").text("b" + "a" * 1000 + "b") == f"b{MARKER}b"


def test_a_secret_like_the_marker_makes_no_circle():
    masks = knowing("masked", "masked]-x")
    assert masks.text(masks.text("is [masked]-x")) == "is [[masked]"
    assert masks.text(MARKER) == MARKER


def test_masked_keys_stay_apart():
    masks = knowing("first-secret", "second-secret")
    text = b'{"first-secret":1,"second-secret":2,"[masked]":3,"x first-secret":4}'
    assert json.loads(masks.json(text)) == {"[masked] 2": 1, "[masked] 3": 2, "[masked]": 3, "x [masked]": 4}


def test_what_has_no_secret_is_given_back_as_it_is():
    masks = knowing("hunter-two", "xyz")
    text, data = "nothing\n\\ here", b'{"a" : "\\u0061\\n"}'
    assert masks.text(text) is text
    assert masks.json(data) is data
    assert masks.utf8(b"\xff\xfe nothing") == b"\xff\xfe nothing"
    assert masks.utf8(b"\xff hunter-two \xfe") == b"\xff [masked] \xfe"
    assert masks.text("\udcff hunter-two") == "\udcff [masked]"


def test_structure_that_looks_like_a_secret_stays():
    masks = knowing('","b":"', '{"a":"')
    assert masks.json(b'{"a":"x","b":"y"}') == b'{"a":"x","b":"y"}'


def test_a_value_too_deep_to_look_into_is_not_shown():
    text = b"[" * 100_000 + b'"hunter-two\\n"' + b"]" * 100_000
    assert knowing("hunter-two").json(text) == b'"[masked]"'


def test_the_secret_met_longest_ago_is_forgotten_first():
    masks = Masks(secrets_max=3)
    for secret in ("secret-1", "secret-2", "xyz", "secret-1", "secret-4"):
        masks.learn(secret)
    assert masks.text("secret-1 secret-2 secret-4") == f"{MARKER} secret-2 {MARKER}"
    for n in range(5, 8):
        masks.learn(f"secret-{n}")
    assert masks.text("secret-1") == "secret-1" and masks.text("xyz") == "xyz"
    small = Masks(bytes_max=50_000)
    for n in range(9):
        small.learn(f"{n}" * 5000)
    assert small.text("8" * 5000) == MARKER and small.text("0" * 5000) != MARKER
    assert small._bytes <= 50_000 and set(small._uses) == {form for forms in small._secrets.values() for form in forms}
    filed = {form for forms in small._by_word.values() for form in forms}
    assert filed == set(small._uses)


def test_a_spelling_two_secrets_share_is_kept_for_the_other():
    masks = Masks(secrets_max=2)
    masks.learn("a line of two secrets\nfirst first")
    masks.learn("a line of two secrets\nsecond second")
    masks.learn("something else")
    assert masks.text("a line of two secrets") == MARKER


def test_threads_may_learn_while_others_look():
    masks = knowing("hunter-two")
    stop = threading.Event()
    found = []

    def look():
        while not stop.is_set():
            found.append(masks.text("say hunter-two") == f"say {MARKER}")

    watcher = threading.Thread(target=look)
    watcher.start()
    for n in range(300):
        masks.learn(f"hunter-{n:06}-of-many")
    stop.set()
    watcher.join()
    assert all(found) and found


# -- properties ------------------------------------------------------------------------------------------------------

ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=60)
OUTSIDE = st.text(
    st.characters(codec="utf-8", categories=["Lo"], min_codepoint=0x4E00, max_codepoint=0x9FFF), max_size=9
)


def usable(secret):
    assume(len(secret.strip()) >= 6 and not set(secret) & set("[]") and secret.strip() not in MARKER)
    return secret.strip()


@given(
    secret=ANY, how=st.sampled_from(sorted(ENCODINGS)), before=OUTSIDE, after=OUTSIDE, others=st.lists(ANY, max_size=5)
)
def test_no_secret_survives_in_a_text(secret, how, before, after, others):
    spelled = ENCODINGS[how](usable(secret))
    masked = knowing(secret, *map(usable, others)).text(f"{before}{spelled}{after}")
    assert spelled not in masked
    if not set("".join([secret, *others])) & set(before + after):
        assert masked.startswith(before) and masked.endswith(after)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 99999)
    | st.floats(allow_nan=False, allow_infinity=False, width=16)
    | OUTSIDE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(OUTSIDE, inner, max_size=4),
    max_leaves=12,
)


@given(secret=ANY, value=JSON, where=st.sampled_from(["key", "string"]), ascii_=st.booleans())
def test_no_secret_survives_in_a_value(secret, value, where, ascii_):
    secret = usable(secret)
    assume(not any(0x4E00 <= ord(c) <= 0x9FFF for c in secret))
    inside = {secret: 1} if where == "key" else f"-{secret}-"
    masked = knowing(secret).json(json.dumps([value, inside, value], ensure_ascii=ascii_).encode())
    found = json.loads(masked)
    assert found[0] == value and found[2] == value
    assert secret not in json.dumps(found[1], ensure_ascii=False) and MARKER in str(found[1])


@given(
    secrets=st.lists(ANY, min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    data=st.data(),
)
def test_no_secret_survives_in_a_stream(secrets, cuts, data):
    secrets = [usable(secret) for secret in secrets if "\n" not in secret.strip()]
    assume(secrets and not any(len(secret.splitlines()) > 1 for secret in secrets))
    pieces = data.draw(st.lists(st.sampled_from([*secrets, "\n", "一二三", "x"]), max_size=30))
    whole = "".join(pieces).encode()
    stream, got, at = Stream(knowing(*secrets), data.draw(st.integers(1, 100))), b"", 0
    for n in range(len(whole)):
        got += stream.feed(whole[at : at + cuts[n % len(cuts)]])
        at += cuts[n % len(cuts)]
    got += stream.flush()
    assert not any(secret.encode() in got for secret in secrets)
    assert got.count(b"\n") == whole.count(b"\n")


# -- streams ---------------------------------------------------------------------------------------------------------


def test_lines_are_given_back_as_soon_as_they_are_whole():
    stream = Stream(knowing("hunter-two"), 1000)
    assert stream.feed(b"one\nhunt") == b"one\n"
    assert stream.feed(b"er-two\nthree") == b"[masked]\n"
    assert stream.feed(b" and a half") == b""
    assert stream.flush() == b"three and a half"
    assert stream.flush() == b""


def test_a_line_that_is_too_long_is_cut_where_no_secret_is():
    stream = Stream(knowing("hunter-two"), 100)
    got = stream.feed(b"x" * 95 + b"hunter")
    assert got == b"x" * 87 or b"hunter" not in got
    got += stream.feed(b"-two" + b"y" * 100)
    assert got + stream.flush() == b"x" * 95 + b"[masked]" + b"y" * 100


def test_a_stream_without_secrets_passes():
    stream = Stream(Masks(), 10)
    assert stream.feed(b"0123456789") == b""
    assert stream.feed(b"a") == b"0123456789a"


def test_a_run_of_secrets_does_not_fill_the_memory():
    stream = Stream(knowing("aaaaaaaa"), 100)
    got = b"".join(stream.feed(b"a" * 50) for _ in range(100))
    assert len(stream._pending) < 300 and set(got.replace(b"[masked]", b"")) <= set(b"")


# -- events ----------------------------------------------------------------------------------------------------------

S = "hunter-two"
RAW = msgspec.Raw(b'{"k":["hunter-two"]}')
SHOWN = msgspec.Raw(b'{"k":["[masked]"]}')


def test_what_people_wrote_is_masked_and_words_of_the_engine_are_not():
    masks = knowing(S)
    failure = events.Failure(type=S, message=f"no {S}", traceback=f"at {S}", file=f"{S}.py", line=3, execution=S)
    ended = events.ExecutionEnded(execution=S, status=S, message=S, reason=S, output=RAW, failure=failure)
    masked = masks.event(ended)
    assert masked.message == MARKER and bytes(masked.output) == bytes(SHOWN)
    assert (masked.execution, masked.status, masked.reason) == (S, S, S)
    assert masked.failure == msgspec.structs.replace(failure, message=f"no {MARKER}", traceback=f"at {MARKER}")
    kept = events.ExecutionEnded(execution=S, status=S, message="fine", failure=events.Failure(type=S, message="x"))
    assert masks.event(kept) is kept
    blob = events.Blob(sha256=S, bytes=3)
    created = events.ExecutionCreated(
        execution=S, flow_name=S, name=S, inputs=RAW, inputs_blob=blob, inputs_sealed=S, key=S, protect_inputs=(S,)
    )
    masked = masks.event(created)
    assert masked == msgspec.structs.replace(created, name=MARKER, inputs=masked.inputs)
    assert bytes(masked.inputs) == bytes(SHOWN)


@given(
    secrets=st.lists(ANY, min_size=1, max_size=3),
    how=st.sampled_from(sorted(ENCODINGS)),
    before=OUTSIDE,
    value=JSON,
    ascii_=st.booleans(),
)
def test_an_event_that_is_given_back_at_once_has_nothing_to_mask(secrets, how, before, value, ascii_):
    secrets = [usable(secret) for secret in secrets]
    masks = knowing(*secrets)
    for text in (before, secrets[0], f"{before}{ENCODINGS[how](secrets[0])}"):
        raw = msgspec.Raw(json.dumps([value, text, {text: 1}], ensure_ascii=ascii_).encode())
        failure = events.Failure(type="X", message=text)
        for event in (
            events.LogWritten(execution="x", text=text),
            events.ExecutionEnded(execution="x", status="ENDED_ERROR", output=raw, failure=failure),
            events.ExecutionSaved(execution="x", output_keys={text: raw}),
        ):
            assert masks.event(event) == masks._struct(event)


def test_half_a_character_is_left_to_those_who_record_it():
    event = events.LogWritten(execution="x", text="\ud800 and hunter-two")
    assert MARKER in knowing("hunter-two").event(event).text


def test_a_call_keeps_its_target_unless_that_is_a_subject():
    masks = knowing(S)
    for kind, target in (("flow", S), ("message", MARKER)):
        started = events.CallStarted(execution="x", call=1, kind=kind, target=S, args=RAW, children=(S,))
        masked = masks.event(started)
        assert (masked.target, bytes(masked.args), masked.children) == (target, bytes(SHOWN), (S,))


def test_keys_of_an_output_and_of_its_files_stay_the_same():
    masks = knowing(S, "another-secret")
    saved = events.ExecutionSaved(
        execution="x",
        output_keys={S: RAW, "b": msgspec.Raw(b"1")},
        output_key_blobs={"another-secret": events.Blob(sha256=S, bytes=1)},
        output_keys_sealed={S: S, "another-secret": "id"},
    )
    masked = masks.event(saved)
    assert {key: bytes(one) for key, one in masked.output_keys.items()} == {MARKER: bytes(SHOWN), "b": b"1"}
    assert masked.output_key_blobs == {f"{MARKER} 2": events.Blob(sha256=S, bytes=1)}
    assert masked.output_keys_sealed == {MARKER: S, f"{MARKER} 2": "id"}


def test_fields_of_a_record_keep_their_names():
    masks = knowing("description", S)
    saved = events.RecordSaved(
        type=S, name=S, id=S, fields={"description": RAW}, fields_sealed={"description": S}, base=S, by=S
    )
    masked = masks.event(saved)
    assert bytes(masked.fields["description"]) == bytes(SHOWN)
    assert masked == msgspec.structs.replace(saved, fields=masked.fields)


@pytest.mark.parametrize("word", ["execution.created", "RUNNING", "INFO", "FLOW", "message", "ENDED_SUCCESS", "stdout"])
def test_a_secret_like_a_word_of_the_engine_breaks_nothing(word):
    masks = knowing(word)
    written = events.LogWritten(
        execution=word, level=word, stream=word, text=word, kwargs=msgspec.Raw(b'{"message":1}')
    )
    masked = masks.event(written)
    assert (masked.execution, masked.level, masked.stream, masked.text) == (word, word, word, MARKER)
    assert msgspec.json.decode(msgspec.json.encode(masked), type=events.AnyEvent).text == MARKER


def every_event():
    unions = typing.get_args(events.AnyEvent)
    return sorted(unions, key=lambda one: one.__name__)


def test_of_every_event_it_is_settled_what_people_wrote():
    """A new field is masked until somebody says here that it is not what people write."""
    text = {one.__name__: set(masks_module._texts_of(one)) for one in every_event()}
    data = {"inputs", "args", "result", "output", "kwargs", "body", "response"}
    files = {
        name for one in every_event() for name in one.__struct_fields__ if name.endswith(("_blob", "_blobs", "_sealed"))
    }
    numbers = {
        "webhook", "outside", "parent_call", "depth", "queued", "timeout_s", "reuse", "orphan", "retention_time_s",
        "strict_replay",
        "daemon", "attempt", "pid", "call", "waits", "until", "count", "line", "binary", "owned", "bound", "flows",
        "broken", "unfinished",
    }  # fmt: skip
    assert {name: left for name, fields in text.items() if (left := fields - data - files - numbers)} == {
        "ExecutionCreated": {"name"},
        "ExecutionStarted": {"node"},
        "ExecutionPaused": {"reason", "divergence"},
        "ExecutionInterrupted": {"reason"},
        "ExecutionRestarted": {"reason"},
        "CallStarted": {"target"},
        "CallEnded": {"target", "failure"},
        "ExecutionSaved": {"message", "name", "description", "output_keys"},
        "LogWritten": {"text"},
        "EffectNoticed": {"detail"},
        "WebhookAnswered": {"headers"},
        "ExecutionEnded": {"message", "failure"},
        "RecordSaved": {"fields"},
        "MessageCreated": {"subject"},
        "MessageWithdrawn": {"reason"},
        "CommitRejected": {"reason"},
        "DaemonStopped": {"reason"},
        "MaintenanceBegun": {"reason"},
        "TicksMissed": {"reason"},
    }


def test_nothing_known_costs_nothing():
    masks = Masks()
    event = events.LogWritten(execution="x", text="y")
    assert masks.event(event) is event
    assert not masks.knows()
    assert masks.json(b"{}") == b"{}"
