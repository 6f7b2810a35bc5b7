"""Many images: memory does not grow with their number."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.measure import evaluate
from helpers.pose.estimator import PoseEstimator
from tests.faults.sets import repeat_demo

WARM, CALM, LEAKING = 60, 200, 60
BOUND_MB = 20  # 200 network inputs of this size are 40 MB and more


def resident_mb() -> float:
    """Memory in use: what was freed goes back to the system first, else a leak could hide in it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux and glibc give it")
def test_memory_stays(demo_engine, tmp_path):
    """A run with its journal; over the last images something leaks on purpose, which the same measure has to notice."""
    dataset = repeat_demo(tmp_path / "coco", WARM + CALM + LEAKING, distinct=10)
    estimator = PoseEstimator(demo_engine, flip_test=False, input_size=128)
    memory, leak = [], []

    def progress(done: int, _count: int) -> None:
        if done > WARM + CALM:
            leak.append(np.ones(1 << 16))  # half a MB
        if done in (WARM, WARM + CALM, len(dataset)):
            memory.append(resident_mb())

    kept = evaluate.Journal(tmp_path, evaluate.fingerprint(demo_engine, estimator, dataset, dataset.image_ids))
    run = evaluate.run(estimator, dataset, dataset.image_ids, progress=progress, journal=kept)
    assert len(run.poses) == WARM + CALM + LEAKING
    assert sum(len(poses) for poses in run.poses.values()) > 100
    warm, calm, leaking = memory
    assert calm - warm < BOUND_MB
    assert leaking - calm > BOUND_MB
