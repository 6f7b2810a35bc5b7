"""Records -> rows of tables, for the terminal, notebooks and the report page; and the one rule of what is comparable.

    print(align(closing(records, "force_float32")))

Published figures stand beside ours only where both are of the same network, weights and images (`comparable`).
Elsewhere they appear only as changes: what a precision changes there, beside what it changes here.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence

from helpers import zoo

if TYPE_CHECKING:
    from helpers.backends.mm_run import CardTiming
    from helpers.measure.benchmark import EndToEndTiming, NetworkTiming
    from helpers.measure.records import Record

# `records.ids_sha256` of the 5000 images of COCO val2017.
COCO_VAL2017 = "1d158ad41c99a053bef0f51e7468b7f183408dec16e5f8162fdfa2203104ba04"


def align(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as a Markdown table whose columns line up in a terminal; a key that a row lacks is an empty cell."""
    if not rows:
        return "(no records)"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns] + [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def scored(record: Record) -> bool:
    """Whether a record has an accuracy worth the name: random weights find noise, a simulator is not the card."""
    return record.ap is not None and record.weights != "random" and not record.simulated


def comparable(record: Record) -> bool:
    """Whether a record's accuracy is of what was published: official weights, all of COCO val2017, flip test."""
    network = zoo.NETWORKS.get(record.model)
    published_here = network is not None and record.precision in network.published
    same = record.weights == "official" and record.image_ids_sha256 == COCO_VAL2017 and record.flip_test
    return scored(record) and published_here and same


def closing(records: Sequence[Record], precision: str, shipped: Sequence[Record] = ()) -> list[dict[str, Any]]:
    """Returns the closing table: accuracy and speed of every network of the zoo in one precision.

    Of several accuracies the one on most images counts, of several speeds the latest. `shipped`, measured elsewhere,
    stands for accuracy that was not measured here.
    """
    return [
        {
            "model": name,
            **_closing_accuracy(name, precision, records, shipped),
            **_closing_speed([each for each in records if (each.model, each.precision) == (name, precision)]),
        }
        for name in zoo.NETWORKS
    ]


def published(records: Sequence[Record], cells: Sequence[tuple[str, str]] | None = None) -> list[dict[str, Any]]:
    """Returns the published table with ours beside it, figures in percent, and a verdict where there can be one.

    float32 and float16 hold (`yes:`, else `no:`) if AP is within `zoo.TOLERANCE` of the published float32; int8 if it
    loses less against our float32 than was lost there. `cells`: (model, precision); by default all that are published.
    """
    measured = {(each.model, each.precision): each for each in records if each.ap is not None}
    if cells is None:
        cells = [(name, precision) for name, network in zoo.NETWORKS.items() for precision in network.published]
    return [_published_row(*cell, measured.get(cell), measured.get((cell[0], "force_float32"))) for cell in cells]


def sweep(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Returns the table that closes a sweep over networks, batch sizes and precisions: a row for each record."""
    return [{name: value for name, value in figures.items() if value is not None} for figures in map(_figures, records)]


def timings(network: NetworkTiming | CardTiming, end_to_end: EndToEndTiming, tool: str = "") -> list[dict[str, Any]]:
    """Returns percentiles and throughput, a row each; `tool` timed the network, if not this project."""
    alone = f"network only{tool and f' by {tool}'}, batch {network.batch_size}"
    named = {alone: (network, "runs"), "end to end, flip test": (end_to_end, "images")}
    return [
        {
            "milliseconds per run or image": name,
            **{key: f"{ms:.1f}" for key, ms in dataclasses.asdict(timing.latency).items()},
            "images/s": f"{timing.images_per_s:.2f}",
            "of": f"{timing.runs} {unit}",
        }
        for name, (timing, unit) in named.items()
    ]


def _float32_of(record: Record, records: Iterable[Record]) -> Record | None:
    """The latest float32 record that a record's accuracy can be compared with: all else is equal."""
    alike = operator.attrgetter("model", "weights", "backend", "input_type", "dataset", "images", "image_ids_sha256")
    exact = (each for each in records if each.precision == "force_float32" and scored(each))
    same = [each for each in exact if alike(each) == alike(record)]
    return max(same, key=lambda each: each.when or "", default=None)


def _closing_accuracy(model: str, precision: str, here: Sequence[Record], shipped: Sequence[Record]) -> dict[str, Any]:
    """Accuracy here, and what is published about it."""
    mine, elsewhere = (
        [each for each in some if (each.model, each.precision) == (model, precision) and scored(each)]
        for some in (here, shipped)
    )
    best = max(mine or elsewhere, key=lambda each: (each.images or 0, each.when or ""), default=None)
    if best is None:
        return {"AP": "not measured", **_changes(model, precision, None, None)}
    where = "" if mine else ", shipped figure"
    row = {
        "AP": f"{best.ap:.4f}",
        "AR": "" if best.ar is None else f"{best.ar:.4f}",
        "scored on": f"{best.images} images of {best.dataset}, {best.weights} weights{where}",
    }
    if comparable(best):
        there = zoo.get(model).published[precision]
        row.update({"AP published": f"{there.ap / 100:.4f}", "AR published": f"{there.ar / 100:.4f}"})
    return {**row, **_changes(model, precision, best, _float32_of(best, here if mine else shipped))}


def _closing_speed(records: Sequence[Record]) -> dict[str, Any]:
    """The latest speed."""
    timed = [each for each in records if each.latency_ms is not None and not each.simulated]
    if not timed:
        return {}
    last = max(timed, key=lambda each: each.when or "")
    row = {"p50 ms": f"{last.latency_ms.p50:.0f}", "p99 ms": f"{last.latency_ms.p99:.0f}"}
    if last.images_per_s is not None:
        row["images/s"] = f"{last.images_per_s:.1f}"
    if last.whole_images_per_s is not None:
        row["end to end ms"] = f"{1e3 / last.whole_images_per_s:.0f}"
    return {**row, "timed with": f"{last.weights} weights, {last.backend}, batch {last.batch_size}"}


def _published_row(model: str, precision: str, record: Record | None, float32: Record | None) -> dict[str, Any]:
    row: dict[str, Any] = {"model": model, "precision": precision, "verdict": _verdict(record, float32)}
    if record is not None:
        row["images"] = record.images
    for name in ("AP", "AR"):
        value = getattr(record, name.lower(), None)
        if value is not None:
            row[name] = f"{100 * value:.2f}"
        if record is not None and comparable(record):
            there = getattr(zoo.get(model).published[precision], name.lower())
            row[f"{name} published"] = f"{there:.2f}"
            row[f"{name} difference"] = f"{100 * value - there:+.2f}"
    if record is not None and record.ap_interval:
        row["AP, 95 %"] = "{:.1f} to {:.1f}".format(*(100 * value for value in record.ap_interval))
    row.update(_changes(model, precision, record, float32))
    if record is not None and record.calibration:
        row["calibrated with"] = record.calibration
    return row


def _changes(model: str, precision: str, record: Record | None, float32: Record | None) -> dict[str, str]:
    """What a precision changes in AP against float32, in points: here, and as published."""
    there, row = zoo.get(model).published, {}
    if precision == "force_float32":
        return row
    if record is not None and record.ap_change is not None:
        row["AP change"] = f"{100 * record.ap_change:+.2f}"
        if record.ap_change_interval:
            row["AP change"] += " ({:+.2f} to {:+.2f})".format(*(100 * value for value in record.ap_change_interval))
    elif record is not None and float32 is not None:
        row["AP change"] = f"{100 * (record.ap - float32.ap):+.2f}"
    if precision in there:
        row["published change"] = f"{there[precision].ap - there['force_float32'].ap:+.2f}"
    return row


def _verdict(record: Record | None, float32: Record | None) -> str:
    """Whether a cell holds beside what is published."""
    if record is None:
        return "not measured"
    if record.weights != "official":
        return f"none: {record.weights} weights"
    if not comparable(record):
        return f"none: {record.images} images of {record.dataset}, not all {zoo.PUBLISHED_IMAGES} of COCO val2017"
    there = zoo.get(record.model).published
    if record.precision.startswith("qint"):
        if float32 is None or not comparable(float32):
            return "needs float32, to see the loss"
        loss = 100 * (float32.ap - record.ap)
        lost_there = there["force_float32"].ap - there[record.precision].ap
        holds, text = loss < lost_there, f"loses {loss:.2f}, published {lost_there:.2f}"
    else:
        away = abs(100 * record.ap - there["force_float32"].ap)
        holds = away <= zoo.TOLERANCE
        text = f"{away:.2f} from {there['force_float32'].ap:.2f}, allowed {zoo.TOLERANCE}"
    return f"{'yes' if holds else 'no'}: {text}"


def _figures(record: Record) -> dict[str, Any]:
    return {
        "model": record.model,
        "weights": record.weights,
        "precision": record.precision,
        "batch": record.batch_size,
        "AP": record.ap,
        "AR": record.ar,
        "p50 ms": record.latency_ms and record.latency_ms.p50,
        "p99 ms": record.latency_ms and record.latency_ms.p99,
        "images/s": record.images_per_s,
        "end to end images/s": record.whole_images_per_s,
        "memory MB": record.peak_memory_mb,
        "load s": record.load_s,
        "build s": record.build_s,
        "model MB": record.model_bytes and record.model_bytes / 1e6,
    }


def _text(value: Any) -> str:
    """A cell: four significant digits, which AP needs and milliseconds allow."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
