"""Pictures of what goes in, what comes out, and what it cost.

`draw_poses` paints onto an image with OpenCV alone, for a container or a video. Everything else gives a matplotlib
`Figure`, never shown and never on a global list: `save(figure, path)` writes it, a notebook displays the file.
One hue per person, from a palette that colour-blind readers can tell apart; a person's right side is darker, and joints
that are less sure are hollow, their bones thin. A title that is not given states what the figure shows, in figures.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Collection, Iterable, Mapping, Sequence

import cv2
import numpy as np

from helpers.artifacts import atomic_write
from helpers.dataset import GroundTruth
from helpers.errors import UsageError
from helpers.keypoints import COCO17
from helpers.measure.evaluate import compare_poses, match
from helpers.pose.decode import Maps, Poses, Steps, enlarge_heatmap, find_peaks, to_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helpers.backends.sensitivity import CountRow, LayerRow
    from helpers.export.export import CheckRow
    from helpers.measure.benchmark import Cost, EndToEndTiming, NetworkTiming, PairedTimings
    from helpers.measure.records import Record
    from helpers.pose.preprocess import ResizeTransform
    from helpers.zoo import Network

# Okabe and Ito (2008), "Color Universal Design", RGB; yellow last, it is the weakest on light ground.
PERSON_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#D55E00", "#0072B2", "#F0E442")
INK, QUIET, ACCENT, SECOND = "#22282E", "#8A949E", "#0072B2", "#D55E00"
PERSON_THRESHOLD = 0.2  # people with a lower score are not drawn
JOINT_THRESHOLD = 0.1  # nor joints
SURE = 0.3  # joints of a lower score are hollow, and their bones thin
_SHORT_SIDE = 640  # pixels, to which pictures are enlarged before painting
_GALLERY_ASPECT = 4 / 3
_OPSET_COLOURS = {11: ACCENT, 17: "#56B4E9"}
_PRECISION_COLOURS = {"force_float32": ACCENT, "force_float16": "#56B4E9", "qint8_mixed_float16": "#E69F00"}
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
    poses: Poses | GroundTruth,
    joint_threshold: float = JOINT_THRESHOLD,
    person_threshold: float = PERSON_THRESHOLD,
    colours: Sequence[str] = PERSON_COLOURS,
) -> np.ndarray:
    """Paints skeletons.

    Args:
        image: (H, W, 3) uint8 BGR.
        poses: found people (their joint scores decide what is painted) or annotated people (labelled joints; hidden
            ones count as less sure).
        joint_threshold: joints with a lower score are left out, with their bones.
        person_threshold: people with a lower score are left out.
        colours: one hex colour per person, repeated as needed.

    Returns:
        A painted copy, (H, W, 3) uint8 BGR.
    """
    out = np.ascontiguousarray(image).copy()
    size = min(image.shape[:2])
    thick = max(1, round(size / 170))
    truth = isinstance(poses, GroundTruth)
    for k, points in enumerate(poses.keypoints):
        if not truth and poses.scores[k] < person_threshold:
            continue
        shown = np.isfinite(points).all(1) & (points[:, 2] > (0 if truth else joint_threshold))
        sure = points[:, 2] >= (2 if truth else SURE)
        colour = np.array(_bgr(colours[k % len(colours)]))
        for a, b in COCO17.skeleton:
            if shown[a] and shown[b]:
                tone = colour * (0.62 if "right" in COCO17.names[a] and "right" in COCO17.names[b] else 1)
                width = thick if sure[a] and sure[b] else max(1, thick // 3)
                _line(out, points[a], points[b], (20, 20, 20), width + 2)
                _line(out, points[a], points[b], tone, width)
        for j in np.flatnonzero(shown):
            tone = colour * (0.62 if "right" in COCO17.names[j] else 1)
            outer, inner = ((255, 255, 255), tone) if sure[j] else (tone, (255, 255, 255))
            _dot(out, points[j], outer, thick * 1.25 + 1)
            _dot(out, points[j], inner, thick * (1.25 if sure[j] else 0.8))
    return out


def confident(poses: Poses, threshold: float = PERSON_THRESHOLD) -> Poses:
    """The people with at least that score. Fainter ones cost AP little, since COCO ranks by score, but clutter."""
    keep = poses.scores >= threshold
    return Poses(poses.keypoints[keep], poses.scores[keep], poses.tags[keep])


def _bgr(hex_colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(hex_colour[k : k + 2], 16) for k in (1, 3, 5))
    return blue, green, red


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """Image pixels to OpenCV's fixed point with four binary digits; far-away points are kept in its range."""
    x, y = np.clip(np.asarray(point[:2], float), -40000, 40000) * 16
    return round(float(x)), round(float(y))


def _line(image: np.ndarray, a: np.ndarray, b: np.ndarray, colour: Sequence[float], thick: int) -> None:
    cv2.line(image, _fixed(a), _fixed(b), [float(c) for c in colour], thick, cv2.LINE_AA, 4)


def _dot(image: np.ndarray, point: np.ndarray, colour: Sequence[float], radius: float) -> None:
    cv2.circle(image, _fixed(point), round(radius * 16), [float(c) for c in colour], -1, cv2.LINE_AA, 4)


def enlarged(image: np.ndarray, *groups: Poses | GroundTruth) -> tuple[np.ndarray, list[Poses | GroundTruth]]:
    """A small picture and the people in it, scaled up together, so that lines and dots painted on it are fine.

    Args:
        image: (H, W, 3) uint8 BGR.
        *groups: people, in pixels of the picture.

    Returns:
        The picture with a short side of 640 pixels or more, and each group in its pixels.
    """
    scale = max(_SHORT_SIDE / min(image.shape[:2]), 1.0)
    big = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    scaled = []
    for group in groups:
        points = np.array(group.keypoints, np.float64)
        points[..., :2] = (points[..., :2] + 0.5) * scale - 0.5
        if isinstance(group, GroundTruth):
            scaled.append(GroundTruth(points, group.bbox * scale, group.area * scale**2))
        else:
            scaled.append(Poses(points, group.scores, group.tags))
    return big, scaled


def _around_people(image: np.ndarray, *groups: Poses) -> tuple[np.ndarray | Poses, ...]:
    """The part of a picture around the people in it, and the groups in its pixels; all of it if there is nobody."""
    points = np.concatenate([group.keypoints[group.keypoints[..., 2] > JOINT_THRESHOLD] for group in groups])[:, :2]
    if not len(points):
        return (image, *groups)
    size = np.array(image.shape[1::-1])
    margin = 0.15 * np.ptp(points, axis=0).max() + 4
    left, top = np.clip(points.min(axis=0) - margin, 0, size - 1).astype(int)
    right, bottom = np.clip(points.max(axis=0) + margin, (left + 1, top + 1), size).astype(int)
    moved = [
        Poses((group.keypoints - np.float32([left, top, 0])).astype(np.float32), group.scores, group.tags)
        for group in groups
    ]
    return (image[top:bottom, left:right], *moved)


def _letterboxed(image: np.ndarray) -> np.ndarray:
    """The picture centred on a light ground of the gallery's shape, so that rows line up."""
    h, w = image.shape[:2]
    side, above = max(round(h * _GALLERY_ASPECT) - w, 0) // 2, max(round(w / _GALLERY_ASPECT) - h, 0) // 2
    return cv2.copyMakeBorder(image, above, above, side, side, cv2.BORDER_CONSTANT, value=_bgr("#F1F3F5"))


def _show(axes: Axes, image: np.ndarray, title: str = "") -> None:
    axes.imshow(cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else image)
    axes.set_title(title)
    axes.axis("off")


# -- figures ------------------------------------------------------------------------------------------------------


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Runs a figure function in this module's style, without touching anybody else's."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            fig = draw(*args, **kwargs)
        fig.set_label(draw.__doc__.splitlines()[0])  # for `save`
        return fig

    return wrapper


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **grid) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches, not registered with pyplot, and its (rows, columns) array of axes."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False, **grid)


def _heading(fig: Figure, title: str) -> None:
    fig.suptitle(title, fontsize=13, fontweight="bold", x=0.0, ha="left")


def save(fig: Figure, path: str | Path, dpi: int = 110) -> Path:
    """Writes a figure as PNG, complete or not at all, and returns the path.

    The PNG's own `Title` and `Description` say what is drawn and how to read it: `report` puts them under it.
    """
    described = {"Title": _title(fig), "Description": fig.get_label()}
    with atomic_write(path) as unfinished:
        fig.savefig(
            unfinished,
            dpi=dpi,
            format="png",
            bbox_inches="tight",
            pad_inches=0.12,
            metadata=described,
        )
    return Path(path)


def _title(fig: Figure) -> str:
    """What stands above a figure: its own heading, or the title of its only axes."""
    return fig.texts[0].get_text() if fig.texts else fig.axes[0].get_title(loc="left")


@_styled
def pictures_figure(
    images: Sequence[np.ndarray], captions: Sequence[str] = (), columns: int = 3, title: str = ""
) -> Figure:
    """Pictures as they are, painted or not: one, or a gallery.

    Args:
        images: (H, W, 3) uint8 BGR each.
        captions: what stands above each.
        columns: most pictures per row.
        title: what to see.
    """
    columns = min(columns, len(images))
    rows, wide = -(-len(images) // columns), 8 if columns == 1 else 4.4
    tall = max(image.shape[0] / image.shape[1] for image in images) * wide
    fig, axes = _figure(wide * columns, (tall + 0.3) * rows + 0.5, rows, columns)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, caption in itertools.zip_longest(axes.flat[: len(images)], images, captions, fillvalue=""):
        _show(ax, image)
        ax.set_title(caption, fontweight="normal", fontsize=10)
    _heading(fig, title)
    return fig


@_styled
def poses_figure(images: Sequence[np.ndarray], found: Sequence[Poses], columns: int = 3, title: str = "") -> Figure:
    """A gallery: every picture with its skeletons.

    Args:
        images: (H, W, 3) uint8 BGR each.
        found: the poses of each.
        columns: pictures per row.
        title: what to see.
    """
    rows = -(-len(images) // columns)
    fig, axes = _figure(4.4 * columns, (4.4 / _GALLERY_ASPECT + 0.35) * rows + 0.4, rows, columns)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, poses in zip(axes.flat, images, found):
        big, [scaled] = enlarged(image, confident(poses))
        painted = _letterboxed(draw_poses(big, scaled))
        _show(ax, painted)
        ax.set_title(_people(len(scaled)), fontweight="normal")
    _heading(fig, title)
    return fig


@_styled
def truth_figure(image: np.ndarray, poses: Poses, people: GroundTruth, title: str = "") -> Figure:
    """The annotation beside the prediction; a pair has one colour, and its OKS stands at the person.

    Args:
        image: (H, W, 3) uint8 BGR.
        poses: the people found.
        people: the people annotated.
        title: what to see; by default how many were found, and how well.
    """
    faint, poses = len(poses), confident(poses)
    faint -= len(poses)
    matches = match(poses, people)
    false_colour = "#9AA3AB"
    colours = [PERSON_COLOURS[t % len(PERSON_COLOURS)] if t >= 0 else false_colour for t in matches.truth]
    big, [big_poses, big_people] = enlarged(image, poses, people)
    fig, axes = _figure(12, 6 * big.shape[0] / big.shape[1] + 0.8, 1, 2)
    _show(axes[0, 0], draw_poses(big, big_people), f"annotated: {len(people)}")
    rest = f" ({faint} more with a score below {PERSON_THRESHOLD})" if faint else ""
    _show(axes[0, 1], draw_poses(big, big_poses, colours=colours or PERSON_COLOURS), f"found: {len(poses)}{rest}")
    for points, oks, colour in zip(big_poses.keypoints, matches.oks, colours):
        _label(axes[0, 1], points, "no match" if np.isnan(oks) else f"OKS {oks:.2f}", colour)
    hits = matches.oks[matches.truth >= 0]
    quality = f", mean OKS {hits.mean():.2f}" if len(hits) else ""
    false = f"; {len(poses) - len(hits)} found where nobody is" if len(poses) > len(hits) else ""
    _heading(fig, title or f"{len(hits)} of {len(people)} annotated people found{quality}{false}")
    return fig


@_styled
def precision_figure(image: np.ndarray, found: Mapping[str, Poses], title: str = "") -> Figure:
    """The same picture decoded in several precisions; each person's OKS and distance to the first one's stand below.

    Args:
        image: (H, W, 3) uint8 BGR.
        found: label -> poses, the reference first.
        title: what to see; by default how far the person is off that suffers most.
    """
    labels = list(found)
    found = {label: confident(poses) for label, poses in found.items()}
    reference = found[labels[0]]
    columns, worst = len(labels), []
    fig, axes = _figure(5.2 * columns, 5.2 * image.shape[0] / image.shape[1] + 1.3, 1, columns)
    for ax, (label, poses) in zip(axes[0], found.items()):
        moved = compare_poses(reference, poses)
        if len(reference) and label != labels[0]:
            worst.append(f"{moved.oks.min():.3f} in {label}")
        colours = ["#9AA3AB"] * len(poses)
        for person, partner in enumerate(moved.partner):
            if partner >= 0:
                colours[partner] = PERSON_COLOURS[person % len(PERSON_COLOURS)]
        big, [scaled] = enlarged(image, poses)
        _show(ax, draw_poses(big, scaled, colours=colours or PERSON_COLOURS), f"{label}: {_people(len(poses))}")
        for person in range(len(reference) if label != labels[0] else 0):
            lost = moved.partner[person] < 0
            told = "lost" if lost else f"OKS {moved.oks[person]:.3f}\n{moved.pixels[person]:.1f} px"
            style = {"color": PERSON_COLOURS[person % len(PERSON_COLOURS)], "fontsize": 10, "fontweight": "bold"}
            place = (person + 0.5) / len(reference), -0.02
            ax.text(*place, told, ha="center", va="top", transform=ax.transAxes, **style)
    finding = f"Least OKS of a person to {labels[0]}: {', '.join(worst)}" if worst else "Nothing to compare with"
    _heading(fig, title or finding)
    return fig


def _people(count: int) -> str:
    return f"{count} {'person' if count == 1 else 'people'}"


def _label(ax: Axes, points: np.ndarray, text: str, colour: str) -> None:
    """A line of text over the joints (17, 3) of a person."""
    sure = points[points[:, 2] > JOINT_THRESHOLD]
    if len(sure):
        box = {"boxstyle": "round,pad=0.25", "fc": "white", "ec": colour, "lw": 1.5}
        x, y = sure[:, 0].mean(), max(sure[:, 1].min() - 18, 16)
        ax.text(x, y, text, ha="center", va="bottom", fontsize=10, bbox=box, clip_on=True)


@_styled
def worst_figure(
    images: Sequence[np.ndarray], reference: Sequence[Poses], other: Sequence[Poses], label: str, title: str = ""
) -> Figure:
    """The pictures on which poses strayed farthest from a reference: above the reference, below the others.

    Only the part with people is shown, so that what moved a little can be seen.

    Args:
        images: (H, W, 3) uint8 BGR each.
        reference: the poses to be kept, of each.
        other: those that strayed.
        label: what made the others, such as a precision.
        title: what to see; by default the mean OKS of the worst.
    """
    fig, axes = _figure(4.4 * len(images), 2 * (4.4 / _GALLERY_ASPECT + 0.3) + 0.5, 2, len(images))
    means = []
    for column, image, kept, moved in zip(axes.T, images, map(confident, reference), map(confident, other)):
        found = compare_poses(kept, moved)
        means.append(float(found.oks.mean()) if len(kept) else 1.0)
        colours = ["#9AA3AB"] * len(moved)
        for person, partner in enumerate(found.partner):
            if partner >= 0:
                colours[partner] = PERSON_COLOURS[person % len(PERSON_COLOURS)]
        big, [scaled_kept, scaled_moved] = enlarged(*_around_people(image, kept, moved))
        _show(column[0], _letterboxed(draw_poses(big, scaled_kept)))
        column[0].set_title(f"reference: {_people(len(kept))}", fontweight="normal", fontsize=10)
        _show(column[1], _letterboxed(draw_poses(big, scaled_moved, colours=colours or PERSON_COLOURS)))
        lost = int((found.partner < 0).sum())
        told = f"{label}: {_people(len(moved))}, {lost} lost, mean OKS {means[-1]:.3f}"
        column[1].set_title(told, fontweight="normal", fontsize=10)
    _heading(fig, title or f"{label}: where it strays farthest, people keep a mean OKS of {min(means):.3f}")
    return fig


@_styled
def roofline_figure(
    networks: Mapping[str, tuple[Cost, float]], peak_gflops: float, peak_gbs: float, title: str = ""
) -> Figure:
    """Why a network is as fast as it is: below the slope it waits for memory, below the roof for arithmetic.

    Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model" (2009).

    Args:
        networks: label -> what one run asks for, and its seconds.
        peak_gflops: what the machine computes at most, 10^9 operations per second (`benchmark.gemm_gflops`).
        peak_gbs: what it copies at most, 10^9 bytes per second (`benchmark.memory_gbs`).
        title: what to see; by default which share of the roof each network reaches.
    """
    fig, axes = _figure(9, 4.4)
    ax = axes[0, 0]
    ridge = peak_gflops / peak_gbs
    intensities = [cost.intensity for cost, _ in networks.values()]
    low, high = min(ridge, *intensities) / 4, max(ridge, *intensities) * 4
    ax.plot([low, ridge, high], [low * peak_gbs, peak_gflops, peak_gflops], color=INK, lw=2)
    ax.text(high, peak_gflops, f"matrix product: {peak_gflops:.0f} GFLOP/s", ha="right", va="bottom", fontsize=9)
    ax.text(low * 1.1, low * peak_gbs, f"   memory: {peak_gbs:.0f} GB/s", va="center", fontsize=9)
    lowest, shares = low * peak_gbs, []
    for colour, (label, (cost, seconds)) in zip(_cycle(len(networks)), networks.items()):
        reached, roof = cost.gflop / seconds, min(peak_gflops, cost.intensity * peak_gbs)
        lowest = min(lowest, reached)
        shares.append(f"{label} {reached / roof:.0%}")
        ax.plot([cost.intensity] * 2, [reached, roof], color=colour, lw=1, ls=":")
        ax.plot(cost.intensity, reached, "o", ms=10, color=colour, label=f"{label}: {reached:.0f} GFLOP/s")
    top = 1.6 * max(peak_gflops, *(cost.gflop / seconds for cost, seconds in networks.values()))
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(lowest / 1.6, top))
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        ticks = [f * each for each in _decades(limits[0] / 10, limits[1]) for f in (1, 2, 5)]
        ticks = [tick for tick in ticks if limits[0] <= tick <= limits[1]]
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel("operations per byte moved")
    ax.set_ylabel("10⁹ operations per second")
    ax.legend(loc="lower right", fontsize=9)
    ax.set_title(title or "Of what the machine allows: " + ", ".join(shares))
    return fig


@_styled
def trade_figure(points: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Accuracy against latency, and the line of those that nothing else beats in both (Pareto).

    Args:
        points: dicts with `label`, `ms`, `ap`, and `low` and `high`, between which AP lies on 95 % of samples.
        title: what to see.
    """
    fig, axes = _figure(9, 4.2)
    ax = axes[0, 0]
    points = sorted(points, key=lambda point: point["ms"])
    best = [p for k, p in enumerate(points) if all(p["ap"] > q["ap"] for q in points[:k])]
    ax.step([p["ms"] for p in best], [p["ap"] for p in best], where="post", color=QUIET, lw=1.5, zorder=1)
    for colour, p in zip(_cycle(len(points)), points):
        spread = [[p["ap"] - p["low"]], [p["high"] - p["ap"]]]
        style = {"fmt": "o", "ms": 9, "capsize": 4, "lw": 1.5, "zorder": 2}
        ax.errorbar(p["ms"], p["ap"], yerr=spread, color=colour, label=f"{p['label']}: {p['ap']:.3f}", **style)
    ax.legend(ncol=len(points), loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=9)
    ax.set_xlim(0, 1.2 * max(p["ms"] for p in points))
    ax.set_xlabel("milliseconds for one picture of 512 x 512, median")
    ax.set_ylabel("AP; bars: 95 % of samples of the pictures")
    ax.set_title(title)
    return fig


@_styled
def heatmap_figure(
    image: np.ndarray, maps: Maps, transform: ResizeTransform, joints: Sequence[str], title: str = ""
) -> Figure:
    """Heatmaps laid over the picture, in the picture's own coordinates.

    Args:
        image: (H, W, 3) uint8 BGR.
        maps: the network's aligned outputs (`helpers.pose.decode.align_maps`).
        transform: from `resize_align`.
        joints: names from `COCO17.names`.
        title: what to see; by default how many hills each map has.
    """
    columns = len(joints) + 1
    fig, axes = _figure(16, 16 / columns * image.shape[0] / image.shape[1] + 0.7, 1, columns)
    _show(axes[0, 0], image, "input")
    peaks, hills = find_peaks(maps), []
    for ax, joint in zip(axes[0, 1:], joints):
        index = COCO17.names.index(joint)
        heat, name = to_picture(maps.heatmaps[index], transform), joint.replace("_", " ")
        _show(ax, _faded(image), name)
        ax.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(heat * 2.2, 0, 0.92))
        hills.append(f"{int((peaks[index][:, 2] >= SURE).sum())} for {name}")
    _heading(fig, title or f"Hills of {SURE} or more: {', '.join(hills)}")
    return fig


def to_picture(cells: np.ndarray, transform: ResizeTransform) -> np.ndarray:
    """One map (h, w) of the network, enlarged and placed on the original picture: (H, W) float32."""
    width, height = transform.base_size
    large = cv2.resize(np.ascontiguousarray(cells, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.warpAffine(large, transform.matrix, transform.image_size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


@_styled
def tag_figure(image: np.ndarray, maps: Maps, poses: Poses, transform: ResizeTransform, title: str = "") -> Figure:
    """Why grouping works: the tag map, and the tags of every joint, coloured by the person they were given to.

    Args:
        image: (H, W, 3) uint8 BGR.
        maps: the network's aligned outputs.
        poses: what was decoded from them.
        transform: from `resize_align`.
        title: what to see; by default how far tags are apart within a person and between people.
    """
    poses = confident(poses)
    aspect = image.shape[1] / image.shape[0]
    fig, axes = _figure(4 * (2 * aspect + 1.3), 4.9, 1, 3, gridspec_kw={"width_ratios": [aspect, aspect * 1.08, 1.2]})
    big, [scaled] = enlarged(image, poses)
    _show(axes[0, 0], draw_poses(big, scaled), "people, one colour each")
    sure = np.clip(maps.heatmaps, 0, 1)
    weight = sure.max(0)
    strongest = np.take_along_axis(maps.tagmaps[0], sure.argmax(0)[None], 0)[0]
    tags, alpha = to_picture(strongest, transform), np.clip(to_picture(weight, transform) * 2.5, 0, 1)
    _show(axes[0, 1], _faded(image), "tag of the likeliest joint")
    limits = np.percentile(strongest[weight > 0.3], [2, 98]) if (weight > 0.3).any() else (-1, 1)
    shown = axes[0, 1].imshow(tags, cmap="viridis", vmin=limits[0], vmax=limits[1], alpha=alpha)
    fig.colorbar(shown, ax=axes[0, 1], fraction=0.046, pad=0.02)
    _tag_scatter(axes[0, 2], poses, maps, transform)
    _heading(fig, title or _tag_finding(poses, maps, transform))
    return fig


def _tag_scatter(ax: Axes, poses: Poses, maps: Maps, transform: ResizeTransform) -> None:
    """One dot per joint that is surely there, at its tag; a line at each person's mean tag."""
    for k, colour in enumerate(_per_person(len(poses))):
        joints, tags = _joint_tags(poses.keypoints[k], maps, transform)
        ax.axhline(poses.tags[k, 0], color=colour, lw=1, alpha=0.5, zorder=1)
        ax.scatter(joints, tags, s=42, color=colour, edgecolor=INK, linewidth=0.5, zorder=2)
    names = [name.replace("left_", "L ").replace("right_", "R ") for name in COCO17.names]
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set_xlim(-0.7, len(names) - 0.3)
    ax.set_ylabel("tag")
    ax.set_title("tags where joints were found")


def _joint_tags(points: np.ndarray, maps: Maps, transform: ResizeTransform) -> tuple[np.ndarray, np.ndarray]:
    """The joints (n,) of a person (17, 3) that are surely there, and the tags (n,) of the picture at their places."""
    joints = np.flatnonzero(points[:, 2] > 2 * JOINT_THRESHOLD)
    cells = _cells(points[joints, :2], maps, transform)
    return joints, maps.tagmaps[0, joints, cells[:, 1], cells[:, 0]]


def _tag_finding(poses: Poses, maps: Maps, transform: ResizeTransform) -> str:
    """How far tags are apart within a person, and between the two people whose tags are nearest."""
    spread = [_joint_tags(points, maps, transform)[1].std() for points in poses.keypoints]
    if len(poses) < 2:
        return f"Tags of one person: standard deviation {spread[0]:.2f}" if spread else "Nobody, and so no tags"
    gap = np.diff(np.sort(poses.tags[:, 0])).min()
    return (
        f"Within a person tags differ by {np.median(spread):.2f} (standard deviation, median of {len(poses)} people), "
        f"between the nearest two people by {gap:.2f}"
    )


def _cells(points: np.ndarray, maps: Maps, transform: ResizeTransform) -> np.ndarray:
    """Picture pixels (n, 2) to the network's output cells, (n, 2) int64 column and row, kept inside."""
    on_input = points @ transform.matrix[:, :2].T + transform.matrix[:, 2]
    return np.clip((on_input / 4).astype(np.int64), 0, [maps.width - 1, maps.height - 1])


@_styled
def steps_figure(image: np.ndarray, steps: Steps, transform: ResizeTransform, title: str = "") -> Figure:
    """Decoding, step by step on one picture: heatmaps, peaks, groups, a joint adjusted, missing joints filled, result.

    Args:
        image: (H, W, 3) uint8 BGR.
        steps: from `decode.decode_steps`.
        transform: from `resize_align`.
        title: what to see; by default how many peaks became how many people, and how many joints were filled.
    """
    fig, axes = _figure(13.2, 2 * (4.3 * image.shape[0] / image.shape[1] + 0.45) + 0.5, 2, 3)
    (heats, candidates, groups), (magnified, refined, shown) = axes
    heat = to_picture(steps.maps.heatmaps.max(0), transform)
    _show(heats, _faded(image))
    heats.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(heat * 2.2, 0, 0.92))
    peaks = to_image(np.concatenate(steps.peaks), transform)
    _show(candidates, _faded(image))
    candidates.scatter(*peaks[:, :2].T, s=6 + 60 * peaks[:, 2], color=ACCENT, edgecolor="white", linewidth=0.6)
    _show_people(groups, image, steps, steps.grouped, transform)
    _show_adjusted(magnified, steps)
    _show_people(refined, image, steps, steps.filled, transform)
    missing = steps.grouped[..., 2] == 0
    filled = missing & (steps.filled[..., 2] > 0)
    likely = steps.poses.scores >= PERSON_THRESHOLD
    ringed = to_image(steps.filled[likely], transform)[filled[likely]]
    refined.scatter(*ringed[:, :2].T, s=170, facecolor="none", edgecolor=INK, linewidth=1.6)
    big, [scaled] = enlarged(image, steps.poses)
    _show(shown, draw_poses(big, scaled))
    for ax in (heats, candidates, groups, refined):
        ax.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
    captions = (
        "1 · heatmaps, the hottest of 17",
        f"2 · {len(peaks)} peaks, the larger the hotter",
        f"3 · grouped by tags: {_people(len(steps.grouped))}, the unlikely grey",
        "4 · adjusted: a quarter pixel",
        f"5 · refined: {len(ringed)} missing joints of the likely, ringed",
        f"shown: {_people(int(likely.sum()))} with a score of {PERSON_THRESHOLD} or more",
    )
    for ax, caption in zip(axes.flat, captions):
        ax.set_title(caption, fontweight="normal", fontsize=11)
    finding = (
        f"{len(peaks)} peaks become {_people(len(steps.grouped))}, {likely.sum()} of them likely; "
        f"{filled.sum()} of {missing.sum()} missing joints find a place"
    )
    _heading(fig, title or finding)
    return fig


def _show_people(ax: Axes, image: np.ndarray, steps: Steps, people: np.ndarray, transform: ResizeTransform) -> None:
    """People at some step, (P, 17, 3 + S): the likely ones in colour, the others thin and grey, on a faded picture."""
    from matplotlib.collections import LineCollection

    points = to_image(people, transform)
    _show(ax, _faded(image))
    likely = steps.poses.scores >= PERSON_THRESHOLD
    colours = np.full(len(points), QUIET, object)
    colours[likely] = _per_person(int(likely.sum()))
    bones = np.array(COCO17.skeleton)
    for chosen, width, dot in ((~likely, 0.7, 2), (likely, 2.2, 18)):
        person, bone = np.nonzero((points[chosen][:, bones, 2] > 0).all(axis=2))
        ends = points[chosen][person[:, None], bones[bone], :2]
        ax.add_collection(LineCollection(ends, colors=list(colours[chosen][person]), linewidths=width, zorder=2))
        person, joint = np.nonzero(points[chosen][..., 2] > 0)
        places = points[chosen][person, joint, :2]
        ax.scatter(*places.T, s=dot, color=list(colours[chosen][person]), zorder=2)


def _show_adjusted(ax: Axes, steps: Steps, reach: int = 3) -> None:
    """Step 4 under the magnifier: the hottest joint's pixels, and the quarter of one by which it moves."""
    ax.axis("off")
    if not len(steps.grouped):
        return
    person, joint = np.unravel_index(steps.grouped[..., 2].argmax(), steps.grouped.shape[:2])
    x, y = steps.grouped[person, joint, :2].astype(int)
    heat = enlarge_heatmap(steps.maps, int(joint))
    left, top = max(x - reach, 0), max(y - reach, 0)
    part = heat[top : y + reach + 1, left : x + reach + 1]
    ax.imshow(part, cmap="inferno", extent=[left, left + part.shape[1], top + part.shape[0], top])
    for at in range(part.shape[1] + 1):
        ax.axvline(left + at, color="white", lw=0.3)
    for at in range(part.shape[0] + 1):
        ax.axhline(top + at, color="white", lw=0.3)
    end = steps.adjusted[person, joint, :2]
    ax.plot([x + 0.5, end[0]], [y + 0.5, end[1]], color=ACCENT, lw=2)
    ax.plot(x + 0.5, y + 0.5, "o", color="white", mec=INK, ms=7)
    ax.plot(*end, "o", color=ACCENT, mec="white", ms=9)
    name = COCO17.names[joint].replace("_", " ")
    ax.text(
        0.5, -0.02, f"{name}: towards the hotter neighbours", ha="center", va="top", transform=ax.transAxes, fontsize=10
    )


def _faded(image: np.ndarray) -> np.ndarray:
    """The picture as a pale grey ground, on which colours of any lightness show: (H, W, 3) uint8."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return (grey * 0.35 + 150).astype(np.uint8)


def _per_person(count: int) -> list[str]:
    """One colour per person, again from the start if there are more than colours."""
    return [PERSON_COLOURS[k % len(PERSON_COLOURS)] for k in range(count)]


@_styled
def check_figure(rows: Sequence[CheckRow], tolerance: float, title: str = "") -> Figure:
    """The worst difference between PyTorch and ONNX per shape and batch, against what is allowed.

    Args:
        rows: `helpers.export.export.CheckRow`s.
        tolerance: allowed share of the output's range.
        title: what to see.
    """
    fig, axes = _figure(9, 0.34 * len(rows) + 1.8)
    ax = axes[0, 0]
    names = [f"opset {r.opset}: {r.batch} x 3 x {r.height} x {r.width}" for r in rows]
    ax.barh(names, [max(r.relative, 1e-9) for r in rows], color=[_OPSET_COLOURS[r.opset] for r in rows], height=0.62)
    ax.axvline(tolerance, color=SECOND, lw=2)
    ax.text(tolerance * 0.8, len(rows) - 0.4, "allowed", color=SECOND, va="bottom", ha="right")
    ax.set_xscale("log")
    ax.set_xlim(1e-8, tolerance * 4)
    ax.invert_yaxis()
    ax.set_xlabel("largest absolute error / range of the output")
    ax.set_title(title)
    return fig


@_styled
def agreement_figure(reference: np.ndarray, output: np.ndarray, title: str = "") -> Figure:
    """Every value of an engine's output against the reference's: a thin diagonal if nothing was lost.

    Args:
        reference: (34, h, w) float32, from PyTorch.
        output: (34, h, w) float32, from the engine.
        title: what to see.
    """
    fig, axes = _figure(9, 4.4, 1, 2)
    joints = len(COCO17.names)
    for ax, name, half in zip(axes[0], ("heatmaps", "tags"), (slice(joints), slice(joints, None))):
        wanted, found = reference[half].ravel(), output[half].ravel()
        low, high = min(wanted.min(), found.min()), max(wanted.max(), found.max())
        counts, *_ = np.histogram2d(wanted, found, bins=120, range=[[low, high]] * 2)
        shown = np.ma.masked_equal(np.log10(np.maximum(counts.T, 0.5)), np.log10(0.5))
        ax.plot([low, high], [low, high], color=SECOND, lw=0.8)
        ax.imshow(shown, origin="lower", extent=[low, high] * 2, cmap="viridis", aspect="equal", zorder=2)
        ax.set_xlabel("PyTorch")
        ax.set_ylabel("engine")
        ax.set_title(f"{name}: largest difference {np.abs(wanted - found).max():.1e}", fontweight="normal")
    _heading(fig, title)
    return fig


@_styled
def histogram_figure(found: Mapping[str, tuple[np.ndarray, np.ndarray, float, float]], title: str = "") -> Figure:
    """What layers give, and the range that the 256 steps of 8 bits are spread over.

    Args:
        found: layer -> (counts, edges, low, high), from `helpers.backends.quantize.histograms`.
        title: what to see; by default how much the steps of layers differ.
    """
    fig, axes = _figure(3.3 * len(found), 3.4, 1, len(found))
    for ax, (layer, (counts, edges, low, high)) in zip(axes[0], found.items()):
        ax.fill_between(edges[:-1], np.maximum(counts, 0.5), 0.5, step="post", color="#56B4E9")
        for end in (low, high):
            ax.axvline(end, color=SECOND, lw=1.8)
        ax.set_yscale("log")
        ax.set_title(layer_name(layer), fontweight="normal", fontsize=10)
        ax.set_xlabel(f"one step: {(high - low) / 255:.2g}", fontsize=10)
    axes[0, 0].set_ylabel("values, logarithmic")
    steps = {(high - low) / 255: layer_name(layer) for layer, (_, _, low, high) in found.items()}
    (fine, finest), (coarse, coarsest) = min(steps.items()), max(steps.items())
    _heading(fig, title or f"One step of {coarsest} is {coarse / fine:.2g} of {finest}")
    return fig


@_styled
def sensitivity_figure(rows: Sequence[LayerRow], most: int = 15, title: str = "") -> Figure:
    """The layers that suffer most from being rounded, one at a time.

    Args:
        rows: from `helpers.backends.sensitivity.rank`, the worst first.
        most: so many are shown.
        title: what to see.
    """
    rows = rows[:most]
    fig, axes = _figure(9, 0.3 * len(rows) + 1.7)
    ax = axes[0, 0]
    at = np.arange(len(rows))
    for shift_, name, colour in ((-0.2, "heatmaps", ACCENT), (0.2, "tags", "#E69F00")):
        values = [min(getattr(row, f"{name}_db"), 99) for row in rows]
        ax.barh(at + shift_, values, height=0.38, color=colour, label=name)
    ax.set_yticks(at, [layer_name(row.layer) for row in rows], fontsize=9)
    ax.invert_yaxis()
    ax.set_xlabel("signal-to-noise of the output, decibels: 20 less is an error ten times as large")
    ax.legend(loc="upper right", fontsize=9)
    ax.set_xlim(0, 1.25 * ax.dataLim.xmax)
    ax.set_title(title)
    return fig


@_styled
def count_figure(rows: Sequence[CountRow], title: str = "") -> Figure:
    """What calibrating with few and with many pictures gives: a dot per draw, so that luck shows.

    Args:
        rows: from `helpers.backends.sensitivity.by_count`.
        title: what to see; by default how far the heatmaps of the smallest and of the largest count scatter.
    """
    counts = list(dict.fromkeys(row.count for row in rows))
    at = [counts.index(row.count) for row in rows]
    fig, axes = _figure(9, 3.4, 1, 2)
    for shift_, name, colour in ((-0.12, "heatmaps", ACCENT), (0.12, "tags", "#E69F00")):
        places = [place + shift_ for place in at]
        axes[0, 0].scatter(places, [getattr(row, f"{name}_db") for row in rows], s=42, color=colour, label=name)
    axes[0, 0].set_title("signal-to-noise of the output, decibels", fontweight="normal", fontsize=10)
    axes[0, 0].legend(loc="best", fontsize=9)
    axes[0, 0].margins(y=0.25)
    axes[0, 1].scatter(at, [row.narrowest for row in rows], s=42, color="#009E73")
    axes[0, 1].set_title("narrowest range of a tensor / that of all pictures", fontweight="normal", fontsize=10)
    axes[0, 1].set_ylim(0, 1.08)
    for ax in axes.flat:
        ax.set_xticks(range(len(counts)), counts)
        ax.set_xlim(-0.5, len(counts) - 0.5)
        ax.set_xlabel("pictures calibrated with")
    ends = (sorted(row.heatmaps_db for row in rows if row.count == count) for count in (counts[0], counts[-1]))
    spans = [f"{dbs[0]:.0f} to {dbs[-1]:.0f}" if len(dbs) > 1 else f"{dbs[0]:.0f}" for dbs in ends]
    first = "one picture" if counts[0] == 1 else f"{counts[0]} pictures"
    _heading(fig, title or f"Heatmaps calibrated with {first}: {spans[0]} dB; with {counts[-1]}: {spans[1]} dB")
    return fig


def layer_name(layer: str) -> str:
    """The part of a layer's name that tells it from others."""
    parts = [part for part in layer.split("/") if part and part not in ("network", "Conv", "conv")]
    return "/".join(parts[-2:])


@_styled
def latency_figure(timings: Mapping[str, NetworkTiming], title: str = "") -> Figure:
    """Every run as a step of an empirical distribution: the tail shows, not just the mean.

    Args:
        timings: label -> timing of the network alone.
        title: what to see; by default every median.
    """
    fig, axes = _figure(9, 3.6)
    ax = axes[0, 0]
    for colour, (label, timing) in zip(_cycle(len(timings)), timings.items()):
        ms = np.sort(timing.samples_s) * 1e3
        share = np.arange(1, len(ms) + 1) / len(ms)
        ax.step(
            np.r_[ms[0], ms],
            np.r_[0, share],
            where="post",
            color=colour,
            lw=2,
            label=f"{label}: p50 {np.median(ms):.0f} ms, {len(ms)} runs",
        )
    ax.set_xlim(0, 1.12 * max(t.samples_s.max() for t in timings.values()) * 1e3)
    ax.set_ylim(0, 1.05)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=len(timings), fontsize=9)
    ax.set_yticks([0, 0.5, 0.9, 1.0], ["0", "p50", "p90", "100 %"])
    ax.set_xlabel("milliseconds per run")
    ax.set_ylabel("share of runs")
    medians = sorted((timing.latency.p50, label) for label, timing in timings.items())
    ax.set_title(title or "Median run: " + ", ".join(f"{label} {ms:.0f} ms" for ms, label in medians))
    return fig


@_styled
def stage_figure(timings: Mapping[str, EndToEndTiming], noise: Collection[str] = (), title: str = "") -> Figure:
    """Where the work for a picture goes, one bar per label, with its total.

    Args:
        timings: label -> end-to-end timing.
        noise: labels of networks with random weights. Their maps are noise, and decoding noise is no measure of
            decoding people, nor drawing it: those two stages are left out.
        title: what to see.
    """
    fig, axes = _figure(9, 0.62 * len(timings) + 1.6)
    ax = axes[0, 0]
    names = {
        "load": "load file",
        "pre": "resize",
        "infer": "network, with mirror image",
        "decode": "decode",
        "draw": "draw",
    }
    left = np.zeros(len(timings))
    for stage, colour in zip(names, ("#56B4E9", "#CC79A7", "#0072B2", "#E69F00", "#009E73")):
        left_out = [stage in ("decode", "draw") and label in noise for label in timings]
        ms = np.array([0.0 if out else t.stage_ms.get(stage, 0.0) for out, t in zip(left_out, timings.values())])
        if ms.any():
            ax.barh(list(timings), ms, left=left, color=colour, label=names[stage], height=0.6)
        left += ms
    for k, (label, total) in enumerate(zip(timings, left)):
        ax.text(total, k, f" {total:,.0f} ms{' without decoding' if label in noise else ''}", va="center")
    ax.invert_yaxis()
    ax.set_xlim(0, 1.3 * left.max())
    ax.set_xlabel("milliseconds of work per picture")
    ax.legend(ncol=5, loc="upper center", bbox_to_anchor=(0.42, -0.8 / len(timings)), fontsize=9)
    ax.set_title(title)
    return fig


@_styled
def decode_time_figure(times: Mapping[int, PairedTimings], title: str = "") -> Figure:
    """How long decoding takes, the more people the longer, on a logarithmic axis.

    Args:
        times: number of people -> decoders that took turns, the slow one first (`benchmark.decode_times`). Under the
            others stands how many times as fast they are, with the quartiles over rounds.
        title: what to see.
    """
    fig, axes = _figure(9, 4.2)
    ax = axes[0, 0]
    labels = list(next(iter(times.values())).samples_s)
    last = len(times) - 1
    for colour, label in zip((SECOND, *(c for c in _cycle(6) if c != SECOND)), labels):
        ms = [turns.median_ms[label] for turns in times.values()]
        ax.plot(range(len(ms)), ms, marker="o", ms=7, lw=2.5, color=colour)
        ax.text(last + 0.06, ms[-1], label, color=colour, va="center", fontweight="bold")
        for k, (value, turns) in enumerate(zip(ms, times.values())):
            first = label == labels[0]
            text = _ms(value) if first else f"{_ms(value)}\n{turns.speedup(label)}"
            where = {"xytext": (0, 9 if first else -9), "va": "bottom" if first else "top"}
            ax.annotate(text, (k, value), textcoords="offset points", ha="center", fontsize=9, **where)
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low / 4, high * 2)
    ax.set_xlim(-0.35, last + 0.3 * len(times))
    ax.set_xticks(range(len(times)), [str(count) for count in times])
    ticks = _decades(*ax.get_ylim())
    ax.set_yticks(ticks, [_ms(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel("people in the picture")
    ax.set_ylabel("decoding one picture")
    ax.set_title(title)
    return fig


@_styled
def throughput_figure(timings: Mapping[str, Mapping[int, NetworkTiming]], title: str = "") -> Figure:
    """What larger batches bring.

    Args:
        timings: label -> batch size -> timing of the network alone (`benchmark.by_batch_size`).
        title: what to see; by default what the best batch size of each brings against its smallest.
    """
    fig, axes = _figure(9, 3.8)
    ax = axes[0, 0]
    sizes = sorted({size for by_size in timings.values() for size in by_size})
    width = 0.8 / len(timings)
    for k, (colour, (label, by_size)) in enumerate(zip(_cycle(len(timings)), timings.items())):
        at = [sizes.index(size) + (k - (len(timings) - 1) / 2) * width for size in by_size]
        rates = [timing.images_per_s for timing in by_size.values()]
        ax.bar(at, rates, width=0.92 * width, color=colour, label=label)
        for x, rate in zip(at, rates):
            ax.annotate(f"{rate:.1f}", (x, rate), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    ax.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    ax.set_ylim(0, 1.25 * ax.dataLim.ymax)
    ax.set_xlabel("pictures per run of the network")
    ax.set_ylabel("pictures per second")
    ax.legend(ncol=len(timings), loc="upper center", fontsize=9)
    ax.set_title(title or f"Larger batches: {', '.join(f'{k} {_gain(v)}' for k, v in timings.items())}")
    return fig


def _gain(by_size: Mapping[int, NetworkTiming]) -> str:
    """What the best batch size brings against the smallest: `+12%`, or `no gain`."""
    rates = [by_size[size].images_per_s for size in sorted(by_size)]
    percent = round(100 * (max(rates) / rates[0] - 1))
    return f"{percent:+d}%" if percent else "no gain"


@_styled
def scaling_figure(rates: Mapping[int, float], title: str = "") -> Figure:
    """What more workers bring, beside what they would if nothing held them up.

    Args:
        rates: number of workers -> images per second.
        title: what to see.
    """
    fig, axes = _figure(9, 3.8)
    ax = axes[0, 0]
    counts = list(rates)
    ideal = [rates[counts[0]] / counts[0] * count for count in counts]
    ax.plot(counts, ideal, color="#999999", lw=2, ls="--")
    ax.annotate("as many times as workers", (counts[-1], ideal[-1]), (-8, 8), textcoords="offset points", ha="right")
    ax.plot(counts, list(rates.values()), marker="o", ms=8, lw=2.5, color=_cycle(1)[0])
    for count, rate in rates.items():
        text = f"{rate:.2f} images/s, {rate / rates[counts[0]]:.2f}x"
        ax.annotate(text, (count, rate), (0, -10), textcoords="offset points", ha="center", va="top")
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.set_xlim(counts[0] - 0.5, counts[-1] + 0.5)
    ax.set_ylim(0, 1.2 * max(*ideal, *rates.values()))
    ax.set_xlabel("workers, a core each")
    ax.set_ylabel("images per second")
    ax.set_title(title)
    return fig


@_styled
def limits_figure(by_cards: Mapping[int, Mapping[str, float]], title: str = "") -> Figure:
    """How many images per second each part of a machine allows, the more cards it has; the lowest line counts.

    Args:
        by_cards: number of cards -> part -> images per second at most (`scale_out.limits`).
        title: what to see.
    """
    fig, axes = _figure(9, 4.4)
    ax = axes[0, 0]
    counts = list(by_cards)
    least = [min(parts.values()) for parts in by_cards.values()]
    ax.plot(counts, least, color="#000000", lw=9, alpha=0.15, solid_capstyle="round")
    parts = list(by_cards[counts[0]])
    for colour, part in zip(_cycle(len(parts)), parts):
        ax.plot(counts, [by_cards[count][part] for count in counts], marker="o", ms=5, lw=2.2, color=colour, label=part)
    for count, rate in zip(counts, least):
        text = f"{1e6 / rate / 3600:.2f} h"
        ax.annotate(text, (count, rate), (0, -9), textcoords="offset points", ha="center", va="top", fontsize=9)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low / 2, high)
    ax.set_xticks(counts, [str(count) for count in counts])
    ticks = _decades(*ax.get_ylim())
    ax.set_yticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel("cards in the machine (under the line: hours for a million images)")
    ax.set_ylabel("images per second")
    ax.legend(ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=9)
    ax.set_title(title)
    return fig


def _ms(value: float) -> str:
    """Milliseconds to read: `0.7 ms`, `12 ms`, `1.3 s`."""
    if value < 1000:
        return f"{value:.2g} ms" if value < 10 else f"{value:.0f} ms"
    return f"{value / 1000:.2g} s" if value < 10_000 else f"{value / 1000:.0f} s"


def _decades(low: float, high: float) -> list[float]:
    """The powers of ten that mark a logarithmic axis from `low` to `high`."""
    return [10.0**k for k in range(int(np.ceil(np.log10(low))), int(np.floor(np.log10(high))) + 1)]


@_styled
def accuracy_figure(stats: Mapping[str, float | None], title: str = "") -> Figure:
    """The ten COCO numbers as bars.

    Args:
        stats: name -> 0..1, or None where there was nobody to measure on.
        title: what to see.
    """
    fig, axes = _figure(9, 3.4)
    ax = axes[0, 0]
    values = [v or 0 for v in stats.values()]
    colours = [ACCENT if name.startswith("AP") else "#56B4E9" for name in stats]
    ax.bar(list(stats), values, color=colours, width=0.66)
    for k, value in enumerate(stats.values()):
        ax.text(k, (value or 0) + 0.015, "none" if value is None else f"{value:.3f}", ha="center", fontsize=9)
    ax.set_ylim(0, 1.05)
    ax.set_title(title)
    return fig


@_styled
def published_figure(networks: Iterable[Network], title: str = "") -> Figure:
    """The published AP of every network and precision.

    Args:
        networks: rows of the zoo.
        title: what to see; by default what 8 bits change.
    """
    fig, axes = _figure(9, 3.4)
    ap = {network.name: {name: published.ap for name, published in network.published.items()} for network in networks}
    _precision_bars(axes[0, 0], ap)
    axes[0, 0].set_title(title or f"What 8 bits change, in points of AP: {_changes(ap)}")
    return fig


@_styled
def ladder_figure(networks: Iterable[Network], rows: Iterable[Record], title: str = "") -> Figure:
    """AP of every network and precision, as published and as measured.

    Args:
        networks: rows of the zoo.
        rows: records with accuracy, one per network and precision; lines show their `ap_interval`.
        title: what to see; what 8 bits change stands above each half.

    Raises:
        UsageError: there are no rows.
    """
    fig, axes = _figure(12, 4.4, columns=2, sharey=True)
    networks, rows = list(networks), list(rows)
    if not rows:
        raise UsageError("There are no rows to draw: pass records with accuracy.")
    published = {each.name: {name: figures.ap for name, figures in each.published.items()} for each in networks}
    measured, spread = ({each.name: {} for each in networks} for _ in range(2))
    for row in rows:
        measured[row.model][row.precision] = 100 * row.ap
        spread[row.model][row.precision] = [100 * value for value in row.ap_interval]
    said = "official weights, 5000 pictures of COCO val2017 (published, MLU370)"
    here = f"{rows[0].weights} weights, {rows[0].images} pictures of {rows[0].dataset}; lines: 95 % of samples"
    for ax, name, ap, intervals in ((axes[0, 0], said, published, {}), (axes[0, 1], here, measured, spread)):
        _precision_bars(ax, ap, intervals)
        ax.label_outer()
        ax.set_title(f"{name}\n8 bits: {_changes(ap)}", fontsize=10)
    _heading(fig, title or "What 8 bits change, in points of AP")
    return fig


def _precision_bars(
    ax: Axes, ap: Mapping[str, Mapping[str, float]], spread: Mapping[str, Mapping[str, Sequence[float]]] | None = None
) -> None:
    """Groups of bars, one for each network, with a bar for each precision; all in percent."""
    width, highest = 0.8 / len(_PRECISION_COLOURS), 0.0
    for k, (precision, colour) in enumerate(_PRECISION_COLOURS.items()):
        places = {name: x + (k - (len(_PRECISION_COLOURS) - 1) / 2) * width for x, name in enumerate(ap)}
        known = [name for name in ap if precision in ap[name]]
        heights = [ap[name][precision] for name in known]
        ax.bar([places[name] for name in known], heights, width=width * 0.92, color=colour, label=precision)
        for name, value in zip(known, heights):
            top = value
            if spread:
                low, top = spread[name][precision]
                ax.plot([places[name]] * 2, [low, top], color=INK, lw=1.2)
            ax.text(places[name], top + 0.8, f"{value:.2f}", ha="center", fontsize=9)
            highest = max(highest, top)
    ax.set_xticks(range(len(ap)), [name if of else f"{name}\nnot measured" for name, of in ap.items()])
    ax.set_xlim(-0.5, len(ap) - 0.5)
    ax.set_ylabel("AP, percent")
    ax.set_ylim(0, max(1.25 * highest, ax.get_ylim()[1]))  # axes may be shared
    ax.legend(ncol=len(_PRECISION_COLOURS), loc="upper right", fontsize=9)


def _changes(ap: Mapping[str, Mapping[str, float]]) -> str:
    """What the last precision changes in each network that has it and the first: `HRNet -2.9, ResNet50 +0.4`."""
    first, *_, last = _PRECISION_COLOURS
    change = {name: round(of[last] - of[first], 1) for name, of in ap.items() if {first, last} <= set(of)}
    # -0.0 + 0.0 is 0.0: no minus before what is nothing.
    return ", ".join(f"{name} {value + 0.0:+.1f}" for name, value in change.items()) or "not measured"


def _cycle(count: int) -> list[str]:
    return [PERSON_COLOURS[k % len(PERSON_COLOURS)] for k in (5, 4, 3, 0, 2, 1)][:count]
