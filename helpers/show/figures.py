"""Figures for the notebooks: maps, tags, steps and poses on the image, and charts: bars, lines, scatter.

    figure = figures.heatmaps(image, maps, transform, ["nose", "left_wrist"], "All people light up in one map")
    figures.save(figure, "data/output/03_heatmaps.png")

Each function returns a matplotlib `Figure`, not registered with pyplot. Images are (H, W, 3) uint8 BGR. People are
drawn as in `draw`, one color each; charts have colors of their own.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Collection, Mapping, Sequence

import cv2
import numpy as np

from helpers.artifacts import atomic_write
from helpers.errors import UsageError
from helpers.keypoints import COCO17
from helpers.measure.oks import compare_poses, match
from helpers.pose.decode import to_image
from helpers.show.draw import KEYPOINT_THRESHOLD, PERSON_COLORS, PERSON_THRESHOLD, confident, draw_poses, enlarged

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from helpers.dataset import GroundTruth
    from helpers.measure.roofline import Cost
    from helpers.pose.decode import Maps, Poses, Steps
    from helpers.pose.preprocess import ResizeTransform

# Paul Tol's "bright" scheme, for color-blind readers too; none of it is a person's color.
CHART_COLORS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
NOBODY = "#9AA3AB"  # people who are not in the reference
INK, QUIET = "#22282E", "#8A949E"
_ASPECT = 4 / 3  # of the images in a gallery
_STYLE = {
    **dict.fromkeys(("axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("font.size", "axes.titlesize"), 11),
    "axes.titlelocation": "left",
    "axes.edgecolor": QUIET,
    "legend.fontsize": 10,
    "figure.facecolor": "white",
}


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a figure as PNG, complete or not at all, and returns the path."""
    with atomic_write(path) as part:
        figure.savefig(part, dpi=110, format="png", bbox_inches="tight", pad_inches=0.12)
    return Path(path)


def _styled(make: Callable[..., Figure]) -> Callable[..., Figure]:
    """Runs a figure function in this module's style, without touching anybody else's."""

    @functools.wraps(make)
    def wrapper(*args, **kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return make(*args, **kwargs)

    return wrapper


def _figure(title: str, wide: float, tall: float, rows: int = 1, columns: int = 1, **grid) -> tuple[Figure, np.ndarray]:
    """Returns a figure of so many inches and its (rows, columns) array of axes."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(wide, tall), layout="constrained")
    if title:
        fig.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    return fig, fig.subplots(rows, columns, squeeze=False, **grid)


@_styled
def gallery(
    images: Sequence[np.ndarray],
    poses: Sequence[Poses] = (),
    captions: Sequence[str] = (),
    columns: int = 3,
    title: str = "",
) -> Figure:
    """Shows images in rows of `columns` at most.

    With `poses`, the people of each image are drawn, and the likely ones counted above it unless there are captions.
    """
    if not images:
        raise UsageError("There is no image to show; give one or more.")
    if poses:
        people = [confident(each) for each in poses]
        captions = captions or [_people(len(each)) for each in people]
        images = list(map(_painted, images, people))
    columns = min(columns, len(images))
    rows, wide = -(-len(images) // columns), 8 if columns == 1 else 4.4
    if len({image.shape for image in images}) > 1:  # so that rows line up
        images = list(map(_letterboxed, images))
    tall = wide * images[0].shape[0] / images[0].shape[1]
    fig, axes = _figure(title, wide * columns, (tall + 0.35) * rows + 0.4, rows, columns)
    for ax, image, caption in itertools.zip_longest(axes.flat, images, captions):
        _show(ax, image, caption or "")
    return fig


@_styled
def truth(image: np.ndarray, poses: Poses, people: GroundTruth, title: str = "") -> Figure:
    """Shows the annotation beside the prediction; a pair has one color, and its OKS stands at the person."""
    faint, poses = (poses.scores < PERSON_THRESHOLD).sum(), confident(poses)
    matches = match(poses, people)
    colors = [PERSON_COLORS[t % len(PERSON_COLORS)] if t >= 0 else NOBODY for t in matches.truth]
    big, [big_poses, big_people] = enlarged(image, poses, people)
    fig, [[left, right]] = _figure(title, 12, 6 * big.shape[0] / big.shape[1] + 0.8, 1, 2)
    _show(left, draw_poses(big, big_people), f"ground truth: {_people(len(people))}")
    more = f", {faint} more with a score below {PERSON_THRESHOLD}" if faint else ""
    _show(right, draw_poses(big, big_poses, colors=colors or PERSON_COLORS), f"found: {_people(len(poses))}{more}")
    for points, oks, color in zip(big_poses.keypoints, matches.oks, colors):
        x, y = points[points[:, 2] > KEYPOINT_THRESHOLD, :2].T
        if len(x):
            text = "no match" if np.isnan(oks) else f"OKS {oks:.2f}"
            box = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": color, "lw": 1.5}
            style = {"ha": "center", "va": "bottom", "fontsize": 10, "bbox": box, "clip_on": True}
            right.text(x.mean(), max(y.min() - 18, 16), text, **style)
    return fig


@_styled
def precisions(image: np.ndarray, found: Mapping[str, Poses], title: str = "") -> Figure:
    """Shows one image decoded in several precisions, the reference first; below the others, each person's change."""
    found = {label: confident(poses) for label, poses in found.items()}
    reference = next(iter(found.values()))
    fig, axes = _figure(title, 5.2 * len(found), 5.2 * image.shape[0] / image.shape[1] + 1.0, 1, len(found))
    for ax, (label, poses) in zip(axes[0], found.items()):
        moved = compare_poses(reference, poses)
        colors = _colors_of_partners(moved.partner, len(poses))
        _show(ax, _painted(image, poses, colors), f"{label}: {_people(len(poses))}")
        for k, color in zip(range(len(reference) if ax is not axes[0, 0] else 0), itertools.cycle(PERSON_COLORS)):
            text = "lost" if moved.partner[k] < 0 else f"OKS {moved.oks[k]:.3f}\n{moved.pixels[k]:.1f} px"
            style = {"color": color, "fontsize": 10, "fontweight": "bold", "ha": "center", "va": "top"}
            ax.text((k + 0.5) / len(reference), -0.02, text, transform=ax.transAxes, **style)
    return fig


def worst(
    images: Sequence[np.ndarray], reference: Sequence[Poses], other: Sequence[Poses], label: str, title: str = ""
) -> Figure:
    """Shows the part of each image with people: above as the reference found them, below the others, named `label`."""
    above, below, captions = [], [], []
    for image, kept, moved in zip(images, map(confident, reference), map(confident, other)):
        changes = compare_poses(kept, moved)
        part, kept, moved = _around_people(image, kept, moved)
        above.append(_painted(part, kept))
        below.append(_painted(part, moved, _colors_of_partners(changes.partner, len(moved))))
        oks = f", mean OKS {changes.oks.mean():.3f}" if len(kept) else ""
        captions.append(f"{label}: {_people(len(moved))}, {(changes.partner < 0).sum()} lost{oks}")
    captions = [f"reference: {_people(len(confident(each)))}" for each in reference] + captions
    return gallery(above + below, captions=captions, columns=len(images), title=title)


@_styled
def heatmaps(
    image: np.ndarray, maps: Maps, transform: ResizeTransform, keypoints: Sequence[str], title: str = ""
) -> Figure:
    """Lays heatmaps over the image, one of each name in `keypoints`."""
    columns = len(keypoints) + 1
    fig, [[first, *others]] = _figure(title, 16, 16 / columns * image.shape[0] / image.shape[1] + 0.7, 1, columns)
    _show(first, image, "input")
    for ax, name in zip(others, keypoints):
        heat = on_image(maps.heatmaps[COCO17.names.index(name)], transform)
        _show_heat(ax, image, heat, name.replace("_", " "))
    return fig


@_styled
def tags(image: np.ndarray, maps: Maps, poses: Poses, transform: ResizeTransform, title: str = "") -> Figure:
    """Shows why grouping works: the tag map, and the tag of every keypoint in the color of the person it went to."""
    poses = confident(poses)
    aspect = image.shape[1] / image.shape[0]
    ratios = {"width_ratios": [aspect, aspect * 1.08, 1.2]}
    fig, [[people, tag_map, dots]] = _figure(title, 4 * (2 * aspect + 1.3), 4.9, 1, 3, gridspec_kw=ratios)
    _show(people, _painted(image, poses), "people, one color each")
    heat = maps.heatmaps.max(axis=0)  # (h, w)
    likeliest = np.take_along_axis(maps.tagmaps[0], maps.heatmaps.argmax(axis=0)[None], 0)[0]  # (h, w)
    low, high = np.percentile(likeliest[heat > 0.3], [2, 98]) if (heat > 0.3).any() else (-1, 1)
    _show(tag_map, _faded(image), "tag of the likeliest keypoint")
    alpha = np.clip(on_image(heat, transform) * 2.5, 0, 1)
    shown = tag_map.imshow(on_image(likeliest, transform), cmap="viridis", vmin=low, vmax=high, alpha=alpha)
    fig.colorbar(shown, ax=tag_map, fraction=0.046, pad=0.02)
    for points, mean, color in zip(poses.keypoints, poses.tags[:, 0], itertools.cycle(PERSON_COLORS)):
        sure = np.flatnonzero(points[:, 2] > 2 * KEYPOINT_THRESHOLD)
        on_input = points[sure, :2] @ transform.matrix[:, :2].T + transform.matrix[:, 2]
        column, row = np.clip((on_input / 4).astype(int), 0, [heat.shape[1] - 1, heat.shape[0] - 1]).T
        dots.axhline(mean, color=color, lw=1, alpha=0.5, zorder=1)
        dots.scatter(sure, maps.tagmaps[0, sure, row, column], s=42, color=color, edgecolor=INK, lw=0.5, zorder=2)
    names = [name.replace("left_", "L ").replace("right_", "R ") for name in COCO17.names]
    dots.set_xticks(range(17), names, rotation=90, fontsize=8)
    dots.set(xlim=(-0.7, 16.7), ylabel="tag", title="tags where keypoints were found")
    return fig


@_styled
def steps(image: np.ndarray, steps: Steps, transform: ResizeTransform, title: str = "") -> Figure:
    """Shows `decode.decode_steps` on one image: heatmaps, peaks, groups, one keypoint adjusted, missing ones filled."""
    fig, axes = _figure(title, 13.2, 2 * (4.3 * image.shape[0] / image.shape[1] + 0.45) + 0.5, 2, 3)
    (heats, candidates, groups), (magnified, filled, result) = axes
    likely = steps.poses.scores >= PERSON_THRESHOLD
    peaks = to_image(np.concatenate(steps.peaks), transform)
    missing = (steps.grouped[likely][..., 2] == 0) & (steps.filled[likely][..., 2] > 0)
    _show_heat(heats, image, on_image(steps.maps.heatmaps.max(axis=0), transform), "1 · heatmaps, the hottest of 17")
    _show(candidates, _faded(image), f"2 · {len(peaks)} peaks, the larger the hotter")
    candidates.scatter(*peaks[:, :2].T, s=6 + 60 * peaks[:, 2], color=CHART_COLORS[0], edgecolor="white", lw=0.6)
    _show_people(groups, image, to_image(steps.grouped, transform), likely)
    groups.set_title(f"3 · grouped by tags: {_people(len(likely))}, the unlikely gray")
    _show_adjusted(magnified, steps)
    _show_people(filled, image, to_image(steps.filled, transform), likely)
    ringed = to_image(steps.filled[likely], transform)[missing]
    filled.scatter(*ringed[:, :2].T, s=170, facecolor="none", edgecolor=INK, lw=1.6)
    filled.set_title(f"5 · filled: {len(ringed)} missing keypoints of the likely, ringed")
    caption = f"result: {_people(likely.sum())} with a score of {PERSON_THRESHOLD} or more"
    _show(result, _painted(image, steps.poses), caption)
    for ax in (heats, candidates, groups, filled):
        ax.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
    return fig


def on_image(values: np.ndarray, transform: ResizeTransform) -> np.ndarray:
    """Enlarges one map (h, w) of the network and places it on the original image, (H, W) float32."""
    large = cv2.resize(np.ascontiguousarray(values, np.float32), transform.base_size, interpolation=cv2.INTER_LINEAR)
    return cv2.warpAffine(large, transform.matrix, transform.image_size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


@_styled
def agreement(reference: np.ndarray, output: np.ndarray, title: str = "") -> Figure:
    """Shows every output value (34, h, w) of an engine against the reference: a thin diagonal if nothing is lost."""
    fig, axes = _figure(title, 9, 4.4, 1, 2)
    for ax, name, wanted, found in zip(axes[0], ("heatmaps", "tags"), np.split(reference, 2), np.split(output, 2)):
        low, high = min(wanted.min(), found.min()), max(wanted.max(), found.max())
        counts, *_ = np.histogram2d(wanted.ravel(), found.ravel(), bins=120, range=[[low, high]] * 2)
        ax.plot([low, high], [low, high], color=CHART_COLORS[1], lw=0.8)
        shown = np.ma.log10(np.ma.masked_equal(counts.T, 0))
        ax.imshow(shown, origin="lower", extent=[low, high] * 2, cmap="viridis", zorder=2)
        ax.set(xlabel="reference", ylabel="engine")
        ax.set_title(f"{name}: largest difference {np.abs(wanted - found).max():.1e}")
    return fig


@_styled
def histograms(found: Mapping[str, tuple[np.ndarray, np.ndarray, float, float]], title: str = "") -> Figure:
    """Shows the values of layers and the range that 256 steps cover, as `quantize.histograms` returns them."""
    fig, axes = _figure(title, 3.3 * len(found), 3.4, 1, len(found))
    for ax, (layer, (counts, edges, low, high)) in zip(axes[0], found.items()):
        ax.fill_between(edges[:-1], np.maximum(counts, 0.5), 0.5, step="post", color=CHART_COLORS[4])
        for end in (low, high):
            ax.axvline(end, color=CHART_COLORS[1], lw=1.8)
        ax.set(yscale="log", title=layer_name(layer), xlabel=f"one step: {(high - low) / 255:.2g}")
    axes[0, 0].set_ylabel("values, logarithmic")
    return fig


@_styled
def roofline(
    networks: Mapping[str, tuple[Cost, float]], peak_gflops: float, peak_gbs: float, title: str = ""
) -> Figure:
    """Shows whether memory (below the slope) or arithmetic (below the roof) limits each network.

    `networks` gives the cost of one run and its seconds, `peak_gflops` and `peak_gbs` what the machine reaches at most.
    Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model" (2009).
    """
    fig, [[ax]] = _figure(title, 9, 4.4)
    ridge = peak_gflops / peak_gbs
    intensities = [cost.intensity for cost, _ in networks.values()]
    low, high = min(ridge, *intensities) / 4, max(ridge, *intensities) * 4
    ax.plot([low, ridge, high], [low * peak_gbs, peak_gflops, peak_gflops], color=INK, lw=2)
    ax.text(high, peak_gflops, f"matrix product: {peak_gflops:.0f} GFLOP/s", ha="right", va="bottom", fontsize=10)
    ax.text(low * 1.1, low * peak_gbs, f"   memory: {peak_gbs:.0f} GB/s", va="center", fontsize=10)
    rates = [cost.gflop / seconds for cost, seconds in networks.values()]
    for color, label, at, rate in zip(itertools.cycle(CHART_COLORS), networks, intensities, rates):
        roof = min(peak_gflops, at * peak_gbs)
        ax.plot([at, at], [rate, roof], color=color, lw=1, ls=":")
        ax.plot(at, rate, "o", ms=10, color=color, label=f"{label}: {rate:.0f} GFLOP/s, {rate / roof:.0%} of the roof")
    bottom, top = min(low * peak_gbs, *rates) / 1.6, 1.6 * max(peak_gflops, *rates)
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(bottom, top))
    _number_log(ax.xaxis)
    _number_log(ax.yaxis)
    ax.set(xlabel="operations per byte moved", ylabel="10⁹ operations per second")
    ax.legend(loc="lower right")
    return fig


def layer_name(layer: str) -> str:
    """Returns the part of a layer's name that tells it from others."""
    return "/".join([part for part in layer.split("/") if part not in ("", "network", "Conv", "conv")][-2:])


@_styled
def bars(
    values: Mapping[str, Mapping[str, float | None]],
    title: str = "",
    label: str = "",
    form: str = "{:.1f}",
    stacked: bool = False,
    limit: float | None = None,
    spread: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> Figure:
    """Draws a bar for each series -> category -> value, unless it is None; `form` writes a value, or a stack's total.

    Args:
        label: of the values' axis.
        limit: value to mark with a line, on a logarithmic axis.
        spread: series -> category -> (low, high) of a line over the bar.
    """
    names = list(dict.fromkeys(name for series in values.values() for name in series))
    lanes = 1 if stacked else len(values)
    _, [[ax]] = _figure(title, 9, 0.36 * len(names) * lanes**0.7 + 1.8)
    ends = np.zeros(len(names))
    for k, (color, (series, given)) in enumerate(zip(itertools.cycle(CHART_COLORS), values.items())):
        sizes = [given.get(name) for name in names]
        at = np.arange(len(names)) + (0 if stacked else (k + 0.5) / lanes - 0.5) * 0.8
        left = ends.copy() if stacked else None
        ax.barh(at, [size or 0 for size in sizes], 0.74 / lanes, left, color=color, label=series)
        ends += [size or 0 for size in sizes]
        for y, name, size in zip(at, names, sizes):
            line = (spread or {}).get(series, {}).get(name, ())
            if len(line):
                ax.plot(line, [y, y], color=INK, lw=1.3)
            if size is not None and not stacked:
                _write_at_end(ax, form.format(size), y, size, *line)
    for y, total in enumerate(ends if stacked else ()):
        _write_at_end(ax, form.format(total), y, total)
    ax.margins(x=0.14)
    if limit:
        ax.set_xscale("log")
        ax.axvline(limit, color=INK, lw=2, ls="--")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    return _labelled(ax, label)


@_styled
def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    form: str = "",
    log: bool = False,
    dashed: Collection[str] = (),
) -> Figure:
    """Draws a line through the points (x, y) of each series, y written by `form`; both axes logarithmic with `log`.

    Series in `dashed` get no points: they show an expectation, not a measurement.
    """
    _, [[ax]] = _figure(title, 9, 4.2)
    for color, (label, (x, y)) in zip(itertools.cycle(CHART_COLORS), series.items()):
        style = {"ls": "--", "color": QUIET} if label in dashed else {"marker": "o", "ms": 7, "color": color}
        ax.plot(x, y, lw=2.2, label=label, **style)
        for at, value in zip(x, y) if form and label not in dashed else ():
            ax.annotate(form.format(value), (at, value), (0, 9), textcoords="offset points", ha="center", fontsize=9)
    places = sorted({float(at) for x, _ in series.values() for at in x})
    heights = [height for _, y in series.values() for height in y]
    if log:
        ax.set(xscale="log", yscale="log", ylim=(min(heights) / 1.5, max(heights) * 2.5))
        _number_log(ax.yaxis)
    else:
        ax.set_ylim(0, 1.15 * max(heights))
    if len(places) < 8 and all(place.is_integer() for place in places):  # counts of something
        ax.set_xticks(places, [f"{place:g}" for place in places])
        ax.set_xticks([], minor=True)
    return _labelled(ax, xlabel, ylabel)


@_styled
def scatter(
    series: Mapping[str, tuple[Sequence, Sequence[float]]],
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    spread: Mapping[str, Sequence[float]] | None = None,
    front: bool = False,
) -> Figure:
    """Draws the points (x, y) of each series; x may be names.

    Args:
        spread: label -> (low, high) of a line through its only point.
        front: join the points that no other beats in both, less x and more y (Pareto).
    """
    _, [[ax]] = _figure(title, 9, 4.2)
    for color, (label, (x, y)) in zip(itertools.cycle(CHART_COLORS), series.items()):
        ax.scatter(x, y, s=60, color=color, alpha=0.85, label=label, zorder=2)
        if spread:
            ax.plot([x[0], x[0]], spread[label], color=color, lw=1.5, zorder=2)
    if front:
        points = sorted(point for x, y in series.values() for point in zip(x, y))
        best = [point for k, point in enumerate(points) if all(point[1] > other[1] for other in points[:k])]
        ax.step(*zip(*best), where="post", color=QUIET, lw=1.5, zorder=1)
        ax.set_xlim(0, 1.15 * points[-1][0])
    ax.margins(0.12, 0.2)
    return _labelled(ax, xlabel, ylabel)


def _show(ax: Axes, image: np.ndarray | None, title: str = "") -> None:
    """Shows an image, or nothing, without axes."""
    ax.axis("off")
    if image is not None:
        ax.imshow(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        ax.set_title(title)


def _painted(image: np.ndarray, poses: Poses, colors: Sequence[str] = PERSON_COLORS) -> np.ndarray:
    big, [scaled] = enlarged(image, poses)
    return draw_poses(big, scaled, colors=colors)


def _show_heat(ax: Axes, image: np.ndarray, heat: np.ndarray, title: str) -> None:
    _show(ax, _faded(image), title)
    ax.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(heat * 2.2, 0, 0.92))


def _show_people(ax: Axes, image: np.ndarray, people: np.ndarray, likely: np.ndarray) -> None:
    """Shows (P, 17, 3) people on a faded image, the likely ones in color, the others thin and gray."""
    from matplotlib.collections import LineCollection

    _show(ax, _faded(image))
    bones = np.array(COCO17.skeleton)
    colors = np.full(len(people), QUIET, object)
    colors[likely] = list(itertools.islice(itertools.cycle(PERSON_COLORS), int(likely.sum())))
    for chosen, width, dot in ((~likely, 0.7, 2), (likely, 2.2, 18)):
        some, hue = people[chosen], colors[chosen]
        person, bone = np.nonzero((some[:, bones, 2] > 0).all(axis=2))
        ends = some[person[:, None], bones[bone], :2]  # (bones, 2, 2)
        ax.add_collection(LineCollection(ends, colors=list(hue[person]), linewidths=width, zorder=2))
        person, keypoint = np.nonzero(some[..., 2] > 0)
        ax.scatter(*some[person, keypoint, :2].T, s=dot, color=list(hue[person]), zorder=2)


def _show_adjusted(ax: Axes, steps: Steps) -> None:
    """Shows step 4 magnified: the hottest keypoint's pixels, and the quarter of one by which it moves."""
    ax.axis("off")
    if not len(steps.grouped):
        return
    person, keypoint = np.unravel_index(steps.grouped[..., 2].argmax(), steps.grouped.shape[:2])
    x, y = steps.grouped[person, keypoint, :2].astype(int)
    left, top = max(x - 3, 0), max(y - 3, 0)
    part = cv2.resize(steps.maps.heatmaps[keypoint], None, fx=4, fy=4)[top : y + 4, left : x + 4]
    right, bottom = left + part.shape[1], top + part.shape[0]
    ax.imshow(part, cmap="inferno", extent=[left, right, bottom, top])
    ax.vlines(range(left, right + 1), top, bottom, color="white", lw=0.3)
    ax.hlines(range(top, bottom + 1), left, right, color="white", lw=0.3)
    end = steps.adjusted[person, keypoint, :2]
    ax.plot([x + 0.5, end[0]], [y + 0.5, end[1]], color=CHART_COLORS[4], lw=2)
    ax.plot(x + 0.5, y + 0.5, "o", color="white", mec=INK, ms=7)
    ax.plot(*end, "o", color=CHART_COLORS[4], mec="white", ms=9)
    ax.set_title(f"4 · adjusted: the {COCO17.names[keypoint].replace('_', ' ')}, a quarter pixel")


def _colors_of_partners(partner: np.ndarray, count: int) -> list[str]:
    """Gives each of `count` people the color of the reference's person whose partner they are."""
    colors = [NOBODY] * max(count, 1)
    for person, index in enumerate(partner):
        if index >= 0:
            colors[index] = PERSON_COLORS[person % len(PERSON_COLORS)]
    return colors


def _around_people(image: np.ndarray, *groups: Poses) -> tuple[np.ndarray | Poses, ...]:
    """Returns the part of an image around the people in it, and the groups in its pixels."""
    points = np.concatenate([group.keypoints[group.keypoints[..., 2] > KEYPOINT_THRESHOLD] for group in groups])[:, :2]
    if not len(points):
        return (image, *groups)
    size = np.array(image.shape[1::-1])
    margin = 0.15 * np.ptp(points, axis=0).max() + 4
    left, top = np.clip(points.min(axis=0) - margin, 0, size - 1).astype(int)
    right, bottom = np.clip(points.max(axis=0) + margin, (left + 1, top + 1), size).astype(int)
    corner = np.float32([left, top, 0])
    moved = [type(group)(group.keypoints - corner, group.scores, group.tags) for group in groups]
    return (image[top:bottom, left:right], *moved)


def _letterboxed(image: np.ndarray) -> np.ndarray:
    """Centers an image on a light ground of the gallery's shape."""
    h, w, _ = image.shape
    side, above = max(round(h * _ASPECT) - w, 0) // 2, max(round(w / _ASPECT) - h, 0) // 2
    return cv2.copyMakeBorder(image, above, above, side, side, cv2.BORDER_CONSTANT, value=(245, 243, 241))


def _faded(image: np.ndarray) -> np.ndarray:
    """Makes the image a pale gray ground, on which colors of any lightness show."""
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return (gray * 0.35 + 150).astype(np.uint8)


def _people(count: int) -> str:
    return f"{count} {'person' if count == 1 else 'people'}"


def _number_log(axis: Axis) -> None:
    """Marks a logarithmic axis with plain numbers: 1, 2, 5, 10 ..."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter("")


def _write_at_end(ax: Axes, text: str, y: float, *values: float) -> None:
    """Writes beside a bar, beyond its value and whatever else is drawn over it."""
    end, side = (max(values), "left") if values[0] >= 0 else (min(values), "right")
    shift = (4 if side == "left" else -4, 0)
    ax.annotate(text, (end, y), shift, textcoords="offset points", ha=side, va="center", fontsize=9)


def _labelled(ax: Axes, xlabel: str, ylabel: str = "") -> Figure:
    """Names the axes and, if there are several, the series; returns the figure."""
    ax.set(xlabel=xlabel, ylabel=ylabel)
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1:
        ax.figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return ax.figure
