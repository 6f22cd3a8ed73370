"""A replay after a crash that also compares what each call is given, for flows whose metadata say ``strict_replay``.

What is paused because of it is written down with both sides, so a side never shows more than the record itself does:
what is masked there stays masked in what the handler does now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from .. import events
from ..workers import protocol
from . import failures, given, history, likeness, live


class Strict:
    """The comparison during one replay."""

    def __init__(
        self, execution: str, recorded: Sequence[events.Recorded], told: history.History, ledger: live.Ledger
    ) -> None:
        self._given = given.Given(execution, recorded, told, ledger)
        self._masks = ledger.contents.masks

    async def compare(self, said: protocol.Call | protocol.Log, entry: history.Entry) -> None:
        """Raise ``Diverged`` if what the handler gives its call now is not what it gave it before."""
        if isinstance(said, protocol.Log):
            args, kwargs = self._masks.json(said.args), self._masks.json(said.kwargs)
            masked = msgspec.structs.replace(said, args=msgspec.Raw(args), kwargs=msgspec.Raw(kwargs))
            differs = await likeness.of_log(self._given, masked)
            kind, target, where = history.LOG, "", ""
        else:
            call = msgspec.structs.replace(said, args=msgspec.Raw(self._masks.json(said.args)))
            differs = await likeness.of_call(self._given, call)
            kind, target, where = said.kind, said.target, said.where
        if differs is not None:
            sides = (likeness.shown(differs[0]), likeness.shown(_veiled(*differs)))
            raise failures.Diverged(history.divergence(said.call, entry, kind, target, where, given=sides))


def _veiled(recorded: Any, attempted: Any) -> Any:
    """Return what is given now, without what stands where the record shows a mark, and under keys it does not have."""
    if isinstance(recorded, dict) and isinstance(attempted, dict):
        return {key: _veiled(recorded[key], value) if key in recorded else "…" for key, value in attempted.items()}
    if isinstance(recorded, list) and isinstance(attempted, list):
        known = zip(recorded, attempted, strict=False)
        return [_veiled(one, other) for one, other in known] + attempted[len(recorded) :]
    return recorded if isinstance(recorded, str) and likeness.has_mark(recorded) else attempted
