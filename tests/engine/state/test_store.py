import json

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.engine import errors, events, model
from headrace.engine.state import store

AT = "2026-11-24T10:00:00.000000+00:00"
LATER = "2026-11-24T11:00:00.000000+00:00"


def raw(value):
    return msgspec.Raw(json.dumps(value).encode())


def declared(digest="d1", **fields):
    return model.Declared(digest=digest, path="x.yaml", commit="c1", fields={k: raw(v) for k, v in fields.items()})


def saved(name="x", type_="setting", id_="i1", base="", by="execution e", sealed=None, **fields):
    return events.RecordSaved(
        type=type_,
        name=name,
        id=id_,
        base=base,
        by=by,
        fields={key: raw(value) for key, value in fields.items()},
        fields_sealed=sealed or {},
    )


def field(record, key="value"):
    return json.loads(bytes(record.fields[key]))


@pytest.fixture
def records():
    return store.Store()


def test_a_record_that_was_saved_is_found_by_name_and_by_id(records):
    records.apply(saved("x", value=1), AT)
    for found in (records.find("setting", "x"), records.find("setting", "i1"), records.find("setting", "i1", "id")):
        assert (found.name, found.id, field(found), found.created_by, found.declared) == (
            "x", "i1", 1, "execution e", None,
        )  # fmt: skip
    assert not records.exists("setting", "x", "id") and not records.exists("setting", "i1", "name")
    assert not records.exists("file", "x")


def test_a_name_counts_before_an_id(records):
    records.apply(saved("x", id_="i1", value=1), AT)
    records.apply(saved("i1", id_="i2", value=2), AT)
    assert field(records.find("setting", "i1")) == 2
    assert field(records.find("setting", "i1", "id")) == 1


def test_what_is_not_there_is_told_with_names_like_it(records):
    records.apply(saved("mail server", value=1), AT)
    records.declare({"setting": {"mail sender": declared(value=1)}}, AT)
    with pytest.raises(errors.NotFound, match="no setting 'mail serve'") as caught:
        records.find("setting", "mail serve")
    assert caught.value.hint == "did you mean mail server, mail sender?"
    with pytest.raises(errors.InvalidRequest, match="not by 'colour'"):
        records.find("setting", "x", "colour")


def test_saving_again_keeps_who_made_it_and_when(records):
    records.apply(saved(value=1, by="anna"), AT)
    records.apply(saved(value=2, by="bert"), LATER)
    found = records.find("setting", "x")
    assert (found.created_by, found.created_at) == ("anna", AT)
    assert (found.modified_by, found.modified_at) == ("bert", LATER)


def test_a_record_that_was_deleted_and_made_again_is_a_new_one(records):
    records.apply(saved(value=1, by="anna"), AT)
    records.apply(events.RecordDeleted(type="setting", name="x"), AT)
    assert not records.exists("setting", "x") and not records.exists("setting", "i1")
    records.apply(saved(id_="i2", value=2, by="bert"), LATER)
    assert (records.find("setting", "i2").created_by, records.exists("setting", "i1")) == ("bert", False)


def test_what_the_repository_declares_is_a_record_with_a_lasting_id(records):
    records.declare({"setting": {"x": declared(value=1)}}, AT)
    found = records.find("setting", "x")
    assert (found.created_at, found.created_by, found.base, found.declared.path) == (AT, "repository", "d1", "x.yaml")
    assert len(found.id) == 26 and found.id.isalnum() and found.id == found.id.lower()
    records.declare({"setting": {"x": declared("d2", value=2)}}, LATER)
    assert records.find("setting", found.id).fields["value"] == raw(2)
    assert field(found, "description") == ""
    assert store.declared_id("setting", "x") == found.id != store.declared_id("file", "x")


def test_an_overlay_keeps_the_id_and_hides_what_is_declared(records):
    records.declare({"setting": {"x": declared(value=1)}}, LATER)
    records.apply(saved(id_=records.id_of("setting", "x"), base=records.base_of("setting", "x"), value=2), AT)
    found = records.find("setting", store.declared_id("setting", "x"))
    assert (field(found), found.created_by, found.modified_by, found.declared) == (2, "repository", "execution e", None)
    assert found.created_at == AT, "never later than it was modified"


def test_the_repository_wins_when_it_changes_what_was_overlaid(records):
    both = {"a": declared("a1", value=1), "b": declared("b1", value=1)}
    assert records.declare({"setting": both}, AT) == []
    for name in both:
        records.apply(saved(name, id_=records.id_of("setting", name), base=both[name].digest, value=2), AT)
    assert records.declare({"setting": both}, LATER) == []
    changed = {**both, "b": declared("b2", value=3)}
    assert records.declare({"setting": changed}, LATER) == [("setting", "b")]
    assert records.declare({"setting": changed}, LATER) == [("setting", "b")], "until it is superseded"
    records.apply(events.RecordSuperseded(type="setting", name="b", commit="c2"), LATER)
    assert [(r.name, field(r)) for r in records.all("setting")] == [("a", 2), ("b", 3)]


def test_the_repository_wins_when_it_begins_or_ceases_to_declare(records):
    records.apply(saved("new", value=2), AT)
    assert records.declare({"setting": {"new": declared(value=1)}}, AT) == [("setting", "new")]
    records.apply(events.RecordSuperseded(type="setting", name="new"), AT)
    records.apply(saved("new", base="d1", value=2), AT)
    assert records.declare({}, AT) == [("setting", "new")]
    records.apply(events.RecordSuperseded(type="setting", name="new"), AT)
    assert not records.exists("setting", "new")


def test_a_deleted_declared_record_is_hidden_until_the_repository_changes_it(records):
    records.declare({"setting": {"x": declared(value=1)}}, AT)
    id_ = records.find("setting", "x").id
    records.apply(events.RecordDeleted(type="setting", name="x", base="d1"), AT)
    assert not records.exists("setting", "x") and not records.exists("setting", id_) and records.all("setting") == []
    assert records.id_of("setting", "x") == id_, "for one that is made in its place"
    assert records.declare({"setting": {"x": declared("d2", value=1)}}, LATER) == [("setting", "x")]
    records.apply(events.RecordSuperseded(type="setting", name="x"), LATER)
    assert records.exists("setting", id_)


def test_values_that_are_sealed_or_lie_in_a_file_keep_being_so(records):
    blob = events.Blob("ab", 70_000)
    event = saved("f", "file", sealed={"content": "s1", "value": "s2"}, size=3, value="[masked]")
    records.apply(msgspec.structs.replace(event, field_blobs={"content": blob}), AT)
    fields = records.find("file", "f").fields
    assert fields["content"] == model.Sealed("s1", blob) and fields["value"] == model.Sealed("s2", raw("[masked]"))


def test_a_declared_file_has_its_size(records):
    records.declare({"file": {"a/b": msgspec.structs.replace(declared(), size=12)}}, AT)
    assert field(records.find("file", "a/b"), "size") == 12


def test_records_of_later_types_are_kept(records):
    records.apply(saved("x", "cupboard", value=1), AT)
    records.declare({"drawer": {"y": declared(value=2)}}, AT)
    assert field(records.find("cupboard", "x")) == 1 and field(records.find("drawer", "y")) == 2
    assert records.all("shelf") == []


# -- webhooks -------------------------------------------------------------------------------------------------------


def hooks(records):
    return {name: p.webhook for name, p in records.webhooks().items()}


def test_enabled_webhook_records_are_published(records):
    assert hooks(records) == {}
    records.apply(saved("a", "webhook", "i1", flow_name="f", secret="secret.env(K)", methods=["GET", "PUT"]), AT)
    records.apply(saved("b", "webhook", "i2", flow_name="f", auth="none"), AT)
    records.apply(saved("c", "webhook", "i3", flow_name="f", auth="none", is_enabled=False), AT)
    assert hooks(records) == {
        "a": model.Webhook(name="a", flow="f", auth="key", secret="secret.env(K)", methods=("GET", "PUT")),
        "b": model.Webhook(name="b", flow="f", auth="none"),
    }
    records.apply(events.RecordDeleted(type="webhook", name="a"), AT)
    assert list(hooks(records)) == ["b"]


def test_a_secret_that_was_written_out_is_opened_by_whoever_can(records):
    records.apply(saved("a", "webhook", sealed={"secret": "s1"}, flow_name="f", secret="[protected]"), AT)
    found = records.webhooks()["a"]
    assert (found.webhook.secret, found.record.fields[found.field].id) == ("[protected]", "s1")
    assert found.secret_in(b'"hunter2"') == "hunter2"


def test_a_setting_of_that_name_publishes_a_webhook_at_once(records):
    name = "client.webhook.deploy"
    assert records.webhooks() == {}
    records.apply(saved(name, value={"flow_name": "f", "key": "[protected]"}, sealed={"value": "s1"}), AT)
    found = records.webhooks()["deploy"]
    assert found.webhook == model.Webhook(name="deploy", flow="f", auth="key", secret="[protected]")
    assert found.field == "value" and found.secret_in(b'{"key": "hunter2"}') == "hunter2"
    records.apply(saved(name, value={"flow": "f"}), AT)
    assert hooks(records) == {"deploy": model.Webhook(name="deploy", flow="f", auth="none")}
    records.apply(saved(name, value={"flow": "f", "is_enabled": False}), AT)
    assert hooks(records) == {}


def test_a_declared_setting_publishes_likewise(records):
    value = {"flow_name": "f", "key": "secret.env(K)", "methods": ["get"]}
    records.declare({"setting": {"client.webhook.a": declared(value=value)}}, AT)
    assert hooks(records)["a"] == model.Webhook(
        name="a", flow="f", auth="key", secret="secret.env(K)", methods=("GET",)
    )
    records.declare({}, AT)
    assert hooks(records) == {}


@pytest.mark.parametrize(
    "value",
    [
        None,
        "f",
        [],
        {},
        {"flow": 1},
        {"flow": "f", "auth": "x"},
        {"flow": "f", "key": 1},
        {"flow": "f", "methods": "GET"},
    ],
)
def test_a_setting_that_describes_no_webhook_publishes_none(records, value):
    records.apply(saved("client.webhook.a", value=value), AT)
    records.apply(saved("client.webhook.", id_="i2", value={"flow": "f"}), AT)
    assert hooks(records) == {}


def test_a_disabled_webhook_record_is_not_replaced_by_a_setting(records):
    records.apply(saved("client.webhook.a", value={"flow": "f"}), AT)
    records.apply(saved("a", "webhook", "i2", flow_name="g", secret="s", is_enabled=False), AT)
    assert hooks(records) == {}


# -- any order of events --------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c"])


class Keeping(RuleBasedStateMachine):
    """The store beside two plain dicts: what is declared, and what was made of it at run time."""

    def __init__(self):
        super().__init__()
        self.store = store.Store()
        self.repository = {}  # name → (digest, value)
        self.overlays = {}  # name → (base, value or None)
        self.count = 0

    @rule(name=NAMES, value=st.integers())
    def save(self, name, value):
        self.count += 1
        base = self.store.base_of("setting", name)
        id_ = self.store.id_of("setting", name) or f"id{self.count}"
        self.store.apply(saved(name, id_=id_, base=base, value=value), AT)
        self.overlays[name] = (base, value)

    @rule(name=NAMES)
    def delete(self, name):
        base = self.store.base_of("setting", name)
        self.store.apply(events.RecordDeleted(type="setting", name=name, base=base), AT)
        self.overlays[name] = (base, None)

    @rule(repository=st.dictionaries(NAMES, st.integers(0, 3)))
    def publish(self, repository):
        self.repository = {name: (f"digest {value}", value) for name, value in repository.items()}
        stale = self.store.declare({"setting": {n: declared(d, value=v) for n, (d, v) in self.repository.items()}}, AT)
        for type_, name in stale:
            self.store.apply(events.RecordSuperseded(type=type_, name=name), AT)
        for name, (base, _) in list(self.overlays.items()):
            if base != self.repository.get(name, ("", 0))[0]:
                del self.overlays[name]

    @invariant()
    def holds(self):
        expected = {name: value for name, (_, value) in self.repository.items()}
        expected |= {name: value for name, (_, value) in self.overlays.items()}
        expected = {name: value for name, value in expected.items() if value is not None}
        records = self.store.all("setting")
        assert {record.name: field(record) for record in records} == expected
        assert [record.name for record in records] == sorted(expected)
        for record in records:
            assert self.store.find("setting", record.id, "id") == record
            if self.store.base_of("setting", record.name):
                assert record.id == store.declared_id("setting", record.name)


TestKeeping = Keeping.TestCase
