"""Random trees of executions that fail, wait, cancel and pause: what they end as has to make sense as a whole.

Each node does what its part of the tree says: it starts its children without waiting, cancels or pauses some of them,
waits for all in one of the ways there are, notes what it saw, and ends as told. People resume whatever stands still and
may cancel the root. Afterwards nothing may be without an end, nobody may have been cancelled for no reason, and what
parents saw of their children must be true.
"""

from __future__ import annotations

import time

import hypothesis
import hypothesis.strategies as st
import pytest

NODE = """
import flow_api


def handler(system, this, inputs):
    node, seen = inputs['node'], {}
    try:
        run(system, this, node, seen)
    except flow_api.ExecutionCancel:
        if node['stubborn']:
            this.sleep(1)
        raise
    finally:
        if node['tidies']:
            print('tidied')
    this.save(output_value=seen)
    if node['end'] == 'raise':
        raise ValueError('told to')
    if node['end'] == 'error':
        return this.error('told to')


def run(system, this, node, seen):
    children = []
    for child in node['children']:
        handle = this.flow('tree node', node=child, name=child['name'], wait=False, orphan=child['orphan'])
        if child['act'] == 'cancel':
            handle.cancel()
        elif child['act'] == 'pause':
            handle.pause()
        children.append(handle)
    this.sleep(node['sleep'])
    if node['how'] == 'not':
        return
    try:
        ended = this.wait_for(children, return_when=node['how'])
        seen['ended'] = [child.get('name') for child in ended]
    except flow_api.DependencyFailedError as error:
        seen['failed'] = error.execution.get('name')
        if node['strict']:
            raise
    seen['statuses'] = {child.get('name'): child.get('status') for child in children}
"""
HOWS = ("ALL_SUCCEEDED", "ALL_ENDED", "FIRST_ENDED", "FIRST_SUCCEEDED", "not")
LEAF = {
    "sleep": st.sampled_from([0, 0.01, 0.1]),
    "end": st.sampled_from(["well", "well", "raise", "error"]),
    "act": st.sampled_from(["none", "none", "none", "cancel", "pause"]),
    "how": st.sampled_from(HOWS),
    "orphan": st.booleans(),
    "strict": st.booleans(),
    "stubborn": st.booleans(),
    "tidies": st.booleans(),
}
LEAVES = st.fixed_dictionaries(LEAF | {"children": st.just([])})


def above(inner):
    """A node with children; half of the time these all fail, or nearly."""
    failing = inner.map(lambda node: node | {"end": "raise", "act": "none", "how": "not"})
    return st.fixed_dictionaries(
        LEAF | {"children": st.lists(inner, min_size=1, max_size=4) | st.lists(failing, min_size=1, max_size=3)}
    )


TREE = above(st.recursive(LEAVES, above, max_leaves=5))
SETTLED_S = 30


def named(node, name="0"):
    """Give every node the name of its place."""
    children = [named(child, f"{name}.{number}") for number, child in enumerate(node["children"])]
    return node | {"name": name, "children": children}


def nodes(node):
    yield node
    for child in node["children"]:
        yield from nodes(child)


def settle(workshop, root):
    """Resume what stands still until everything has ended; return name → execution."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        found, open_ = {}, [root]
        while open_:
            execution = workshop.execution(open_.pop())
            found[execution["name"]] = execution
            open_ += [child["id"] for child in workshop.children(execution["id"])]
        unended = {name: each["status"] for name, each in found.items() if not each["status"].startswith("ENDED")}
        if not unended:
            return found
        assert time.monotonic() < deadline, f"these never end: {unended}"
        for name, status in unended.items():
            if status == "PAUSED":
                workshop.http("POST", f"/api/v1/executions/{found[name]['id']}/resume")
        time.sleep(0.02)


def check(node, parent, found, root_was_cancelled):
    """Assert that one node ended as it may have, given what it was told and what became of its parent."""
    it = found.get(node["name"])
    if it is None:  # its parent was cancelled before it came to it
        assert found[parent["name"]]["status"] == "ENDED_CANCELLED", node["name"]
        return
    status = it["status"]
    if status == "ENDED_CANCELLED":
        by_parent = parent is not None and found[parent["name"]]["status"] == "ENDED_CANCELLED"
        by_end = parent is not None and not node["orphan"]
        waited = by_parent and parent["how"] != "not"
        assert node["act"] == "cancel" or (parent is None and root_was_cancelled) or waited or by_end, node["name"]
        return
    seen = it["output_value"]
    last_words = "failed" in seen and node["strict"]
    own = {"well": "ENDED_SUCCESS", "raise": "ENDED_ERROR", "error": "ENDED_ERROR"}[node["end"]]
    if it["error"] and it["error"]["type"] == "DependencyFailedError":
        assert node["strict"] and node["how"] in ("ALL_SUCCEEDED", "FIRST_SUCCEEDED"), node["name"]
        assert status == "ENDED_ERROR"
        return
    assert (status, last_words) == (own, False), (node["name"], it["message"])
    check_seen(node, seen, {child["name"]: found[child["name"]]["status"] for child in node["children"]})


def check_seen(node, seen, children):
    """Assert that what a node saw of its children is what became of them."""
    for name, status in seen.get("statuses", {}).items():
        if status.startswith("ENDED"):
            assert status == children[name], name
    ended = seen.get("ended")
    if "failed" in seen:
        assert children[seen["failed"]] != "ENDED_SUCCESS"
        assert node["how"] in ("ALL_SUCCEEDED", "FIRST_SUCCEEDED")
        if node["how"] == "FIRST_SUCCEEDED":
            assert "ENDED_SUCCESS" not in children.values()
    elif node["how"] == "ALL_SUCCEEDED":
        assert set(children.values()) <= {"ENDED_SUCCESS"}
    elif node["how"] == "FIRST_ENDED" and children:
        assert ended
    elif node["how"] == "FIRST_SUCCEEDED" and children:
        assert "ENDED_SUCCESS" in [children[name] for name in ended]
    if node["how"] in ("ALL_SUCCEEDED", "ALL_ENDED") and ended is not None:
        assert sorted(ended) == sorted(children)


@pytest.mark.contract("2.status.path", "2.cancel.execution", "2.cancel.waited", "2.cancel.not-waited", "2.pause.stops")
@pytest.mark.contract("2.wait-for.all-succeeded", "2.wait-for.all-ended", "2.wait-for.first-ended")
@pytest.mark.contract("2.wait-for.first-succeeded", "2.handle.current")
@hypothesis.settings(max_examples=40, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(tree=TREE, cancel_after=st.sampled_from([None, None, 0, 0.02, 0.1]))
def test_any_tree_of_executions_ends_as_it_was_told(workshop, tree, cancel_after):
    if not (workshop.folder / "tree node.py").exists():
        workshop.flow("tree node", NODE)
    tree = named(tree)
    root = workshop.daemon.client.run("tree node", {"node": tree}, name=tree["name"])["id"]
    if cancel_after is not None:
        time.sleep(cancel_after)
        workshop.http("POST", f"/api/v1/executions/{root}/cancel")
    found = settle(workshop, root)
    parents = {child["name"]: node for node in nodes(tree) for child in node["children"]}
    for node in nodes(tree):
        parent = parents.get(node["name"])
        if parent is None or parent["name"] in found:
            check(node, parent, found, cancel_after is not None)
