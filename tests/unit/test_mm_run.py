"""Cambricon's `mm_run`: its flags, both of its output formats, and the ways in which it fails."""

from __future__ import annotations

import json
import sys

import pytest

from helpers import paths
from helpers.backends import mm_run
from helpers.cli import main
from helpers.errors import DataError

SHAPE = (8, 3, 512, 512)

# Made up after the descriptions of both releases; no figure is a measurement.
OLD = """\
==================== Parameter Information
magicmind_model: /models/a
iterations: 1000
batch: 8
[MMINFO]  Deserialize model time is 12.3 ms
=================== Device Information
Device ID: 0
Cluster Number: 8
==================== Device Utilization Summary
dev0_chip_util(%): min: 1 max: 99 mean: 97.2 median: 98 percentile: (90%) 99 (95%) 99 (99%) 99
==================== Performance Summary
Iterations: 1000
Host Wall Time (s): 4
MLU Compute Time (s): 3.9
Throughput (qps): 2000
Enqueue Time (ms): min: 0.01 max: 0.2 mean: 0.02 median: 0.02 percentile: (90%) 0.03 (95%) 0.03 (99%) 0.1
H2D Latency (ms): min: 1 max: 2 mean: 1.1 median: 1.1 percentile: (90%) 1.2 (95%) 1.3 (99%) 1.9
MLU Compute Latency (ms): min: 3.8 max: 5.5 mean: 3.95 median: 3.9 percentile: (90%) 4.1 (95%) 4.2 (99%) 5.25
D2H Latency (ms): min: 1 max: 2 mean: 1.1 median: 1.1 percentile: (90%) 1.2 (95%) 1.3 (99%) 1.9
Trace averages of 100 runs:
 MLU Compute Latency (ms): 77.7 Enqueue: 0.02
"""
_B = "min: {0} max: {0} mean: {0} median: {0} percentile: (90%) {0} (95%) {0} (99%) {0}"
NEW = f"""\
2023-11-28 10:00:00.000000: INFO: run.cc:88]
--iterations<Int>  : 1000
--batch_size<Int>  : 8
MagicMind: 1700
=================== Device 0 Utilization Summary
chip_util(%): min: 1 max: 99 mean: 97.2
=================== Performance Summary
Total iterations:             1000
Host wall time(s):            4.0
Total MLU compute time(host clock, s):  3.9
Throughput (qps):             2.0e+03 total batch sizes: 8000 and 250 iterations/second

Input shape group 0: [[8,3,512,512]]
H2D Summary:
  Latency(host clock, ms):    {_B.format(11)}
  Interface Duration(ms):     {_B.format(12)}
MLU Compute (Launch jobs) Summary:
  Latency(host clock, ms):    min: 3.8 max: 5.5 mean: 3.95 median: 3.9 percentile: (90%) 4.1 (95%) 4.2 (99%) 5.25
  Latency(dev clock, ms):     {_B.format(33)}
  Interface Duration(ms):     {_B.format(34)}
D2H Summary:
  Latency(host clock, ms):    {_B.format(44)}
Total Latency Summary(H2D + Compute + D2H):
  Latency(host clock, ms):    {_B.format(55)}
Trace average MLU Compute perf over 100 runs:
  Latency(host clock, ms): 77.7
"""

# Stands for the tool: notes its arguments, refuses what the release does not know, prints what it was told to.
TOOL = """\
#!{python}
import json, os, pathlib, signal, sys
home = pathlib.Path(__file__).parent
case = json.loads((home / "case.json").read_text())
argv = sys.argv[1:]
if "--help" in argv:
    print("--magicmind_model\\n--iterations\\n" + case["flag"])
    sys.exit(0)
(home / "argv.json").write_text(json.dumps(argv))
known = ("--magicmind_model", "--iterations", "--input_dims", "--devices", case["flag"])
if [key for key in argv[::2] if key not in known]:
    print("Unknown argument", file=sys.stderr, flush=True)
    os.abort()
dims = argv[argv.index("--input_dims") + 1]
if argv[argv.index(case["flag"]) + 1] != dims.split(",")[0]:
    sys.exit("batch and dims differ")
print(case["text"], flush=True)
if case["signal"]:
    os.kill(os.getpid(), case["signal"])
print(case["stderr"], file=sys.stderr)
sys.exit(case["status"])
"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Makes the stand-in, in a NEUWARE_HOME of its own; what it prints, and how it ends, are arguments."""
    home = tmp_path / "neuware" / "bin"
    home.mkdir(parents=True)
    (home / "mm_run").write_text(TOOL.format(python=sys.executable))
    (home / "mm_run").chmod(0o755)
    monkeypatch.setenv("NEUWARE_HOME", str(home.parent))
    monkeypatch.delenv("MM_RUN_PATH", raising=False)
    monkeypatch.setattr(paths, "output", lambda: tmp_path / "output")

    def make(text=NEW, flag="--batch_size", status=0, stderr="", kill=0):
        case = {"text": text, "flag": flag, "status": status, "stderr": stderr, "signal": kill}
        (home / "case.json").write_text(json.dumps(case))
        return mm_run.find()

    make.argv = lambda: json.loads((home / "argv.json").read_text())
    return make


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "HRNet_official" / "magicmind" / "HRNet_mmpose_model_qint8_mixed_float16_true"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"model")
    return path


@pytest.mark.parametrize("text, flag", [(OLD, "--batch"), (NEW, "--batch_size")], ids=["old", "new"])
def test_both_releases(tool, model, text, flag):
    timing = mm_run.measure(tool(text, flag), model, SHAPE, device_id=2)
    assert (timing.images_per_s, timing.runs, timing.batch_size) == (2000.0, 1000, 8)
    assert timing.input_shape == SHAPE
    latency = timing.latency
    assert (latency.mean, latency.p50, latency.p90, latency.p95, latency.p99) == (3.95, 3.9, 4.1, 4.2, 5.25)
    assert tool.argv() == [
        *("--magicmind_model", str(model), "--iterations", "1000"),
        *(flag, "8", "--input_dims", "8,3,512,512", "--devices", "2"),
    ]


def test_every_flag_is_given_once_with_a_value(tool, model):
    """The tool aborts at a key without value, an unknown or a repeated one."""
    mm_run.measure(tool(), model, SHAPE)
    argv = tool.argv()
    assert len(argv) == 2 * len(set(argv[::2]))
    assert all(key.startswith("--") and not value.startswith("-") for key, value in zip(argv[::2], argv[1::2]))


def test_device_clock_where_there_is_no_other():
    text = NEW.replace("  Latency(host clock, ms):", "  other:")
    assert mm_run.parse(text, SHAPE, None).latency.mean == 33


@pytest.mark.parametrize("text", [OLD, NEW], ids=["old", "new"])
def test_columns_do_not_matter(text):
    narrow = "\n".join(" " * line.startswith(" ") + " ".join(line.split()) for line in text.splitlines())
    assert mm_run.parse(narrow, SHAPE, None) == mm_run.parse(text, SHAPE, None)


@pytest.mark.parametrize("number", ["2000", "2000.00", "2e3", "2.0E+03", "+2000."])
def test_numbers_as_cpp_writes_them(number):
    assert mm_run.parse(OLD.replace("(qps): 2000", f"(qps): {number}"), SHAPE, None).images_per_s == 2000


@pytest.mark.parametrize("text", [OLD, NEW], ids=["old", "new"])
@pytest.mark.parametrize("label", ["Throughput", "terations:", "all", "MLU Compute"])
def test_a_missing_figure_is_a_failure(text, label):
    lines = [line for line in text.splitlines(keepends=True) if label not in line or "Parameter" in line]
    with pytest.raises(DataError, match="mm_run printed no"):
        mm_run.parse("".join(lines), SHAPE, None)


def test_a_run_of_another_batch_is_a_failure():
    """2000 images/s are 1000 runs of 8 in 4 s; of batch 1 they would be 250."""
    with pytest.raises(DataError, match="did not run that batch"):
        mm_run.parse(OLD, (1, 3, 512, 512), None)
    with pytest.raises(DataError, match="did not run that batch"):
        mm_run.parse(OLD.replace("(s): 4", "(s): 0"), SHAPE, None)


def test_a_failed_run_is_seen_though_it_printed_figures(tool, model):
    with pytest.raises(DataError, match=r"ended with status 3: out of memory on device 0; all of it is in .*\.log"):
        mm_run.measure(tool(NEW, status=3, stderr="out of memory on device 0"), model, SHAPE)


def test_an_aborted_run_is_seen(tool, model):
    with pytest.raises(DataError, match="was stopped by signal 6"):
        mm_run.measure(tool(NEW, kill=6), model, SHAPE)


def test_a_run_that_prints_nothing_is_seen(tool, model):
    with pytest.raises(DataError, match="printed no throughput; all that mm_run printed is in"):
        mm_run.measure(tool(""), model, SHAPE)
    with pytest.raises(DataError, match="status 1: it printed nothing"):
        mm_run.measure(tool("", status=1), model, SHAPE)


def test_a_run_without_end_is_seen(tool, model, monkeypatch):
    executable = tool()
    executable.write_text(f"#!{sys.executable}\nimport sys, time\n'--help' in sys.argv or time.sleep(60)\n")
    monkeypatch.setattr(mm_run, "_LIMIT_S", 1)
    with pytest.raises(DataError, match="did not end within 1 s"):
        mm_run.measure(executable, model, SHAPE)


def test_a_tool_that_cannot_be_run(tool, model):
    executable = tool()
    executable.write_text("#!/nowhere/at/all\n")
    with pytest.raises(DataError, match="does not run"):
        mm_run.measure(executable, model, SHAPE)


def test_a_log_for_each_batch_and_precision(tool, model):
    """Also of a failed run."""
    logs = []
    for batch, text, status in ((8, NEW, 0), (1, "bang", 5)):
        shape = (batch, *SHAPE[1:])
        logs.append(mm_run.log_file(model, shape))
        if status:
            with pytest.raises(DataError):
                mm_run.measure(tool(text, status=status), model, shape)
        else:
            assert mm_run.measure(tool(text), model, shape).log == logs[-1]
    other = model.with_name("HRNet_mmpose_model_force_float32_true")
    logs += [mm_run.log_file(other, SHAPE), mm_run.log_file(model, (8, 3, 512, 704))]
    assert len(set(logs)) == 4
    assert logs[0].name == "HRNet_official_HRNet_mmpose_model_qint8_mixed_float16_true_8x3x512x512.log"
    assert logs[0].read_text().splitlines()[1:] == [*NEW.splitlines(), "", ""]
    assert logs[0].read_text().splitlines()[0].endswith("--input_dims 8,3,512,512 --devices 0")
    assert "bang" in logs[1].read_text()


def test_where_the_tool_is_looked_for(tool, tmp_path, monkeypatch):
    home = tool().parent
    assert mm_run.find() == home / "mm_run"
    monkeypatch.setenv("NEUWARE_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", "")
    assert mm_run.find() is None
    for place in (home, home / "mm_run"):
        monkeypatch.setenv("MM_RUN_PATH", str(place))
        assert mm_run.find() == home / "mm_run"
    monkeypatch.delenv("MM_RUN_PATH")
    monkeypatch.setenv("PATH", str(home))
    assert mm_run.find() == home / "mm_run"
    (home / "mm_run").chmod(0o644)
    assert mm_run.find() is None


# -- the command


@pytest.fixture
def demo(monkeypatch, demo_built):
    """The demo network as exported, checked at one small size."""
    from helpers.export import export

    checks = {**export.export.__kwdefaults__, "shapes": [(128, 192)], "batches": [1]}
    monkeypatch.setenv("MODEL_PATH", str(demo_built.parents[2]))
    monkeypatch.setattr(export.export, "__kwdefaults__", checks)


@pytest.fixture
def installed(card, demo):
    """The simulator as a card, and the demo network exported for it."""
    from helpers.export import export

    export.export("MobileNetv2", "demo", 11)


PERF = ("perf", "--backend", "magicmind", "--image-num", "2", "--runs", "2")


def test_perf_uses_it_on_a_card(tool, installed, capsys):
    tool()
    assert main([*PERF, "--batch-size", "8"]) == 0
    out = capsys.readouterr().out
    [row] = [line for line in out.splitlines() if "network only by mm_run, batch 8" in line]
    figures = [cell.strip() for cell in row.split("|")[2:-1]]
    assert figures == ["3.9", "4.1", "4.2", "5.2", "4.0", "2000.00", "1000 runs"]
    assert "matrix product" not in out  # of the CPU
    assert "--input_dims 8,3,512,512" in " ".join(tool.argv())
    [file] = (paths.output() / "records").glob("*.json")
    record = json.loads(file.read_text())
    assert (record["images_per_s"], record["latency_ms"]["p99"]) == (2000.0, 5.25)
    assert (record["backend"], record["batch_size"], record["input_shape"]) == ("magicmind", 8, list(SHAPE))


def test_perf_sees_its_failure(tool, installed, capsys):
    tool(NEW, status=2, stderr="cannot launch")
    assert main([*PERF, "--batch-size", "8"]) == 1
    captured = capsys.readouterr()
    assert "mm_run ended with status 2: cannot launch" in captured.err
    assert not (paths.output() / "records").exists()


def test_perf_without_it_times_by_itself(installed, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "output", lambda: tmp_path / "output")
    monkeypatch.setattr(mm_run, "find", lambda: None)
    assert main([*PERF]) == 0
    assert "| network only, batch 1" in capsys.readouterr().out


def test_perf_of_another_backend_does_not_ask_for_it(tool, demo, capsys):
    tool(status=9)
    assert main(["perf", "--image-num", "2", "--runs", "2"]) == 0
    assert "mm_run" not in capsys.readouterr().out
