"""docs/observability.md and the files beside it: the settings are those of the code, the recipes fit the records."""

import re
import tomllib
import typing
from pathlib import Path

import pytest
import yaml

from headrace.daemon import config, span_exporter, tracing
from headrace.engine import events
from headrace.engine.records import segments

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = (DOCS / "observability.md").read_text()
OBSERVE = DOCS / "observe"


def test_the_settings_are_those_of_the_code_and_the_example_is_taken():
    cells = re.findall(r"^\| `(\w+)` \|", DOCUMENT.partition("| `traces.export` |")[2], re.MULTILINE)
    assert set(cells) == set(tracing.Export.__struct_fields__)
    example = re.search(r"^```toml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)[1]
    settings = config.load({"source.url": "/flows"}, {}, {"headrace.toml": example})
    assert settings.traces_link.url.endswith("{trace}") and settings.traces_export.ratio is None


def test_the_defaults_and_the_passing_answers_are_those_of_the_code():
    for variable, usual in (
        ("MAX_QUEUE_SIZE", span_exporter._WAITING_MAX),
        ("MAX_EXPORT_BATCH_SIZE", span_exporter._BATCH_MAX),
        ("SCHEDULE_DELAY", span_exporter._GATHER_MS),
    ):
        assert re.search(rf"`OTEL_BSP_{variable}`\s\({usual:,}", DOCUMENT), variable
    assert ", ".join(map(str, sorted(span_exporter._PASSING))) in DOCUMENT


def test_all_files_beside_it_are_named():
    assert {path.name for path in OBSERVE.iterdir()} == set(re.findall(r"\]\(observe/([\w.-]+)\)", DOCUMENT))


def vector():
    found = tomllib.loads((OBSERVE / "vector.toml").read_text())
    source, parsed = found["sources"]["headrace"], found["transforms"]["headrace_events"]["source"]
    pattern = re.search(r"r'(.*)'", found["transforms"]["headrace_news"]["condition"])[1]
    return (
        source["include"][0],
        source["max_line_bytes"],
        re.search(r"timestamp!\(string!\(\.(\w+)\)", parsed)[1],
        pattern,
    )


def promtail():
    found = yaml.safe_load((OBSERVE / "promtail.yaml").read_text())
    (scrape,) = found["scrape_configs"]
    stages = {name: of for stage in scrape["pipeline_stages"] for name, of in stage.items()}
    assert found["limits_config"]["max_line_size"] == "1MB" and stages["drop"]["source"] == "event"
    place = scrape["static_configs"][0]["labels"]["__path__"]
    return (
        place,
        1024 * 1024,
        stages["json"]["expressions"][stages["timestamp"]["source"]],
        stages["drop"]["expression"],
    )


def fluent_bit():
    found = yaml.safe_load((OBSERVE / "fluent-bit.yaml").read_text())
    (source,) = found["pipeline"]["inputs"]
    (parser,) = found["parsers"]
    assert parser["name"] == source["parser"] and parser["format"] == "json"
    field, _, pattern = found["pipeline"]["filters"][0]["exclude"].partition(" ")
    assert field == "event" and source["buffer_max_size"] == "2M"
    return source["path"], 2 * 1024 * 1024, parser["time_key"], pattern


@pytest.mark.parametrize("recipe", [vector, promtail, fluent_bit])
def test_a_recipe_reads_the_segments_whole_and_leaves_out_what_is_no_news(recipe):
    place, line_bytes, time, pattern = recipe()
    assert (Path("/var/lib/headrace/records") / segments.file_name(7)).match(place)
    assert line_bytes >= segments.LINE_BYTES_MAX and time == "at"
    kinds = {*typing.get_args(events.AnyEvent), segments.SegmentOpened, segments.SegmentSealed}
    left_out = {kind for kind in kinds if re.search(pattern, kind.__struct_config__.tag)}
    retold = {*typing.get_args(events.RetoldEvent), segments.SegmentOpened, segments.SegmentSealed}
    assert left_out == retold
