"""The settings about traces: what they refuse, and what the environment says."""

import pytest

from headrace.daemon import config, tracing
from headrace.engine import errors, traces

SOURCE = {"source.url": "/flows"}


def load(key, value):
    return config.load({**SOURCE, f"traces.{key}": value}, {}, {})


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"endpoint": "localhost:4318"}, "is not an address such as http://127.0.0.1:4318/v1/traces"),
        ({"endpoint": "file:///x"}, "is not an address"),
        ({"endpoint": "https://me:word@c.example/v1/traces"}, "write  Authorization: Basic …  into a `headers_file`"),
        ({"ratio": 2}, "`ratio` must be from 0 to 1"),
        ({"ratio": "half"}, "ratio"),
        ({"headers_file": "/nowhere"}, "is not a file that can be read"),
        ({"headers_file": __file__}, "must have lines such as  Authorization: Bearer"),
        ({"headers": {}}, "unknown field `headers`"),
    ],
)
def test_an_export_that_cannot_work_is_refused_and_says_how_it_can(setting, said):
    with pytest.raises(errors.ConfigurationInvalid, match="traces.export") as refused:
        load("export", setting)
    assert said in refused.value.message and "me:word" not in refused.value.message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://t.example/trace/", "write {trace}, as in https://traces.example/trace/{trace}"),
        ("https://t.example/{trace}/{user}", "no other braces"),
        ("https://t.example/{trace", "no other braces"),
        ("https://t.example/{trace!r}", "no other braces"),
        ("https://t.example/{trace:9}", "no other braces"),
        ("https://t.example/{}{trace}", "no other braces"),
        ("https://t.example/{trace.__class__}", "no other braces"),
        ("javascript:alert('{trace}')", "http or https"),
        ("//t.example/{trace}", "http or https"),
        ("https:///{trace}", "http or https"),
        ("https://t.example/ {trace}", "http or https"),
    ],
)
def test_a_link_is_an_address_with_the_trace_in_it(url, said):
    with pytest.raises(errors.ConfigurationInvalid, match="traces.link") as refused:
        load("link", {"url": url})
    assert said in refused.value.message


def test_a_link_leads_to_a_trace_that_is_kept():
    link = load("link", {"url": 'https://t.example/e?left={{"q":"{trace}"}}&s={span}&x={execution}'}).traces_link
    decided = tracing.decided(None, link, {})
    assert decided.begun("e1") == ""
    kept = "00-" + "a" * 32 + "-" + "b" * 16
    shown = decided.page(f"{kept}-01", "e1")
    assert shown == f'https://t.example/e?left={{"q":"{"a" * 32}"}}&s={traces.span("e1")}&x=e1'
    assert (decided.page(f"{kept}-00", "e1"), decided.page("", "e1")) == ("", "")


@pytest.mark.parametrize(
    ("setting", "environ", "ratio"),
    [
        ({}, {}, 1.0),
        ({"ratio": 0.25}, {"OTEL_TRACES_SAMPLER": "always_on"}, 0.25),
        ({}, {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}, 0.5),
        ({}, {"OTEL_TRACES_SAMPLER": "always_off"}, 0.0),
        ({}, {"OTEL_SDK_DISABLED": "true"}, None),
    ],
)
def test_the_ratio_is_that_of_the_setting_else_of_the_environment(setting, environ, ratio):
    assert tracing.decided(load("export", setting).traces_export, None, environ).ratio == ratio


@pytest.mark.parametrize("sampler", ["jaeger_remote", "traceidratio"])
def test_a_sampler_that_there_is_not_stops_the_start(sampler):
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "2"}
    with pytest.raises(errors.ConfigurationInvalid, match="OTEL_TRACES_SAMPLER"):
        tracing.decided(tracing.Export(), None, environ)


def test_of_many_executions_the_ratio_begins_a_trace_that_is_kept():
    begun = [traces.Tracing(0.25).begun(f"e{n}") for n in range(4000)]
    assert 850 < sum(map(traces.is_sampled, begun)) < 1150
    assert all(traces.accepted(one) == one for one in begun)
    assert begun == [traces.Tracing(0.25).begun(f"e{n}") for n in range(4000)]
    assert all(map(traces.is_sampled, (traces.Tracing(1.0).begun(f"e{n}") for n in range(100))))
    onward = traces.onward(begun[0], "e0")
    assert onward == begun[0]  # it stands in the place of its own parent
