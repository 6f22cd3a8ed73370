"""Stored records as flows and people change them: journalled, masked, and overlaid on what the repository declares."""

import asyncio
import json
import time

import msgspec
import pytest

from headrace.engine import errors, events, ids, model
from headrace.engine.records import blobs, journal, recovery, segments
from headrace.engine.running import contents, files, keeper, kept
from headrace.engine.state import masks, sealed
from headrace.sync import manifests


class Clock:
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


ADA = keeper.Actor("Ada")
RAW = msgspec.Raw


class House:
    """A keeper over a real journal, as a daemon has it."""

    def __init__(self, folder):
        self.folder = folder
        self.masks = masks.Masks()
        self.flows = manifests.Published(folder / "snapshots")

    async def open(self):
        state = kept.Kept()

        def fold(recorded):
            if isinstance(recorded.event, events.StateEvent):
                state.apply(recorded.event, recorded.at)

        recovered = recovery.recover(self.folder / "records", fold)
        self.journal = await journal.Journal.open(self.folder / "records", Clock(), recovered=recovered)
        self.contents = contents.Contents(
            blobs.Blobs(self.folder / "blobs"), sealed.Sealed(self.folder / "sealed", self.masks), self.masks
        )
        self.keeper = keeper.Keeper(
            state.store, self.journal, self.contents, self.flows, clock=Clock(), new_id=ids.new_id
        )
        return self.keeper

    async def reopen(self):
        await self.journal.close()
        return await self.open()

    def publish(self, commit, **settings):
        declared = {
            name: model.Declared(
                digest=text, path=f"settings/{name}.yaml", commit=commit, fields={"value": RAW(text.encode())}
            )
            for name, text in settings.items()
        }
        self.flows.swap(
            model.Catalogue(commit=commit, published_at="2026-01-01T00:00:00+00:00", declared={"setting": declared})
        )

    def lines(self):
        return "".join(path.read_text() for path in sorted((self.folder / "records").glob("*.jsonl")))


@pytest.fixture
async def house(tmp_path):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "records").mkdir()
    house = House(tmp_path)
    await house.open()
    yield house
    await house.journal.close()


async def value(records, name):
    return msgspec.json.decode((await records.fields("setting", name))["value"])


async def test_what_was_saved_is_there_after_a_restart_with_who_did_it(house):
    await house.keeper.save("setting", "limit", {"value": RAW(b"3")}, ADA)
    records = await house.reopen()
    shown = await records.show("setting", "limit")
    assert (bytes(shown["value"]), shown["created_by"], shown["is_declared"]) == (b"3", "Ada", False)


async def test_the_repository_wins_when_it_changes_what_was_saved_and_only_then(house):
    house.publish("1" * 40, limit="10")
    assert await value(house.keeper, "limit") == 10
    await house.keeper.save("setting", "limit", {"value": RAW(b"11")}, ADA)
    house.publish("2" * 40, limit="10", other="1")
    assert await value(house.keeper, "limit") == 11
    house.publish("3" * 40, limit="12")
    assert await value(house.keeper, "limit") == 12
    await house.keeper.durable()
    assert '"event":"record.superseded","type":"setting","name":"limit"' in house.lines()


async def test_a_daemon_that_has_not_published_yet_takes_nothing_for_changed(house):
    house.publish("1" * 40, limit="10")
    await house.keeper.save("setting", "limit", {"value": RAW(b"11")}, ADA)
    house.flows = manifests.Published(house.folder / "snapshots")
    records = await house.reopen()
    assert not records.exists("setting", "nothing")
    house.publish("1" * 40, limit="10")
    assert await value(records, "limit") == 11


async def test_what_is_declared_and_deleted_stays_away_until_the_repository_changes_it(house):
    house.publish("1" * 40, limit="10")
    await house.keeper.delete("setting", "limit", ADA)
    records = await house.reopen()
    house.publish("2" * 40, limit="10")
    assert not records.exists("setting", "limit")
    house.publish("3" * 40, limit="11")
    assert await value(records, "limit") == 11


async def test_a_literal_secret_is_in_no_record_and_comes_back_for_who_needs_it(house):
    fields = {"url": RAW(b'"http://127.0.0.1:1"'), "token": RAW(b'"s.very-secret-token"')}
    await house.keeper.save("vault_config", "main", fields, ADA)
    records = await house.reopen()
    assert "very-secret" not in house.lines()
    assert bytes((await records.show("vault_config", "main"))["token"]) == b'"[protected]"'
    assert (await records.vault_access("main")).token == "s.very-secret-token"


async def test_what_was_seen_as_protected_and_sent_back_stays_what_it_was(house):
    stored = {"connection_type": RAW(b'"REST"'), "value": RAW(b'{"url":"a","password":"hush-hush"}')}
    await house.keeper.save("connection", "shop", stored, ADA)
    edited = {"value": RAW(b'{"url":"b","password":"[protected]"}')}
    await house.keeper.save("connection", "shop", edited, ADA)
    true = await house.keeper.fields("connection", "shop")
    assert msgspec.json.decode(true["value"]) == {"url": "b", "password": "hush-hush"}
    with pytest.raises(errors.InvalidRequest, match="is new"):
        await house.keeper.save("connection", "copy", stored | edited, ADA)


async def test_nothing_that_is_appended_at_the_same_time_is_lost(house):
    await asyncio.gather(*(house.keeper.append("crowd", RAW(b"%d" % n), ADA) for n in range(50)))
    assert sorted(await value(house.keeper, "crowd")) == list(range(50))


async def test_a_record_with_another_name_keeps_its_id(house):
    before = await house.keeper.save("setting", "old", {"value": RAW(b"1")}, ADA)
    after = await house.keeper.save("setting", "old", {"name": RAW(b'"new"')}, ADA)
    assert (after.id, after.name) == (before.id, "new")
    assert not house.keeper.exists("setting", "old")
    await house.keeper.save("setting", "other", {"value": RAW(b"2")}, ADA)
    with pytest.raises(errors.Conflict, match="already"):
        await house.keeper.save("setting", "other", {"name": RAW(b'"new"')}, ADA)


async def test_large_values_lie_beside_the_journal(house):
    text = msgspec.json.encode("x" * 200_000)
    await house.keeper.save("setting", "big", {"value": RAW(text)}, ADA)
    records = await house.reopen()
    assert len(house.lines()) < 20_000
    assert bytes((await records.fields("setting", "big"))["value"]) == text


async def test_a_file_is_replaced_whole_and_read_back_as_it_was(house):
    await house.keeper.write_file("a/b.bin", b"\0\xff", ADA)
    await house.keeper.write_file("a/b.bin", b"other", ADA)
    records = await house.reopen()
    assert await records.read_file("a/b.bin") == b"other"
    assert bytes((await records.show("file", "a/b.bin"))["size"]) == b"5"
    with pytest.raises(errors.InvalidRequest):
        await records.write_file("../x", b"", ADA)


async def test_a_task_moves_a_file_in_place_of_another(house):
    stored = files.TaskFiles(house.keeper, house.contents.blobs, ADA)
    before = await house.keeper.write_file("a/b.bin", b"\0\xff", ADA)
    await house.keeper.write_file("c.bin", b"old", ADA)
    assert await asyncio.to_thread(stored.move, "a/b.bin", "c.bin") == 2
    assert await asyncio.to_thread(stored.move, "c.bin", "c.bin") == 2
    records = await house.reopen()
    assert [one.name for one in records.all("file")] == ["c.bin"]
    assert await records.read_file("c.bin") == b"\0\xff" and records.find("file", "c.bin").id == before.id
    stored = files.TaskFiles(records, house.contents.blobs, ADA)
    with pytest.raises(errors.NotFound):
        await asyncio.to_thread(stored.move, "a/b.bin", "d.bin")
    with pytest.raises(errors.InvalidRequest):
        await asyncio.to_thread(stored.move, "c.bin", "../d.bin")


async def test_a_file_of_the_repository_is_moved_too_and_stays_away(house):
    commit = "c1" * 20
    (house.folder / "snapshots" / commit).mkdir()
    (house.folder / "snapshots" / commit / "a.txt").write_bytes(b"declared")
    file = {"a.txt": model.Declared(digest="d", path="a.txt", commit=commit, fields={"size": RAW(b"8")})}
    published = "2026-01-01T00:00:00+00:00"
    house.flows.swap(model.Catalogue(commit=commit, published_at=published, declared={"file": file}))
    stored = files.TaskFiles(house.keeper, house.contents.blobs, ADA)
    assert await asyncio.to_thread(stored.move, "a.txt", "b.txt") == 8
    assert await house.keeper.read_file("b.txt") == b"declared" and not house.keeper.exists("file", "a.txt")


async def test_both_halves_of_a_new_name_are_durable_together(house):
    await house.keeper.write_file("a", b"1", ADA)
    await house.keeper.move_file("a", "b", ADA)
    await house.keeper.durable()
    _, *lines = (house.folder / "records" / "00000001.jsonl").read_bytes().splitlines(keepends=True)
    marks = [(json.loads(line)["event"], segments.goes_with_next(line)) for line in lines]
    assert marks == [("record.saved", False), ("record.deleted", True), ("record.saved", False)]


async def test_a_value_that_holds_a_known_secret_is_masked_for_people_and_true_for_flows(house):
    house.masks.learn("a-known-secret")
    held = await house.contents.store(b'{"text":"it is a-known-secret"}')
    assert bytes(held.raw) == b'{"text":"it is [masked]"}'
    true = await house.contents.true(model.value(held.raw, held.blob, held.sealed))
    assert bytes(true) == b'{"text":"it is a-known-secret"}'
    forgetful = masks.Masks()
    sealed.Sealed(house.folder / "sealed", forgetful).get(held.sealed)
    assert forgetful.text("a-known-secret") == "[masked]"


async def test_protected_keys_are_markers_and_what_looks_like_a_secret_is_masked_elsewhere(house):
    held = await house.contents.store(b'{"pin":"pin-123456","n":1}', protect=["pin"])
    assert bytes(held.raw) == b'{"pin":"[protected]","n":1}'
    assert house.masks.text("the pin-123456") == "the [masked]"
    again = await house.contents.store(b'{"pin":"pin-654321"}', protect=["pin"], shown=b'{"pin":"[protected]"}')
    assert bytes(again.raw) == b'{"pin":"[protected]"}'
    assert house.masks.text("[protected] pin-654321") == "[protected] [masked]"
