"""The command line: exit status, one line of error, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers import artifacts, paths, zoo
from helpers.cli import main
from helpers.dataset import CocoDataset
from helpers.measure import records
from helpers.measure.evaluate import STAT_NAMES

SCORED = str(paths.demo_data() / "val2017")
IMAGE = str(paths.demo_data() / "val2017" / "000000020014.jpg")


pytestmark = pytest.mark.usefixtures("home")


def files(folder) -> set:
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}


def fails(capsys, status: int, *argv: str) -> str:
    """Runs the command, which must fail with that status and one line; the line."""
    assert main(list(argv)) == status
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in captured.out
    return lines[0]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["eval", "--model", "HRNett"], "did you mean HRNet"),
        (["eval", "--precision", "float32"], "force_float32"),
        (["eval", "--backend", "tensorrt"], "onnxruntime"),
        (["eval", "--precision", "qint8_mixed_float16", "--backend", "pytorch"], "does not build qint8_mixed_float16"),
        (["eval", "--precision", "qint8_mixed_float16", "--calibration-data", SCORED], "also scored"),
        (["eval", "--precision", "qint8_mixed_float16", "--calibration-num", "81"], "from 1 to 80"),
        (["build", "--precision", "qint8_mixed_float16", "--calibration-method", "min"], "did you mean minmax"),
        (["build", "--precision", "qint8_mixed_float16", "--calibration-method", "eqnm"], "on a card only"),
        (["eval", "--calibration-method", "nonsense"], "there is no method 'nonsense'"),
        (["perf", "--simulate"], "unrecognized arguments: --simulate"),
        (["build", "--precision", "qint8_mixed_float16", "--max-drop", "-1"], "must be from 0 to 1"),
        (["build", "--max-drop", "0.01"], "--max-drop is for the qint precisions"),
        (["bench", "--calibration-method", "entropy"], "force_float32 is not calibrated"),
        (
            ["eval", "--backend", "magicmind", "--precision", "qint8_mixed_float16", "--max-drop", "0.1"],
            "is for CPU engines",
        ),
        (["eval", "--weights", "demoo"], "demoo"),
        (["eval", "--image-num", "-1"], "--image-num"),
        (["perf", "--image-num", "0"], "--image-num"),
        (["eval", "--image-num", "abc"], "must be a whole number from 0, not abc"),
        (["perf", "--seed", "-1"], "must be a whole number from 0, not -1"),
        (["build", "--precision", "qint8_mixed_float16", "--max-drop", "much"], "must be from 0 to 1, not much"),
        (["eval", "--image-num", "100000"], "256"),
        (["eval", "--batch-size", "-3"], "--batch-size"),
        (["build", "--dynamic-shape", "maybe"], "true or false"),
        (["eval", "--device-id", "1"], "device 1"),
        (["export", "--opset", "12"], "--opset"),
        (["infer"], "images"),
        (["eval", "--dynamic-shape", "false"], "unrecognized arguments: --dynamic-shape"),
        (["build", "--device-id", "3"], "there is no device 3"),
        (["build", "--device-id", "3", "--backend", "openvino"], "there is no device 3"),
        (["eval", "--out", "."], "folder"),
        (["infer", IMAGE, "--out", IMAGE], "is a file"),
        (["infer", IMAGE.replace(".jpg", ".png"), "--out", str(paths.demo_data() / "val2017")], "overwrite"),
        (["bench", "--model", "HRNett"], "did you mean HRNet"),
        (["bench", "--batch-size", "1,0"], "--batch-size"),
        (["bench", "--backend", "pytorch", "--precision", "qint8_mixed_float16"], "does not build qint8_mixed_float16"),
        (["bench", "--weights", "demoo"], "demoo"),
        (["bench", "--image-num", "100000"], "256"),
        (["frobnicate"], "frobnicate"),
        ([], "name"),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(argv, said, capsys, home):
    before = files(home)
    assert said in fails(capsys, 2, *argv)
    assert files(home) == before


def test_wrong_data_is_one_line_and_status_1(capsys, tmp_path, home):
    empty = tmp_path / "empty"
    empty.mkdir()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(b"PK\x03\x04 not a checkpoint")
    before = files(home)
    assert "mobilenetv2_coco_512x512-4d96e309" in fails(capsys, 1, "export", "--weights", "official")
    assert str(empty) in fails(capsys, 1, "infer", str(empty))
    assert "cut.pth" in fails(capsys, 1, "export", "--weights", str(cut))
    assert "nowhere" in fails(capsys, 1, "eval", "--data", str(tmp_path / "nowhere"))
    assert "no magicmind package" in fails(capsys, 1, "eval", "--backend", "magicmind")
    assert "nope.png" in fails(capsys, 1, "infer", str(tmp_path / "nope.png"))
    assert "x" * 300 in fails(capsys, 1, "infer", "x" * 300)
    assert "records" in fails(capsys, 1, "report")
    assert files(home) == before


def test_weights_of_another_network_are_refused(capsys, tmp_path):
    message = fails(capsys, 1, "export", "--model", "ResNet50", "--weights", str(paths.demo_weights("MobileNetv2")))
    assert "ResNet50" in message
    assert "another network" in message


def test_infer_writes_poses_and_images(capsys, tmp_path):
    out = tmp_path / "out"
    assert main(["infer", IMAGE, "--out", str(out)]) == 0
    assert "people" in capsys.readouterr().out
    [entry] = json.loads((out / "poses.json").read_text())
    assert entry["image"] == IMAGE
    assert len(entry["people"][0]["keypoints"]) == 17
    drawn, plain = cv2.imread(str(out / "000000020014.png")), cv2.imread(IMAGE)
    assert drawn.shape == plain.shape
    assert 0.001 < (drawn != plain).mean() < 0.3


def test_infer_writes_lines_alone(capsys, tmp_path):
    target = tmp_path / "new" / "poses.jsonl"
    assert main(["infer", IMAGE, IMAGE, "--no-flip", "--out", str(target)]) == 0
    first, second = (json.loads(line) for line in target.read_text().splitlines())
    assert first["image"] == second["image"] == IMAGE
    assert first["people"] == second["people"] != []
    assert [path.name for path in target.parent.iterdir()] == ["poses.jsonl"]


def test_infer_keeps_what_it_has_when_stopped(capsys, monkeypatch, tmp_path):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("helpers.infer.video.annotate", stopped)
    assert main(["infer", IMAGE, "walk.mp4", "--no-flip", "--out", str(tmp_path)]) == 130
    assert [entry["image"] for entry in json.loads((tmp_path / "poses.json").read_text())] == [IMAGE]
    assert not (tmp_path / "poses.jsonl").exists()


def test_infer_lists_what_it_could_not_read_and_goes_on(capsys, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    data = (paths.demo_data() / "val2017" / "000000020014.jpg").read_bytes()
    (folder / "a_cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "b_good.jpg").write_bytes(data)
    (folder / "c_empty.jpg").write_bytes(b"")
    assert main(["infer", str(folder), "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("people") == 1
    errors = captured.err.strip().splitlines()
    assert "a_cut.jpg" in errors[0]
    assert "c_empty.jpg" in errors[1]
    assert errors[2] == "2 of 3 images failed"
    assert [e["image"] for e in json.loads((tmp_path / "out" / "poses.json").read_text())] == [
        str(folder / "b_good.jpg")
    ]


def write_video(path, images):
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # as helpers do; read at the first video of a process
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 12.0, (160, 120))
    for image in images:
        writer.write(cv2.resize(image, (160, 120)))
    writer.release()
    return str(path)


def test_infer_takes_a_video_and_images_in_one_go(capsys, tmp_path):
    people = cv2.imread(IMAGE)
    source, out = write_video(tmp_path / "walk.mp4", [people, people[:, ::-1], people]), tmp_path / "out"
    assert main(["infer", source, IMAGE, "--no-flip", "--batch-size", "2", "--out", str(out)]) == 0
    assert {p.name for p in out.iterdir()} == {"walk.mp4", "000000020014.png", "poses.json"}
    *frames, image = json.loads((out / "poses.json").read_text())
    assert [(e["video"], e["frame"], e["second"]) for e in frames] == [(source, k, round(k / 12, 3)) for k in range(3)]
    assert image["image"] == IMAGE
    first, second = (np.array(e["people"][0]["keypoints"])[0, 0] for e in frames[:2])
    assert abs(first - second) > 5, "the second frame is the flipped image"
    assert "walk.mp4: 3 frames" in capsys.readouterr().out
    drawn = cv2.VideoCapture(str(out / "walk.mp4"))
    assert drawn.get(cv2.CAP_PROP_FPS) == 12
    assert sum(1 for _ in iter(drawn.grab, False)) == 3


def test_a_video_that_cannot_be_read_is_one_error_and_leaves_no_video(capfd, tmp_path):
    bad, good = tmp_path / "bad.mp4", write_video(tmp_path / "good.mp4", [cv2.imread(IMAGE)])
    bad.write_bytes(b"no video")
    assert main(["infer", str(bad), good, "--no-flip", "--json", "--out", str(tmp_path / "out")]) == 1
    captured = capfd.readouterr()
    first, last = captured.err.strip().splitlines()
    assert first == f"error: The video {bad} is damaged or not a video; copy it again, or convert it to MP4."
    assert last == "1 of 2 images failed"
    assert [e["video"] for e in json.loads(captured.out)] == [good]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"good.mp4", "poses.json"}


def test_a_drawn_video_does_not_replace_the_one_it_is_made_from(capsys, tmp_path):
    source = write_video(tmp_path / "walk.mp4", [np.zeros((120, 160, 3), np.uint8)])
    before = Path(source).read_bytes()
    assert "overwrite" in fails(capsys, 2, "infer", source, "--out", str(tmp_path))
    assert Path(source).read_bytes() == before


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(Path(IMAGE).read_bytes())
    assert main(["infer", str(tmp_path / "a"), str(tmp_path / "b"), "--no-flip", "--out", str(tmp_path / "out")]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"x.png", "x_2.png", "poses.json"}


def test_an_eval_with_failures_says_so_and_keeps_no_record(capsys, tmp_path, home):
    root = tmp_path / "coco"
    dataset = CocoDataset(paths.demo_data())
    document = json.loads(dataset.annotation_file.read_text())
    chosen = dataset.sample(2)
    for key, name in (("images", "id"), ("annotations", "image_id")):
        document[key] = [entry for entry in document[key] if entry[name] in chosen]
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    (root / "annotations" / dataset.annotation_file.name).write_text(json.dumps(document))
    data = [dataset.path(k).read_bytes() for k in chosen]
    for image_id, content in zip(chosen, (data[0], data[1][:3000])):
        (root / "val2017" / dataset.path(image_id).name).write_bytes(content)
    before = files(home)
    assert main(["eval", "--data", str(root)]) == 1
    captured = capsys.readouterr()
    assert "2 of 2 images" in captured.out
    assert dataset.path(chosen[1]).name in captured.err
    [journal] = files(home) - before  # from which the same command goes on, once the image is repaired
    assert journal.suffix == ".jsonl"


def test_eval_prints_the_ten_numbers_and_their_scope(capsys, tmp_path, home):
    results = tmp_path / "results.json"
    assert main(["eval", "--image-num", "4", "--batch-size", "2", "--out", str(results)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("MobileNetv2, demo weights, force_float32 on onnxruntime, demo val2017 (generated people")
    assert [line.rsplit(None, 1)[0] for line in out.splitlines()[1:11]] == list(STAT_NAMES)
    assert "4 of 256 images" in out
    ids = CocoDataset(paths.demo_data()).sample(4)
    assert {r["image_id"] for r in json.loads(results.read_text())} <= set(ids)
    assert list((home / "output" / "records").glob("MobileNetv2_demo_*.json"))


def test_eval_again(capsys, tmp_path):
    """A run that finished runs again, to the same digits; results are also written as mmpose writes them."""
    argv = ["eval", "--image-num", "2", "--seed", "5", "--no-flip"]
    texts = []
    for name in ("x.json", "y.json"):
        assert main([*argv, "--out", str(tmp_path / name)]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        texts.append(captured.out.splitlines()[:11])
    assert texts[0] == texts[1]
    assert (tmp_path / "y.json").read_bytes() == (tmp_path / "x.json").read_bytes()
    assert main([*argv, "--out", str(tmp_path / "z.pkl")]) == 0
    assert (tmp_path / "z.pkl").read_bytes()[:2] == b"\x80\x04"


def test_json_is_the_record(capsys):
    assert main(["eval", "--image-num", "3", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["images"] == 3
    assert record["command"] == "python -m helpers eval --image-num 3 --json"


def test_perf_puts_network_only_and_end_to_end_side_by_side(capsys):
    assert main(["perf", "--runs", "3", "--image-num", "2"]) == 0
    out = capsys.readouterr().out
    for word in ("network only", "end to end", "p50", "p99", "images/s", "decode"):
        assert word in out


def test_perf_as_json(capsys):
    assert main(["perf", "--runs", "2", "--image-num", "2", "--batch-size", "2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["batch_size"] == 2
    assert record["load_s"] > 0
    assert record["whole_images_per_s"] > 0
    assert record["peak_memory_mb"] > 100


QUICK_BENCH = ("bench", "--runs", "2", "--image-num", "3")


def test_bench_runs_every_combination_and_saves_each(capsys, home):
    """`all` precisions of PyTorch are one."""
    argv = [*QUICK_BENCH, "--model", "MobileNetv2", "--backend", "pytorch", "--precision", "all"]
    argv += ["--batch-size", "1,2,2"]
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert captured.err.count(" of 2: MobileNetv2, demo weights, force_float32") == 2
    rows = [line for line in captured.out.splitlines() if line.startswith("| MobileNetv2")]
    assert len(rows) == 2
    for size in (1, 2):
        [file] = (home / "output" / "records").glob(f"MobileNetv2_demo_*_b{size}_{size}x3x512x512_*_3-images_*.json")
        record = json.loads(file.read_text())
        assert record["images"] == 3
        assert 0 <= record["ap"] <= 1
        assert record["latency_ms"]["p50"] > 0


def test_bench_of_random_weights_has_no_accuracy(capsys):
    assert main([*QUICK_BENCH, "--model", "MobileNetv2", "--weights", "random", "--batch-size", "1", "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert record["latency_ms"]["p50"] > 0
    assert "ap" not in record


def test_bench_stops_at_an_argument_that_is_wrong_for_all_rows(capsys):
    assert main([*QUICK_BENCH, "--model", "MobileNetv2", "--device-id", "1"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("there is no device 1.")


def test_bench_goes_on_after_a_row_that_fails(capsys, tmp_path, home):
    """The checkpoint is MobileNetv2's, so the other two networks have none."""
    weights = str(paths.demo_weights("MobileNetv2"))
    assert main([*QUICK_BENCH, "--weights", weights, "--batch-size", "1"]) == 1
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert [line.split(",")[0] for line in errors] == ["error: HRNet", "error: ResNet50"]
    assert all("another network" in line for line in errors)
    assert captured.err.splitlines()[-1] == "2 of 3 rows failed"
    assert [line.split()[1] for line in captured.out.splitlines() if line.startswith("| ")] == ["model", "MobileNetv2"]


def test_the_published_table_of_demo_weights(capsys, monkeypatch, tmp_path):
    """Of networks that have any; nothing is fetched or decided, and the records go where they are wanted."""
    monkeypatch.setattr(paths, "demo_models", lambda: ["MobileNetv2"])
    few = ["coco", "--weights", "demo", "--image-num", "3", "--calibration-num", "2"]
    assert main([*few, "--out", str(tmp_path / "scores")]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("none: demo weights") == 3
    rows, problems = records.load_all(tmp_path / "scores")
    assert not problems
    assert {row.precision: row.ap_change is None for row in rows} == {
        "force_float32": True,
        "force_float16": False,
        "qint8_mixed_float16": False,
    }
    for row in rows:
        assert row.ap_interval[0] <= row.ap <= row.ap_interval[1]
        assert row.weights_sha256 == artifacts.sha256(paths.demo_weights("MobileNetv2"))
    (tmp_path / "file").touch()
    assert "is a file" in fails(capsys, 2, *few, "--out", str(tmp_path / "file"))


def test_export_build_and_report(capsys):
    assert main(["export", "--opset", "17"]) == 0
    assert "opset17.onnx" in capsys.readouterr().out
    assert main(["build", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "force_float32"
    assert main(["report"]) == 0
    out = capsys.readouterr().out
    assert ("needs official weights" in out) == (len(paths.demo_models()) < len(zoo.NETWORKS))
    assert "demo weights" in out


def test_eval_calibrates_by_itself(capsys):
    few = ["--precision", "qint8_mixed_float16", "--image-num", "2", "--calibration-num", "2"]
    assert main(["eval", "--json", *few]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["precision"] == "qint8_mixed_float16"
    assert record["ap"] > 0.3
    assert main(["build", "--json", *few[:2], *few[4:], "--calibration-method", "percentile"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["calibration"]["count"], facts["calibration"]["method"]) == (2, "percentile")


def test_a_folder_of_images_serves_for_calibration(capsys, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    words = ["build", "--json", "--precision", "qint8_mixed_float32", "--calibration-data", str(tmp_path)]
    assert "from 1 to 1" in fails(capsys, 2, *words)
    assert main([*words, "--calibration-num", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["calibration"]["images"] == [artifacts.sha256(tmp_path / "a.png")]


def test_the_model_can_come_from_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("MMPOSE_MODEL_NAME", "Hourglass")
    assert "MMPOSE_MODEL_NAME" in fails(capsys, 2, "eval")


def test_doctor_as_a_process():
    done = subprocess.run(
        [sys.executable, "-m", "helpers", "doctor"], cwd=paths.root(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("ready")
    for name in ("onnxruntime: ok", "magicmind: not available"):
        assert name in done.stdout


def test_a_container_without_torch_uses_the_exported_file(demo_built, tmp_path):
    """torch and mmpose blocked, as on an MLU machine: the ONNX file that lies there is built and run."""
    code = (
        "import sys; sys.modules['torch'] = sys.modules['mmpose'] = None\n"
        "from helpers.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "infer", IMAGE], cwd=paths.root(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "people" in done.stdout


def test_black_images_hold_nobody(capsys, tmp_path):
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((512, 512, 3), np.uint8))
    assert main(["infer", str(tmp_path / "black.png"), "--json"]) == 0
    [entry] = json.loads(capsys.readouterr().out)
    assert [p for p in entry["people"] if p["score"] > 0.2] == []
