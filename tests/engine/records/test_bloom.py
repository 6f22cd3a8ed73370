"""The filter is never wrong about what was added, and seldom about the rest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.records.bloom import Bloom


@given(st.lists(st.text()), st.lists(st.text()))
def test_what_was_added_is_never_denied(some: list[str], others: list[str]) -> None:
    first, second = Bloom(), Bloom()
    for text in some:
        first.add(text)
    for text in others:
        second.add(text)
    first.update(second)
    assert all(map(first.may_have, some + others))
    assert all(map(second.may_have, others))


def test_nearly_all_of_the_rest_is() -> None:
    filled = Bloom()
    assert not any(filled.may_have(f"other {number}") for number in range(1000))
    for number in range(10_000):
        filled.add(f"added {number}")
    assert sum(filled.may_have(f"other {number}") for number in range(10_000)) < 100
