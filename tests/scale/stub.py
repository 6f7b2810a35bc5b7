"""Workers without a network, for what does not depend on one; a module of its own, because workers import it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Iterable, Iterator

import numpy as np

from helpers.errors import DataError
from helpers.pose.decode import Poses
from helpers.pose.estimator import PoseResult
from helpers.scale_out import Setup

POISON = "poison"  # an image of that name ends the process, as a fault in a driver would


@dataclass(frozen=True)
class StubSetup(Setup):
    """Loads nothing; every image holds the same people."""

    people: int = 1
    seconds: float = 0.0  # that an image takes
    fault: str = ""  # what is wrong with the engine, if anything is

    def estimator(self, device: int) -> StubEstimator:
        if self.fault:
            raise DataError(self.fault)
        return StubEstimator(self.people, self.seconds)


class StubEstimator:
    def __init__(self, people: int, seconds: float) -> None:
        points = np.random.default_rng(0).random((people, 17, 3), np.float32)
        self.poses = Poses(points * np.float32(500), points[:, 0, 2], points[:, :1, 0])
        self.seconds = seconds
        self.engine = SimpleNamespace(facts={})

    def window(self, batch_size: int) -> int:
        return 1

    def stream(self, images: Iterable, batch_size: int) -> Iterator[PoseResult]:
        for image in images:
            if str(image).endswith(POISON):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(self.seconds)
            yield PoseResult(str(image), self.poses, stage_ms={"infer": self.seconds * 1e3})
