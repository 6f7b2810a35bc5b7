"""The table of networks and how it is asked."""

from __future__ import annotations

import pytest

from helpers import zoo
from helpers.errors import UsageError


def test_names_are_those_of_the_contract():
    assert set(zoo.NETWORKS) == {"HRNet", "ResNet50", "MobileNetv2"}
    assert all(zoo.get(name).name == name for name in zoo.NETWORKS)


def test_checkpoint_name_carries_its_hash():
    """The publishers put the first digits of the file's SHA-256 into its name; a typing error would show here."""
    for network in zoo.NETWORKS.values():
        assert f"-{network.sha256_prefix}_" in network.checkpoint_url
        assert len(network.sha256_prefix) == 8


def test_published_accuracy():
    """AP and AR in float32, float16 and int8, as the README of the sample has them."""
    published = {
        name: [(accuracy.ap, accuracy.ar) for accuracy in network.published.values()]
        for name, network in zoo.NETWORKS.items()
    }
    assert published == {
        "HRNet": [(65.42, 70.99), (65.37, 70.95), (62.49, 68.65)],
        "ResNet50": [(46.78, 55.30), (46.60, 55.30), (45.61, 54.21)],
        "MobileNetv2": [(38.13, 47.40), (37.98, 47.29), (37.83, 47.34)],
    }
    for network in zoo.NETWORKS.values():
        assert list(network.published) == ["force_float32", "force_float16", "qint8_mixed_float16"]
        assert set(network.published) < set(zoo.PRECISIONS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("hrnet", "did you mean HRNet"),
        ("MobileNetV2", "did you mean MobileNetv2"),
        ("resnet", "did you mean ResNet50"),
        ("yolo", "HRNet, ResNet50, MobileNetv2"),
    ],
)
def test_a_wrong_name_gets_the_close_one_or_all(wrong, said):
    with pytest.raises(UsageError, match=said):
        zoo.get(wrong)


def test_default_name_honours_the_environment(monkeypatch):
    monkeypatch.delenv("MMPOSE_MODEL_NAME", raising=False)
    assert zoo.default_name() == "MobileNetv2"
    monkeypatch.setenv("MMPOSE_MODEL_NAME", "")
    assert zoo.default_name() == "MobileNetv2"
    monkeypatch.setenv("MMPOSE_MODEL_NAME", "HRNet")
    assert zoo.default_name() == "HRNet"
    monkeypatch.setenv("MMPOSE_MODEL_NAME", "hrnet")
    with pytest.raises(UsageError, match=r"MMPOSE_MODEL_NAME.*did you mean HRNet"):
        zoo.default_name()
