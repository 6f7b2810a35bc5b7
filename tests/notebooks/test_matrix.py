"""Notebooks 2 and 3 in the other precision, and on a simulated card.

test_notebooks.py has all five with trained weights: 2 in 8 bits, the others in float32, 4 in both.
"""

from __future__ import annotations

import json

import cv2
import pytest

from helpers import paths
from helpers.images import read_image
from helpers.pose import video
from tests.notebooks.runner import run
from tests.notebooks.test_notebooks import FIGURES, QUICK

FLOAT, EIGHT = "force_float32", "qint8_mixed_float16"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of one image and a video of two frames, as a reader's own: notebook 3 takes more by itself."""
    folder = tmp_path_factory.mktemp("own")
    picture = read_image(next((paths.demo_data() / "val2017").glob("*.jpg")))
    cv2.imwrite(str(folder / "image.jpg"), picture)
    return {"images": str(folder), "video": str(video.pan(picture, folder / "pan.mp4", frames=2))}


@pytest.mark.timeout(600)
def test_notebook_3_scores_eight_bits(models, own, tmp_path):
    run("03_infer", tmp_path, models, **{**QUICK["03_infer"], **own, "precision": EIGHT, "compare": [EIGHT]})
    assert {path.stem for path in tmp_path.glob("*.png")} == FIGURES["03_infer"]
    [record] = [json.loads(path.read_text()) for path in (tmp_path / "records").glob("*.json")]
    assert (record["weights"], record["precision"]) == ("demo", EIGHT)
    assert 0.5 <= record["ap"] <= 1


@pytest.mark.timeout(600)
def test_notebook_2_builds_for_a_simulated_card(models, tmp_path):
    """Every call of a build for a card; the sidecar says that there was none."""
    card = {"backend": "magicmind", "simulate": True, "precision": FLOAT, "ladder": [FLOAT], **QUICK["02_build"]}
    executed = run("02_build", tmp_path, models, **card)
    assert {path.stem for path in tmp_path.glob("*.png")} == FIGURES["02_build"]
    [sidecar] = [o for c in executed.cells if c.id == "02-08" for o in c.outputs]
    assert "simulator" in sidecar.data["text/plain"]
    [told] = [o for c in executed.cells if c.id == "02-24" for o in c.outputs]
    assert "precision_config.precision_mode" in told.data["text/plain"]
