"""The networks are mmpose's, weights fit or are refused, and no file gets to run code."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch

from helpers import artifacts, paths, zoo
from helpers.errors import DataError, UsageError
from helpers.export import export, network


@pytest.fixture(scope="module")
def mobilenet():
    return network.load("MobileNetv2", "random")


def as_mmcv_saves(state: dict) -> dict:
    """A checkpoint as mmcv's runner writes it, best score included."""
    meta = {
        "env_info": "sys.platform: linux",
        "config": "model = dict(...)",
        "seed": None,
        "epoch": 300,
        "mmpose_version": "0.6.0",
        "hook_msgs": OrderedDict(best_score=np.float64(0.38), best_epoch=np.int64(290), flags=np.float32(1)),
        "CLASSES": ("person",),
    }
    return {"meta": meta, "state_dict": OrderedDict(state), "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}}


def refused(path, model: str = "MobileNetv2") -> str:
    """The message with which a file is refused: one line that names the file."""
    with pytest.raises(DataError) as caught:
        network.load(model, path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("HRNet", "28.54 M parameters, 81.6 GFLOP"),
        ("ResNet50", "34.00 M parameters, 58.0 GFLOP"),
        ("MobileNetv2", "9.57 M parameters, 16.8 GFLOP"),
    ],
)
def test_networks_are_those_of_the_publications(model, size):
    module = network.build(model)
    assert {key.split(".")[0] for key in module.state_dict()} == {"backbone", "keypoint_head"}
    assert network.describe(module) == size
    with torch.inference_mode():
        output = module.eval()(torch.zeros(2, 3, 128, 192))
    assert output.shape == (2, 34, 32, 48)
    assert output.dtype == torch.float32


def test_torchvision_is_not_left_behind():
    """In a fresh process, because the parity tests install a stand-in of their own."""
    code = (
        "import sys, warnings; warnings.simplefilter('error')\n"
        "from helpers.export import network\n"
        "assert 'torch' not in sys.modules and 'mmpose' not in sys.modules\n"
        "network.build('MobileNetv2')\n"
        "import importlib.util\n"
        "print('torchvision' in sys.modules and importlib.util.find_spec('torchvision') is None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.root(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "False", "")


def test_random_weights_repeat_and_behave(mobilenet):
    again = network.load("MobileNetv2", "random").state_dict()
    first = mobilenet.state_dict()
    assert all(torch.allclose(first[key], again[key], rtol=1e-4, atol=1e-6) for key in first)
    assert not mobilenet.training
    with torch.inference_mode():
        output = mobilenet(torch.from_numpy(network.image_like(2, 256, 320, seed=3)))
    heatmaps, tags = output[:, :17], output[:, 17:]
    assert 0.02 < heatmaps.std() < 0.06
    assert abs(heatmaps.mean()) < 0.01
    assert 0.7 < tags.std() < 2


def test_image_like_is_seeded_and_normalised():
    images = network.image_like(8, 256, 320)
    assert images.shape == (8, 3, 256, 320)
    assert images.dtype == np.float32
    assert abs(images.std() - 1) < 0.1
    assert (images == network.image_like(8, 256, 320)).all()
    assert (images != network.image_like(8, 256, 320, seed=1)).any()


def test_npz_keeps_weights_to_float16(mobilenet, tmp_path):
    path = network.save_npz(mobilenet, tmp_path / "weights" / "MobileNetv2.npz")
    with np.load(path) as archive:
        assert all(archive[key].dtype == np.float16 for key in archive.files)
        assert not any("num_batches_tracked" in key for key in archive.files)
    loaded = network.load("MobileNetv2", path).state_dict()
    for key, value in mobilenet.state_dict().items():
        if "num_batches_tracked" not in key:
            assert loaded[key].dtype == torch.float32
            half = value.half()
            if value.ndim > 1:  # 8 of 10 bits, the nearest
                assert not (loaded[key].half().view(torch.int16) & 3).any(), key
                torch.testing.assert_close(loaded[key], half.float(), rtol=2**-9, atol=2**-23)
            else:
                assert torch.equal(loaded[key], half.float()), key
    assert path.stat().st_size < 17e6
    again = network.save_npz(loaded, tmp_path / "again.npz")
    for key, value in network.load("MobileNetv2", again).state_dict().items():
        assert torch.equal(value, loaded[key]), key


def test_npz_refuses_what_float16_cannot_hold(mobilenet, tmp_path):
    state = dict(mobilenet.state_dict())
    state["keypoint_head.final_layer.bias"] = torch.full((34,), 1e6)
    with pytest.raises(DataError, match=r"keypoint_head\.final_layer\.bias"):
        network.save_npz(state, tmp_path / "a.npz")
    with pytest.raises(UsageError, match=r"\.npz"):
        network.save_npz(mobilenet, tmp_path / "a.pth")
    assert not list(tmp_path.iterdir())


def test_demo_weights_come_from_the_demo_folder(mobilenet, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "demo_data", lambda: tmp_path)
    with pytest.raises(DataError, match="no demo weights for MobileNetv2"):
        network.load("MobileNetv2")
    network.save_npz(mobilenet, tmp_path / "weights" / "MobileNetv2.npz")
    loaded = network.load("MobileNetv2", "demo")
    assert torch.equal(loaded.keypoint_head.final_layer.bias, mobilenet.keypoint_head.final_layer.bias.half().float())
    found = network.find_weights("MobileNetv2", "demo")
    assert found.sha256 == artifacts.sha256(tmp_path / "weights" / "MobileNetv2.npz")


@pytest.mark.parametrize("form", ["torch >= 1.6", "torch of 2020", "plain"])
def test_checkpoints_load(mobilenet, tmp_path, form):
    state = {key: value for key, value in mobilenet.state_dict().items() if "num_batches_tracked" not in key}
    saved = state if form == "plain" else as_mmcv_saves(state)
    torch.save(saved, tmp_path / "a.pth", _use_new_zipfile_serialization=form != "torch of 2020")
    loaded = network.load("MobileNetv2", str(tmp_path / "a.pth")).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
def test_checkpoint_of_another_network(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    other = network.build("ResNet50")
    network.save_npz(other, path) if suffix == ".npz" else torch.save(as_mmcv_saves(other.state_dict()), path)
    message = refused(path)
    assert "MobileNetv2" in message
    assert "missing: backbone.conv1.conv.weight, backbone.conv1.bn.weight, backbone.conv1.bn.bias, ..." in message
    assert "unexpected: backbone.conv1.weight" in message
    assert "is this a checkpoint of another network?" in message


def test_checkpoint_of_another_shape(mobilenet, tmp_path):
    state = dict(mobilenet.state_dict())
    state["keypoint_head.final_layer.weight"] = torch.zeros(17, 256, 1, 1)
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    message = refused(tmp_path / "a.pth")
    assert "1 of another shape: keypoint_head.final_layer.weight (17, 256, 1, 1) instead of (34, 256, 1, 1)" in message
    assert "missing" not in message


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_checkpoint(mobilenet, tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    network.save_npz(mobilenet, path) if suffix == ".npz" else torch.save(as_mmcv_saves(mobilenet.state_dict()), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "cut short" in refused(path)


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
def test_damaged_checkpoint(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("<html>404 not found</html>")
    assert "not a readable" in refused(path)


@pytest.mark.parametrize(
    "document", [{"meta": {}}, {}, [1, 2], {"state_dict": {"a": 1}}, {"state_dict": 3}, torch.zeros(2)]
)
def test_file_without_weights(tmp_path, document):
    torch.save(document, tmp_path / "a.pth")
    assert "no `state_dict` of tensors" in refused(tmp_path / "a.pth")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["torch", "torch of 2020", "pickle", "npz"])
def test_no_code_is_run(tmp_path, form):
    path, trace = tmp_path / ("a.npz" if form == "npz" else "a.pth"), tmp_path / "executed"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Bomb(trace)}, protocol=2))
    elif form == "npz":
        np.savez(path, weights=np.array([Bomb(trace)], dtype=object))
    else:
        torch.save({"meta": Bomb(trace), "state_dict": {}}, path, _use_new_zipfile_serialization=form == "torch")
    message = refused(path)
    assert not trace.exists()
    if form.startswith("torch"):
        assert "mkdir, which could run code" in message


def test_torchscript_is_no_checkpoint(tmp_path):
    """A program in a file that `torch.load` would otherwise hand over to another loader."""
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), str(tmp_path / "a.pth"))
    assert "not a readable checkpoint" in refused(tmp_path / "a.pth")


def test_missing_official_checkpoint(models):
    with pytest.raises(DataError) as caught:
        network.load("HRNet", "official")
    assert str(models / "checkpoints" / "hrnet_w32_coco_512x512-bcb8c247_20200816.pth") in str(caught.value)
    assert zoo.get("HRNet").checkpoint_url in str(caught.value)
    assert "`python -m helpers fetch --model HRNet`" in str(caught.value)


def test_official_checkpoint_must_have_its_hash(mobilenet, models, monkeypatch):
    path = paths.checkpoint(zoo.get("MobileNetv2").checkpoint_url)
    path.parent.mkdir(parents=True)
    torch.save(as_mmcv_saves(mobilenet.state_dict()), path)
    digest = artifacts.sha256(path)
    with pytest.raises(DataError, match=f"SHA-256 begins with {digest[:8]}, not 4d96e309"):
        network.load("MobileNetv2", "official")
    right = dataclasses.replace(zoo.get("MobileNetv2"), sha256_prefix=digest[:8])
    monkeypatch.setitem(zoo.NETWORKS, "MobileNetv2", right)
    loaded = network.load("MobileNetv2", "official").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in mobilenet.state_dict().items())
    assert network.find_weights("MobileNetv2", "official").sha256 == digest


@pytest.mark.parametrize("weights", ["official", "file"])
def test_weights_are_hashed_once(mobilenet, models, tmp_path, monkeypatch, weights):
    """Whether the network is exported, or was before."""
    path = paths.checkpoint(zoo.get("MobileNetv2").checkpoint_url) if weights == "official" else tmp_path / "a.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(as_mmcv_saves(mobilenet.state_dict()), path)
    right = dataclasses.replace(zoo.get("MobileNetv2"), sha256_prefix=artifacts.sha256(path)[:8])
    monkeypatch.setitem(zoo.NETWORKS, "MobileNetv2", right)
    hashed, sha256 = [], artifacts.sha256
    for module in (artifacts, paths):
        monkeypatch.setattr(module, "sha256", lambda file: hashed.append(str(file)) or sha256(file))
    for _ in range(2):
        hashed.clear()
        export.export("MobileNetv2", path if weights == "file" else weights, shapes=[(64, 64)], batches=[1])
        assert hashed.count(str(path)) == 1


def test_names_that_are_nothing(tmp_path):
    with pytest.raises(UsageError, match="did you mean HRNet"):
        network.build("HRnet")
    with pytest.raises(UsageError, match="offical"):
        network.load("MobileNetv2", "offical")
    with pytest.raises(DataError, match=r"gone\.pth"):
        network.load("MobileNetv2", tmp_path / "gone.pth")


@pytest.mark.parametrize("model", zoo.NETWORKS)
def test_without_deconvolutions_nothing_changes(model):
    module = network.load(model, "random")
    same = network.without_deconvolutions(module)
    had, has = (any(isinstance(layer, torch.nn.ConvTranspose2d) for layer in m.modules()) for m in (module, same))
    assert (had, has) == (model != "HRNet", False)
    images = torch.from_numpy(network.image_like(2, 96, 160))
    with torch.inference_mode():
        wanted, found = module(images), same(images)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max() + 1e-5


@pytest.mark.parametrize("model", ["HRNet", "MobileNetv2"])
def test_separate_halves_change_nothing(model):
    module = network.load(model, "random")
    images = torch.from_numpy(network.image_like(2, 96, 160))
    halves = network.with_separate_halves(module)
    last = halves.keypoint_head.final_layer
    assert (last.heatmaps.out_channels, last.tags.out_channels) == (17, 17)
    torch.testing.assert_close(last.heatmaps.weight, module.keypoint_head.final_layer.weight[:17], rtol=0, atol=0)
    torch.testing.assert_close(last.tags.bias, module.keypoint_head.final_layer.bias[17:], rtol=0, atol=0)
    with torch.inference_mode():
        wanted = module(images)
        for same in (halves, network.without_deconvolutions(halves)):
            assert (same(images) - wanted).abs().max() < 1e-5 * wanted.abs().max() + 1e-5
