"""The journal against a list, with crashes, damage, copies and restores in between; see ``machine``."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

from tests.engine.records import machine

TestJournal = machine.Machine.TestCase
TestJournal.settings = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
