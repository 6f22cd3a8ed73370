"""What executions wish for of a cluster, as Ray's options and in words."""

import platform

import pytest

from headrace.daemon import on_ray
from headrace.engine import policy
from headrace.engine.guest import node
from headrace.engine.workers import node_link, wishes

NODES = (
    wishes.Node("a", "plain", True, {"CPU": 4.0, "memory": 8e9}),
    wishes.Node("b", "big", True, {"CPU": 16.0, "GPU": 2.0, "memory": 64e9}, {"worker": "gpu"}),
    wishes.Node("c", "gone", False, {"CPU": 64.0, "fpga": 1.0}),
)


def test_wishes_become_the_options_of_a_task():
    wants = policy.Placement(worker="gpu", cpu=2.0, gpu=1.0, memory=4096, resources={"fpga": 1.0})
    assert wishes.ray_options(wants, 1.0) == {
        "name": "headrace", "num_cpus": 2.0, "num_gpus": 1.0, "memory": 4096, "resources": {"fpga": 1.0},
        "label_selector": {"worker": "gpu"},
    }  # fmt: skip
    assert wishes.ray_options(policy.ANYWHERE, 0.5) == {"name": "headrace", "num_cpus": 0.5}


@pytest.mark.parametrize(
    ("wants", "problem"),
    [
        (policy.ANYWHERE, ""),
        (policy.Placement(cpu=16.0), ""),
        (policy.Placement(cpu=17.0), "no node has CPU 17"),
        (policy.Placement(worker="gpu", gpu=2.0), ""),
        (policy.Placement(worker="gpu", gpu=3.0), "no node with the label worker=gpu has CPU 1, GPU 3"),
        (policy.Placement(worker="mars"), "no node has the label worker=mars"),
        (policy.Placement(resources={"fpga": 1.0}), "no node has CPU 1, fpga 1"),
    ],
)
def test_what_no_node_has_is_said(wants, problem):
    assert wishes.missing(wants, 1.0, NODES) == problem


def test_a_cluster_of_nobody_is_said():
    assert wishes.missing(policy.ANYWHERE, 1.0, NODES[2:]) == "the cluster has no nodes"


def test_a_node_that_is_not_like_the_daemon_is_refused():
    ours = platform.python_version()
    hello = node_link.Hello("t", "n", "far", ours, node.platform_name())
    assert node_link.unlike_ours(hello) == ""
    assert "far has Python 2.7.18" in node_link.unlike_ours(node_link.Hello("t", "n", "far", "2.7.18", hello.platform))
    assert "far is pypy" in node_link.unlike_ours(node_link.Hello("t", "n", "far", ours, "pypy Linux riscv64"))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"address": "ray://head:10001"}, "names a Ray client"),
        ({"listen": "8421"}, "is not host:port"),
        ({"flows": "some"}, "`flows` must be"),
        ({"lease_s": 1}, "`lease_s` must be from 2"),
        ({"folder": "here"}, "is not an absolute path"),
        ({"cpu": -1}, "`cpu` must be"),
        ({"max_running": 0}, "`max_running` must be"),
    ],
)
def test_a_cluster_that_cannot_be_meant_is_refused(given, problem):
    with pytest.raises(ValueError, match=problem):
        on_ray.Ray(**given)


def test_where_nodes_reach_us():
    assert on_ray.Ray(listen=":8421").options().listen == "0.0.0.0:8421"
    assert on_ray.Ray(listen="10.0.0.1:8421").options().listen == "10.0.0.1:8421"
    assert on_ray.Ray().options().listen == ""
