"""Moments as text are those that the standard library makes, to the microsecond."""

from __future__ import annotations

import datetime

import hypothesis
import hypothesis.strategies
import pytest

from headrace.engine import moments


def _expected(epoch_s: float) -> str:
    return datetime.datetime.fromtimestamp(epoch_s, datetime.UTC).isoformat(timespec="microseconds")


@pytest.mark.parametrize("epoch_s", [0.0, 1.0000004, 1.9999999, 2.5000015, 1_700_000_000.123456, -0.25, 59.9999995])
def test_a_moment_has_its_microseconds(epoch_s: float) -> None:
    assert moments.timestamp(epoch_s) == _expected(epoch_s)


@hypothesis.given(hypothesis.strategies.floats(-1e9, 250e9, allow_nan=False))
def test_every_moment_does(epoch_s: float) -> None:
    assert moments.timestamp(epoch_s) == _expected(epoch_s)


def test_between_two_moments_lie_seconds() -> None:
    assert moments.seconds_between(moments.timestamp(1.5), moments.timestamp(3.75)) == 2.25
    assert moments.seconds_between("", moments.timestamp(3.75)) == 0.0
