"""A journal and a list beside it: whatever is done to both, they say the same, or the journal refuses.

Hypothesis picks the steps. ``make test`` walks few of them, ``make faults`` many.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.engine import errors, events
from headrace.engine.records import head, journal, marking, recovery, salvage, scrub, segments
from tests.engine.records import journals

SEGMENT_BYTES_MAX = 900


class Machine(RuleBasedStateMachine):
    """``durable`` is what was acknowledged, in order; ``marked`` how much of it HEAD knows."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.state = Path(tempfile.mkdtemp(prefix="machine"))
        self.records = self.state / "records"
        self.durable: list[events.AnyEvent] = []
        self.number = 0
        self.lines: journal.Journal | None = None
        self.keeping: marking.Marking | None = None
        self.backup: tuple[Path, int] | None = None
        self.marked = 0

    def teardown(self) -> None:
        if self.lines is not None:
            self.runner.run(self.lines.close())
        self.runner.close()
        shutil.rmtree(self.state)

    @initialize()
    def begin(self) -> None:
        self.start()

    def start(self) -> None:
        seen: list[events.Recorded] = []
        found = recovery.recover(self.records, seen.append, head.read(self.state / "HEAD"))
        assert [r.event for r in seen] == self.durable
        self.lines = self.runner.run(self._open(found))

    async def _open(self, found: recovery.Recovered) -> journal.Journal:
        lines = await journal.Journal.open(
            self.records, journals.Clock(), recovered=found, segment_bytes_max=SEGMENT_BYTES_MAX
        )
        self.keeping = marking.Marking(lines, self.state / "HEAD", found.instance, journals.Clock())
        return lines

    def stop(self) -> None:
        self.runner.run(self.lines.close())
        self.runner.run(self.keeping.close())
        self.marked = len(self.durable)

    def fresh(self) -> events.LogWritten:
        self.number += 1
        return journals.log(self.number)

    @rule(size=st.integers(1, 5))
    def acknowledge(self, size: int) -> None:
        async def write() -> None:
            for _ in range(size):
                event = self.fresh()
                self.durable.append(event)
                self.lines.append(event)
            await self.lines.durable()

        self.runner.run(write())

    @rule()
    def mark(self) -> None:
        self.runner.run(self.keeping.mark())
        self.marked = len(self.durable)

    @rule()
    def restart(self) -> None:
        self.stop()
        self.start()

    @rule(tail=st.one_of(st.binary(max_size=300), st.integers(1, 3000).map(bytes)), size=st.integers(1, 3))
    def crash(self, tail: bytes, size: int) -> None:
        """A batch that nobody was promised is cut somewhere, and garbage or NULs lie behind it."""
        before = self.lines.position
        promised = len(self.durable)
        self.acknowledge(size)
        after = self.lines.position
        self.runner.run(self.lines.close())  # no mark: the daemon was killed
        path = self.records / segments.file_name(after.segment)
        whole = path.read_bytes()
        start = before.offset if before.segment == after.segment else whole.index(b"\n") + 1
        cut = start + (len(tail) * 7919) % (after.offset - start)
        torn = whole[:cut] + tail
        path.write_bytes(torn)
        pairs = zip(whole, torn, strict=False)  # garbage may be what was cut off, by chance
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        kept = [line for line in whole[start:same].splitlines(keepends=True) if line.endswith(b"\n")]
        if before.segment == after.segment or len(kept) < size:
            self.durable = self.durable[: promised + len(kept)]
        self.start()

    @rule(data=st.data())
    def corrupt(self, data: st.DataObject) -> None:
        """A flipped bit of what was followed by another batch is refused, and mended by putting it back."""
        self.acknowledge(1)
        self.acknowledge(1)
        self.stop()
        files = journals.snapshot(self.records)
        names = journals.segment_names(self.records)
        # How long files are depends on when batches were cut: only what is drawn may be the same in each run.
        name = names[data.draw(st.integers(0, 1000)) % len(names)]
        lines = files[name].splitlines(keepends=True)
        last = name == names[-1]
        end = sum(map(len, lines[:-1])) if last else len(files[name])
        position = data.draw(st.integers(0, 1_000_000)) % end
        damaged = bytearray(files[name])
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
        (self.records / name).chmod(0o600)
        (self.records / name).write_bytes(damaged)
        try:
            recovery.recover(self.records, None, head.read(self.state / "HEAD"))
            raise AssertionError("damage was accepted")
        except (errors.JournalCorrupt, errors.HistoryLost):
            pass
        if data.draw(st.booleans()):
            before = self.durable
            salvage.salvage(self.state)
            seen = journals.recovered(self.records)[1]
            self.durable = [r.event for r in seen]
            assert [event for event in before if event in self.durable] == self.durable
            assert len(self.durable) >= len(before) - 2
            self.backup = None  # of a history that is no more
        else:
            journals.restore(self.records, files)
        self.start()

    @rule()
    def look(self) -> None:
        care = scrub.Scrub(self.records)
        care.round()
        assert care.damaged == {}
        assert recovery.verify(self.records, head.read(self.state / "HEAD")).problem == ""

    @rule()
    def back_up(self) -> None:
        copy = self.state / "backup"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.records, copy)
        self.backup = (copy, len(self.durable))

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore(self) -> None:
        """An older copy is refused if HEAD knows better, and taken if the loss is accepted."""
        copy, known = self.backup
        self.stop()
        shutil.rmtree(self.records)
        shutil.copytree(copy, self.records)
        older = recovery.verify(self.records).records < head.read(self.state / "HEAD").seq
        assert older or known == len(self.durable)
        if older:
            before = journals.snapshot(self.records)
            try:
                recovery.recover(self.records, None, head.read(self.state / "HEAD"))
                raise AssertionError("an older copy was accepted")
            except errors.HistoryLost:
                assert journals.snapshot(self.records) == before
            (self.state / "HEAD").unlink()
        self.durable = self.durable[:known]
        self.backup = None
        self.start()
        self.mark()

    @invariant()
    def numbers_have_no_gaps(self) -> None:
        if self.lines is not None:
            files = segments.files(self.records)
            assert [number for number, _ in files] == list(range(1, len(files) + 1))
