"""The settings about traces: where spans go, where people see them, and what the environment says of both.

``OTEL_…`` variables count as OpenTelemetry's specification has them
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/) wherever the setting says nothing.
Pure, but for the file with the headers. Called by ``config``, ``surroundings`` and ``span_exporter``.
"""

from __future__ import annotations

import string
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ..engine import errors, traces

_PLACES = ("trace", "span", "execution")


class Export(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting ``traces.export``: spans are sent to a collector, as OTLP over HTTP.

    ``endpoint`` is the whole address, ``headers_file`` has a line ``Name: value`` for each header, and ``ratio`` says
    how many of the executions that come without a trace begin one that is kept."""

    endpoint: str = ""
    headers_file: str = ""
    ratio: float | None = None
    service: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.endpoint and not _is_web(self.endpoint):
            raise ValueError("`endpoint` is not an address such as http://127.0.0.1:4318/v1/traces")
        if self.endpoint and "@" in urllib.parse.urlsplit(self.endpoint).netloc:
            raise ValueError("`endpoint` holds credentials: write  Authorization: Basic …  into a `headers_file`")
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise ValueError("`ratio` must be from 0 to 1")
        if self.headers_file:
            headers(self.headers_file)


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting ``traces.link``: ``url`` is where people see a trace; {trace}, {span}, {execution} stand for ids."""

    url: str

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        example = "https://traces.example/trace/{trace}"
        try:
            found = [place for place in string.Formatter().parse(self.url) if place[1] is not None]
        except ValueError:  # a brace without its other half
            found = [("", "", "", None)]
        if any(name not in _PLACES or form or conversion for _, name, form, conversion in found):
            raise ValueError(f"`url` may hold {{trace}}, {{span}}, {{execution}} and no other braces, as in {example}")
        if not any(name == "trace" for _, name, _, _ in found):
            raise ValueError(f"`url` does not say where the id of the trace stands: write {{trace}}, as in {example}")
        if not _is_web(self.url):
            raise ValueError(f"`url` is not an address with http or https, such as {example}")


def _is_web(text: str) -> bool:
    try:
        found = urllib.parse.urlsplit(text)
    except ValueError:
        return False
    return found.scheme in ("http", "https") and bool(found.hostname) and text.isprintable() and " " not in text


def headers(file: str) -> dict[str, str]:
    """Return the headers in a file; raises ``ValueError`` without anything of what stands in it."""
    try:
        lines = [line.strip() for line in Path(file).read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"`headers_file` {file!r} is not a file that can be read") from None
    pairs = [line.partition(":") for line in lines if line and not line.startswith("#")]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise ValueError(f"`headers_file` {file!r} must have lines such as  Authorization: Bearer …")
    return {name.strip(): value.strip() for name, _, value in pairs}


def is_off(environ: Mapping[str, str]) -> bool:
    """Return whether the environment switches OpenTelemetry off, whatever the settings say."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def decided(export: Export | None, link: Link | None, environ: Mapping[str, str]) -> traces.Tracing:
    """Return what the engine needs to know; raises ``ConfigurationInvalid`` for a sampler that there is not."""
    ratio = None if export is None or is_off(environ) else _ratio(export, environ)
    return traces.Tracing(ratio, link.url if link is not None else "")


def _ratio(export: Export, environ: Mapping[str, str]) -> float:
    if export.ratio is not None:
        return export.ratio
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().removeprefix("parentbased_") or "always_on"
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
    try:
        ratio = {"always_on": 1.0, "always_off": 0.0, "traceidratio": float(argument)}[sampler]
    except (KeyError, ValueError):
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise errors.ConfigurationInvalid(
            f"OTEL_TRACES_SAMPLER={sampler} with OTEL_TRACES_SAMPLER_ARG={argument} in the environment cannot be used",
            hint="use always_on, always_off, or traceidratio with a number from 0 to 1; or set traces.export.ratio",
        )
    return ratio
