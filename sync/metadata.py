"""The inline-metadata block of a flow: what it may say. Pure.

Owns: the table of keys with their types, and the form of a webhook; schedules, limits and the like are read by
``policies``. Refuses: unknown keys, wrong types and secrets written out, each with its line and key, because a setting
that is silently ignored is worse than none. Called by ``check`` with the block that ``compile_flows`` found.
"""

from __future__ import annotations

import platform
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from ..engine import errors, model, policy
from ..engine.state import inputs
from . import policies, requirements, shapes


class MetadataInvalid(errors.HeadraceError):
    """A metadata block that cannot be used; ``line`` is the file's, ``key`` the one at fault."""

    def __init__(self, message: str, *, line: int, key: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.key = key


def parse(block: str, *, first_line: int, flow_name: str) -> model.Metadata:
    """Return what ``block`` says; raises ``MetadataInvalid``. ``first_line`` is the number of its first line."""
    try:
        table = tomllib.loads(block)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+),", str(error))
        line = first_line + (int(found[1]) - 1 if found else 0)
        message = re.sub(r" \(at line \d+, column \d+\)", "", str(error))
        raise MetadataInvalid(f"the metadata block is not TOML: {message}", line=line) from None
    except RecursionError:
        raise MetadataInvalid("the metadata block is nested too deeply", line=first_line) from None
    key = ""
    said: dict[str, Any] = {}
    try:
        for key, value in table.items():
            said[key] = _on_top(key, value)
        key = "tool"
        settings = shapes.table(table.get("tool", {})).get("headrace", {})
        key = "tool.headrace"
        values: dict[str, Any] = {}
        for key, value in shapes.table(settings).items():
            if key not in _KEYS:
                raise shapes.Wrong(f"is not a key of [tool.headrace]; there are {', '.join(sorted(_KEYS))}")
            values[key] = _KEYS[key](value)
        key = ""
        gathered = policies.gathered(values, flow_name)
    except shapes.Wrong as wrong:
        whole = ".".join(filter(None, (key, wrong.key)))
        raise MetadataInvalid(f"{whole} {wrong.message}", line=first_line + _offset(block, whole), key=whole) from None
    return _metadata(values, gathered, flow_name, said.get("dependencies"))


def _metadata(
    values: Mapping[str, Any], gathered: policy.Policies, flow_name: str, dependencies: tuple[str, ...] | None
) -> model.Metadata:
    hook: model.Webhook | None = values.get("webhook")
    if hook is not None and not hook.name:
        hook = model.Webhook(name=flow_name, auth=hook.auth, secret=hook.secret, methods=hook.methods)
    retention: Mapping[str, Any] = values.get("retention", {})
    return model.Metadata(
        description=values.get("description", ""),
        timeout_s=values.get("timeout"),
        reuse=values.get("reuse", True),
        webhook=hook,
        on_interrupt=values.get("on_interrupt", ""),
        strict_replay=values.get("strict_replay", False),
        retention_s=retention.get("keep"),
        retention_count=retention.get("count", 0),
        policies=gathered,
        dependencies=dependencies,
        input_schema=values.get("input_schema", ""),
    )


def _on_top(key: str, value: object) -> Any:
    """Check what stands beside the table and return it in its one form."""
    if key == "requires-python":
        from packaging import specifiers  # the marked place: few flows say it

        try:
            wanted = specifiers.SpecifierSet(shapes.text(value))
        except specifiers.InvalidSpecifier:
            raise shapes.Wrong(f"is {value!r}; write versions such as '>=3.11'") from None
        if not wanted.contains(platform.python_version(), prereleases=True):
            raise shapes.Wrong(f"is {value!r}, and flows run on Python {platform.python_version()}, as the daemon does")
        return str(wanted)
    if key == "dependencies":
        try:
            return requirements.normalised(("", text) for text in shapes.texts(value))
        except requirements.Unusable as error:
            raise shapes.Wrong(f"cannot be used: {error.message}") from None
    if key != "tool":
        raise shapes.Wrong("is not a key of the script block; there are requires-python, dependencies, [tool.headrace]")
    return value


def _offset(block: str, key: str) -> int:
    """Return in which line of ``block`` the innermost part of ``key`` that can be found stands, counting from 0."""
    lines = block.split("\n")
    for part in reversed(key.split(".")):
        here = re.compile(rf"""(?:^|[{{,\[.\s])["']?{re.escape(part)}["']?\s*(?:=|\]|\.)""")
        for number, line in enumerate(lines):
            if here.search(line.partition("#")[0]):
                return number
    return 0


def _webhook_name(value: object) -> str:
    name = shapes.text(value)
    if not name or name != name.strip("/ ") or not name.isprintable():
        raise shapes.Wrong(f"is {shapes.shown(value)}; write a name without slashes or blanks at its ends")
    return name


_webhook_fields = shapes.fields(
    name=_webhook_name, auth=shapes.auth, secret=shapes.secret, key=shapes.secret, methods=shapes.methods
)


def _webhook(value: object) -> model.Webhook | None:
    if isinstance(value, bool):
        return model.Webhook(name="") if value else None
    fields = _webhook_fields(value)
    auth, secret = shapes.admission(fields, auth_default="none")
    return model.Webhook(
        name=fields.get("name", ""), auth=auth, secret=secret, methods=fields.get("methods", ("POST",))
    )


_retention_fields = shapes.fields(keep=policies.duration_s, count=shapes.count)


def _retention(value: object) -> dict[str, Any]:
    """Read ``"7d"`` or ``{keep = "7d", count = 100}``, of which either may be left out."""
    return _retention_fields(value) if isinstance(value, dict) else {"keep": policies.duration_s(value)}


def _input_schema(value: object) -> str:
    try:
        return inputs.checked(shapes.table(value))
    except errors.InvalidRequest as error:
        raise shapes.Wrong(f"cannot be used: {error.message}") from None


_KEYS: dict[str, Callable[[object], Any]] = {
    "description": shapes.text,
    "timeout": policies.duration_s,
    "reuse": shapes.flag,
    "webhook": _webhook,
    "retention": _retention,
    **policies.KEYS,
    "on_interrupt": shapes.one_of("resume", "restart", "fail"),
    "input_schema": _input_schema,
    "strict_replay": shapes.flag,
}
