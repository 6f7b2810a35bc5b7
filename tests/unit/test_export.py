"""An exported file is right, says so, and is made again exactly when it has to be."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch

from helpers import artifacts, backends
from helpers.errors import DataError, UsageError
from helpers.export import export, network

SMALL = {"shapes": [(128, 192)], "batches": [2]}  # as those of `exported`


@pytest.fixture(scope="module")
def mobilenet():
    return network.load("MobileNetv2", "random")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "folder" / "net.onnx"


@pytest.fixture
def done(exported, out):
    """An export of the session, opset 17, as if it had been written to `out`."""
    out.parent.mkdir()
    shutil.copy2(exported[17], out)
    shutil.copy2(artifacts.sidecar(exported[17]), artifacts.sidecar(out))
    return out


def test_the_full_check_passes(exported, mobilenet):
    cases = [(n, h, w) for n in export.CHECK_BATCHES for h, w in export.CHECK_SHAPES]
    rows = export._verify(exported[17], mobilenet, 17, cases, "17.onnx")
    assert [(row.batch, row.height, row.width) for row in rows] == cases
    assert all(row.passed and row.opset == 17 for row in rows)
    assert max(row.relative for row in rows) < 1e-4
    assert min(min(row.heatmaps.cosine, row.tags.cosine) for row in rows) > 0.999999


@pytest.mark.parametrize("opset", export.OPSETS)
def test_graph_is_as_promised(exported, opset):
    graph = onnx.load(str(exported[opset]))
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", opset)]
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.graph.input}
    assert shapes == {"input": ["batch", 3, "height", "width"]}
    assert [v.name for v in graph.graph.output] == ["output"]
    # MagicMind's file has deconvolutions as MMPose has them, the other one has convolutions instead, which CPUs compute
    # faster. The exporter merges normalisation into the convolution before it, if that is no transposed one.
    operators = [node.op_type for node in graph.graph.node]
    three = 3 if opset == 11 else 0
    assert [operators.count(kind) for kind in ("ConvTranspose", "BatchNormalization")] == [three, three]


def test_operators_are_counted(exported, tmp_path):
    found = export.operators(exported[11])
    assert (found["Conv"], found["ConvTranspose"]) == (54, 3)
    assert sum(found.values()) == len(onnx.load(str(exported[11])).graph.node)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(DataError, match=r"bad\.onnx cannot be read as ONNX; export it again"):
        export.operators(tmp_path / "bad.onnx")


@pytest.mark.parametrize("opset", export.OPSETS)
def test_heatmaps_and_tags_have_a_convolution_each(exported, opset):
    graph = onnx.load(str(exported[opset])).graph
    last = [node for node in graph.node if node.op_type == "Conv"][-2:]
    [joined] = [node for node in graph.node if node.op_type == "Concat"]
    assert list(joined.input) == [node.output[0] for node in last]
    weights = {weight.name: weight.dims for weight in graph.initializer}
    phases = 4 if opset == 17 else 1
    assert [weights[node.input[1]][0] for node in last] == [17 * phases, 17 * phases]


@pytest.mark.parametrize("opset", export.OPSETS)
def test_sidecar_tells_what_the_file_is(exported, opset):
    facts = artifacts.read_sidecar(exported[opset])
    assert (facts["model"], facts["weights"], facts["opset"]) == ("MobileNetv2", "random", opset)
    assert facts["weights_sha256"] == network.find_weights("MobileNetv2", "random").sha256
    assert facts["sha256"] == artifacts.sha256(exported[opset])
    assert facts["versions"]["mmpose"] == "0.29.0"
    [check] = export.read_checks(exported[opset])
    row = check.as_dict()
    assert [row[key] for key in ("opset", "batch", "height", "width", "passed")] == [opset, 2, 128, 192, True]
    assert row["heatmaps max_abs"] <= row["relative"] * row["heatmaps range"]


@pytest.mark.parametrize("model, opset", [("HRNet", 11), ("ResNet50", 17)])
def test_the_other_networks(models, model, opset):
    path = export.export(model, "random", opset, shapes=[(128, 192), (192, 64)], batches=[2])
    assert path == models / f"{model}_random" / f"{model}_random_opset{opset}.onnx"
    assert [row.passed for row in export.read_checks(path)] == [True, True]
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}.json"]


def test_export_is_repeated_only_when_needed(done):
    def run(**options):
        export.export("MobileNetv2", "random", 17, done, **{**SMALL, **options})
        return done.stat().st_mtime_ns

    first = done.stat().st_mtime_ns
    assert run() == first
    larger = run(batches=[1, 2])  # a check that was not made
    assert larger > first
    assert run() == larger
    done.write_bytes(done.read_bytes()[:-1])
    repaired = run()
    assert repaired > larger
    facts = json.loads(artifacts.sidecar(done).read_text())
    facts["versions"]["torch"] = "1.0"
    artifacts.sidecar(done).write_text(json.dumps(facts))
    assert run() > repaired


@pytest.mark.parametrize("checks", [3, [{"opset": 17}]])
def test_damaged_checks_are_made_again(done, checks):
    facts = json.loads(artifacts.sidecar(done).read_text())
    artifacts.sidecar(done).write_text(json.dumps({**facts, "checks": checks}))
    with pytest.raises(DataError, match=r"net\.onnx\.json is damaged"):
        export.read_checks(done)
    export.export("MobileNetv2", "random", 17, done, **SMALL)
    assert len(export.read_checks(done)) == 1


def test_sidecar_follows_weights_that_were_moved(mobilenet, models, tmp_path):
    weights = network.save_npz(mobilenet, tmp_path / "latest.npz")
    path = export.export("MobileNetv2", weights, **SMALL)
    before = path.stat().st_mtime_ns
    facts = artifacts.read_sidecar(path)
    moved = tmp_path / "elsewhere" / "latest.npz"
    moved.parent.mkdir()
    weights.rename(moved)
    assert export.export("MobileNetv2", moved, **SMALL) == path
    assert path.stat().st_mtime_ns == before
    assert artifacts.read_sidecar(path) == {**facts, "weights_file": str(moved)}
    backends.get("pytorch").build(path, backends.BuildSpec())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages_are_named(out, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # what makes `import` fail
    with pytest.raises(DataError, match=r"needs onnx and onnxruntime; install requirements\.txt"):
        export.export("MobileNetv2", "random", 17, out, **SMALL)


def test_other_weights_are_another_file(mobilenet, models, tmp_path):
    """And of one name, another content: the second export must not find the first."""
    weights = network.save_npz(mobilenet, tmp_path / "latest.npz")
    first = export.export("MobileNetv2", weights, **SMALL)
    assert artifacts.read_sidecar(first)["weights_file"] == str(weights)
    other = {key: value * 1.01 for key, value in mobilenet.state_dict().items()}
    network.save_npz(other, weights)
    second = export.export("MobileNetv2", weights, **SMALL)
    assert first.parent != second.parent
    assert first.parent.name.startswith("MobileNetv2_latest-")


def test_verify_finds_another_network(exported):
    changed = network.load("MobileNetv2", "random")
    with torch.no_grad():
        changed.keypoint_head.final_layer.bias[3] += 0.01  # one heatmap, by 1 % of a peak
    with pytest.raises(DataError, match=r"17\.onnx does not compute what PyTorch does: at 1x3x64x96"):
        export._verify(exported[17], changed, 17, [(1, 64, 96)], "17.onnx")
    with torch.no_grad():
        changed.keypoint_head.final_layer.bias[3] = float("nan")
    with pytest.raises(DataError, match="does not compute"):
        export._verify(exported[17], changed, 17, [(1, 64, 96)], "17.onnx")


def test_verify_of_no_network(mobilenet, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(DataError, match=r"a\.onnx does not run"):
        export._verify(tmp_path / "a.onnx", mobilenet, 17, [(1, 64, 96)], "a.onnx")


def fix_axis(graph):
    graph.input[0].type.tensor_type.shape.dim[2].dim_value = 512  # as if a shape was traced as a constant


def invent_operator(graph):
    graph.node[5].op_type = "Convolution"


@pytest.mark.parametrize(
    "change, opset, message",
    [
        (fix_axis, 17, r"wrong free input: \['batch', 3, 512, 'width'\]"),
        (invent_operator, 17, r"a\.onnx is not a valid ONNX graph"),
        (lambda graph: None, 11, "wrong opset: 17, not 11"),
    ],
)
def test_wrong_graphs_are_refused(exported, tmp_path, change, opset, message):
    document = onnx.load(str(exported[17]))
    change(document.graph)
    onnx.save(document, str(tmp_path / "a.onnx"))
    with pytest.raises(DataError, match=message):
        export._check_graph(tmp_path / "a.onnx", opset, "a.onnx")


def test_failed_check_leaves_nothing(out, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", 0.0)  # rounding alone is too much then
    with pytest.raises(DataError, match=r"^net\.onnx does not compute"):
        export.export("MobileNetv2", "random", 17, out, **SMALL)
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_export_leaves_what_was_there(done, monkeypatch, error):
    before = {path: path.read_bytes() for path in done.parent.iterdir()}

    def interrupt(path, *_):
        assert path.stat().st_size > 1e6  # it is written by then
        raise error

    monkeypatch.setattr(export, "_check_graph", interrupt)
    with pytest.raises(error):
        export.export("MobileNetv2", "random", 17, done, shapes=[(128, 192)], batches=[1])
    assert {path: path.read_bytes() for path in done.parent.iterdir()} == before


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/net\.onnx cannot be written"):
        export.export("MobileNetv2", "random", 17, tmp_path / "file" / "net.onnx", **SMALL)


def test_wrong_arguments(tmp_path):
    with pytest.raises(UsageError, match="Opset 13"):
        export.export("MobileNetv2", "random", 13)
    with pytest.raises(UsageError, match="mobilenet"):
        export.export("mobilenet", "random")
    with pytest.raises(UsageError, match=r"something\.onnx"):
        export.export("MobileNetv2", "random", out=tmp_path / "net.pb")


def test_relative_error_of_a_flat_output():
    flat = np.zeros((1, 34, 2, 2), np.float32)
    assert export._compare(flat, flat, 17, (1, 8, 8)).relative == 0
    wrong = export._compare(flat + 1, flat, 17, (1, 8, 8))
    assert wrong.relative == float("inf")
    assert not wrong.passed
