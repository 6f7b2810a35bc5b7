"""The decoder by itself: a person is found where it was drawn, and wrong input is refused in one sentence."""

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
from helpers.pose import decode
from helpers.pose.decode import (
    FLIP_INDEX,
    DecodeConfig,
    adjust_joints,
    align_maps,
    fill_missing_joints,
    find_peaks,
    group_peaks,
    to_image,
)

HEIGHT, WIDTH = 32, 48
MIRROR_ORDER = [*FLIP_INDEX, *(17 + joint for joint in FLIP_INDEX)]


@pytest.fixture(params=[False, True], ids=["numpy", "numba"])
def decode_poses(request):
    """The decoder, once in NumPy and once compiled."""
    return functools.partial(decode.decode_poses, compiled=request.param)


def draw(people: dict[float, np.ndarray]) -> np.ndarray:
    """(34, 32, 48) output of people given as tag -> (17, 2) x and y in samples; NaN: joint not shown."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    output = np.zeros((34, HEIGHT, WIDTH), dtype=np.float32)
    for tag, joints in people.items():
        for joint, (x, y) in enumerate(joints):
            if np.isfinite(x):
                distance = (columns - x) ** 2 + (rows - y) ** 2
                output[joint] = np.maximum(output[joint], 0.9 * np.exp(-distance / 8))
                output[17 + joint][distance < 16] = tag
    return output


def mirror(output: np.ndarray) -> np.ndarray:
    """What a perfect network would give for the mirror image."""
    return output[MIRROR_ORDER, :, ::-1]


def standing(x: float, y: float) -> np.ndarray:
    """(17, 2) joints of somebody spread around (x, y), in samples."""
    steps = np.random.default_rng(0).uniform(-5, 5, (17, 2))
    return np.array([x, y]) + steps


def transform(width: int = WIDTH, height: int = HEIGHT) -> SimpleNamespace:
    """The original image is twice the network's input."""
    return SimpleNamespace(
        base_size=(4 * width, 4 * height),
        center=np.array([4.0 * width, 4.0 * height]),
        scale=np.array([8 * width, 8 * height]) / 200,
    )


def in_image(joints: np.ndarray) -> np.ndarray:
    """Samples -> pixels of the original image; a sample's centre is the corner of four pixels of the input."""
    return (4 * joints + 2) * 2


@pytest.mark.parametrize("switched", [{}, {"adjust": False}, {"refine": False}])
@pytest.mark.parametrize("flip_test", [False, True])
def test_the_steps_end_in_the_very_same_poses(decode_poses, flip_test, switched):
    output = draw({0.0: standing(12, 15), 5.0: standing(34, 16)})
    output[16] *= 0.05  # a joint below the threshold, to be filled in
    config = DecodeConfig(**switched)
    inputs = (output, mirror(output) if flip_test else None, transform(), config)
    steps, poses = decode.decode_steps(*inputs), decode_poses(*inputs)
    for name in ("keypoints", "scores", "tags"):
        assert np.array_equal(getattr(steps.poses, name), getattr(poses, name)), name
    assert (steps.grouped[:, 16, 2] == 0).all()
    assert (steps.filled[:, 16, 2] > 0).all() == config.refine
    moved = np.abs(steps.adjusted - steps.grouped)[..., :2].max(axis=2)[steps.grouped[..., 2] > 0]
    assert set(np.unique(moved)) <= ({0.25, 0.75} if config.adjust else {0.0})
    assert len(steps.peaks) == 17


@pytest.mark.parametrize("flip_test", [False, True])
def test_people_are_found_where_they_stand(decode_poses, flip_test):
    truth = {0.0: standing(12, 15), 5.0: standing(34, 16)}
    output = draw(truth)
    poses = decode_poses(output, mirror(output) if flip_test else None, transform())
    assert len(poses) == 2
    assert poses.tags.shape == (2, 2 if flip_test else 1)
    for tag, joints in truth.items():
        person = int(np.abs(poses.tags[:, 0] - tag).argmin())
        np.testing.assert_allclose(poses.keypoints[person, :, :2], in_image(joints), atol=2.5)
        np.testing.assert_allclose(poses.keypoints[person, :, 2], 0.9, atol=0.06)
        assert poses.scores[person] == pytest.approx(0.9, abs=0.06)


def test_mirror_image_counts_half(decode_poses):
    output = draw({1.0: standing(20, 16)})
    silent = np.zeros_like(output)
    poses = decode_poses(output, silent, transform())
    np.testing.assert_allclose(poses.keypoints[0, :, 2], 0.45, atol=0.03)


def test_types_and_shapes(decode_poses):
    poses = decode_poses(draw({1.0: standing(20, 16)}), None, transform())
    assert poses.keypoints.shape == (1, 17, 3)
    assert poses.scores.shape == (1,)
    assert {array.dtype for array in (poses.keypoints, poses.scores, poses.tags)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("heat", [0.0, 0.09, -1.0])
def test_nobody(decode_poses, heat):
    output = np.full((34, HEIGHT, WIDTH), heat, dtype=np.float32)
    poses = decode_poses(output, output, transform())
    assert len(poses) == 0
    assert poses.keypoints.shape == (0, 17, 3)
    assert poses.scores.shape == (0,)
    assert poses.tags.shape == (0, 2)


def test_missing_joint_is_put_at_the_likeliest_place(decode_poses):
    joints = standing(20, 16)
    wrist = joints[9].copy()
    joints[9] = np.nan
    output = draw({1.0: joints})
    faint = draw({1.0: np.where(np.arange(17)[:, None] == 9, wrist, np.nan)})
    output[9], output[26] = 0.08 * faint[9], faint[26]
    left_out = decode_poses(output, None, transform(), DecodeConfig(refine=False))
    filled = decode_poses(output, None, transform())
    assert left_out.keypoints[0, 9, 2] == 0
    assert 0 < filled.keypoints[0, 9, 2] < 0.1
    np.testing.assert_allclose(filled.keypoints[0, 9, :2], in_image(wrist), atol=2.5)
    np.testing.assert_array_equal(left_out.scores, filled.scores)  # a guess does not raise the score


def test_joint_without_positive_heat_stays_missing(decode_poses):
    joints = standing(20, 16)
    joints[9] = np.nan
    poses = decode_poses(draw({1.0: joints}), None, transform())
    assert poses.keypoints[0, 9, 2] == 0
    assert (poses.keypoints[0, [8, 10], 2] > 0).all()


def test_steps_give_what_the_whole_gives(decode_poses):
    output = draw({0.0: standing(12, 15), 5.0: standing(34, 16)})
    output[4] = 0  # one joint to fill
    maps = align_maps(output, mirror(output))
    peaks = find_peaks(maps)
    people = fill_missing_joints(maps, adjust_joints(maps, group_peaks(peaks)), peaks)
    poses = decode_poses(output, mirror(output), transform())
    np.testing.assert_array_equal(to_image(people, transform()), poses.keypoints)


def test_aligned_maps():
    output = np.random.default_rng(1).normal(size=(34, HEIGHT, WIDTH)).astype(np.float32)
    alone, both = align_maps(output), align_maps(output, mirror(output))
    np.testing.assert_array_equal(alone.heatmaps, output[:17])
    np.testing.assert_array_equal(alone.tagmaps, output[None, 17:])
    np.testing.assert_array_equal(both.heatmaps, output[:17])
    np.testing.assert_array_equal(both.tagmaps, np.stack((output[17:], output[17:])))


def test_peaks_are_whole_pixels_best_first():
    output = draw({0.0: standing(12, 15), 5.0: standing(34, 16)})
    output[0] *= 0.5
    for peaks in find_peaks(align_maps(output)):
        assert peaks.shape == (2, 4)
        np.testing.assert_array_equal(peaks[:, :2], np.round(peaks[:, :2]))
        assert peaks[0, 2] >= peaks[1, 2] > 0.1


def test_input_is_left_alone_and_may_be_of_any_layout(decode_poses):
    output = draw({1.0: standing(20, 16)})
    output[3] = 0
    before = output.copy()
    expected = decode_poses(output, mirror(output), transform())
    np.testing.assert_array_equal(output, before)
    strided = np.asfortranarray(output.astype(np.float64))
    poses = decode_poses(strided, mirror(strided), transform())
    np.testing.assert_array_equal(poses.keypoints, expected.keypoints)


def test_tags_beyond_float32_squares_come_to_an_end(decode_poses):
    output = draw({1.0: standing(20, 16), 2.0: standing(30, 16)})
    output[17:] *= 1e30
    with np.errstate(over="ignore"):
        assert len(decode_poses(output, mirror(output), transform())) >= 1


def test_every_left_joint_has_its_right_one():
    order = np.array(FLIP_INDEX)
    np.testing.assert_array_equal(order[order], np.arange(17))
    assert order[0] == 0
    assert (order[1:] != np.arange(1, 17)).all()


# --- Which of the two -------------------------------------------------------------------------------------


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.root(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_numba_numpy_decodes():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import numpy as np; from types import SimpleNamespace as T; from helpers import decode\n"
        "print(decode.warm_up(), len(decode.decode_poses(np.zeros((34, 8, 8), np.float32), None, "
        "T(base_size=(32, 32), center=np.zeros(2), scale=np.ones(2)))))\n"
        "try: decode.decode_poses(np.zeros((34, 8, 8), np.float32), None, T(base_size=(32, 32)), compiled=True)\n"
        "except decode.UsageError as error: print(error)"
    )
    assert run_python(code) == "False 0\ncompiled=True needs numba: `pip install numba`, or leave it out."


def test_numba_takes_over_once_warm():
    """Importing it takes time, compiling much more: neither happens unasked."""
    code = (
        "import sys; from helpers import decode\n"
        "print('numba' in sys.modules, decode._warm.is_set(), decode.warm_up(), 'numba' in sys.modules, "
        "decode._warm.is_set())"
    )
    assert run_python(code) == "False False True True True"


def test_compiled_code_is_kept_on_disk(tmp_path):
    code = (
        f"import os; os.environ['NUMBA_CACHE_DIR'] = {str(tmp_path)!r}; import numpy as np\n"
        "from helpers.pose.decode_numba import largest_magnitude\n"
        "largest_magnitude(np.zeros((34, 4), np.uint32)); print(sum(largest_magnitude.stats.cache_hits.values()))"
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


def test_memory_stays_small(decode_poses):
    """What decoding a map for 1024 x 1536 pixels adds to the process at its peak."""
    compiled = decode_poses.keywords["compiled"]
    code = (
        "import re, numpy as np; from types import SimpleNamespace as T; from helpers import decode\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        "def run(h, w):\n"
        "    o = np.random.default_rng(0).normal(0, .02, (34, h, w)).astype('f4')\n"
        "    o[:17, h // 4 :: h // 2, w // 6 :: w // 3] = 1\n"
        "    t = T(base_size=(4 * w, 4 * h), center=np.zeros(2), scale=np.ones(2))\n"
        "    begin = peak(); people = decode.decode_poses(o, o, t, compiled=COMPILED)\n"
        "    return len(people), peak() - begin\n"
        "run(32, 48); print(*run(256, 384))"
    ).replace("COMPILED", str(compiled))
    people, megabytes = run_python(code).split()
    assert int(people) >= 6
    assert float(megabytes) < 40


# --- Refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("channel", "words"), [(3, "channel 3, the heatmap of joint 3"), (20, "channel 20, the tag map of joint 3")]
)
def test_output_that_is_no_number(decode_poses, channel, words, bad):
    output = draw({})
    spoilt = output.copy()
    spoilt[channel, 4, 5] = bad
    with pytest.raises(DataError, match=f"^output holds .* {words}"):
        decode_poses(spoilt, output, transform())
    with pytest.raises(DataError, match=f"^flipped_output holds .* {words}"):
        decode_poses(output, spoilt, transform())


@pytest.mark.parametrize("shape", [(33, 32, 48), (1, 34, 32, 48), (34, 32), (34, 0, 48)])
def test_output_of_another_shape(decode_poses, shape):
    with pytest.raises(UsageError, match=rf"output has shape \({shape[0]}, "):
        decode_poses(np.zeros(shape, np.float32), None, transform())


def test_mirror_image_of_another_size(decode_poses):
    with pytest.raises(UsageError, match=r"flipped_output has shape \(34, 32, 40\)"):
        decode_poses(draw({}), np.zeros((34, 32, 40), np.float32), transform())


def test_transform_of_another_image(decode_poses):
    with pytest.raises(UsageError, match=r"base_size is \(256, 128\).* needs \(192, 128\)"):
        decode_poses(draw({}), None, transform(width=64))


@pytest.mark.parametrize(
    "options", [{"max_num_people": 0}, {"detection_threshold": -0.1}, {"detection_threshold": np.nan}]
)
def test_options_without_meaning(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        DecodeConfig(**options)
