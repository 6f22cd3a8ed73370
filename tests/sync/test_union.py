"""Several catalogues seen as one."""

import msgspec
import pytest

from headrace.engine import errors, model, policy
from headrace.sync import manifests, source, sources, union


def flow(name, webhook="", commit="a" * 40):
    hook = model.Webhook(name=webhook, auth="none", secret="") if webhook else None
    metadata = model.Metadata(webhook=hook)
    return model.Flow(
        id=f"id-{name}-{commit[0]}", name=name, path=f"{name}.py", commit=commit, blob="b", metadata=metadata
    )


def part(letter, *flows, **declared):
    commit = letter * 40
    found = {one.name: msgspec.structs.replace(one, commit=commit, id=f"{one.name}-{letter}") for one in flows}
    return model.Catalogue(source=letter, commit=commit, flows=found, declared=declared)


def declared(path, **fields):
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    return model.Declared(digest=path, path=path, commit="a" * 40, fields=raw)


def test_the_only_source_is_the_catalogue_itself():
    alone = part("a", flow("x"))
    assert union.merged({"": alone}) is alone


def test_names_begin_with_the_prefix_and_commits_are_each_sources_own():
    both = union.merged({"": part("a", flow("x")), "t": part("b", flow("x"), flow("sub/y"))})
    assert {name: one.source for name, one in both.flows.items()} == {"x": "", "t/x": "t", "t/sub/y": "t"}
    assert both.commit == "a" * 40
    assert both.commit_of(both.flows["t/x"]) == "b" * 40
    assert both.problems == ()


def test_a_source_that_was_never_published_leaves_the_others():
    both = union.merged({"": model.Catalogue(), "t": part("b", flow("x"))})
    assert (list(both.flows), both.commit) == (["t/x"], "b" * 40)


def test_one_name_twice_is_the_first_ones_and_told():
    both = union.merged({"": part("a", flow("t/x")), "t": part("b", flow("x"))})
    assert both.flows["t/x"].commit == "a" * 40
    assert [(one.file, one.commit[0]) for one in both.problems] == [("t/x.py", "b")]


def test_a_webhook_claimed_twice_stays_with_the_first_and_the_other_flow_runs_without():
    both = union.merged({"": part("a", flow("x", "hook")), "t": part("b", flow("y", "hook"), flow("z", "own"))})
    assert both.flows["x"].metadata.webhook.name == "hook"
    assert both.flows["t/y"].metadata.webhook is None
    assert both.flows["t/y"].runnable
    assert "belongs to the flow 'x'" in both.flows["t/y"].broken.reason
    assert both.flows["t/z"].metadata.webhook.name == "own"


def test_declared_schedules_and_webhooks_mean_flows_of_their_own_source():
    theirs = part(
        "b", flow("x"), schedule={"nightly": declared("schedules/nightly.yaml", flow_name="x", cron="@daily")}
    )
    both = union.merged({"": part("a", flow("x")), "t": theirs})
    assert bytes(both.declared["schedule"]["nightly"].fields["flow_name"]) == b'"t/x"'
    outside = part("b", webhook={"w": declared("webhooks/w.yaml", flow_name="x")})
    both = union.merged({"": part("a", flow("x")), "t": outside})
    assert bytes(both.declared["webhook"]["w"].fields["flow_name"]) == b'"x"'


def test_a_change_belongs_to_the_longest_prefix_that_fits():
    assert union.owner(["", "a", "ab"], "ab/x") == "ab"
    assert union.owner(["", "a"], "ab/x") == ""
    assert union.owner(["", "a"], "a") == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([("", "ssh://a/b"), ("", "ssh://a/c")], "exactly one has no prefix"),
        ([("x", "ssh://a/b")], "exactly one has no prefix"),
        ([("", "ssh://a/b"), ("x", "ssh://a/c"), ("x", "ssh://a/d")], "two sources have the prefix 'x'"),
        ([("", "ssh://a/b"), ("x", "ssh://a/b", "sub")], "with different paths"),
    ],
    ids=["none has one", "all have one", "twice", "one repository at two paths"],
)
def test_sources_that_do_not_go_together_are_refused(given, said):
    with pytest.raises(errors.ConfigurationInvalid, match=said):
        sources.checked([source.Source(prefix=one[0], url=one[1], path="".join(one[2:])) for one in given])


@pytest.mark.parametrize("prefix", ["a/b", "..", "-x", "a b", "ä", "x" * 65, ".git"])
def test_prefixes_are_plain_words(prefix):
    with pytest.raises(errors.ConfigurationInvalid, match="prefix"):
        source.Source(prefix=prefix, url="ssh://a/b")


def test_flows_that_others_count_on_and_that_are_not_there_are_told():
    policies = policy.Policies(on_failure="tell", on_success="x")
    theirs = msgspec.structs.replace(flow("y"), metadata=model.Metadata(policies=policies))
    schedule = {"s": declared("schedules/s.yaml", flow_name="none")}
    one, other = part("a", flow("tell")), part("b", theirs, flow("x"), schedule=schedule)
    assert [(found.path, found.key) for found in union.missing(other)] == [
        ("y.py", "on_failure"),
        ("schedules/s.yaml", "flow_name"),
    ]
    both = union.merged({"": one, "t": other})
    assert [found.path for found in union.missing(both)] == ["t/schedules/s.yaml"]


PLACES = {
    "anywhere": policy.ANYWHERE,
    "here": policy.Placement(worker=policy.LOCAL, cpu=2),
    "dmz": policy.Placement(worker="dmz", cpu=2),
    "gpu": policy.Placement(gpu=1),
}


def placed(name, **policies):
    metadata = model.Metadata(policies=policy.Policies(placement=PLACES[name], **policies))
    return msgspec.structs.replace(flow(name), metadata=metadata)


@pytest.mark.parametrize(("has_cluster", "warned"), [(False, ["dmz.py", "t/gpu.py"]), (True, [])])
def test_flows_that_want_a_place_on_a_cluster_are_told_where_there_is_none(tmp_path, has_cluster, warned):
    parts = {"": manifests.Published(tmp_path), "t": manifests.Published(tmp_path)}
    both = union.Union(parts, has_cluster=has_cluster)
    parts[""].swap(part("a", placed("anywhere"), placed("here"), placed("dmz")))
    parts["t"].swap(part("b", placed("gpu")))
    assert list(both.warnings) == warned
    assert [text.partition(":")[0] for text in both.warnings.values()] == ["worker", "resources"][: len(warned)]


def test_what_is_told_of_a_file_hides_nothing_else_of_it(tmp_path):
    alone = manifests.Published(tmp_path)
    known = union.Union({"": alone}, has_cluster=False)
    alone.swap(part("a", placed("dmz", on_failure="nobody", on_success="nowhere")))
    assert known.warnings == {
        "dmz.py": "on_failure: there is no flow 'nobody'; on_success: there is no flow 'nowhere'; "
        "worker: there is no cluster here, so it runs on this machine"
    }
    assert union.joined([*known.warnings.items(), ("dmz.py", "too"), ("x", "y")]) == {
        "dmz.py": f"{known.warnings['dmz.py']}; too",
        "x": "y",
    }
