"""How much quicker than mmpose's own chain ours is: the decoder on images of many people, and the whole call.

What is compared takes turns in one process, so a busy machine is as hard on all of it; what is asserted is far below
what a quiet machine shows, and the report at the end has the figures.
"""

from __future__ import annotations

import functools

import pytest

from helpers import backends, paths
from helpers.dataset import CocoDataset
from helpers.export import export
from helpers.export.mmpose_chain import MMPoseChain, mmpose_decode
from helpers.images import read_image
from helpers.measure import benchmark
from helpers.pose import decode
from helpers.pose.estimator import PoseEstimator
from helpers.pose.preprocess import resize_align
from tests.parity.crowds import mosaic

PEOPLE = (1, 3, 8, 15, 30)
DECODERS = {
    "mmpose": mmpose_decode,
    "numpy": functools.partial(decode.decode_poses, compiled=False),
    "numba": functools.partial(decode.decode_poses, compiled=True),
}

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def estimator(tmp_path_factory):
    """MobileNetv2 with the demo weights on ONNX Runtime."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_PATH", str(tmp_path_factory.mktemp("speed")))
        engines = backends.get("onnxruntime")
        exported = export.export("MobileNetv2", "demo", shapes=[(128, 192)], batches=[1])
        decode.warm_up()
        return PoseEstimator(engines.load(engines.build(exported, backends.BuildSpec())))


@pytest.fixture(scope="module")
def turns(estimator, parity_report):
    """Number of people -> decoders in turns, on 128 x 192 outputs of the demo network."""
    dataset = CocoDataset(paths.demo_data())
    found = {}
    for people in PEOPLE:
        maps = estimator.maps(mosaic(dataset, people))
        calls = {name: functools.partial(decoder, *maps) for name, decoder in DECODERS.items()}
        found[people] = benchmark.compare(calls, 1, warm_up=0 if found else 1, turn_seconds=0.3)
    for people, comparison in found.items():
        ms = comparison.median_ms
        speedups = ", ".join(f"{name} {comparison.speedup(name):,.0f}x" for name in ("numpy", "numba"))
        parity_report.append(
            f"decoding {people} people: mmpose {ms['mmpose']:.0f} ms, numpy {ms['numpy']:.0f} ms, "
            f"numba {ms['numba']:.2f} ms ({speedups})"
        )
    return found


@pytest.mark.parametrize("people", PEOPLE)
@pytest.mark.parametrize(("name", "least"), [("numpy", 3), ("numba", 250)])
def test_decoding_is_so_many_times_as_fast(turns, people, name, least):
    assert turns[people].speedup(name) >= least


def test_the_whole_call(estimator, parity_report):
    """From file to poses: nearly all of the time is the engine's, and mmpose takes several times as long."""
    dataset = CocoDataset(paths.demo_data())
    files = [dataset.path(image_id) for image_id in dataset.sample(5, seed=2)]
    batches = [estimator._batch([resize_align(read_image(file))[0]]) for file in files]
    chain = MMPoseChain("MobileNetv2", "demo")
    stream = {"stream": lambda: estimator(files)}
    others = {
        "engine alone": lambda: [estimator.engine.run(batch) for batch in batches],
        "stream, batch 8": lambda: estimator(files, batch_size=8),
    }
    slow = benchmark.compare({"mmpose": lambda: [chain(file) for file in files], **stream}, rounds=1)
    ours = benchmark.compare({**stream, **others}, rounds=7)
    ms = {label: value / len(files) for label, value in (slow.median_ms | ours.median_ms).items()}
    parity_report.append(
        "whole call on 5 images, ms per image: " + ", ".join(f"{label} {value:.0f}" for label, value in ms.items())
    )
    assert slow.speedup("stream") > 3
    assert ours.speedup("engine alone") < 1.25
    assert ours.speedup("stream, batch 8") > 0.8
