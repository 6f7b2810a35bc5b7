"""The notebooks' steps as commands: `python -m helpers VERB`, for a container, a cron job or CI.

Exit status: 0 success; 2 an argument is wrong; 1 a file or its content is wrong, or not every image went through; 130
stopped by Ctrl-C. An error is one line on standard error; results go to standard output, with `--json` as one record.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, NoReturn, Sequence

from helpers import artifacts, backends, fetch, infer, paths, pipeline, scale_out, zoo
from helpers.backends import mm_run
from helpers.backends.calibration import DEFAULT_COUNT, DEFAULT_SPLIT, METHODS
from helpers.dataset import CocoDataset
from helpers.errors import DataError, UsageError, did_you_mean
from helpers.measure import benchmark, evaluate, records, tables
from helpers.pipeline import Job
from helpers.pose.estimator import PoseEstimator
from helpers.show import report as report_page

if TYPE_CHECKING:
    from helpers.backends import BuildSpec
    from helpers.measure.records import Record
    from helpers.scale_out import Fleet

_TIMED_IMAGES, _SCORED_IMAGES = 16, 64  # of perf and bench, unless told otherwise
_ALL_MODELS = f"one of {', '.join(zoo.NETWORKS)}, or all"


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
        words = ["python", "-m", "helpers", *(sys.argv[1:] if argv is None else argv)]
        args.command = " ".join(shlex.quote(word) for word in words)  # for the record
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


# -- arguments -----------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all verbs; `parse_args` gives the function to run as `verb`."""
    parser = _Parser(prog="python -m helpers", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(title="verbs", dest="name", required=True, parser_class=_Parser)

    def verb(name: str, function: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=function)
        sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
        return sub

    verb("doctor", doctor, "Say what is installed here, what is missing, and what to do about it.")
    files = verb("fetch", fetch_files, "Fetch official weights and COCO val2017, checked; files already here are kept.")
    export = verb("export", export_onnx, "Checkpoint -> ONNX, compared with PyTorch.")
    build = verb("build", build_engine, "ONNX -> engine.")
    infer = verb("infer", infer_images, "Images and videos -> poses, as JSON, as drawn images and drawn videos.")
    score = verb("eval", evaluate_dataset, "COCO AP and AR of a model on a COCO-format folder.")
    perf = verb("perf", time_engine, "Latency and throughput: network only, and end to end.")
    bench = verb("bench", sweep, "perf and eval of networks x batch sizes x precisions, in one table.")
    table = verb("coco", score_published, "Fetch, build and score every cell of the published table.")
    page = verb("report", report, "Everything measured so far: a table, and one HTML page with the figures.")

    files.add_argument("--model", help=f"weights to fetch: {_ALL_MODELS}")
    files.add_argument("--coco", action="store_true", help="COCO val2017 and images to calibrate with, 1.1 GB")
    for sub in (export, build, infer, score, perf):
        sub.add_argument("--model", help=f"one of {', '.join(zoo.NETWORKS)} (default MMPOSE_MODEL_NAME or MobileNetv2)")
    for sub in (bench, table):
        sub.add_argument("--model", default="all", help=f"{_ALL_MODELS} (default)")
    for sub in (export, build, infer, score, perf, bench):
        sub.add_argument("--weights", default="demo", help="demo (default), official, random, or a checkpoint file")
    table.add_argument("--weights", choices=("official", "demo"), default="official", help="demo: on the demo set")
    export.add_argument("--opset", type=int, choices=(11, 17), help="11 for MagicMind, 17 for the others; default both")
    for sub in (build, infer, score, perf, bench, table):
        _add_engine_options(sub)
    for sub in (build, infer, score, table):
        sub.add_argument("--simulate", action="store_true", help="magicmind without a card: calls and accuracy")
    for sub in (build, infer, score, perf):
        sub.add_argument("--precision", default="force_float32", help=f"one of {', '.join(zoo.PRECISIONS)}")
    bench.add_argument("--precision", default="force_float32", help="one, or all that the backend builds")
    for sub in (build, infer, score, perf, table):
        sub.add_argument("--batch-size", type=_positive, default=1, help="most images in one run of the network")
    bench.add_argument("--batch-size", type=_batch_sizes, default=[1, 8], help="one or several (default 1,8)")
    for sub in (build, infer, perf):
        sub.add_argument("--dynamic-shape", type=_boolean, default=True, metavar="true|false", help="variable N, H, W")
    for sub in (infer, score):
        sub.add_argument("--no-flip", action="store_true", help="no flip test: half the time, lower accuracy")
        sub.add_argument("--devices", type=_devices, metavar="0,1", help="share the images out: cards or CPU cores")
    infer.add_argument("images", nargs="+", type=Path, help="images, folders, lists (x.txt, one image a line), videos")
    infer.add_argument("--out", type=Path, help="folder for poses.json and what is drawn; or x.jsonl for lines alone")
    for sub in (score, perf, bench):
        sub.add_argument(
            "--data", type=Path, help="COCO-format folder (default: the demo set; COCO for official weights)"
        )
        sub.add_argument("--split", default="val2017", help="folder and annotation name inside it")
        sub.add_argument("--seed", type=_count, default=0, help="of the sample of images")
    score.add_argument("--image-num", type=_count, default=0, help="a seeded sample of so many images; 0: all")
    for sub in (perf, bench, table):
        sub.add_argument("--image-num", type=_positive, help="a seeded sample of so many images")
    score.add_argument("--out", type=Path, help="file for the results in COCO's format, or x.pkl in that of mmpose")
    score.add_argument("--fresh", action="store_true", help="run all images, even those of a run that stopped")
    for sub, runs in ((perf, 20), (bench, 10)):
        sub.add_argument("--runs", type=_positive, default=runs, help="least number of timed runs (by mm_run: 1000)")
    page.add_argument("--out", type=Path, help="the page (default data/output/report.html)")
    table.add_argument("--out", type=Path, help="folder for the records (default data/output/records)")
    return parser


def _add_engine_options(sub: argparse.ArgumentParser) -> None:
    """Adds the options of every verb that builds an engine."""
    sub.add_argument("--backend", default="onnxruntime", help=f"one of {', '.join(backends.names())}")
    sub.add_argument("--device-id", type=int, default=0, help="number of the card; 0 on a CPU")
    sub.add_argument(
        "--mlu-arch", action="append", metavar="NAME[:CLUSTERS]", help="to build for, as mtp_372:6,8; repeatable"
    )
    group = sub.add_argument_group("calibration, for the qint precisions")
    group.add_argument("--calibration-data", type=Path, help=f"folder of images, or COCO-format with {DEFAULT_SPLIT}")
    group.add_argument("--calibration-num", type=_positive, help=f"images (default {DEFAULT_COUNT})")
    group.add_argument("--calibration-method", type=_method, help=f"one of {', '.join(METHODS)} (default minmax)")
    group.add_argument("--max-drop", type=_share, help="leave the worst layers in float until AP drops no more")


def _whole_number(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least}, not {text}")
    return value


_positive, _count = functools.partial(_whole_number, least=1), functools.partial(_whole_number, least=0)


def _batch_sizes(text: str) -> list[int]:
    return list(dict.fromkeys(_positive(each) for each in text.split(",")))


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
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text}")
    return text.lower() == "true"


# -- arguments -> jobs -----------------------------------------------------------------------------------------------


def _model(args: argparse.Namespace) -> str:
    return zoo.get(args.model or zoo.default_name()).name


def _models(name: str) -> list[str]:
    return list(zoo.NETWORKS) if name == "all" else [zoo.get(name).name]


def _jobs(args: argparse.Namespace, cells: Iterable[tuple[str, BuildSpec]]) -> list[Job]:
    """Makes one job for each network and spec; refuses calibration options that none of them needs."""
    calibration = {
        name: getattr(args, name)
        for name in ("calibration_data", "calibration_num", "calibration_method", "max_drop")
        if getattr(args, name) is not None
    }
    jobs = [
        Job(
            model,
            args.weights,
            args.backend,
            spec,
            args.device_id,
            tuple(args.mlu_arch or ()),
            **(calibration if spec.needs_calibration else {}),
            **{name: getattr(args, name) for name in ("data", "split") if hasattr(args, name)},
        )
        for model, spec in cells
    ]
    if calibration and not any(job.spec.needs_calibration for job in jobs):
        option = next(iter(calibration)).replace("_", "-")
        raise UsageError(f"--{option} is for the qint precisions; {jobs[0].spec.precision} is not calibrated")
    return jobs


def _job(args: argparse.Namespace) -> Job:
    spec = backends.BuildSpec(args.precision, args.batch_size, getattr(args, "dynamic_shape", True))
    return _jobs(args, [(_model(args), spec)])[0]


# -- verbs -----------------------------------------------------------------------------------------------------------


def doctor(args: argparse.Namespace) -> int:
    """Prints what is here; 0 if the demo set and weights can be run, on a card if there is one, else on the CPU."""
    facts: dict[str, Any] = {"machine": records.machine(), "versions": records.versions(), "backends": {}}
    for name in backends.names():
        backend = backends.get(name)
        available, reason = backend.is_available()
        facts["backends"][name] = {"available": available, "note": backend.version() if available else reason}
    missing = []
    try:
        dataset = CocoDataset(paths.demo_data())
        facts["demo data"] = f"{len(dataset)} images in {dataset.root / dataset.split}"
    except DataError as error:
        facts["demo data"] = "unusable"
        missing.append(str(error))
    facts["demo weights"] = paths.demo_models()
    here = [name for name, fact in facts["backends"].items() if fact["available"]]
    engine = next((name for name in here if not backends.get(name).on_cpu), "onnxruntime")
    if not facts["backends"][engine]["available"]:
        missing.append(f"onnxruntime: {facts['backends']['onnxruntime']['note']}")
    if not importlib.util.find_spec("pycocotools"):
        missing.append("pycocotools, for AP and AR: pip install pycocotools")
    model = zoo.default_name()
    exported = paths.onnx_file(model, "demo", backends.get(engine).opset)
    if not exported.is_file() and not pipeline.can_export():
        missing.append(f"torch and mmpose (requirements-mmpose.txt), or {exported} exported elsewhere")
    if not exported.is_file() and model not in facts["demo weights"]:
        missing.append(f"demo weights {paths.demo_weights(model)}: check the files out again")
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
    print(*(f"missing: {fault}" for fault in missing), "not ready: see above" if missing else "ready", sep="\n")
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

    rows = []
    for opset in export.OPSETS if args.opset is None else (args.opset,):
        path = export.export(_model(args), args.weights, opset)
        rows += [{"file": str(path), **row.as_dict()} for row in export.read_checks(path)]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    shown = ["opset", "batch", "height", "width", "heatmaps cosine", "tags cosine", "relative"]
    print(tables.align([{key: row[key] for key in shown} for row in rows]))
    print(*dict.fromkeys(row["file"] for row in rows), sep="\n")
    return 0


def build_engine(args: argparse.Namespace) -> int:
    """Builds; prints where the model is, how large, and how long it took."""
    path = pipeline.build(_job(args))
    facts = artifacts.read_sidecar(path)
    if args.json:
        print(json.dumps({"file": str(path), **facts}, indent=2))
    else:
        print(path, _note(args) or f"{facts['bytes'] / 1e6:.1f} MB, built in {facts['build_s']:.1f} s", sep="\n")
    return 0


def infer_images(args: argparse.Namespace) -> int:
    """Finds people in images and videos; writes poses, and what is drawn, as they come."""
    job = _job(args)
    folder = None if args.out is None or args.out.suffix == ".jsonl" else args.out
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; name a folder")
    say = (lambda text: None) if args.json else functools.partial(print, flush=True)
    target = sys.stdout if args.json else None
    files = infer.with_targets(infer.sources(args.images), folder)
    with _estimator(args, job) as estimator, infer.pose_lines(args.out, target) as keep:
        ends = list(infer.run(estimator, files, keep, args.batch_size, say, _progress, _note(args)))
    return _failed([failure for failure in ends if failure], len(ends))


def evaluate_dataset(args: argparse.Namespace) -> int:
    """Runs and scores, resuming a run that stopped; prints the ten numbers and keeps a record."""
    if args.out is not None and (args.out.is_dir() or not args.out.name):
        raise UsageError(f"--out {args.out} is a folder; name a file for the results")
    job = _job(args)
    dataset = job.dataset()
    image_ids = dataset.sample(args.image_num or None, args.seed)
    record, run, journal = _score(args, job, dataset, image_ids)
    if args.json:
        print(record.to_json(), flush=True)
    else:
        described = f" ({dataset.description})" if dataset.description else ""
        what = f"{record.model}, {record.weights} weights, {record.precision} on {record.backend}, {record.dataset}"
        last = _note(args) or run.summary().splitlines()[0]
        print(f"{what}{described}", run.stats, last, sep="\n", flush=True)
    if not run.failures:
        _save(args, record)
    if args.out is not None and args.out.suffix == ".pkl":
        evaluate.save_pickle(args.out, run.poses, dataset)
    elif args.out is not None:
        evaluate.save_results(args.out, evaluate.to_coco_results(run.poses, dataset.category_id))
    if not run.failures:  # else the same command, once the images are repaired, runs those alone
        journal.finish()
    return _failed(run.failures, len(image_ids))


def time_engine(args: argparse.Namespace) -> int:
    """Times the network only (with mm_run on a card that has it) and end to end; keeps a record."""
    job = _job(args)
    record, rows = _time(args, job, job.dataset(), args.image_num or _TIMED_IMAGES)
    if args.json:
        print(record.to_json(), flush=True)
    else:
        print(f"machine: {record.machine['cpu']}, {record.machine['cores']} cores", tables.align(rows), sep="\n")
        print(f"stages: {', '.join(f'{stage} {ms:.1f}' for stage, ms in record.stage_ms.items())} ms per image")
        size = f"{record.model_bytes / 1e6:.1f} MB, built in {record.build_s:.1f} s, loaded in {record.load_s:.2f} s"
        print(f"model: {size}, at most {record.peak_memory_mb or 0:.0f} MB of memory", flush=True)
    _save(args, record)
    return 0


def sweep(args: argparse.Namespace) -> int:
    """Times and scores every combination; prints one table and keeps all records."""
    library = backends.get(args.backend)
    precisions = library.precisions() if args.precision == "all" else (args.precision,)
    specs = [backends.BuildSpec(precision, size) for precision in precisions for size in args.batch_size]
    jobs = _jobs(args, itertools.product(_models(args.model), specs))
    for spec in specs:  # what is wrong with all rows is said before the first
        library.require(spec.precision)
    paths.weights_tag(args.weights)
    dataset = jobs[0].dataset()
    images = args.image_num or min(_SCORED_IMAGES, len(dataset))
    image_ids = dataset.sample(images, args.seed)

    def row(job: Job) -> Record:
        scored = [] if job.weights == "random" else image_ids
        record, _ = _time(args, job, dataset, min(images, _TIMED_IMAGES), scored)
        records.save(record)
        return record

    rows, failures = _each(jobs, row)
    if args.json:
        print(json.dumps([record.to_dict() for record in rows], indent=2))
    elif rows:
        print(f"machine: {rows[0].machine['cpu']}, {rows[0].machine['cores']} cores")
        print(tables.align(tables.sweep(rows)), flush=True)
    return _failed(failures, len(jobs), "rows")


def score_published(args: argparse.Namespace) -> int:
    """Scores every cell of the published table; 1 if a cell failed or fell short of what is published."""
    library = backends.get(args.backend)
    library.require()
    models = paths.demo_models() if (args.model, args.weights) == ("all", "demo") else _models(args.model)
    if args.out is not None and args.out.is_file():
        raise UsageError(f"--out {args.out} is a file; name a folder")
    if args.weights == "official":
        fetch.coco()
    cells = [(model, precision) for model in models for precision in zoo.get(model).published]
    cells = [(model, precision) for model, precision in cells if precision in library.precisions()]
    jobs = _jobs(args, [(model, backends.BuildSpec(precision, args.batch_size)) for model, precision in cells])
    dataset = jobs[0].dataset()
    image_ids = dataset.sample(args.image_num)
    for job in jobs:  # what is wrong with all cells is said before the first
        job.calibration(dataset)
    references: dict[str, evaluate.Evaluation] = {}

    def cell(job: Job) -> Record:
        if job.weights == "official" and pipeline.can_export():
            fetch.checkpoint(job.model)
        record, run, journal = _score(args, job, dataset, image_ids, references.get(job.model), resume=True)
        if run.failures:
            raise DataError(run.failures[0])
        if job.spec.precision == "force_float32":
            references[job.model] = run
        records.save(record, args.out)
        journal.finish()
        return record

    rows, failures = _each(jobs, cell)
    table = tables.published(rows, cells)
    if args.json:
        print(json.dumps(table, indent=2))
    else:
        print(f"{args.backend}, flip test; AP and AR in percent, of {dataset.root / dataset.split}")
        print(tables.align(table), flush=True)
    return max(_failed(failures, len(jobs), "cells"), int(any(row["verdict"].startswith("no:") for row in table)))


def report(args: argparse.Namespace) -> int:
    """Prints the closing table from all records, and writes the page."""
    if args.out is not None and (args.out.is_dir() or not args.out.name):
        raise UsageError(f"--out {args.out} is a folder; name a file for the page")
    source = report_page.gather()
    print(*source.problems, sep="\n", end="\n" if source.problems else "", file=sys.stderr)
    if not source.rows:
        raise DataError(f"There are no records in {paths.output() / 'records'}; `make run` measures.")
    if args.json:
        print(json.dumps([row.to_dict() for row in source.rows], indent=2))
    else:
        for precision in dict.fromkeys(row.precision for row in source.rows):
            print(f"{precision}\n{tables.align(tables.closing(source.rows, precision, source.shipped))}\n")
    lacking = report_page.missing()
    if lacking and args.out is None:  # a container: the table is all that it promises
        print(f"no page without {' and '.join(lacking)}: pip install {' '.join(lacking)}", file=sys.stderr)
        return 0
    page = report_page.write(args.out or paths.output() / "report.html", source)
    print(f"page: {page}", file=sys.stderr if args.json else sys.stdout)
    return 0


# -- steps that verbs share ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _estimator(
    args: argparse.Namespace, job: Job, scored: CocoDataset | None = None
) -> Iterator[PoseEstimator | Fleet]:
    """Loads what finds people: on one device, or on several, which are compared at the end."""
    flip_test, devices = not getattr(args, "no_flip", False), getattr(args, "devices", None)
    if devices is None:
        with pipeline.load_engine(job, scored) as engine:
            yield PoseEstimator(engine, flip_test)
        return
    if job.device_id != 0:
        raise UsageError("--device-id is for one device; give it in --devices")
    scale_out.require()
    setup = scale_out.Setup(job.backend, pipeline.build(job, scored), flip_test)
    with scale_out.Fleet(setup, devices, os.environ.get("RAY_ADDRESS")) as fleet:
        yield fleet
        print(tables.align(fleet.table()), file=sys.stderr)


def _score(
    args: argparse.Namespace,
    job: Job,
    dataset: CocoDataset,
    image_ids: Sequence[int],
    reference: evaluate.Evaluation | None = None,
    resume: bool = False,
) -> tuple[Record, evaluate.Evaluation, evaluate.Journal]:
    """Scores a job, resuming a run of the same that stopped, or with `resume` one that finished.

    The caller finishes the journal once all is saved.
    """
    batch_size = job.spec.batch_size
    with _estimator(args, job, dataset) as estimator:
        engine = getattr(estimator, "engine", estimator)  # a fleet has the engine's facts itself
        decides = evaluate.fingerprint(engine, estimator, dataset, image_ids, batch_size)
        journal = evaluate.Journal(paths.output() / "runs", decides, resume, getattr(args, "fresh", False))
        try:
            run = evaluate.run(estimator, dataset, image_ids, batch_size, _progress, journal)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("what is done is kept, and the same command goes on from there") from stop
        flip_test = estimator.flip_test
    if run.taken_up:
        print(run.taken_up, file=sys.stderr)
    record = records.accuracy_record(engine, run, dataset, batch_size, flip_test, args.command, reference)
    return record, run, journal


def _time(
    args: argparse.Namespace, job: Job, dataset: CocoDataset, images: int, scored: Sequence[int] = ()
) -> tuple[Record, list[dict[str, Any]]]:
    """Times a job, on a card the network by the toolkit's own `mm_run` where there is one; scores it if asked to."""
    built, batch_size = pipeline.build(job, dataset), job.spec.batch_size
    tool = None if job.library().on_cpu else mm_run.find()
    benchmark.forget_peak_memory()
    engine, load_s = benchmark.timed(lambda: job.library().load(built, job.device_id))
    with engine:
        if tool is None:
            network = benchmark.network_only(engine, batch_size, min_runs=args.runs)
        else:
            shape = engine.batch_shape(batch_size, *(engine.input_shape or (zoo.INPUT_SIZE, zoo.INPUT_SIZE)))
            network = mm_run.measure(tool, built, shape, job.device_id, max(args.runs, mm_run.RUNS))
        files = [dataset.path(k) for k in benchmark.sample_ids(dataset, engine, images, args.seed)]
        estimator = PoseEstimator(engine)
        end_to_end = benchmark.end_to_end(estimator, files, batch_size)
        peak = benchmark.peak_memory_mb()
        run = evaluate.run(estimator, dataset, scored, batch_size, _progress) if scored else None
        if run is not None and run.failures:
            raise DataError(run.failures[0])
    record = records.speed_record(engine, network, end_to_end, args.command, load_s, peak, run, dataset)
    return record, tables.timings(network, end_to_end, "" if tool is None else "mm_run")


def _note(args: argparse.Namespace) -> str:
    """Returns what stands in the place of times that are not a card's."""
    return "MagicMind simulator: calls and accuracy, not speed" if args.simulate else ""


def _each(jobs: Sequence[Job], step: Callable[[Job], Record]) -> tuple[list[Record], list[str]]:
    """Runs a step for every job; one that fails does not stop the others."""
    rows, failures = [], []
    for count, job in enumerate(jobs, 1):
        print(f"{count} of {len(jobs)}: {job}", file=sys.stderr, flush=True)
        try:
            rows.append(step(job))
        except (DataError, OSError, MemoryError) as error:
            failures.append(f"{job}: {' '.join(str(error).split())}")
    return rows, failures


def _save(args: argparse.Namespace, record: Record) -> None:
    """Saves a record, which was printed before."""
    file = records.save(record)
    if not args.json:
        print(f"record: {file}")


def _progress(done: int, count: int) -> None:
    """Counts up on one line of a terminal; prints nothing into a log."""
    if sys.stderr.isatty():
        of = f" of {count}" if count else ""
        print(f"\r{done}{of} images", end="\n" if done == count else "", file=sys.stderr, flush=True)


def _failed(failures: Sequence[str], count: int, what: str = "images") -> int:
    """Lists the images, or rows, that did not go through; returns the exit status."""
    for reason in failures:
        print(f"error: {reason}", file=sys.stderr)
    if failures and count > 1:
        print(f"{len(failures)} of {count} {what} failed", file=sys.stderr)
    return 1 if failures else 0
