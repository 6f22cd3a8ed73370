import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine import errors, values

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_a_checked_value_is_one_line_and_means_the_same(value):
    import json

    text = json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        checked = values.checked(text, "it")
    except errors.InvalidRequest:
        assert any(0xD800 <= ord(c) < 0xE000 for c in text.decode("utf-8", "surrogatepass"))
        return
    assert b"\n" not in checked
    assert values.decode(checked) == value


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b'{"a":}', b"\xff", b'"\xff"', b"[" * 100_000, b"{} {}"])
def test_what_is_not_json_is_refused_by_name(text):
    with pytest.raises(errors.InvalidRequest, match="the thing"):
        values.checked(text, "the thing")


def test_a_value_over_the_limit_is_refused_with_both_sizes():
    with pytest.raises(errors.TooLarge, match="inputs is 67,108,866 bytes, the limit is 67,108,864"):
        values.checked(b'"' + b"x" * values.VALUE_BYTES_MAX + b'"', "inputs")


def test_long_texts_keep_both_ends():
    short = values.shortened("a" * 1000 + "z" * 1000, 100)
    assert short.startswith("a" * 50) and short.endswith("z" * 50) and "1,900 characters left out" in short
