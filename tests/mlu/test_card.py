"""On an MLU card: `python -m pytest -m mlu tests/mlu`, inside a MagicMind container. Elsewhere they are skipped.

The network is MobileNetv2 with the demo weights, exported elsewhere if there is no torch here (docs/mlu.md).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers import artifacts, backends, paths
from helpers.backends import BuildSpec, magicmind, mm_run
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError
from helpers.images import read_image
from helpers.pose.estimator import PoseEstimator
from helpers.pose.preprocess import resize_align, to_input

CARD = backends.get("magicmind")
HERE, WHY_NOT = CARD.is_available()
ONNX = paths.onnx_file("MobileNetv2", "demo", CARD.opset)

pytestmark = [
    pytest.mark.mlu,
    pytest.mark.skipif(not HERE, reason=f"no MLU card to run on: {WHY_NOT}"),
    pytest.mark.skipif(not ONNX.is_file(), reason=f"no {ONNX}: export it (--opset {CARD.opset}), or copy it here"),
]
# By how much heatmaps may differ from float32's, as cosine. Of int8, people and accuracy tell more.
LEAST_COSINE = {"force_float32": 0.9999, "force_float16": 0.999, "qint8_mixed_float16": 0.97}


class Images:
    """Sixteen images of the demo's calibration split."""

    method = "linear"

    def __init__(self):
        dataset = CocoDataset(paths.demo_data(), "calib2017")
        self._files = [dataset.path(image_id) for image_id in dataset.sample(16)]

    def describe(self):
        return {"images": [path.name for path in self._files], "count": len(self), "method": self.method}

    def __len__(self):
        return len(self._files)

    def batches(self):
        for path in self._files:
            yield to_input([resize_align(read_image(path))[0]])


@pytest.fixture(scope="module", params=LEAST_COSINE)
def built(request):
    """The model in each of the sample's precisions."""
    return CARD.build(ONNX, BuildSpec(request.param), Images())


@pytest.fixture(scope="module")
def plain():
    """The float32 model."""
    return CARD.build(ONNX, BuildSpec())


@pytest.fixture(scope="module")
def dataset():
    return CocoDataset(paths.demo_data())


@pytest.fixture
def images(dataset):
    """(1, 3, h, w) of one demo image."""
    return to_input([resize_align(read_image(dataset.path(dataset.image_ids[0])))[0]])


def test_heatmaps_are_onnx_runtimes(built, images):
    pytest.importorskip("onnxruntime", reason="nothing to compare with: pip install onnxruntime")
    ort = backends.get("onnxruntime")
    with CARD.load(built) as engine, ort.load(ort.build(ONNX, BuildSpec())) as reference:
        found, wanted = engine.run(images)[:, :17].ravel(), reference.run(images)[:, :17].ravel()
    cosine = float(found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted))
    assert cosine > LEAST_COSINE[engine.precision]


def test_people_are_found(built, dataset):
    pytest.importorskip("pycocotools", reason="AP needs it: pip install pycocotools")
    from helpers.measure import evaluate

    with CARD.load(built) as engine:
        run = evaluate.run(PoseEstimator(engine), dataset, dataset.sample(10), batch_size=2)
    assert run.failures == []
    assert run.stats.numbers["AP"] > 0.5


def test_shapes_may_change_between_runs(plain, images):
    rng = np.random.default_rng(0)
    with CARD.load(plain) as engine:
        first = engine.run(images)
        for shape in ((2, 3, 512, 704), (1, 3, 128, 128), (8, 3, 512, 512)):
            output = engine.run(rng.standard_normal(shape).astype(np.float32))
            assert output.shape == (shape[0], 34, shape[2] // 4, shape[3] // 4)
            assert np.isfinite(output).all()
        np.testing.assert_allclose(engine.run(images), first, rtol=1e-5, atol=1e-5)


def test_results_outlive_the_next_run_and_the_engine(plain, images):
    with CARD.load(plain) as engine:
        first = engine.run(images)
        kept = first.copy()
        engine.run(np.zeros_like(images))
    np.testing.assert_array_equal(first, kept)


def test_two_engines_at_once(plain, images):
    one, two = CARD.load(plain), CARD.load(plain)
    wanted = one.run(images)
    one.close()
    np.testing.assert_allclose(two.run(images), wanted, rtol=1e-5, atol=1e-5)
    two.close()


def test_fixed_shape():
    spec = BuildSpec(batch_size=2, dynamic_shape=False, input_shape=(512, 512))
    with CARD.load(CARD.build(ONNX, spec)) as engine:
        assert engine.run(np.zeros((2, 3, 512, 512), np.float32)).shape == (2, 34, 128, 128)


def test_a_thousand_runs_need_no_more_memory(plain):
    batch = np.zeros((1, 3, 128, 128), np.float32)
    with CARD.load(plain) as engine:
        for _ in range(100):
            engine.run(batch)
        before = resident_mb()
        for _ in range(1000):
            engine.run(batch)
        assert resident_mb() - before < 100  # a leaked output each would be 139 MB


def test_what_is_out_of_range_is_refused(plain):
    with CARD.load(plain) as engine, pytest.raises(DataError, match="is outside"):
        engine.run(np.zeros((1, 3, 512, 2624), np.float32))


def test_a_card_that_is_not_there(plain):
    with pytest.raises(UsageError, match="no device 99"):
        CARD.load(plain, device_id=99)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_mm_run(plain, batch_size):
    tool = mm_run.find()
    if tool is None:
        pytest.skip("mm_run is not in this container: set NEUWARE_HOME")
    timing = mm_run.measure(tool, plain, (batch_size, 3, 512, 512), runs=100)
    assert timing.images_per_s > 0
    assert 0 < timing.latency.p50 <= timing.latency.p99


def test_what_public_code_does_not_tell(plain, images):
    """Answers questions that this project had to guess; none of them can fail. Send the file."""
    mm = magicmind._runtime()
    facts = {"version": CARD.version()}

    def ask(question, answer):
        try:
            facts[question] = str(answer())
        except Exception as error:
            facts[question] = f"raises {type(error).__name__}: {error}"

    ask("truth of an OK Status", lambda: bool(mm.Status.OK()))
    ask("truth of a bad Status", lambda: bool(mm.Status(mm.Code.OUT_OF_RANGE, "text")))
    ask("text of a bad Status", lambda: mm.Status(mm.Code.OUT_OF_RANGE, "text"))
    ask("names in Code", lambda: [name for name in dir(mm.Code) if not name.startswith("_")])
    ask("names in the runtime", lambda: [name for name in dir(mm) if not name.startswith("_")])
    for key, text in {"unknown key": '{"no_such_key": 1}', "wrong type": '{"graph_shape_mutable": 1}'}.items():
        ask(f"{key} in BuilderConfig", lambda text=text: mm.BuilderConfig().parse_from_string(text))
    reverse = '{"dim_range": {"0": {"min": [2, 3, 64, 64], "max": [1, 3, 64, 64]}}}'
    ask("least above most in dim_range", lambda: mm.BuilderConfig().parse_from_string(reverse))
    with CARD.load(plain) as engine:  # nothing of it may be held on to after the block

        def filled(array):
            return engine._inputs[0].from_numpy(array)

        ask("names in a tensor", lambda: [name for name in dir(engine._inputs[0]) if not name.startswith("_")])
        ask("names in a context", lambda: [name for name in dir(engine._context) if not name.startswith("_")])
        ask("from_numpy of float64", lambda: filled(images.astype(np.float64)))
        ask("from_numpy of an array with gaps", lambda: filled(images[..., ::-1]))
        ask("from_numpy of three dimensions", lambda: filled(images[0]))
        assert engine.run(images).shape[1] == 34
    path = paths.output() / "mlu_facts.json"
    with artifacts.atomic_write(path) as part:
        part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def resident_mb() -> float:
    """Memory of this process, megabytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
