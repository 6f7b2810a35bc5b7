"""The decoder by itself: people are found where they were drawn, and wrong input is refused in one sentence."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import paths
from helpers.errors import DataError, UsageError
from helpers.keypoints import COCO17, KeypointSet
from helpers.pose import decode, maps
from helpers.pose.decode import DecodeConfig, align_maps, find_peaks

HEIGHT, WIDTH = 32, 48
FLIPPED_CHANNELS = [*COCO17.flip_index, *(17 + keypoint for keypoint in COCO17.flip_index)]


@pytest.fixture(params=[False, True], ids=["numpy", "numba"])
def decode_poses(request):
    """The decoder, once in NumPy and once compiled."""
    return functools.partial(decode.decode_poses, compiled=request.param)


def draw(people: dict[float, np.ndarray]) -> np.ndarray:
    """(34, 32, 48) output of people given as tag -> (17, 2) x and y in samples; NaN: keypoint not shown."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    output = np.zeros((34, HEIGHT, WIDTH), dtype=np.float32)
    for tag, keypoints in people.items():
        for keypoint, (x, y) in enumerate(keypoints):
            if np.isfinite(x):
                distance = (columns - x) ** 2 + (rows - y) ** 2
                output[keypoint] = np.maximum(output[keypoint], 0.9 * np.exp(-distance / 8))
                output[17 + keypoint][distance < 16] = tag
    return output


def flip(output: np.ndarray) -> np.ndarray:
    """Output of a perfect network for the flipped image."""
    return output[FLIPPED_CHANNELS, :, ::-1]


def standing(x: float, y: float) -> np.ndarray:
    """(17, 2) keypoints of somebody spread around (x, y), in samples."""
    return np.array([x, y]) + np.random.default_rng(0).uniform(-5, 5, (17, 2))


def transform(width: int = WIDTH, height: int = HEIGHT) -> SimpleNamespace:
    """The original image is twice the network's input."""
    return SimpleNamespace(
        base_size=(4 * width, 4 * height),
        center=np.array([4.0 * width, 4.0 * height]),
        scale=np.array([8 * width, 8 * height]) / 200,
    )


def in_image(keypoints: np.ndarray) -> np.ndarray:
    """Samples -> pixels of the original image; a sample's center is the corner of four pixels of the input."""
    return (4 * keypoints + 2) * 2


TWO_PEOPLE = {0.0: standing(12, 15), 5.0: standing(34, 16)}


def assert_same(ours: decode.Poses, theirs: decode.Poses) -> None:
    for name in ("keypoints", "scores", "tags"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("switched", [{}, {"adjust": False}, {"refine": False}])
@pytest.mark.parametrize("flip_test", [False, True])
def test_the_steps_end_in_the_very_same_poses(decode_poses, flip_test, switched):
    output = draw(TWO_PEOPLE)
    output[16] *= 0.05  # a keypoint below the threshold, to be filled in
    config = DecodeConfig(**switched)
    inputs = (output, flip(output) if flip_test else None, transform(), config)
    steps = decode.decode_steps(*inputs)
    assert_same(steps.poses, decode_poses(*inputs))
    assert (steps.grouped[:, 16, 2] == 0).all()
    assert (steps.filled[:, 16, 2] > 0).all() == config.refine
    moved = np.abs(steps.adjusted - steps.grouped)[..., :2].max(axis=2)[steps.grouped[..., 2] > 0]
    assert set(np.unique(moved)) <= ({0.25, 0.75} if config.adjust else {0.0})


@pytest.mark.parametrize("flip_test", [False, True])
def test_people_are_found_where_they_stand(decode_poses, flip_test):
    output = draw(TWO_PEOPLE)
    poses = decode_poses(output, flip(output) if flip_test else None, transform())
    assert (poses.keypoints.shape, poses.scores.shape) == ((2, 17, 3), (2,))
    assert poses.tags.shape == (2, 2 if flip_test else 1)
    assert {array.dtype for array in (poses.keypoints, poses.scores, poses.tags)} == {np.dtype(np.float32)}
    for tag, keypoints in TWO_PEOPLE.items():
        person = int(np.abs(poses.tags[:, 0] - tag).argmin())
        np.testing.assert_allclose(poses.keypoints[person, :, :2], in_image(keypoints), atol=2.5)
        np.testing.assert_allclose(poses.keypoints[person, :, 2], 0.9, atol=0.06)
        assert poses.scores[person] == pytest.approx(0.9, abs=0.06)


def test_flipped_image_counts_half(decode_poses):
    output = draw({1.0: standing(20, 16)})
    poses = decode_poses(output, np.zeros_like(output), transform())
    np.testing.assert_allclose(poses.keypoints[0, :, 2], 0.45, atol=0.03)


@pytest.mark.parametrize("heat", [0.0, 0.09, -1.0])
def test_nobody(decode_poses, heat):
    output = np.full((34, HEIGHT, WIDTH), heat, dtype=np.float32)
    poses = decode_poses(output, output, transform())
    assert len(poses) == 0
    assert (poses.keypoints.shape, poses.scores.shape, poses.tags.shape) == ((0, 17, 3), (0,), (0, 2))


def test_missing_keypoint_is_put_at_the_likeliest_place(decode_poses):
    keypoints = standing(20, 16)
    wrist = keypoints[9].copy()
    keypoints[9] = np.nan
    output = draw({1.0: keypoints})
    nowhere = decode_poses(output, None, transform())
    assert nowhere.keypoints[0, 9, 2] == 0  # without positive heat it stays missing
    faint = draw({1.0: np.where(np.arange(17)[:, None] == 9, wrist, np.nan)})
    output[9], output[26] = 0.08 * faint[9], faint[26]
    left_out = decode_poses(output, None, transform(), DecodeConfig(refine=False))
    filled = decode_poses(output, None, transform())
    assert left_out.keypoints[0, 9, 2] == 0
    assert 0 < filled.keypoints[0, 9, 2] < 0.1
    np.testing.assert_allclose(filled.keypoints[0, 9, :2], in_image(wrist), atol=2.5)
    np.testing.assert_array_equal(left_out.scores, filled.scores)  # a guess does not raise the score


def test_aligned_maps():
    output = np.random.default_rng(1).normal(size=(34, HEIGHT, WIDTH)).astype(np.float32)
    one, both = align_maps(output), align_maps(output, flip(output))
    assert both.tagmaps.shape == (2, 17, HEIGHT, WIDTH)
    for aligned in (one, both):
        np.testing.assert_array_equal(aligned.heatmaps, output[:17])
        np.testing.assert_array_equal(aligned.tagmaps, np.stack([output[17:]] * len(aligned.sources)))


def test_peaks_are_whole_pixels_best_first():
    output = draw(TWO_PEOPLE)
    output[0] *= 0.5
    for peaks in find_peaks(align_maps(output)):
        assert peaks.shape == (2, 4)
        np.testing.assert_array_equal(peaks[:, :2], np.round(peaks[:, :2]))
        assert peaks[0, 2] >= peaks[1, 2] > 0.1


def test_input_is_left_alone_and_may_be_of_any_layout(decode_poses):
    output = draw({1.0: standing(20, 16)})
    output[3] = 0
    before = output.copy()
    expected = decode_poses(output, flip(output), transform())
    np.testing.assert_array_equal(output, before)
    strided = np.asfortranarray(output.astype(np.float64))
    assert_same(decode_poses(strided, flip(strided), transform()), expected)


def test_tags_beyond_float32_squares_come_to_an_end(decode_poses):
    output = draw({1.0: standing(20, 16), 2.0: standing(30, 16)})
    output[17:] *= 1e30
    with np.errstate(over="ignore"):
        assert len(decode_poses(output, flip(output), transform())) >= 1


# --- Two decoders, one set of numbers -------------------------------------------------------------------


def test_both_decoders_take_the_size_of_a_peak_from_one_place(monkeypatch):
    """It was written into the compiled one as well, which then ignored a change."""
    output = np.random.default_rng(2).uniform(0, 1, (34, HEIGHT, WIDTH)).astype(np.float32)
    found = {}
    for size in (5, 7, 13):
        monkeypatch.setattr(decode, "NMS_SIZE", size)
        found[size] = decode.decode_poses(output, flip(output), transform(), compiled=False)
        assert_same(decode.decode_poses(output, flip(output), transform(), compiled=True), found[size])
    assert len({poses.keypoints.tobytes() for poses in found.values()}) == 3


def test_sums_are_numpys_for_any_number_of_keypoints():
    """Beyond 128 numbers NumPy adds them in halves."""
    from helpers.pose.decode_numba import _sum

    rng = np.random.default_rng(3)
    for count in (*range(1, 40), 127, 128, 129, 133, 200, 256, 257, 1000):
        values = rng.random(count).astype(np.float32)
        assert _sum(values) == values.sum(), count


def test_both_decoders_take_any_number_of_keypoints(monkeypatch):
    pairs = tuple((k, k + 1) for k in range(1, 139, 2))
    many = KeypointSet(tuple(map(str, range(140))), pairs, (), (0.1,) * 140, tuple(range(139, -1, -1)))
    for module in (decode, maps):
        monkeypatch.setattr(module, "COCO17", many)
    output = np.random.default_rng(4).uniform(0, 1, (280, HEIGHT, WIDTH)).astype(np.float32)
    config = DecodeConfig(max_num_people=4)
    for flipped in (None, output[::-1]):
        ours, compiled = (decode.decode_poses(output, flipped, transform(), config, way) for way in (False, True))
        assert ours.keypoints.shape[1:] == (140, 3)
        assert_same(ours, compiled)


# --- Which of the two -----------------------------------------------------------------------------------


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.root(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_numba_numpy_decodes():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import numpy as np; from types import SimpleNamespace as T; from helpers.pose import decode\n"
        "print(decode.warm_up(), len(decode.decode_poses(np.zeros((34, 8, 8), np.float32), None, "
        "T(base_size=(32, 32), center=np.zeros(2), scale=np.ones(2)))))\n"
        "try: decode.decode_poses(np.zeros((34, 8, 8), np.float32), None, T(base_size=(32, 32)), compiled=True)\n"
        "except decode.UsageError as error: print(error)"
    )
    assert run_python(code) == "False 0\ncompiled=True needs numba: `pip install numba`, or leave it out."


def test_numba_takes_over_once_warm():
    """Importing it takes time, compiling much more: neither happens unasked."""
    code = (
        "import sys; from helpers.pose import decode\n"
        "print('numba' in sys.modules, decode._warm.is_set(), decode.warm_up(), 'numba' in sys.modules, "
        "decode._warm.is_set())"
    )
    assert run_python(code) == "False False True True True"


def test_compiled_code_is_kept_on_disk(tmp_path):
    code = (
        f"import os; os.environ['NUMBA_CACHE_DIR'] = {str(tmp_path)!r}; import numpy as np\n"
        "from helpers.pose.decode_numba import largest_magnitude\n"
        "largest_magnitude(np.zeros(4, np.uint32)); print(sum(largest_magnitude.stats.cache_hits.values()))"
    )
    assert [run_python(code) for _ in range(2)] == ["0", "1"]


def test_threads_do_not_share_work_arrays(decode_poses):
    """Each thread decodes a map of its own, again and again, beside the others."""
    crowds = [draw({float(k): standing(8 + 4 * k, 10 + 2 * k) for k in range(n)}) for n in range(1, 7)]
    expected = [decode_poses(output, None, transform()).keypoints for output in crowds]
    wrong = []

    def again(k: int) -> None:
        for _ in range(20):
            if not np.array_equal(decode_poses(crowds[k], None, transform()).keypoints, expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=again, args=(k,)) for k in range(len(crowds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(("compiled", "most"), [(False, 120), (True, 40)], ids=["numpy", "numba"])
def test_memory_stays_small(compiled, most):
    """Decoding a map for 1024 x 1536 pixels: NumPy upsamples one keypoint at a time (all of them: 320 MB)."""
    code = (
        "import re, numpy as np; from types import SimpleNamespace as T; from helpers.pose import decode\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        "def run(h, w):\n"
        "    o = np.random.default_rng(0).normal(0, .02, (34, h, w)).astype('f4')\n"
        "    o[:17, h // 4 :: h // 2, w // 6 :: w // 3] = 1\n"
        "    t = T(base_size=(4 * w, 4 * h), center=np.zeros(2), scale=np.ones(2))\n"
        f"    begin = peak(); people = decode.decode_poses(o, o, t, compiled={compiled})\n"
        "    return len(people), peak() - begin\n"
        "run(32, 48); print(*run(256, 384))"
    )
    people, megabytes = run_python(code).split()
    assert int(people) >= 6
    assert float(megabytes) < most


# --- Refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("channel", "words"), [(3, "channel 3, the heatmap of left_ear"), (20, "channel 20, the tag map of left_ear")]
)
def test_output_that_is_not_finite(decode_poses, channel, words, bad):
    output = draw({})
    spoilt = output.copy()
    spoilt[channel, 4, 5] = bad
    with pytest.raises(DataError, match=f"^output holds .* {words}"):
        decode_poses(spoilt, output, transform())
    with pytest.raises(DataError, match=f"^flipped_output holds .* {words}"):
        decode_poses(output, spoilt, transform())


@pytest.mark.parametrize("shape", [(33, 32, 48), (1, 34, 32, 48), (34, 32), (34, 0, 48)])
def test_output_of_another_shape(decode_poses, shape):
    with pytest.raises(UsageError, match=rf"output must be \(34, h, w\).* its shape is \({shape[0]}, "):
        decode_poses(np.zeros(shape, np.float32), None, transform())


def test_flipped_output_of_another_size(decode_poses):
    with pytest.raises(UsageError, match=r"flipped_output must have .*\(34, 32, 48\), not \(34, 32, 40\)"):
        decode_poses(draw({}), np.zeros((34, 32, 40), np.float32), transform())


def test_transform_of_another_image(decode_poses):
    with pytest.raises(UsageError, match=r"base_size must be \(192, 128\).* not \(256, 128\)"):
        decode_poses(draw({}), None, transform(width=64))


@pytest.mark.parametrize(
    "options", [{"max_num_people": 0}, {"detection_threshold": -0.1}, {"detection_threshold": np.nan}]
)
def test_options_without_meaning(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        DecodeConfig(**options)
