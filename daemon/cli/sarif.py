"""Findings in SARIF 2.1.0, the form in which forges take results of checks and show them beside the lines. Pure."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable
from typing import Any

from ...sync import inspection

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_RULES = {"error": ("broken", "It cannot be used."), "warning": ("doubtful", "It is not acted on as it may be meant.")}


def document(findings: Iterable[inspection.Finding], version: str) -> dict[str, Any]:
    """Return one run of ours with a result for each finding; places are relative to the directory that was checked."""
    rules = [{"id": name, "shortDescription": {"text": text}} for name, text in _RULES.values()]
    driver = {"name": "headrace", "version": version, "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": [_result(one) for one in findings]}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(one: inspection.Finding) -> dict[str, Any]:
    text = f"{one.reason} ({one.key})" if one.key else one.reason
    result: dict[str, Any] = {"ruleId": _RULES[one.severity][0], "level": one.severity, "message": {"text": text}}
    if one.file:
        place: dict[str, Any] = {"artifactLocation": {"uri": urllib.parse.quote(one.file)}}
        if one.line:
            place["region"] = {"startLine": one.line}
        result["locations"] = [{"physicalLocation": place}]
    return result
