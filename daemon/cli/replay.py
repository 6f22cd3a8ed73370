"""``headrace replay``: a recorded execution run again, offline. ``check`` uses how it is found and set up too."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

import click
import msgspec

from ...engine import errors
from ...engine.records import exports
from ...engine.running import exported, extract
from ...engine.running import replay as running_replay
from ...engine.workers import protocol
from ...sync import environments
from ..endpoint import Unreachable
from . import completers, options, render

Verdict = running_replay.Verdict
#: Exit status by verdict.
STATUS = {
    Verdict.SAME: 0,
    Verdict.FURTHER: 0,
    Verdict.DIVERGED: 1,
    Verdict.REFUSED: 1,
    Verdict.LATE: 124,
    Verdict.LEFT: 130,
}
_STYLES = {Verdict.SAME: "green", Verdict.FURTHER: "cyan"}
_SHOWN_CHARACTERS_MAX = 200


class _Given(TypedDict):
    against: Path | None
    debugger: bool
    effects: bool
    strict: bool
    timeout_s: float | None
    as_json: bool
    url: str
    state: str


@click.command()
@options.target
@click.argument("what", metavar="ID|FILE", shell_complete=completers.executions_and_paths)
@click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Take the flow from this directory instead of the commit it ran on.",
)
@click.option("--pdb", "debugger", is_flag=True, help="Stop in the debugger at the handler's first line.")
@click.option("--allow-effects", "effects", is_flag=True, help="Let the flow write, connect and start programs.")
@click.option("--strict", is_flag=True, help="Differing arguments of calls count, too.")
@click.option("--timeout", "timeout_s", type=options.Seconds(), metavar="TIME", help="Give up then: 30, 5m.")
@options.as_json
def replay(what: str, **given: Unpack[_Given]) -> int:
    """Run a recorded execution again: offline, with the recorded answers, touching nothing.

    ID is an execution of the daemon (or, where none runs, of the state directory), FILE what `headrace records export`
    wrote. Exit status: 0 if it does what is recorded, as far as that goes, 1 if it does something else."""
    record = exported.Exported(_export(what, given["url"], given["state"]))
    said = running_replay.Options(
        debugger=given["debugger"],
        effects=given["effects"],
        strict=given["strict"],
        quiet=given["as_json"],
        limit_s=given["timeout_s"],
    )
    listener = Silence() if given["as_json"] else _Terminal()
    python = python_of(record, given["state"])
    if record.state.venv and not python and not given["as_json"]:
        render.say((_elsewhere(record), "yellow"))
    with flows_of(record, given["against"]) as flows, _signals(said):
        outcome = asyncio.run(running_replay.replay(record, flows, listener, said, python=python))
    if given["as_json"]:
        render.json_object(as_json(record, outcome, python))
    else:
        _tell(record, outcome, python)
    return STATUS[outcome.verdict]


# -- the record --------------------------------------------------------------------------------------------------------


def _export(what: str, url: str, state: str) -> exports.Export:
    """Return the one execution that is meant."""
    if Path(what).is_file():
        found = list(read_file(Path(what)))
        if len(found) > 1:
            ids = ", ".join(export.header.execution for export in found[:5])
            raise errors.InvalidRequest(
                f"{what} holds {len(found)} executions: {ids}", hint=f"headrace check --records --from {what}"
            )
        return found[0]
    try:
        client = options.client(url, state)
        execution = client.execution_id(what)
        return next(exports.read(client.export(execution), f"the export of {execution}"))
    except Unreachable:
        folder = options.state_directory(state)
        if url or not (folder / "records").is_dir():
            raise
        return asyncio.run(_from_state(folder, what))


async def _from_state(folder: Path, what: str) -> exports.Export:
    """The same from a state directory that no daemon works in."""
    extracts, records = extract.from_files(folder)
    execution = await asyncio.to_thread(records.newest) if what == "latest" else what
    lines = [line async for line in extracts.of(execution)]
    return next(exports.read(lines, f"the record of {execution}"))


def read_file(path: Path) -> Iterator[exports.Export]:
    """Yield the executions of an exported file; raises ``InvalidRequest``."""
    try:
        with path.open("rb") as file:
            yield from exports.read(file, str(path))
    except OSError as error:
        raise errors.InvalidRequest(f"{path} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def flows_of(record: exported.Exported, against: Path | None) -> Iterator[Path]:
    """Give the directory with the flow: a working tree, or the exported sources in a folder for as long as needed.

    Raises ``NotFound`` if the flow is not there."""
    header = record.header
    if against is not None:
        if header.type == "FLOW" and not (against / header.path).is_file():
            raise errors.NotFound(f"there is no {header.path} in {against}", hint="was the flow renamed or removed?")
        yield against.resolve()
        return
    if header.type == "FLOW" and header.path not in record.sources:
        raise errors.NotFound(
            f"the export does not hold {header.path}: the files of commit {header.commit[:12]} are gone",
            hint=f"git worktree add /tmp/then {header.commit[:12]}, and --against /tmp/then",
        )
    with tempfile.TemporaryDirectory(prefix="headrace-replay-") as folder:
        top = Path(folder).resolve()
        for path, content in record.sources.items():
            target = top / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield top


def python_of(record: exported.Exported, state: str) -> str:
    """Return the interpreter of the environment it ran in, empty for our own: it ran in none, or that is not here."""
    if not record.state.venv:
        return ""
    python = environments.python_of(options.state_directory(state) / "envs", record.state.venv)
    return str(python) if python.exists() else ""


def _elsewhere(record: exported.Exported) -> str:
    return (
        f"it ran in the environment {record.state.venv} of packages, which is not in the state directory here: "
        "what it imports may be missing"
    )


@contextlib.contextmanager
def _signals(said: running_replay.Options) -> Iterator[None]:
    """With a debugger, Ctrl-C is for the flow that is debugged."""
    if not said.debugger:
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# -- what is seen of it ------------------------------------------------------------------------------------------------


class Silence:
    """A listener for whoever wants the outcome alone."""

    def logged(self, said: protocol.Log) -> None:
        """Nothing."""

    def printed(self, said: protocol.Output) -> None:
        """Nothing."""


class _Terminal:
    """Shows what the flow says, as it comes."""

    def logged(self, said: protocol.Log) -> None:
        args = [text if isinstance(text, str) else render.compact(text) for text in msgspec.json.decode(said.args)]
        labels = [f"{name}={render.compact(value)}" for name, value in msgspec.json.decode(said.kwargs).items()]
        render.log_line([(f"{said.level:<8}  ", "dim")], " ".join([*args, *labels]), "", to=sys.stdout)
        sys.stdout.flush()

    def printed(self, said: protocol.Output) -> None:
        stream = sys.stderr if said.stream == "stderr" else sys.stdout
        stream.write(render.plain(said.text) if stream.isatty() else said.text)
        stream.flush()


def as_json(record: exported.Exported, outcome: running_replay.Outcome, python: str) -> dict[str, Any]:
    """Return an outcome as JSON."""
    return {
        "execution": record.header.execution,
        "flow": record.header.flow,
        "verdict": outcome.verdict.value,
        "text": outcome.text,
        "calls": outcome.calls,
        "divergence": msgspec.to_builtins(outcome.divergence) if outcome.divergence is not None else None,
        "notes": [msgspec.structs.asdict(note) for note in outcome.notes],
        "masked": outcome.masked,
        "environment": {"id": record.state.venv, "here": bool(python)} if record.state.venv else None,
    }


def _tell(record: exported.Exported, outcome: running_replay.Outcome, python: str) -> None:
    for note in outcome.notes:
        where = f" ({note.where})" if note.where else ""
        render.line((f"note: call {note.call}, {note.kind} {note.target}".rstrip() + f"{where} was given", "dim"))
        render.line((f"  recorded  {_short(note.recorded)}", "dim"))
        render.line((f"  now       {_short(note.attempted)}", "dim"))
    style = _STYLES.get(outcome.verdict, "bold red")
    if outcome.divergence is None:
        render.line((outcome.verdict.value, style), f": {outcome.text} (calls: {outcome.calls})")
    else:
        render.line((outcome.verdict.value, style), f" at call {outcome.divergence.call}")
        recorded, now = sides(msgspec.to_builtins(outcome.divergence))
        render.line(f"  recorded  {recorded}")
        render.line(f"  now       {now}")
    if outcome.verdict not in (Verdict.SAME, Verdict.FURTHER):
        for text in doubts(record, outcome, python):
            render.say(text)


def sides(divergence: Mapping[str, Any]) -> tuple[str, str]:
    """Return both sides of a divergence in words."""
    said = []
    for side in ("recorded", "attempted"):
        kind, target, where = (divergence.get(f"{side}_{part}", "") for part in ("kind", "target", "where"))
        place = f"  ({where})" if where else ""
        said.append(f"{kind}{f' {_short(target)!r}' if target else ''}{place}" if kind else "nothing more")
    return said[0], said[1]


def doubts(record: exported.Exported, outcome: running_replay.Outcome, python: str) -> list[str]:
    """Return what else a difference may come from than from the flow; ``python`` as ``python_of`` returns it."""
    found = [_elsewhere(record)] if record.state.venv and not python else []
    if outcome.masked:
        found.append(f"{outcome.masked} answers hold something masked: the flow got the mask instead of the secret")
    if record.header.python.split(".")[:2] != platform.python_version().split(".")[:2]:
        found.append(
            f"it was recorded with Python {record.header.python}, and replayed with {platform.python_version()}"
        )
    return found


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[: _SHOWN_CHARACTERS_MAX - 1] + "…"
