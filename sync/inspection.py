"""What a push of a directory would come to, found out offline by the very pass that a daemon makes.

Owns: the findings, with file and line. Refuses: nothing; a directory full of mistakes is a list of findings. Nothing
is written but into the scratch folder, which the caller throws away; no flow is executed. Called by the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..engine import model, ports
from . import candidate, catalogue, source, union


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something about a file. A ``warning`` breaks nothing."""

    severity: str = "error"  # error | warning
    file: str = ""
    line: int = 0
    key: str = ""  # of the metadata, where one is at fault
    reason: str


class Inspection(msgspec.Struct, frozen=True):
    """The flows there are, by name, and what was found."""

    flows: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def good(self) -> bool:
        """Whether every flow and every declaration can be used."""
        return all(finding.severity == "warning" for finding in self.findings)


def inspect(directory: Path, scratch: Path, clock: ports.Clock) -> Inspection:
    """Look at the directory as developer mode does. Raises ``ConfigurationInvalid`` if it is none."""
    workshop = candidate.Workshop(source.Source(url=str(directory.resolve()), developer=True), scratch, clock)
    workshop.open()
    found = workshop.prepare(None)
    if found is None or found.manifest is None:
        return Inspection((), (Finding(reason=found.rejected if found is not None else "there is nothing"),))
    manifest = found.manifest
    broken = [*catalogue.broken(manifest), *manifest.catalogue.problems]
    findings = [
        Finding(file=one.file, line=one.line or _line(directory / one.file, one.key), key=one.key, reason=one.reason)
        for one in broken
    ]
    findings += _missing(manifest.catalogue, directory)
    findings += [Finding(severity="warning", file=path, reason=text) for path, text in manifest.warnings.items()]
    flows = tuple(sorted(flow.name for flow in manifest.catalogue.flows.values()))
    return Inspection(flows, tuple(sorted(findings, key=lambda one: (one.file, one.line, one.severity))))


def _missing(known: model.Catalogue, directory: Path) -> Iterator[Finding]:
    """Name flows that others count on and that are not there. Warnings: a daemon publishes them all the same, and a
    flow may be named by the id that only a daemon knows."""
    for one in union.missing(known):
        line = _line(directory / one.path, one.key)
        yield Finding(severity="warning", file=one.path, line=line, key=one.key, reason=one.reason)


def _line(file: Path, key: str) -> int:
    """Return the first line on which ``key`` is given a value, or 1 where it is not, or the file cannot be read."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 1
    given = re.compile(rf"#?\s*[\"']?{re.escape(key)}[\"']?\s*[.=:]")
    return next((number for number, text in enumerate(lines, 1) if key and given.match(text)), 1)
