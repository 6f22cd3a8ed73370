"""``headrace check``: are the flows of a directory good, and do they do what recorded executions did? Offline.

With ``--records`` each recorded execution is a regression test that nobody had to write: it is replayed against the
directory, several at a time, each in a process of its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypedDict, Unpack

import click
import msgspec

from ... import __version__
from ...engine import errors
from ...engine.records import exports
from ...engine.running import exported
from ...engine.running import replay as running_replay
from ...sync import inspection
from ..client import Client
from . import options, render, replay, sarif

_AT_ONCE = min(4, os.cpu_count() or 1)
_WHERE_SHOWN_MAX = 20  # of each flow
Verdict = running_replay.Verdict


class _Clock:
    """The machine's clock; see ``ports.Clock``."""

    def time(self) -> float:
        """Wall-clock seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never step back."""
        return time.monotonic()


class _Given(TypedDict):
    since: str
    flow: str
    limit: int
    from_: Path | None
    strict: bool
    effects: bool
    timeout_s: float
    url: str
    state: str


@dataclasses.dataclass(frozen=True, slots=True)
class Replayed:
    """One execution: ``result`` is ``same``, ``differs``, or ``skipped`` for what cannot be told."""

    execution: str
    flow: str
    result: str
    text: str
    divergence: dict[str, Any] | None = None
    notes: int = 0
    doubts: tuple[str, ...] = ()


#: Brings the export of an execution.
_Fetch = Callable[[], exports.Export]


@click.command()
@options.target
@click.argument("path", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--records", is_flag=True, help="Replay recorded executions against the directory.")
@click.option(
    "--from",
    "from_",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE|DIR",
    help="Exports, instead of a daemon's records.",
)
@click.option(
    "--since", default="7d", show_default=True, type=options.Since(), metavar="TIME", help="Only those since then."
)
@click.option("--flow", default="", metavar="NAME", help="Only those of this flow.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000), help="So many, the newest.")
@click.option("--strict", is_flag=True, help="Differing arguments of calls count, too.")
@click.option("--allow-effects", "effects", is_flag=True, help="Let flows write, connect and start programs.")
@click.option(
    "--timeout", "timeout_s", default="60", type=options.Seconds(), metavar="TIME", help="For each replay; 60 s."
)
@click.option(
    "--format",
    "style",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json", "junit", "sarif"]),
    help="For people, programs, CI systems, forges.",
)
def check(path: Path, *, records: bool, style: str, **given: Unpack[_Given]) -> int:
    """Check the flows in PATH, as a daemon would; with --records, replay what ran recently against them.

    Nothing is executed without --records, and with it nothing is touched. Exit status: 1 if something is wrong, or if a
    recorded execution would go otherwise now."""  # fmt: skip
    if records:
        if style == "sarif":
            raise errors.InvalidRequest("replays have no form in SARIF", hint="use --format junit or json")
        return _tell_replays(_replayed(path, given), style)
    with tempfile.TemporaryDirectory(prefix="headrace-check-") as scratch:
        found = inspection.inspect(path, Path(scratch).resolve(), _Clock())
    return _tell_findings(found, style)


# -- what is wrong with them -------------------------------------------------------------------------------------------


def _tell_findings(found: inspection.Inspection, style: str) -> int:
    if style == "json":
        render.json_object(msgspec.to_builtins(found))
    elif style == "junit":
        _junit({"check": {name: _problem(found, name) for name in _files(found)}})
    elif style == "sarif":
        render.json_object(sarif.document(found.findings, __version__))
    else:
        for one in found.findings:
            place = f"{one.file}:{one.line}: " if one.file and one.line else f"{one.file}: " if one.file else ""
            key = f" ({one.key})" if one.key else ""
            render.line(f"{place}{'warning: ' if one.severity == 'warning' else ''}{one.reason}{key}")
        broken = sum(one.severity == "error" for one in found.findings)
        render.say(f"flows: {len(found.flows)}, problems: {broken}, warnings: {len(found.findings) - broken}")
    return 0 if found.good else 1


def _files(found: inspection.Inspection) -> list[str]:
    return sorted({f"{name}.py" for name in found.flows} | {one.file for one in found.findings})


def _problem(found: inspection.Inspection, file: str) -> tuple[str, str]:
    """Return what is wrong with a file as a kind of result and its text."""
    said = [
        f"{one.file}:{one.line}: {one.reason}" for one in found.findings if (one.file, one.severity) == (file, "error")
    ]
    return ("differs", "\n".join(said)) if said else ("same", "")


# -- what they would do otherwise --------------------------------------------------------------------------------------


def _replayed(path: Path, given: _Given) -> list[Replayed]:
    fetches = _from_files(given["from_"], given) if given["from_"] is not None else _from_daemon(given)
    said = running_replay.Options(
        effects=given["effects"], strict=given["strict"], quiet=True, limit_s=given["timeout_s"]
    )
    with render.bar("replaying", len(fetches)) as reached:
        return asyncio.run(_all(path.resolve(), fetches, said, given["state"], reached))


def _from_daemon(given: _Given) -> list[_Fetch]:
    client: Client = options.client(given["url"], given["state"])
    found = client.all_executions(limit=given["limit"], flow=given["flow"], type="FLOW", since=given["since"])

    def fetch(execution: str) -> _Fetch:
        return lambda: next(exports.read(client.export(execution), f"the export of {execution}"))

    return [fetch(each["id"]) for each in found]


def _from_files(top: Path, given: _Given) -> list[_Fetch]:
    found = []
    for file in sorted(top.rglob("*.jsonl")) if top.is_dir() else [top]:
        for export in replay.read_file(file):
            created = export.records.get(export.header.execution, [])
            if given["flow"] in ("", export.header.flow) and (not created or created[0].at >= _asked(given)):
                found.append((created[0].at if created else "", export))
    newest = sorted(found, key=lambda pair: pair[0], reverse=True)[: given["limit"]]
    return [lambda export=export: export for _, export in newest]  # type: ignore[misc]


def _asked(given: _Given) -> str:
    """Files were chosen by whoever exported them: there the usual span does not count."""
    source = click.get_current_context().get_parameter_source("since")
    return given["since"] if source is click.core.ParameterSource.COMMANDLINE else ""


async def _all(
    path: Path,
    fetches: Iterable[_Fetch],
    said: running_replay.Options,
    state: str,
    reached: Callable[[int], None],
) -> list[Replayed]:
    room = asyncio.Semaphore(_AT_ONCE)
    done = 0

    async def one(fetch: _Fetch) -> Replayed:
        nonlocal done
        async with room:
            found = await _one(path, await asyncio.to_thread(fetch), said, state)
        done += 1
        reached(done)
        return found

    return list(await asyncio.gather(*(one(fetch) for fetch in fetches)))


async def _one(path: Path, export: exports.Export, said: running_replay.Options, state: str) -> Replayed:
    execution, flow = export.header.execution, export.header.flow or "a script"
    try:
        record = exported.Exported(export)
        python = replay.python_of(record, state)
        with replay.flows_of(record, path) as flows:
            outcome = await running_replay.replay(record, flows, replay.Silence(), said, python=python)
    except errors.NotFound as error:
        return Replayed(execution, flow, "differs", error.message)
    except errors.InvalidRequest as error:
        return Replayed(execution, flow, "skipped", error.message)
    result = "same" if outcome.verdict in (Verdict.SAME, Verdict.FURTHER) else "differs"
    if outcome.verdict is Verdict.LATE or (outcome.verdict is Verdict.REFUSED and record.effect is not None):
        result = "skipped"  # it had that effect then, too
    divergence = msgspec.to_builtins(outcome.divergence) if outcome.divergence is not None else None
    doubts = tuple(replay.doubts(record, outcome, python)) if result == "differs" else ()
    return Replayed(execution, flow, result, outcome.text, divergence, len(outcome.notes), doubts)


def _tell_replays(found: list[Replayed], style: str) -> int:
    flows: dict[str, list[Replayed]] = {}
    for each in sorted(found, key=lambda each: (each.flow, each.execution)):
        flows.setdefault(each.flow, []).append(each)
    counts = {
        flow: {result: sum(e.result == result for e in all_) for result in _RESULTS} for flow, all_ in flows.items()
    }
    if style == "json":
        items = [
            {"flow": flow, **counts[flow], "executions": [dataclasses.asdict(each) for each in all_]}
            for flow, all_ in flows.items()
        ]
        render.json_object({"flows": items, **{r: sum(c[r] for c in counts.values()) for r in _RESULTS}})
    elif style == "junit":
        _junit({flow: {each.execution: (each.result, each.text) for each in all_} for flow, all_ in flows.items()})
    else:
        _tell_text(flows, counts)
    return 1 if any(each.result == "differs" for each in found) else 0


_RESULTS = ("same", "differs", "skipped")


def _tell_text(flows: dict[str, list[Replayed]], counts: dict[str, dict[str, int]]) -> None:
    if not flows:
        render.say("no recorded execution is like that")
    for flow, all_ in flows.items():
        number = counts[flow]
        said = [f"{number['same']} the same", f"{number['differs']} differ", f"{number['skipped']} not replayed"]
        style = "bold red" if number["differs"] else "green"
        render.line((flow, style), ": ", ", ".join(said if number["skipped"] else said[:2]))
        told = [each for each in all_ if each.result != "same"]
        for each in told[:_WHERE_SHOWN_MAX]:
            render.line(f"  {each.execution}  {each.text}")
            if each.divergence is not None:
                recorded, now = replay.sides(each.divergence)
                render.line(f"    recorded  {recorded}")
                render.line(f"    now       {now}")
            for text in each.doubts:
                render.line((f"    {text}", "dim"))
        if len(told) > _WHERE_SHOWN_MAX:
            render.line((f"  … and {len(told) - _WHERE_SHOWN_MAX} more", "dim"))


def _junit(suites: dict[str, dict[str, tuple[str, str]]]) -> None:
    """Write results in the form that CI systems read: suite → name of a case → (result, text)."""
    top = ET.Element("testsuites")
    for name, cases in suites.items():
        count = {result: str(sum(found == result for found, _ in cases.values())) for result in _RESULTS}
        about = {"name": name, "tests": str(len(cases)), "failures": count["differs"], "skipped": count["skipped"]}
        suite = ET.SubElement(top, "testsuite", about)
        for case_name, (result, text) in cases.items():
            case = ET.SubElement(suite, "testcase", name=case_name, classname=name)
            if result != "same":
                kind = "failure" if result == "differs" else "skipped"
                ET.SubElement(case, kind, message=render.plain(text)).text = render.plain(text)
    ET.indent(top)
    render.line(ET.tostring(top, encoding="unicode"))
