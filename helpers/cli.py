"""The notebooks' steps as commands: `python -m helpers VERB`, for a container, a cron job or CI.

Exit status: 0 success; 2 an argument is wrong; 1 a file or its content is wrong, or not every image went through.
What went wrong is one line on standard error; results go to standard output, with `--json` as one record.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Sequence

from helpers import backends, paths, zoo
from helpers.errors import DataError, UsageError

if TYPE_CHECKING:
    from helpers.backends.base import Engine
    from helpers.estimator import Outcome, PoseEstimator


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
        args = _parser().parse_args(argv)
        return args.verb(args)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader (head, less) has had enough
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m helpers", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(title="verbs", dest="name", required=True, parser_class=_Parser)

    def verb(name: str, function, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=function)
        sub.add_argument("--json", action="store_true", help="print the record as JSON instead of a table")
        return sub

    verb("doctor", doctor, "What is installed here, what is missing, and what to do about it.")
    export = verb("export", export_onnx, "Checkpoint -> ONNX, compared with PyTorch.")
    build = verb("build", build_engine, "ONNX -> engine.")
    infer = verb("infer", infer_images, "Images -> poses, as JSON and painted pictures.")
    score = verb("eval", evaluate_dataset, "COCO AP and AR of a model on a COCO-format folder.")
    perf = verb("perf", time_engine, "Latency and throughput: network alone, and end to end.")
    verb("report", report, "The table of everything measured so far.")
    for sub in (export, build, infer, score, perf):
        sub.add_argument("--model", default=None, help=f"one of {', '.join(zoo.NETWORKS)} (default {zoo.default_name()})")
        sub.add_argument("--weights", default="demo", help="demo, official, random, or a checkpoint file")
    export.add_argument("--opset", type=int, choices=(11, 17), help="11 for MagicMind, 17 for the others; default both")
    export.add_argument("--force", action="store_true", help="export again even if nothing changed")
    for sub in (build, infer, score, perf):
        sub.add_argument("--backend", default="onnxruntime", help=f"one of {', '.join(backends.names())}")
        sub.add_argument("--precision", default="force_float32", help=f"one of {', '.join(zoo.PRECISIONS)}")
        sub.add_argument("--batch-size", type=_positive, default=1, help="most images in one run of the network")
        sub.add_argument(
            "--dynamic-shape", type=_boolean, default=True, metavar="true|false", help="variable batch, height and width"
        )
        sub.add_argument("--device-id", type=int, default=0, help="number of the card; 0 on a CPU")
    for sub in (infer, score):
        sub.add_argument("--no-flip", action="store_true", help="no flip test: half the time, lower accuracy")
    infer.add_argument("images", nargs="+", type=Path, help="image files or folders")
    infer.add_argument("--out", type=Path, default=None, help="folder for poses.json and painted pictures")
    for sub in (score, perf):
        sub.add_argument("--data", type=Path, default=None, help="COCO-format folder (default: the shipped demo set)")
        sub.add_argument("--split", default="val2017", help="folder and annotation name inside it")
        sub.add_argument("--image-num", type=_positive, default=None, help="a seeded sample of so many images; default all")
        sub.add_argument("--seed", type=int, default=0, help="of the sample")
    score.add_argument("--out", type=Path, default=None, help="file for the results in COCO's format")
    perf.add_argument("--runs", type=_positive, default=20, help="least number of timed runs")
    perf.add_argument("--seconds", type=float, default=3.0, help="least seconds of timed runs")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text}")
    return text.lower() == "true"
