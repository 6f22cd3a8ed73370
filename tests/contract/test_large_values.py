"""Values of every kind and size on every way."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=8,
)
EVERYWHERE = """
value = inputs['value']
child = this.flow('child', value=value)
this.set_output('child', child.get('output_value')['got']['value'])
system.setting('any value', value=value)
this.set_output('setting', system.setting('any value').load('value'))
this.set_output('step', this.step('any', lambda: value))
this.log(value)
"""


@pytest.mark.contract("2.values.json", "3.setting.json")
@hypothesis.settings(max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(value=JSON)
def test_any_json_value_comes_back_as_it_was_on_every_way(workshop, value):
    ended = workshop.run(EVERYWHERE, value=value)
    assert ended["input_value"] == {"value": value}
    assert ended["output_value"] == {"child": value, "setting": value, "step": value}
    assert workshop.log(ended["id"])[0]["args"] == [value]


@pytest.mark.contract("2.values.json")
@pytest.mark.parametrize("value", [10**40, -(10**30), 1e-300, 1.7976931348623157e308, 0.1, "\u2028\x00\x1b ", ""])
def test_odd_numbers_and_texts_come_back_as_they_were(workshop, value):
    assert workshop.run(EVERYWHERE, value=value)["output_value"]["child"] == value


@pytest.mark.contract("2.values.json")
def test_text_that_utf8_cannot_hold_does_no_harm(run):
    ended = run("this.set_output('odd', 'a\\ud800b')\nprint('\\udcff')\nthis.log('\\ud800')")
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", {"odd": "a?b"})


@pytest.mark.contract("2.values.large")
def test_large_values_travel_whole_and_stay_out_of_the_journal(workshop, run):
    ended = run("""
big = 'x' * 300_000
child = this.flow('child', blob=big)
this.log('y' * 200_000)
this.set_output('big', child.get('output_value')['got']['blob'] + 'z')
system.setting('big', value=[big] * 3)
this.set_output('setting', sum(map(len, system.setting('big').load('value'))))
this.set_output('step', len(this.step('big', lambda: big)))
this.save(message='done')
""")
    output = ended["output_value"]
    assert (len(output["big"]), output["setting"], output["step"]) == (300_001, 900_000, 300_000)
    assert len(workshop.log(ended["id"])[0]["args"][0]) == 200_000
    assert max(len(str(line)) for line in workshop.record(ended["id"])) < 20_000


@pytest.mark.contract("2.values.large")
def test_a_large_file_comes_back_whole(value):
    assert value("""
import hashlib
content = bytes(range(256)) * 20_000
file = system.file('large.bin').save_bytes_content(content)
back = system.file('large.bin').get_bytes_content()
return [file.content_size_bytes(), hashlib.sha256(back).digest() == hashlib.sha256(content).digest()]
""") == [5_120_000, True]


@pytest.mark.contract("2.values.limit")
def test_a_value_over_the_limit_is_refused_and_the_flow_goes_on(value):
    assert value("""
huge = 'x' * (66 * 1024 * 1024)
told = []
for call in (lambda: this.set_output('a', huge), lambda: this.flow('child', a=huge)):
    try:
        call()
    except flow_api.InvalidInputError as error:
        told.append('too large' in str(error))
return told
""") == [True, True]
