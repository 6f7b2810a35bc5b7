"""The notebooks' steps as commands: `python -m helpers VERB`, for a container, a cron job or CI.

Exit status: 0 success; 2 an argument is wrong; 1 a file or its content is wrong, or not every image went through; 130
stopped by Ctrl-C.
What went wrong is one line on standard error; results go to standard output, with `--json` as one record.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, NoReturn, Sequence, TextIO

from helpers import artifacts, backends, fetch, paths, pipeline, scale_out, zoo
from helpers.backends import mm_run
from helpers.backends.calibration import DEFAULT_COUNT, DEFAULT_SPLIT, METHODS, CalibrationSet
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError, did_you_mean
from helpers.measure import benchmark, records, tables
from helpers.pose.estimator import PoseEstimator
from helpers.show import report as report_page

if TYPE_CHECKING:
    import numpy as np

    from helpers.backends import Backend, BuildSpec, Engine
    from helpers.backends.mm_run import CardTiming
    from helpers.measure.benchmark import EndToEndTiming, NetworkTiming
    from helpers.measure.evaluate import Evaluation, Journal
    from helpers.measure.records import Record
    from helpers.pose.decode import Poses
    from helpers.pose.estimator import PoseResult
    from helpers.scale_out import Fleet

_TIMED_IMAGES, _SCORED_IMAGES = 16, 64  # unless told otherwise; a sweep times no more than that


class _Parser(argparse.ArgumentParser):
    """argparse, with the error as one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `python -m helpers --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        argv: arguments, `sys.argv[1:]` if None.

    Returns:
        The exit status.
    """
    try:
        args = build_parser().parse_args(argv)
        # What a record says about how to do it again.
        words = ["python", "-m", "helpers", *(sys.argv[1:] if argv is None else argv)]
        args.command = " ".join(shlex.quote(word) for word in words)
        if getattr(args, "simulate", False):
            if backends.get(args.backend).on_cpu:
                raise UsageError("--simulate is for --backend magicmind")
            pipeline.simulate()
        return args.verb(args)
    except BrokenPipeError:  # the reader (head, less) has had enough
        sys.stderr.close()
        return 1
    except (UsageError, DataError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as stop:
        print(": ".join(["stopped", *stop.args]), file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The arguments of every verb; `parse_args` gives the function to run as `verb`."""
    parser = _Parser(prog="python -m helpers", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(title="verbs", dest="name", required=True, parser_class=_Parser)

    def verb(name: str, function, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=function)
        sub.add_argument("--json", action="store_true", help="print the record as JSON instead of a table")
        return sub

    verb("doctor", doctor, "What is installed here, what is missing, and what to do about it.")
    files = verb("fetch", fetch_files, "Official weights and COCO val2017, checked; what is there already is used.")
    export = verb("export", export_onnx, "Checkpoint -> ONNX, compared with PyTorch.")
    build = verb("build", build_engine, "ONNX -> engine.")
    infer = verb("infer", infer_images, "Images and videos -> poses, as JSON, painted pictures and painted videos.")
    score = verb("eval", evaluate_dataset, "COCO AP and AR of a model on a COCO-format folder.")
    perf = verb("perf", time_engine, "Latency and throughput: network alone, and end to end.")
    bench = verb("bench", sweep, "The perf and eval of many: networks x batch sizes x precisions, one table.")
    page = verb("report", report, "Everything measured so far: a table, and one HTML page with the figures.")
    table = verb("coco", score_published, "The published table: fetch, build and score, beside what it says.")
    files.add_argument("--model", help=f"weights to fetch: one of {', '.join(zoo.NETWORKS)}, or all")
    files.add_argument("--coco", action="store_true", help="COCO val2017 and pictures to calibrate with, 1.1 GB")
    # What the table says is fixed, but for what the figures must not depend on.
    table.set_defaults(data=None, split="val2017", seed=0, dynamic_shape=True)
    table.add_argument(
        "--weights",
        choices=("official", "demo"),
        default="official",
        help="demo: the same table of the demo weights on the demo set, which decides nothing about photographs",
    )
    table.add_argument("--model", default="all", help=f"one of {', '.join(zoo.NETWORKS)}, or all (default)")
    table.add_argument("--image-num", type=_positive, default=None, help="a seeded sample; then there is no verdict")
    table.add_argument("--batch-size", type=_positive, default=1, help="most images in one run of the network")
    bench.add_argument("--model", default="all", help=f"one of {', '.join(zoo.NETWORKS)}, or all (default)")
    bench.add_argument("--weights", default=None, help="as elsewhere (default: demo where there are any, else random)")
    bench.add_argument("--precision", default="force_float32", help="one, or all that the backend builds")
    bench.add_argument(
        "--batch-size",
        type=_batch_sizes,
        action="append",
        default=None,
        help="images in one run of the network; 1,8 or several times for several (default 1,8)",
    )
    for sub in (export, build, infer, score, perf):
        sub.add_argument("--model", help=f"one of {', '.join(zoo.NETWORKS)} (default MMPOSE_MODEL_NAME or MobileNetv2)")
        sub.add_argument("--weights", default="demo", help="demo, official, random, or a checkpoint file")
    export.add_argument("--opset", type=int, choices=(11, 17), help="11 for MagicMind, 17 for the others; default both")
    export.add_argument("--force", action="store_true", help="export again even if nothing changed")
    for sub in (build, infer, score, perf, bench, table):
        sub.add_argument("--backend", default="onnxruntime", help=f"one of {', '.join(backends.names())}")
        sub.add_argument("--device-id", type=int, default=0, help="number of the card; 0 on a CPU")
        sub.add_argument("--simulate", action="store_true", help="magicmind without a card: calls and accuracy")
        sub.add_argument(
            "--mlu-arch",
            action="append",
            metavar="NAME[:CLUSTERS]",
            help="architecture to build for, such as mtp_372:6,8 (default mtp_372); repeat it for several",
        )
    for sub in (build, infer, score, perf):
        sub.add_argument("--precision", default="force_float32", help=f"one of {', '.join(zoo.PRECISIONS)}")
        sub.add_argument("--batch-size", type=_positive, default=1, help="most images in one run of the network")
    score.set_defaults(dynamic_shape=True)  # the pictures of a dataset differ in shape
    for sub in (build, infer, perf):
        sub.add_argument(
            "--dynamic-shape",
            type=_boolean,
            default=True,
            metavar="true|false",
            help="variable batch, height and width",
        )
    for sub in (infer, score):
        sub.add_argument("--no-flip", action="store_true", help="no flip test: half the time, lower accuracy")
        sub.add_argument(
            "--devices",
            type=_devices,
            metavar="0,1",
            help="share the images out, with Ray: numbers of cards or, where the CPU computes, of cores",
        )
        sub.add_argument(
            "--ray-address", help="Ray cluster to join, of whose machines --devices are; else one is begun"
        )
    infer.add_argument(
        "images", nargs="+", type=Path, help="image files, folders of images, lists (x.txt, one image a line), videos"
    )
    infer.add_argument(
        "--out",
        type=Path,
        default=None,
        help="folder for poses.json, painted pictures and videos; with --devices also x.jsonl, for an archive",
    )
    for sub in (score, perf, bench):
        sub.add_argument(
            "--data",
            type=Path,
            default=None,
            help="COCO-format folder (default: the demo set; COCO for official weights)",
        )
        sub.add_argument("--split", default="val2017", help="folder and annotation name inside it")
        if sub is score:
            sub.add_argument("--image-num", type=_count, default=0, help="a seeded sample of so many images; 0: all")
        else:
            sub.add_argument("--image-num", type=_positive, default=None, help="a seeded sample of so many images")
        sub.add_argument("--seed", type=int, default=0, help="of the sample")
    for sub in (build, infer, score, perf, bench, table):
        group = sub.add_argument_group("calibration, for the qint precisions")
        group.add_argument("--calibration-data", type=Path, help="folder of pictures, COCO-format or plain")
        group.add_argument("--calibration-split", help="part of a COCO-format folder")
        group.add_argument("--calibration-num", type=_positive, help=f"pictures (default {DEFAULT_COUNT})")
        group.add_argument("--calibration-method", type=_method, help=f"one of {', '.join(METHODS)} (default minmax)")
        group.add_argument(
            "--max-drop",
            type=_share,
            help="on a CPU: leave the worst layers in float until AP on the calibration split drops no more",
        )
    page.add_argument("--out", type=Path, default=None, help="the page (default data/output/report.html)")
    table.add_argument("--out", type=Path, default=None, help="folder for the records (default data/output/records)")
    score.add_argument(
        "--out", type=Path, default=None, help="file for the results in COCO's format, or x.pkl in that of mmpose"
    )
    earlier = score.add_mutually_exclusive_group()
    earlier.add_argument(
        "--resume",
        action="store_true",
        help="take over the results of the same run even if it finished, instead of running again; of one that "
        "stopped, they are taken over anyway",
    )
    earlier.add_argument("--fresh", action="store_true", help="run all images, even those of a run that stopped")
    for sub, runs, seconds in ((perf, 20, 3.0), (bench, 10, 2.0)):
        sub.add_argument("--runs", type=_positive, default=runs, help="least number of timed runs (by mm_run: 1000)")
        sub.add_argument("--seconds", type=float, default=seconds, help="least seconds of timed runs")
        sub.add_argument("--draw", action="store_true", help="also paint the poses, and time it")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0, for all, or more, not {value}")
    return value


def _batch_sizes(text: str) -> list[int]:
    return [_positive(each) for each in text.split(",")]


def _devices(text: str) -> list[int]:
    try:
        return scale_out.check_devices([int(each) if each.isdecimal() else each for each in text.split(",")])
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _method(text: str) -> str:
    if text not in METHODS:
        raise argparse.ArgumentTypeError(f"there is no method {text!r}; {did_you_mean(text, METHODS)}")
    return text


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return float(text)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text}")
    return text.lower() == "true"


# -- verbs -------------------------------------------------------------------------------------------------------


def doctor(args: argparse.Namespace) -> int:
    """Prints what is here; 0 if the demo set and weights can be run, on a card if there is one, else on the CPU."""
    facts: dict[str, Any] = {"machine": records.machine(), "versions": records.versions(), "backends": {}}
    for name in backends.names():
        backend = backends.get(name)
        available, reason = backend.is_available()
        facts["backends"][name] = {"available": available, "note": backend.version() if available else reason}
    facts["demo weights"] = paths.demo_models()
    missing = []
    try:
        dataset = CocoDataset(paths.demo_data())
        facts["demo data"] = f"{len(dataset)} images in {dataset.root / dataset.split}"
    except DataError as error:
        facts["demo data"] = "unusable"
        missing.append(str(error))
    here = [name for name, fact in facts["backends"].items() if fact["available"]]
    engine = next((name for name in here if not backends.get(name).on_cpu), "onnxruntime")
    if not facts["backends"][engine]["available"]:
        missing.append(f"onnxruntime: {facts['backends']['onnxruntime']['note']}")
    if not importlib.util.find_spec("pycocotools"):
        missing.append("pycocotools, for AP and AR: pip install pycocotools")
    exported = paths.onnx_file(zoo.default_name(), "demo", backends.get(engine).opset)
    if not exported.is_file():
        if not _can_export():
            missing.append(f"torch and mmpose (requirements-mmpose.txt), or {exported} exported elsewhere")
        if zoo.default_name() not in facts["demo weights"]:
            missing.append(f"demo weights {paths.demo_weights(zoo.default_name())}: check the files out again")
    facts["missing"] = missing
    if args.json:
        print(json.dumps(facts, indent=2))
        return 1 if missing else 0
    for title in ("machine", "versions"):
        print(f"{title}:", ", ".join(f"{key} {value}" for key, value in facts[title].items()))
    for name, fact in facts["backends"].items():
        print(f"backend {name}: {'ok, version' if fact['available'] else 'not available:'} {fact['note']}")
    print(f"demo data: {facts['demo data']}")
    print(f"demo weights: {', '.join(facts['demo weights']) or 'none'}")
    for fault in missing:
        print(f"missing: {fault}")
    print("not ready: see above" if missing else "ready")
    return 1 if missing else 0


def fetch_files(args: argparse.Namespace) -> int:
    """Fetches what is asked for; prints where it is and what vouches for it."""
    if not (args.coco or args.model):
        raise UsageError("nothing to fetch; name --model (a network, or all), --coco, or both")
    found = [fetch.checkpoint(model) for model in _models(args.model)] if args.model else []
    found += fetch.coco() if args.coco else []
    if args.json:
        print(json.dumps([{**dataclasses.asdict(each), "path": str(each.path)} for each in found], indent=2))
    else:
        print(*found, sep="\n")
    return 0


def export_onnx(args: argparse.Namespace) -> int:
    """Exports, compares with PyTorch, prints the comparison."""
    from helpers.export import export

    opsets = export.OPSETS if args.opset is None else (args.opset,)
    rows = []
    for opset in opsets:
        path = export.export(_model(args), args.weights, opset, force=args.force)
        rows += [{"file": str(path), **row.as_dict()} for row in export.read_checks(path)]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    shown = ["opset", "batch", "height", "width", "heatmaps cosine", "tags cosine", "relative"]
    print(tables.align([{key: row[key] for key in shown} for row in rows]))
    for file in dict.fromkeys(row["file"] for row in rows):
        print(file)
    return 0


def build_engine(args: argparse.Namespace) -> int:
    """Builds and says where, how large, how long."""
    path = _built(args)
    facts = artifacts.read_sidecar(path)
    if args.json:
        print(json.dumps({"file": str(path), **facts}, indent=2))
    else:
        size = f"{facts['bytes'] / 1e6:.1f} MB, built in {facts['build_s']:.1f} s"
        print(f"{path}\n{_note(args) or size}")
    return 0


def infer_images(args: argparse.Namespace) -> int:
    """Finds people in images and videos; poses.json and what is painted if there is an output folder."""
    from helpers.pose import video

    _check_devices(args)
    if args.out is not None and args.out.suffix == ".jsonl":
        return _infer_archive(args)
    files = list(_images(args.images))
    if args.devices is not None and any(video.is_video(file) for file in files):
        raise UsageError("a video goes through one device; leave out --devices, or give images")
    names = _painted_names(files)
    _check_output_folder(args.out, names, files)
    built = _built(args)
    failures: list[str] = []
    with contextlib.ExitStack() as stack:
        estimator = stack.enter_context(_estimator(args, built))
        lists = []
        if args.out is not None:
            part = stack.enter_context(artifacts.atomic_write(args.out / "poses.json"))
            lists.append(stack.enter_context(_JsonList(stack.enter_context(part.open("w", encoding="utf-8")))))
        if args.json:
            lists.append(stack.enter_context(_JsonList(sys.stdout)))
        for moving, group in itertools.groupby(zip(names, files), lambda item: video.is_video(item[1])):
            infer = _infer_videos if moving else _infer_pictures
            failures += infer(args, estimator, list(group), lists)
    return _failed(failures, len(files))


def _infer_archive(args: argparse.Namespace) -> int:
    """Finds people in any number of images, whose list is read as it goes; a JSON line for each."""
    if args.devices is None:
        raise UsageError(f"--out {args.out} needs --devices; without, name a folder")
    if args.json:
        raise UsageError(f"--json has no record to print: the results are the lines of {args.out}")
    with _estimator(args, _built(args)) as fleet:
        progress = functools.partial(_progress, count=0)
        count, failures = fleet.save(_images(args.images), args.out, args.batch_size, progress)
    print(f"{args.out}: {count} images")
    return _failed(failures, count)


def _images(given: Sequence[Path]) -> Iterator[Path]:
    """The files that folders hold and lists name, or that are given themselves."""
    from helpers.images import list_images

    for path in given:
        if path.is_dir():
            yield from list_images(path)
        elif path.suffix == ".txt":
            yield from scale_out.read_list(path)
        else:
            yield path


def _infer_pictures(
    args: argparse.Namespace,
    estimator: PoseEstimator | Fleet,
    pictures: Sequence[tuple[str, Path]],
    lists: Sequence[_JsonList],
) -> list[str]:
    """Pictures, as (name when painted, file): their entries go to the lists; one sentence per failure."""
    from helpers.show.draw import confident

    failures, note = [], _note(args)
    outcomes = estimator.stream((file for _, file in pictures), args.batch_size)
    for (name, _), outcome in zip(pictures, outcomes):
        if outcome.poses is None:
            failures.append(outcome.error)
            continue
        for each in lists:
            each.append(_as_json({"image": outcome.name}, outcome, note))
        if not args.json:
            count, ms = len(confident(outcome.poses)), sum(outcome.stage_ms.values())
            people = f"{count} {'person' if count == 1 else 'people'}"
            print(f"{outcome.name}: {people}, {note or f'{ms:.0f} ms'}", flush=True)
        if args.out is not None:
            _paint(outcome, args.out / name)
    return failures


def _infer_videos(
    args: argparse.Namespace, estimator: PoseEstimator, videos: Sequence[tuple[str, Path]], lists: Sequence[_JsonList]
) -> list[str]:
    """Videos, as `_infer_pictures`; an entry per frame. Without an output folder nothing is painted."""
    from helpers.pose import video
    from helpers.show.draw import draw_poses

    failures, note = [], _note(args)
    for name, file in videos:

        def keep(index: int, second: float, outcome: PoseResult, file: Path = file) -> None:
            where = {"video": str(file), "frame": index, "second": round(second, 3)}
            for each in lists:
                each.append(_as_json(where, outcome, note))

        try:
            target = None if args.out is None else args.out / name
            done = video.annotate(file, target, estimator, draw_poses, args.batch_size, keep, _progress)
        except DataError as error:
            failures.append(str(error))
            continue
        if not args.json:
            print(done, flush=True)
    return failures


def evaluate_dataset(args: argparse.Namespace) -> int:
    """Runs and scores, going on where the same run stopped; prints the ten numbers and keeps a record."""
    from helpers.measure import evaluate

    if args.out is not None and (args.out.is_dir() or not args.out.name):
        raise UsageError(f"--out {args.out} is a folder; name a file for the results")
    _check_devices(args)
    dataset = _dataset(args)
    image_ids = dataset.sample(args.image_num or None, args.seed)
    built = _built(args, scored=dataset)
    with _estimator(args, built) as estimator:
        engine = estimator if args.devices is not None else estimator.engine
        run, kept = _scored(engine, estimator, dataset, image_ids, args.batch_size, args.resume, args.fresh)
    record = records.accuracy_record(engine, run, dataset, args.batch_size, estimator.flip_test, args.command)
    what = f"{record.model}, {record.weights} weights, {record.precision} on {record.backend}, {record.dataset}"
    described = f" ({dataset.description})" if dataset.description else ""
    last = _note(args) or run.summary().splitlines()[0]
    _report(args, record, f"{what}{described}\n{run.stats}\n{last}", not run.failures)
    if args.out is not None and args.out.suffix == ".pkl":
        evaluate.save_pickle(args.out, run.poses, dataset)
    elif args.out is not None:
        evaluate.save_results(args.out, evaluate.to_coco_results(run.poses, dataset.category_id))
    if not run.failures:  # else the same command, once the images are repaired, runs those alone
        kept.finish()
    return _failed(run.failures, len(image_ids))


def _scored(
    engine: Engine | Fleet,
    estimator: PoseEstimator,
    dataset: CocoDataset,
    image_ids: Sequence[int],
    batch_size: int,
    resume: bool = False,
    fresh: bool = False,
) -> tuple[Evaluation, Journal]:
    """A run over a dataset, going on where the same one stopped, and the journal to finish once all is written."""
    from helpers.measure import evaluate

    decides = evaluate.fingerprint(engine, estimator, dataset, image_ids, batch_size)
    kept = evaluate.Journal(paths.output() / "runs", decides, resume, fresh)
    try:
        run = evaluate.run(estimator, dataset, image_ids, batch_size, _progress, kept)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("what is done is kept, and the same command goes on from there") from stop
    if run.taken_up:
        print(run.taken_up, file=sys.stderr)
    return run, kept


def time_engine(args: argparse.Namespace) -> int:
    """Times the network alone (with mm_run on a card that has it) and the whole call; keeps a record."""
    _refuse_simulated(args)
    speed = _measured(args, _job(args), _dataset(args), args.image_num or _TIMED_IMAGES)
    record, tool = speed.record, "mm_run" if isinstance(speed.network, mm_run.CardTiming) else ""
    lines = [
        f"machine: {record.machine['cpu']}, {record.machine['cores']} cores",
        tables.align(tables.timings(speed.network, speed.whole, tool)),
    ]
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in record.stage_ms.items())
    lines.append(f"stages: {stages} ms per image")
    memory = [] if record.peak_memory_mb is None else [f"at most {record.peak_memory_mb:.0f} MB of memory"]
    model = f"{record.model_bytes / 1e6:.1f} MB, built in {record.build_s:.1f} s, loaded in {record.load_s:.2f} s"
    lines.append(", ".join([f"model: {model}", *memory]))
    _report(args, record, "\n".join(lines))
    return 0


def sweep(args: argparse.Namespace) -> int:
    """Times, and where there are trained weights scores, every combination; prints one table and keeps all records."""
    _refuse_simulated(args)
    backend = _backend(args)
    backend.require()
    models = _models(args.model)
    precisions = backend.precisions() if args.precision == "all" else (args.precision,)
    sizes = [size for sizes in args.batch_size or [[1, 8]] for size in sizes]
    specs = [backends.BuildSpec(precision, size) for precision in precisions for size in dict.fromkeys(sizes)]
    for spec in specs:
        backend.require(spec.precision)
    _check_calibration(args, specs)
    if args.weights:
        paths.weights_tag(args.weights)
    dataset = _dataset(args)
    dataset.sample(args.image_num, args.seed)  # what is wrong with all rows is said before the first
    jobs = [_Job(model, args.weights or _best_weights(model), spec) for model in models for spec in specs]
    rows, failures = [], []
    for count, job in enumerate(jobs, 1):
        print(f"{count} of {len(jobs)}: {job}", file=sys.stderr, flush=True)
        try:
            rows.append(_row(args, job, dataset))
            records.save(rows[-1])
        except (DataError, OSError, MemoryError) as error:  # the other rows do not suffer for it
            failures.append(f"{job}: {' '.join(str(error).split())}")
    if args.json:
        print(json.dumps([row.to_dict() for row in rows], indent=2))
    elif rows:
        print(f"machine: {rows[0].machine['cpu']}, {rows[0].machine['cores']} cores")
        print(tables.align(tables.sweep(rows)), flush=True)
    return _failed(failures, len(jobs), "rows")


def score_published(args: argparse.Namespace) -> int:
    """Every cell of the published table: ours, what is published, a verdict; 1 if a cell failed or fell short."""
    backend = _backend(args)
    backend.require()
    models = paths.demo_models() if (args.model, args.weights) == ("all", "demo") else _models(args.model)
    _check_output_folder(args.out, [], [])
    if args.weights == "official":
        fetch.coco()
    dataset = _dataset(args)
    image_ids = dataset.sample(args.image_num, args.seed)
    jobs = [
        _Job(model, args.weights, backends.BuildSpec(precision, args.batch_size))
        for model in models
        for precision in zoo.get(model).published
        if precision in backend.precisions()
    ]
    # What is wrong with all cells is said before the first.
    _check_calibration(args, [job.spec for job in jobs])
    unscored = [pictures.files[0].parent for pictures in (_calibration(args, job, dataset) for job in jobs) if pictures]
    rows, references, failures = [], {}, []
    for count, job in enumerate(jobs, 1):
        print(f"{count} of {len(jobs)}: {job}, {len(image_ids)} images", file=sys.stderr, flush=True)
        try:
            row, run = _cell(args, job, dataset, image_ids, references.get(job.model))
            rows.append(row)
            if row.precision == "force_float32":
                references[job.model] = run
        except (DataError, OSError, MemoryError) as error:  # the other cells do not suffer for it
            failures.append(f"{job}: {' '.join(str(error).split())}")
    table = tables.published(rows, [(job.model, job.spec.precision) for job in jobs])
    if args.json:
        print(json.dumps(table, indent=2))
    else:
        print(f"{_note(args) or args.backend}, flip test; AP and AR in percent, of {dataset.root / dataset.split}")
        print(tables.align(table), flush=True)
        if unscored:
            print(f"qint8 is calibrated with pictures of {unscored[0]}, none of which is among the scored ones")
    return max(_failed(failures, len(jobs), "cells"), int(any(row["verdict"].startswith("no:") for row in table)))


def report(args: argparse.Namespace) -> int:
    """Prints the closing table from all records, and writes the page."""
    if args.out is not None and (args.out.is_dir() or not args.out.name):
        raise UsageError(f"--out {args.out} is a folder; name a file for the page")
    source = report_page.gather()
    for problem in source.problems:
        print(problem, file=sys.stderr)
    if not source.rows:
        raise DataError(f"There are no records in {paths.output() / 'records'}; `make run` measures.")
    if args.json:
        print(json.dumps([row.to_dict() for row in source.rows], indent=2))
    else:
        _print_closing_table(source)
    lacking = report_page.missing()
    if lacking and args.out is None:  # a container: the table is all that it promises
        print(f"no page without {' and '.join(lacking)}: pip install {' '.join(lacking)}", file=sys.stderr)
        return 0
    page = report_page.write(args.out or paths.output() / "report.html", source)
    print(f"page: {page}", file=sys.stderr if args.json else sys.stdout)
    return 0


def _print_closing_table(source: report_page.Source) -> None:
    """One table for each precision, the networks as rows."""
    rows = source.rows
    machines = {(row.machine or {}).get("cpu", "unknown machine"): (row.machine or {}).get("cores") for row in rows}
    print("measured on " + ", ".join(f"{cpu} ({cores} cores)" if cores else cpu for cpu, cores in machines.items()))
    for precision in dict.fromkeys(row.precision for row in rows):
        print(f"\n{precision}")
        print(tables.align(tables.closing(rows, precision, source.shipped)))
    print(f"\nexecuted notebooks, pictures and records: {paths.output()}")


# -- steps that verbs share ----------------------------------------------------------------------------------------


def _model(args: argparse.Namespace) -> str:
    return zoo.get(args.model or zoo.default_name()).name


def _models(name: str) -> list[str]:
    return list(zoo.NETWORKS) if name == "all" else [zoo.get(name).name]


def _best_weights(model: str) -> str:
    """Those that are here: the shipped ones, or none to speak of."""
    return "demo" if model in paths.demo_models() else "random"


def _dataset(args: argparse.Namespace) -> CocoDataset:
    """What was asked for, else what the weights were trained for."""
    usual = paths.coco() if args.weights == "official" else paths.demo_data()
    if args.data is None and not usual.is_dir():
        raise DataError(f"COCO is not at {usual}; `python -m helpers fetch --coco`, or set COCO_DATASETS_PATH.")
    return CocoDataset(args.data or usual, args.split)


@dataclass(frozen=True)
class _Job:
    """One engine to be built."""

    model: str
    weights: str
    spec: BuildSpec

    def __str__(self) -> str:
        return f"{self.model}, {self.weights} weights, {self.spec.precision}, batch {self.spec.batch_size}"


def _job(args: argparse.Namespace) -> _Job:
    spec = backends.BuildSpec(args.precision, args.batch_size, args.dynamic_shape)
    _check_calibration(args, [spec])
    return _Job(_model(args), args.weights, spec)


def _built(args: argparse.Namespace, job: _Job | None = None, scored: CocoDataset | None = None) -> Path:
    """An engine, by default the one asked for, exported and built if need be; never calibrated with what is scored."""
    job = job or _job(args)
    backend = _backend(args)
    backend.require(job.spec.precision)  # before the export, which takes longer
    calibration = _calibration(args, job, scored)
    if _can_export():
        from helpers.export import export

        onnx_file = export.export(job.model, job.weights, backend.opset)
    else:  # a container: the ONNX file was exported elsewhere and copied here
        onnx_file = paths.onnx_file(job.model, paths.weights_tag(job.weights), backend.opset)
    spec = job.spec
    if calibration is not None and args.max_drop is not None:
        from helpers import pipeline
        from helpers.backends import sensitivity

        dataset = CocoDataset(*_unscored(args, job))
        spec, _ = sensitivity.within(
            args.max_drop, onnx_file, spec, calibration, lambda engine: pipeline._ap(engine, dataset)
        )
    return backend.build(onnx_file, spec, calibration)


def _check_calibration(args: argparse.Namespace, specs: Sequence[backends.BuildSpec]) -> None:
    """Refuses what would be ignored, or fail after minutes."""
    names = ("calibration_data", "calibration_split", "calibration_num", "calibration_method", "max_drop")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is not None]
    if given and not any(spec.needs_calibration for spec in specs):
        raise UsageError(f"{given[0]} is for the qint precisions; {specs[0].precision} is not calibrated")
    if args.max_drop is not None and not backends.get(args.backend).on_cpu:
        raise UsageError("--max-drop is for CPU engines; MagicMind takes no layers to leave in float")


def _unscored(args: argparse.Namespace, job: _Job) -> tuple[Path, str]:
    """Folder and split of the pictures to calibrate with."""
    # Official weights were trained on photographs, which the demo pictures are not.
    usual = paths.coco() if job.weights == "official" else paths.demo_data()
    return args.calibration_data or usual, args.calibration_split or DEFAULT_SPLIT


def _calibration(args: argparse.Namespace, job: _Job, scored: CocoDataset | None) -> CalibrationSet | None:
    """The pictures to calibrate with, none of them scored; None for precisions that need none."""
    if not job.spec.needs_calibration:
        return None
    pictures = CalibrationSet(
        *_unscored(args, job),
        args.calibration_num or DEFAULT_COUNT,
        args.calibration_method or "minmax",
        input_shape=None if job.spec.dynamic_shape else job.spec.input_shape,
    )
    if scored is not None:
        pictures.refuse(scored)
    return pictures


@dataclass(frozen=True)
class _Speed:
    """A timed engine, with all that the record of it was made from."""

    record: Record
    network: NetworkTiming | CardTiming
    whole: EndToEndTiming


def _measured(args: argparse.Namespace, job: _Job, dataset: CocoDataset, images: int, score: int = 0) -> _Speed:
    """Builds, loads and times an engine, scores it on so many images if asked to, and lets go of it."""
    from helpers.measure import evaluate

    built, batch_size, evaluation = _built(args, job, dataset), job.spec.batch_size, None
    benchmark.forget_peak_memory()
    engine, load_s = benchmark.timed(lambda: _load(args, built))
    with engine:
        pictures = [dataset.path(k) for k in benchmark.sample_ids(dataset, engine, images, args.seed)]
        network = _time_network(args, built, engine, batch_size)
        whole = benchmark.end_to_end(PoseEstimator(engine), pictures, batch_size, _painter(args))
        peak = benchmark.peak_memory_mb()
        if score:
            chosen = dataset.sample(score, args.seed)
            evaluation = evaluate.run(PoseEstimator(engine), dataset, chosen, batch_size, _progress)
            if evaluation.failures:
                raise DataError(evaluation.failures[0])
    record = records.speed_record(engine, network, whole, args.command, load_s, peak, evaluation, dataset)
    return _Speed(record, network, whole)


def _row(args: argparse.Namespace, job: _Job, dataset: CocoDataset) -> Record:
    """One row of the sweep; with accuracy, unless the weights are random."""
    images = args.image_num or min(_SCORED_IMAGES, len(dataset))
    score = 0 if job.weights == "random" else images
    return _measured(args, job, dataset, min(images, _TIMED_IMAGES), score).record


def _cell(
    args: argparse.Namespace, job: _Job, dataset: CocoDataset, image_ids: Sequence[int], reference: Evaluation | None
) -> tuple[Record, Evaluation]:
    """One cell of the published table; images of an earlier run are taken over if nothing that decides it changed."""
    if job.weights == "official" and _can_export():
        fetch.checkpoint(job.model)
    built = _built(args, job, dataset)
    with _load(args, built) as engine:
        run, kept = _scored(engine, PoseEstimator(engine), dataset, image_ids, job.spec.batch_size, resume=True)
    if run.failures:
        raise DataError(run.failures[0])
    batch_size = job.spec.batch_size
    record = records.accuracy_record(engine, run, dataset, batch_size, command=args.command, reference=reference)
    records.save(record, args.out)
    kept.finish()
    return record, run


def _painter(args: argparse.Namespace) -> Callable[[np.ndarray, Poses], object] | None:
    if not args.draw:
        return None
    from helpers.show.draw import draw_poses

    return draw_poses


def _backend(args: argparse.Namespace) -> Backend:
    backend = backends.get(args.backend, mlu_arch=args.mlu_arch)
    if backend.on_cpu:
        backend.require_device(args.device_id)
        return backend
    return backend.configured(device_id=args.device_id)  # calibration needs the card too


def _note(args: argparse.Namespace) -> str:
    """What has to stand beside times that are not a card's."""
    return "MagicMind simulator: calls and accuracy, not speed" if args.simulate else ""


def _refuse_simulated(args: argparse.Namespace) -> None:
    if args.simulate:
        raise UsageError("a simulated card has no speed: leave out --simulate, or use eval, which tells its accuracy")


def _time_network(args: argparse.Namespace, built: Path, engine: Engine, batch_size: int) -> NetworkTiming | CardTiming:
    """The network alone: on a card by the toolkit's own `mm_run` where there is one, else by our loop."""
    tool = None if backends.get(args.backend).on_cpu else mm_run.find()
    if tool is None:
        return benchmark.network_only(engine, batch_size, min_runs=args.runs, min_seconds=args.seconds)
    shape = engine.batch_shape(batch_size, *(engine.input_shape or (zoo.INPUT_SIZE, zoo.INPUT_SIZE)))
    return mm_run.measure(tool, built, shape, args.device_id, max(args.runs, mm_run.RUNS))


def _can_export() -> bool:
    return all(importlib.util.find_spec(package) for package in ("torch", "mmcv", "mmpose"))


def _check_devices(args: argparse.Namespace) -> None:
    """Says what is wrong with the arguments of many devices, and that Ray is missing, before anything is built."""
    if args.devices is None and args.ray_address is not None:
        raise UsageError("--ray-address needs --devices, the devices of each machine")
    if args.devices is not None and args.device_id != 0:
        raise UsageError("--device-id is for one device; give it in --devices")
    if args.devices is not None:
        scale_out.require()


@contextlib.contextmanager
def _estimator(args: argparse.Namespace, built: Path) -> Iterator[PoseEstimator | Fleet]:
    """What finds people: on one device, or on many, which are compared in the end."""
    if args.devices is None:
        yield PoseEstimator(_load(args, built), flip_test=not args.no_flip)
        return
    setup = scale_out.Setup(args.backend, built, not args.no_flip)
    with scale_out.Fleet(setup, args.devices, args.ray_address) as fleet:
        yield fleet
        print(tables.align(fleet.table()), file=sys.stderr)


def _load(args: argparse.Namespace, built: Path) -> Engine:
    return _backend(args).load(built, args.device_id)


def _progress(done: int, count: int) -> None:
    """A line that counts up, on a terminal; nothing in a log."""
    if sys.stderr.isatty():
        of = f" of {count}" if count else ""
        print(f"\r{done}{of} images", end="\n" if done == count else "", file=sys.stderr, flush=True)


def _report(args: argparse.Namespace, record: Record, text: str, keep: bool = True) -> None:
    """Prints a result, and only then saves its record; figures with failed images in them are not kept."""
    print(record.to_json() if args.json else text, flush=True)
    if keep:
        file = records.save(record)
        if not args.json:
            print(f"record: {file}")


def _check_output_folder(folder: Path | None, names: Sequence[str], files: Sequence[Path]) -> None:
    """Refuses, before any work, a folder that is none or in which painted pictures would replace their originals."""
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; name a folder")
    clash = {(folder / name).resolve() for name in names} & {file.resolve() for file in files}
    if clash:
        raise UsageError(f"--out {folder} would overwrite {min(clash)}; choose another folder")


def _as_json(where: dict[str, Any], outcome: PoseResult, note: str) -> dict[str, Any]:
    """The entry of a picture, or of a frame, which `where` says."""
    people = [
        {"score": float(score), "keypoints": points.tolist()}
        for score, points in zip(outcome.poses.scores, outcome.poses.keypoints)
    ]
    return {**where, "people": people, **({"note": note} if note else {"stage_ms": outcome.stage_ms})}


class _JsonList:
    """A JSON list that is written entry by entry, so that a long video's poses need not be in memory together."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.before = file, "["

    def __enter__(self) -> _JsonList:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.file.write(f"{'[' if self.before == '[' else ''}]\n")

    def append(self, entry: dict[str, Any]) -> None:
        """Writes an entry."""
        self.file.write(self.before + json.dumps(entry))
        self.before = ",\n"


def _painted_names(files: Sequence[Path]) -> list[str]:
    """A name for each file when painted, its own where that is free: `a/x.jpg`, `b/x.jpg` become x.png, x_2.png."""
    from helpers.pose.video import is_video

    names: dict[str, None] = {}
    for file in files:
        ending = ".mp4" if is_video(file) else ".png"
        name, count = f"{file.stem}{ending}", 1
        while name in names:
            count += 1
            name = f"{file.stem}_{count}{ending}"
        names[name] = None
    return list(names)


def _paint(outcome: PoseResult, path: Path) -> None:
    """Writes the picture with its skeletons."""
    import cv2

    from helpers.images import read_image
    from helpers.show.draw import draw_poses

    painted = draw_poses(read_image(outcome.name), outcome.poses)
    with artifacts.atomic_write(path) as part:
        cv2.imencode(".png", painted)[1].tofile(str(part))


def _failed(failures: Sequence[str], count: int, what: str = "images") -> int:
    """Lists the images, or rows, that did not go through; the exit status."""
    for reason in failures:
        print(f"error: {reason}", file=sys.stderr)
    if failures and count > 1:
        print(f"{len(failures)} of {count} {what} failed", file=sys.stderr)
    return 1 if failures else 0
