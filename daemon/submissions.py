"""What a client can have run: a flow, a script, what ran before. Part of ``client``."""

from __future__ import annotations

import urllib.parse
import uuid
from collections.abc import Mapping
from typing import Any

from .endpoint import JSON, Asking, Interrupted


class Submissions(Asking):
    """The calls; whoever inherits them knows how to ask the daemon."""

    def run(
        self, flow: str, inputs: Mapping[str, Any] | None = None, *, name: str = "", ref: str = "", key: str = ""
    ) -> JSON:
        """Have ``flow`` run and return its execution, which is durable from then on and most likely not ended.

        ``ref``: a commit, or a branch or tag that the daemon allows, to run it from instead of what is published.
        ``key`` makes it safe to ask again: the same key never runs it twice. Without one a random key is used, and
        a connection that breaks midway is followed by one more attempt."""
        body = {"inputs": dict(inputs or {})} | _given(name=name, ref=ref)
        return self._submit(f"/flows/{urllib.parse.quote(flow, safe='')}/run", body, key)

    def run_script(
        self, script: str, inputs: Mapping[str, Any] | None = None, *, name: str = "", ref: str = "", key: str = ""
    ) -> JSON:
        """The same with the text of a handler that is no flow of the repository; ``ref`` says what it imports."""
        body = {"script": script, "inputs": dict(inputs or {})} | _given(name=name, ref=ref)
        return self._submit("/executions", body, key)

    def rerun(self, execution_id: str, inputs: Mapping[str, Any] | None = None, *, same_commit: bool = False) -> JSON:
        """Run again what it ran, with its inputs but for those given, and return the new execution.

        It runs the latest version of its flow, or the one that it ran."""
        body: JSON = {"inputs": dict(inputs or {}), "version": "same" if same_commit else "latest"}
        return self._json("POST", f"/executions/{urllib.parse.quote(execution_id, safe='')}/rerun", body=body)

    def _submit(self, path: str, body: JSON, key: str) -> JSON:
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        try:
            return self._json("POST", path, body=body, headers=headers)
        except Interrupted:
            return self._json("POST", path, body=body, headers=headers)


def _given(**fields: str) -> JSON:
    return {name: text for name, text in fields.items() if text}
