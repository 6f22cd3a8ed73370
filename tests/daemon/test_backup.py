"""Backups of a state directory made by hand: what is in them, what damage does to them, what is restored and held."""

import asyncio
import datetime
import json
import shutil

import msgspec
import pytest

from headrace.daemon import backup, depots, ownership, restoration
from headrace.daemon.cli import main
from headrace.engine import errors, events, scheduled
from headrace.engine.records import blobs, head, recovery
from headrace.engine.state import masks, sealed
from tests.engine.records import journals

COMMIT = "c" * 40
BIG = b'"' + b"b" * 100_000 + b'"'


def created(number, **fields):
    given = {"flow_name": "deploy", "commit": COMMIT, "path": "deploy.py"} | fields
    return events.ExecutionCreated(execution=f"e{number:04d}", **given)


def started(number, **fields):
    return events.ExecutionStarted(execution=f"e{number:04d}", attempt=1, **fields)


async def write(state, lines, segment_bytes_max=1 << 26):
    async with journals.opened(state / "records", segment_bytes_max=segment_bytes_max) as writer:
        for line in lines:
            writer.append(line)
            await writer.durable()
        end, instance = writer.position, recovery.verify(state / "records")
    assert instance.problem == ""
    mark = head.Head(state / head.FILE_NAME)
    mark.write(recovery.recover(state / "records").instance, end)
    mark.close()


@pytest.fixture
def state(tmp_path):
    """A state directory with one of everything, and with what is left out."""
    state = tmp_path / "s"
    state.mkdir(mode=0o700)
    blob = blobs.Blobs(state / "blobs").put(BIG)
    keys = sealed.Sealed(state / "sealed", masks.Masks())
    one, two, loose = (
        keys.put(json.dumps(text).encode(), [text]) for text in ("hunter2", "hunter3", "nobody names me")
    )
    value = msgspec.Raw(b'"********"')
    lines = [
        events.CommitPublished(commit=COMMIT, source="", ref="main", manifest_sha256="0" * 64),
        created(1, inputs_blob=blob),
        started(1),
        events.ExecutionEnded(execution="e0001", status="ENDED_SUCCESS", output=value, output_sealed=one),
        events.RecordSaved(
            type="setting", name="pin", id="i" * 8, fields={"value": value}, fields_sealed={"value": two}
        ),
        *(journals.log(n, "x" * 200) for n in range(100, 130)),
    ]
    asyncio.run(write(state, lines, 4000))
    snapshot = state / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "deploy.py").write_text("def handler(system, this): pass\n")
    (snapshot.parent / f"{COMMIT}.json").write_text("{}")
    (snapshot.parent / ("d" * 40)).mkdir()
    (state / "tokens.json").write_text("[]")
    (state / "audit.jsonl").write_bytes(b'{"a":1}\n{"torn')
    for name in ("client.json", "index.db", "login-link", "daemon.lock"):
        (state / name).write_text("derived")
    (state / "mirror.git").mkdir()
    assert (state / "sealed" / loose).exists()
    return state


def taken(state, target, *, keep=0, recipients=()):
    return backup.take(state, depots.depot(str(target), recipients, keep))


def restored(source, state, identity="", **how):
    with depots.opened(source, identity) as found:
        return restoration.restore(found, state, **how)


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "daemon.lock"
    }


@pytest.mark.parametrize("target", ["b.tar", "many/"])
def test_what_cannot_be_made_again_is_in_a_backup_and_comes_back_as_it_was(state, tmp_path, target):
    made = taken(state, f"{tmp_path}/{target}")
    assert made.missing == ()
    done = restored(tmp_path / target, tmp_path / "r")
    was = content(state)
    named = {name for name in was if name.startswith(("records/", "blobs/", "snapshots/"))}
    assert named | {head.FILE_NAME, "tokens.json", "audit.jsonl"} == {
        name for name in content(tmp_path / "r") if not name.startswith("sealed/")
    }
    now = content(tmp_path / "r")
    assert all(now[name] == was[name] for name in now if name != "audit.jsonl"), "byte by byte"
    assert now["audit.jsonl"] == b'{"a":1}\n', "whole lines alone"
    assert len([name for name in now if name.startswith("sealed/")]) == 2, "what no line names is left out"
    assert (done.records, done.in_flight, done.missing) == (made.seq, (), ())
    assert recovery.verify(tmp_path / "r" / "records", head.read(tmp_path / "r" / head.FILE_NAME)).problem == ""
    for name in now:
        assert (tmp_path / "r" / name).stat().st_mode == (state / name).stat().st_mode


def test_damage_at_every_200th_of_a_file_is_refused_and_leaves_nothing(state, tmp_path):
    taken(state, tmp_path / "b.tar")
    whole = (tmp_path / "b.tar").read_bytes()
    damaged = tmp_path / "damaged.tar"
    for part in range(201):
        at = min(part * len(whole) // 200, len(whole) - 1)
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        with pytest.raises(depots.Damaged, match="checksum"):
            restored(damaged, tmp_path / "r")
        damaged.write_bytes(whole[:at])
        with pytest.raises(depots.Damaged, match="checksum"):
            restored(damaged, tmp_path / "r")
    assert not (tmp_path / "r").exists()
    damaged.write_bytes(whole + b"\0")
    with pytest.raises(depots.Damaged):
        restored(damaged, tmp_path / "r")


def test_damage_of_any_content_in_a_folder_is_refused_and_leaves_nothing(state, tmp_path):
    taken(state, f"{tmp_path}/many/")
    (manifest,) = (tmp_path / "many").glob("*.json")
    for path in [manifest, *(tmp_path / "many" / "objects").glob("*/*")]:
        whole = path.read_bytes()
        for damage in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-1], None):
            path.chmod(0o600)
            path.unlink() if damage is None else path.write_bytes(damage)
            with pytest.raises((depots.Damaged, errors.NotFound)):
                restored(tmp_path / "many", tmp_path / "r")
        path.write_bytes(whole)
    assert not (tmp_path / "r").exists()
    restored(tmp_path / "many", tmp_path / "r")


def test_one_more_backup_in_a_folder_costs_what_changed_and_old_ones_go(state, tmp_path):
    many, objects = tmp_path / "many", tmp_path / "many" / "objects"
    taken(state, f"{many}/")
    first = {path.name for path in objects.glob("*/*")}
    asyncio.run(write(state, [journals.log(900)], 4000))
    second = taken(state, many)
    new = {path.name for path in objects.glob("*/*")} - first
    changed = {entry.path for entry in second.files if entry.sha256 in new}
    assert changed == {head.FILE_NAME, open_segment(state)}, "the open segment, and how far it is"
    older, newer = sorted(many.glob("*.json"))
    assert restored(older, tmp_path / "old").records < restored(many, tmp_path / "new").records == second.seq
    taken(state, many, keep=1)
    assert len(list(many.glob("*.json"))) == 1 and not older.exists() and not newer.exists()
    assert restored(many, tmp_path / "kept").records == second.seq
    assert {path.name for path in objects.glob("*/*")} == {entry.sha256 for entry in manifest_of(many).files}


def open_segment(state):
    return f"records/{max(path.name for path in (state / 'records').iterdir())}"


def manifest_of(source):
    with depots.opened(source) as found:
        return found.manifest


def test_a_backup_can_be_for_the_eyes_of_an_age_identity_alone(state, tmp_path):
    pyrage = pytest.importorskip("pyrage")
    identity, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"{identity}\n")
    (tmp_path / "other").write_text(f"{other}\n")
    taken(state, tmp_path / "b.age", recipients=[str(identity.to_public())])
    text = (tmp_path / "b.age").read_bytes()
    assert b"hunter2" not in text and b"deploy" not in text
    for key in ("", str(tmp_path / "other"), str(tmp_path / "none")):
        with pytest.raises((errors.NotAllowed, errors.NotFound)):
            restored(tmp_path / "b.age", tmp_path / "r", key)
    for at in range(0, len(text), len(text) // 40):
        (tmp_path / "damaged.age").write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
        with pytest.raises(errors.HeadraceError):
            restored(tmp_path / "damaged.age", tmp_path / "r", str(tmp_path / "key"))
    assert not (tmp_path / "r").exists()
    assert restored(tmp_path / "b.age", tmp_path / "r", str(tmp_path / "key")).missing == ()
    with pytest.raises(errors.InvalidRequest, match="public key"):
        taken(state, tmp_path / "c.age", recipients=["age1nonsense"])
    assert not list(tmp_path.glob(".*.tmp"))


def test_only_an_empty_state_directory_without_a_daemon_is_restored_into(state, tmp_path):
    taken(state, tmp_path / "b.tar")
    with pytest.raises(errors.Conflict, match="not empty: it holds HEAD, audit.jsonl"):
        restored(tmp_path / "b.tar", state)
    (tmp_path / "r").mkdir()
    with ownership.locked(tmp_path / "r"), pytest.raises(errors.StateInUse):
        restored(tmp_path / "b.tar", tmp_path / "r")
    assert restored(tmp_path / "b.tar", tmp_path / "r", dry_run=True).records
    assert content(tmp_path / "r") == {}, "a trial leaves nothing"
    assert restored(tmp_path / "b.tar", tmp_path / "r").records


def test_a_damaged_journal_is_not_backed_up(state, tmp_path):
    segment = min((state / "records").glob("*.jsonl"))
    segment.chmod(0o600)
    segment.write_bytes(segment.read_bytes().replace(b"xxx", b"xyx", 1))
    with pytest.raises(errors.JournalCorrupt):
        taken(state, tmp_path / "b.tar")
    assert not list(tmp_path.glob("*b.tar*"))


def test_a_journal_that_went_backwards_is_not_backed_up(state, tmp_path):
    last = max((state / "records").glob("*.jsonl"))
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(errors.HistoryLost):
        taken(state, tmp_path / "b.tar")


def test_what_is_missing_is_named_and_does_not_keep_the_rest_from_being_kept(state, tmp_path):
    shutil.rmtree(state / "blobs")
    shutil.rmtree(state / "snapshots")
    made = taken(state, tmp_path / "b.tar")
    assert [name.partition("/")[0] for name in made.missing] == ["blobs", "snapshots"]
    assert restored(tmp_path / "b.tar", tmp_path / "r").missing == made.missing


def test_retention_that_takes_records_away_meanwhile_has_it_begin_anew(state, tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "_PAUSE_S", 0.0)
    first, second, *_ = sorted((state / "records").glob("*.jsonl"))
    blob = next(path for path in (state / "blobs").rglob("*") if path.is_file())
    aside, begun = {}, []

    def take_away(*paths):
        for path in paths:
            aside[path] = path.rename(tmp_path / f"aside{len(aside)}")

    class Meanwhile(depots._File):
        def begin(self):
            begun.append(1)
            while aside:
                path, there = aside.popitem()
                there.rename(path)
            super().begin()

        def add(self, path, *rest):
            if path.endswith(first.name) and len(begun) == 1:
                take_away(second)
            if path.endswith(second.name) and len(begun) == 2:
                take_away(first, blob)
            return super().add(path, *rest)

    made = backup.take(state, Meanwhile(tmp_path / "b.tar", ()))
    assert len(begun) == 3 and made.missing == ()
    assert restored(tmp_path / "b.tar", tmp_path / "r").records == made.seq


def test_names_that_lead_elsewhere_are_refused(tmp_path):
    class Evil:
        def __init__(self, path):
            entry = depots.Entry(path, "0" * 64, 1, 0o600, 0)
            self.manifest = depots.Manifest(version="1", at="", instance="", seq=1, files=(entry,))

        def content(self, entry):
            return [b"x"]

    commit = "snapshots/" + "c" * 40
    for path in ("../x", "/etc/x", "records/../../x", "client.json", f"{commit}/../../../x", "sources/../snapshots/x"):
        with pytest.raises(depots.Damaged, match="holds no"):
            restoration.restore(Evil(path), tmp_path / "r")
    assert not (tmp_path / "r").exists() and not (tmp_path / "x").exists()


def under_way(state):
    """Executions in each state that there is, and a schedule."""
    waits = {"kind": "sleep", "waits": True, "until": 2e9}
    lines = [
        created(11),
        created(12),
        started(12),
        created(13),
        started(13),
        events.CallStarted(execution="e0013", call=1, **waits),
        created(14),
        started(14),
        events.EffectNoticed(execution="e0014", effect="open", detail="/etc/x", file="deploy.py", line=1),
        created(15, queued=False),
        created(16),
        events.ExecutionPaused(execution="e0016", reason="by hand"),
        created(17, type="TASK", task="REST", flow_name=""),
        created(18, type="TASK", task="REST", flow_name=""),
        started(18),
        scheduled.ScheduleArmed(
            schedule="k", after="2020-01-01T00:00:00.000000+00:00", name="n", flow="f", cron="* * * * *"
        ),
    ]
    asyncio.run(write(state, lines, 4000))


def test_what_was_under_way_is_held_and_schedules_count_from_now_on(state, tmp_path):
    under_way(state)
    made = taken(state, tmp_path / "b.tar")
    done = restored(tmp_path / "b.tar", tmp_path / "r")
    assert {one.id: (one.status, one.held) for one in done.in_flight} == {
        "e0011": ("QUEUED", "paused"),
        "e0012": ("RUNNING", "paused"),
        "e0013": ("WAITING", "paused"),
        "e0014": ("RUNNING", "fails"),
        "e0015": ("NEW", ""),
        "e0016": ("PAUSED", ""),
        "e0017": ("QUEUED", "cut off"),
        "e0018": ("RUNNING", "cut off"),
    }
    seen = []
    recovery.recover(tmp_path / "r" / "records", seen.append)
    said = [recorded.event for recorded in seen if recorded.seq > made.seq]
    paused = [event for event in said if isinstance(event, events.ExecutionPaused)]
    assert [event.execution for event in paused] == ["e0011", "e0012", "e0013"]
    assert all(event.reason.startswith(f"held: restored from the backup of {made.at}") for event in paused)
    assert [event.execution for event in said if isinstance(event, events.ExecutionStarted)] == ["e0017"]
    (armed,) = [event for event in said if isinstance(event, scheduled.ScheduleArmed)]
    now = datetime.datetime.now(datetime.UTC)
    assert abs((datetime.datetime.fromisoformat(armed.after) - now).total_seconds()) < 3600
    assert (armed.schedule, armed.cron, armed.carried) == ("k", "* * * * *", False)


def test_the_verbs_say_what_is_there_and_what_stands_still(state, tmp_path, capsys):
    under_way(state)
    shutil.rmtree(state / "blobs")
    assert main.main(["backup", str(tmp_path / "b.tar"), "--state", str(state)]) == 1
    assert "1 files that records name were not there:\n  blobs/" in capsys.readouterr().out
    assert main.main(["restore", str(tmp_path / "b.tar"), "--state", str(tmp_path / "r"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "could be restored" in said and not (tmp_path / "r").exists()
    assert "3 executions: stand still" in said and "e0013  deploy  WAITING" in said
    assert "1 schedules: ticks since the backup are not made up for" in said
    assert main.main(["restore", str(tmp_path / "b.tar"), "--state", str(state)]) == 1
    assert "not empty" in capsys.readouterr().err


def test_with_resume_nothing_is_added_to_the_records(state, tmp_path):
    under_way(state)
    made = taken(state, tmp_path / "b.tar")
    done = restored(tmp_path / "b.tar", tmp_path / "r", resume=True)
    assert not any(one.held for one in done.in_flight) and len(done.in_flight) == 8
    assert recovery.verify(tmp_path / "r" / "records").records == made.seq
