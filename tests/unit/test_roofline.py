"""Rooflines: operations and bytes counted on a graph, and what the machine has."""

from __future__ import annotations

import os
import time

import pytest

from helpers.measure import roofline


def test_gemm_is_measured():
    start = time.perf_counter()
    found = roofline.gemm_gflops(256, min_seconds=0.05)
    assert time.perf_counter() - start >= 0.05
    assert 0.1 < found < 100_000


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no process to cores")
def test_memory_is_measured_on_the_cores_of_this_process(monkeypatch):
    """A container may have two of a machine's 64."""
    threads, pool = [], roofline.ThreadPoolExecutor
    monkeypatch.setattr(roofline, "ThreadPoolExecutor", lambda count: threads.append(count) or pool(count))
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        assert 0.1 < roofline.memory_gbs(min_seconds=0.0) < 10_000
    finally:
        os.sched_setaffinity(0, mine)
    assert threads == [1]


def test_the_cost_of_a_network_is_counted_on_its_graph(tiny):
    """One convolution of 4 x 4 in steps of 4, 3 channels to 34: a multiply-add per weight and place."""
    cost = roofline.cost(tiny, batch_size=2, height=64, width=96)
    places, weights = 2 * 16 * 24, 34 * 3 * 4 * 4
    assert cost.gflop * 1e9 == pytest.approx(2 * places * weights)
    assert cost.megabytes * 1e6 == pytest.approx(4 * (2 * 3 * 64 * 96 + weights + 34 * places))
    assert cost.intensity == pytest.approx(cost.gflop * 1e9 / (cost.megabytes * 1e6))


@pytest.mark.parametrize("opset", [11, 17])
def test_the_count_is_that_of_the_torch_module(exported, opset):
    """Within what the export adds: opset 17's convolutions in place of deconvolutions have some weights of 0."""
    cost = roofline.cost(exported[opset])
    assert cost.gflop == pytest.approx(16.8, rel=0.06)
    assert roofline.cost(exported[opset], batch_size=2).gflop == pytest.approx(2 * cost.gflop)
    assert 5 < cost.intensity < 200
