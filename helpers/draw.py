"""Pictures of what goes in, what comes out, and what it cost.

`draw_poses` paints onto an image with OpenCV alone, for a container or a video. Everything else gives a matplotlib
`Figure`, never shown and never on a global list: `save(figure, path)` writes it, a notebook displays the file.
One hue per person, from a palette that colour-blind readers can tell apart; a person's right side is darker.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Mapping, Sequence

import cv2
import numpy as np

from helpers.dataset import KEYPOINT_NAMES, SKELETON, People
from helpers.decode import Maps, Poses
from helpers.evaluate import match
from helpers.paths import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helpers.benchmark import EndToEndTiming, NetworkTiming
    from helpers.preprocess import ResizeTransform

# Okabe and Ito (2008), "Color Universal Design", RGB; yellow last, it is the weakest on light ground.
PERSON_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#D55E00", "#0072B2", "#F0E442")
INK, QUIET, ACCENT, SECOND = "#22282E", "#8A949E", "#0072B2", "#D55E00"
_SHORT_SIDE = 640  # pictures are enlarged to this before painting, so that lines and dots stay fine
_STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
}

# -- on pixels ---------------------------------------------------------------------------------------------------


def draw_poses(
    image: np.ndarray,
    poses: Poses | People,
    joint_threshold: float = 0.1,
    person_threshold: float = 0.1,
    colours: Sequence[str] = PERSON_COLOURS,
) -> np.ndarray:
    """Paints skeletons.

    Args:
        image: (H, W, 3) uint8 BGR.
        poses: found people (their joint scores decide what is painted) or annotated people (labelled joints).
        joint_threshold: joints with a lower score are left out, with their bones.
        person_threshold: people with a lower score are left out.
        colours: one hex colour per person, repeated as needed.

    Returns:
        A painted copy, (H, W, 3) uint8 BGR.
    """
    out = np.ascontiguousarray(image).copy()
    size = min(image.shape[:2])
    thick = max(1, round(size / 170))
    truth = isinstance(poses, People)
    for k, points in enumerate(poses.keypoints):
        if not truth and poses.scores[k] < person_threshold:
            continue
        shown = np.isfinite(points).all(1) & (points[:, 2] > (0 if truth else joint_threshold))
        colour = np.array(_bgr(colours[k % len(colours)]))
        for a, b in SKELETON:
            if shown[a] and shown[b]:
                tone = colour * (0.62 if "right" in KEYPOINT_NAMES[a] and "right" in KEYPOINT_NAMES[b] else 1)
                _line(out, points[a], points[b], (20, 20, 20), thick + 2)
                _line(out, points[a], points[b], tone, thick)
        for j in np.flatnonzero(shown):
            tone = colour * (0.62 if "right" in KEYPOINT_NAMES[j] else 1)
            _dot(out, points[j], (255, 255, 255), thick * 1.25 + 1)
            _dot(out, points[j], tone, thick * 1.25)
    return out


def _bgr(hex_colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(hex_colour[k : k + 2], 16) for k in (1, 3, 5))
    return blue, green, red


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """Image pixels to OpenCV's fixed point with four binary digits; far-away points are kept in its range."""
    x, y = np.clip(np.asarray(point[:2], float), -8000, 8000) * 16
    return round(float(x)), round(float(y))


def _line(image: np.ndarray, a: np.ndarray, b: np.ndarray, colour: Sequence[float], thick: int) -> None:
    cv2.line(image, _fixed(a), _fixed(b), [float(c) for c in colour], thick, cv2.LINE_AA, 4)


def _dot(image: np.ndarray, point: np.ndarray, colour: Sequence[float], radius: float) -> None:
    cv2.circle(image, _fixed(point), round(radius * 16), [float(c) for c in colour], -1, cv2.LINE_AA, 4)


def _enlarged(image: np.ndarray, *groups: Poses | People) -> tuple[np.ndarray, list[Poses | People]]:
    """A small picture and the people in it, scaled up together for painting."""
    scale = max(_SHORT_SIDE / min(image.shape[:2]), 1.0)
    big = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    scaled = []
    for group in groups:
        points = np.array(group.keypoints, np.float64)
        points[..., :2] = (points[..., :2] + 0.5) * scale - 0.5
        if isinstance(group, People):
            scaled.append(People(points, group.bbox * scale, group.area * scale**2))
        else:
            scaled.append(Poses(points, group.scores, group.tags))
    return big, scaled


def _show(axes: Axes, image: np.ndarray, title: str = "") -> None:
    axes.imshow(cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else image)
    axes.set_title(title)
    axes.axis("off")


# -- figures ------------------------------------------------------------------------------------------------------


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **grid) -> tuple[Figure, np.ndarray]:
    """A figure of this module's style, not registered with pyplot.

    Args:
        width, height: inches.
        rows, columns: number of axes.
        grid: further arguments of `Figure.subplots`.

    Returns:
        (figure, (rows, columns) array of axes).
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        fig = Figure(figsize=(width, height), layout="constrained")
        return fig, fig.subplots(rows, columns, squeeze=False, **grid)


def save(fig: Figure, path: str | Path, dpi: int = 110) -> Path:
    """Writes a figure as PNG, complete or not at all, and returns the path."""
    import matplotlib

    with matplotlib.rc_context(_STYLE), atomic_write(path) as unfinished:
        fig.savefig(unfinished, dpi=dpi, format="png")
    return Path(path)


def poses_figure(images: Sequence[np.ndarray], found: Sequence[Poses], columns: int = 3, title: str = "") -> Figure:
    """A gallery: every picture with its skeletons.

    Args:
        images: (H, W, 3) uint8 BGR each.
        found: the poses of each.
        columns: pictures per row.
        title: what to see.
    """
    rows = -(-len(images) // columns)
    fig, axes = figure(4.2 * columns, 3.4 * rows + 0.4, rows, columns)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, poses in zip(axes.flat, images, found):
        big, [scaled] = _enlarged(image, poses)
        count = f"{len(poses)} {'person' if len(poses) == 1 else 'people'}"
        _show(ax, draw_poses(big, scaled), count)
        ax.title.set_fontweight("normal")
    fig.suptitle(title, fontweight="bold", x=0.01, ha="left")
    return fig


def truth_figure(image: np.ndarray, poses: Poses, people: People, title: str = "") -> Figure:
    """The annotation beside the prediction; a pair has one colour, and its OKS stands at the person.

    Args:
        image: (H, W, 3) uint8 BGR.
        poses: the people found.
        people: the people annotated.
        title: what to see.
    """
    matches = match(poses, people)
    false_colour = "#9AA3AB"
    colours = [PERSON_COLOURS[t % len(PERSON_COLOURS)] if t >= 0 else false_colour for t in matches.truth]
    big, [big_poses, big_people] = _enlarged(image, poses, people)
    fig, axes = figure(12, 12 * big.shape[0] / big.shape[1] / 2 + 0.9, 1, 2)
    _show(axes[0, 0], draw_poses(big, big_people), f"annotated: {len(people)}")
    _show(axes[0, 1], draw_poses(big, big_poses, colours=colours or PERSON_COLOURS), f"found: {len(poses)}")
    for points, oks, colour in zip(big_poses.keypoints, matches.oks, colours):
        sure = points[points[:, 2] > 0.1]
        if not len(sure):
            continue
        x, y = sure[:, 0].mean(), max(sure[:, 1].min() - 18, 16)
        label = "no match" if np.isnan(oks) else f"OKS {oks:.2f}"
        box = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": colour, "lw": 1.5}
        axes[0, 1].text(x, y, label, ha="center", va="bottom", fontsize=10, bbox=box, clip_on=True)
    fig.suptitle(title, fontweight="bold", x=0.01, ha="left")
    return fig


def heatmap_figure(
    image: np.ndarray, maps: Maps, transform: ResizeTransform, joints: Sequence[str], title: str = ""
) -> Figure:
    """Heatmaps laid over the picture, in the picture's own coordinates.

    Args:
        image: (H, W, 3) uint8 BGR.
        maps: the network's aligned outputs (`helpers.decode.align_maps`).
        transform: from `resize_align`.
        joints: names from `KEYPOINT_NAMES`.
        title: what to see.
    """
    fig, axes = figure(3.9 * (len(joints) + 1), 3.4, 1, len(joints) + 1)
    _show(axes[0, 0], image, "input")
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    for ax, joint in zip(axes[0, 1:], joints):
        heat = to_picture(maps.heatmaps[KEYPOINT_NAMES.index(joint)], transform)
        _show(ax, grey, joint.replace("_", " "))
        ax.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(heat * 2.2, 0, 0.92))
    fig.suptitle(title, fontweight="bold", x=0.01, ha="left")
    return fig


def to_picture(cells: np.ndarray, transform: ResizeTransform) -> np.ndarray:
    """One map (h, w) of the network, enlarged and placed on the original picture: (H, W) float32."""
    width, height = transform.base_size
    large = cv2.resize(np.ascontiguousarray(cells, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.warpAffine(large, transform.matrix, transform.image_size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def tag_figure(image: np.ndarray, maps: Maps, poses: Poses, transform: ResizeTransform, title: str = "") -> Figure:
    """Why grouping works: the tag map, and the tags of every joint, coloured by the person they were given to.

    Args:
        image: (H, W, 3) uint8 BGR.
        maps: the network's aligned outputs.
        poses: what was decoded from them.
        transform: from `resize_align`.
        title: what to see.
    """
    fig, axes = figure(15, 4.6, 1, 3, gridspec_kw={"width_ratios": [1, 1, 1.15]})
    big, [scaled] = _enlarged(image, poses)
    _show(axes[0, 0], draw_poses(big, scaled), "people, one colour each")
    sure = np.clip(maps.heatmaps, 0, 1)
    weight = sure.max(0)
    strongest = np.take_along_axis(maps.tagmaps[0], sure.argmax(0)[None], 0)[0]
    tags, alpha = to_picture(strongest, transform), np.clip(to_picture(weight, transform) * 2.5, 0, 1)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    _show(axes[0, 1], (grey * 0.35).astype(np.uint8), "tag of the likeliest joint")
    limits = np.percentile(strongest[weight > 0.3], [2, 98]) if (weight > 0.3).any() else (-1, 1)
    shown = axes[0, 1].imshow(tags, cmap="turbo", vmin=limits[0], vmax=limits[1], alpha=alpha)
    fig.colorbar(shown, ax=axes[0, 1], fraction=0.046, pad=0.02)
    ax = axes[0, 2]
    for k, points in enumerate(poses.keypoints):
        colour = PERSON_COLOURS[k % len(PERSON_COLOURS)]
        here = np.flatnonzero(points[:, 2] > 0.2)
        cells = _cells(points[here, :2], maps, transform)
        values = maps.tagmaps[0, here, cells[:, 1], cells[:, 0]]
        ax.axhline(poses.tags[k, 0], color=colour, lw=1, alpha=0.5, zorder=1)
        ax.scatter(here, values, s=42, color=colour, edgecolor=INK, linewidth=0.5, zorder=2)
    ax.set_xticks(range(17), [n.replace("left_", "L ").replace("right_", "R ") for n in KEYPOINT_NAMES], rotation=90, fontsize=8)
    ax.set_ylabel("tag")
    ax.set_title("tags at the joints found: one level per person")
    fig.suptitle(title, fontweight="bold", x=0.01, ha="left")
    return fig


def _cells(points: np.ndarray, maps: Maps, transform: ResizeTransform) -> np.ndarray:
    """Picture pixels (n, 2) to the network's output cells, (n, 2) int64 column and row, kept inside."""
    on_input = points @ transform.matrix[:, :2].T + transform.matrix[:, 2]
    return np.clip((on_input / 4).astype(np.int64), 0, [maps.width - 1, maps.height - 1])


def check_figure(rows: Sequence, tolerance: float, title: str = "") -> Figure:
    """The worst difference between PyTorch and ONNX per shape and batch, against what is allowed.

    Args:
        rows: `helpers.export.CheckRow`s.
        tolerance: allowed share of the output's range.
        title: what to see.
    """
    fig, axes = figure(9, 0.42 * len(rows) + 1.7)
    ax = axes[0, 0]
    names = [f"opset {r.opset}: {r.batch} x 3 x {r.height} x {r.width}" for r in rows]
    ax.barh(names, [max(r.relative, 1e-9) for r in rows], color=ACCENT, height=0.62)
    ax.axvline(tolerance, color=SECOND, lw=2)
    ax.text(tolerance * 0.8, len(rows) - 0.4, "allowed", color=SECOND, va="bottom", ha="right")
    ax.set_xscale("log")
    ax.set_xlim(1e-8, tolerance * 4)
    ax.invert_yaxis()
    ax.set_xlabel("largest absolute error / range of the output")
    ax.set_title(title)
    return fig


def latency_figure(timings: Mapping[str, NetworkTiming], title: str = "") -> Figure:
    """Every run as a step of an empirical distribution: the tail shows, not just the mean.

    Args:
        timings: label -> timing of the network alone.
        title: what to see.
    """
    fig, axes = figure(9, 3.6)
    ax = axes[0, 0]
    for colour, (label, timing) in zip(_cycle(len(timings)), timings.items()):
        ms = np.sort(timing.samples_s) * 1e3
        share = np.arange(1, len(ms) + 1) / len(ms)
        ax.step(np.r_[ms[0], ms], np.r_[0, share], where="post", color=colour, lw=2)
        ax.text(ms[-1], 1.02, f"{label}\np50 {np.median(ms):.0f} ms", color=colour, fontsize=9, ha="center", va="bottom")
    ax.set_xscale("log")
    ax.set_ylim(0, 1.3)
    ax.set_yticks([0, 0.5, 0.9, 1.0], ["0", "p50", "p90", "100 %"])
    ax.set_xlabel("milliseconds per run")
    ax.set_ylabel("share of runs")
    ax.set_title(title)
    return fig


def stage_figure(timings: Mapping[str, EndToEndTiming], title: str = "") -> Figure:
    """Where the time of a whole call goes, one bar per label.

    Args:
        timings: label -> end-to-end timing.
        title: what to see.
    """
    fig, axes = figure(9, 0.62 * len(timings) + 1.6)
    ax = axes[0, 0]
    names = {"load": "load file", "pre": "resize", "infer": "network (with mirror image)", "decode": "decode"}
    left = np.zeros(len(timings))
    for colour, (stage, name) in zip(("#56B4E9", "#CC79A7", "#0072B2", "#E69F00"), names.items()):
        ms = np.array([t.stage_ms[stage] for t in timings.values()])
        ax.barh(list(timings), ms, left=left, color=colour, label=name, height=0.6)
        left += ms
    for k, total in enumerate(left):
        ax.text(total, k, f" {total:.0f} ms", va="center")
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlabel("milliseconds per picture")
    ax.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.28 if len(timings) > 2 else -0.42), fontsize=9)
    ax.set_title(title)
    return fig


def accuracy_figure(stats: Mapping[str, float | None], title: str = "") -> Figure:
    """The ten COCO numbers as bars.

    Args:
        stats: name -> 0..1, or None where there was nobody to measure on.
        title: what to see.
    """
    fig, axes = figure(9, 3.4)
    ax = axes[0, 0]
    values = [v or 0 for v in stats.values()]
    colours = [ACCENT if name.startswith("AP") else "#56B4E9" for name in stats]
    ax.bar(list(stats), values, color=colours, width=0.66)
    for k, value in enumerate(stats.values()):
        ax.text(k, (value or 0) + 0.015, "none" if value is None else f"{value:.3f}", ha="center", fontsize=9)
    ax.set_ylim(0, 1.05)
    ax.set_title(title)
    return fig


def published_figure(published: Mapping[str, Mapping[str, tuple]], precisions: Sequence[str], title: str = "") -> Figure:
    """The published AP of every network and precision.

    Args:
        published: model -> precision -> (AP, AR) in percent.
        precisions: which to show, in order.
        title: what to see.
    """
    fig, axes = figure(9, 3.4)
    ax = axes[0, 0]
    width = 0.8 / len(precisions)
    for k, (colour, precision) in enumerate(zip((ACCENT, "#56B4E9", "#E69F00"), precisions)):
        at = np.arange(len(published)) + (k - (len(precisions) - 1) / 2) * width
        values = [table[precision][0] for table in published.values()]
        ax.bar(at, values, width=width * 0.92, color=colour, label=precision)
        for x, v in zip(at, values):
            ax.text(x, v + 0.8, f"{v:.2f}", ha="center", fontsize=9)
    ax.set_xticks(range(len(published)), list(published))
    ax.set_ylabel("AP, percent")
    ax.set_ylim(0, 82)
    ax.legend(ncols=len(precisions), loc="upper right", fontsize=9)
    ax.set_title(title)
    return fig


def _cycle(count: int) -> list[str]:
    return [PERSON_COLOURS[k % len(PERSON_COLOURS)] for k in (5, 4, 3, 0, 2, 1)][:count]
