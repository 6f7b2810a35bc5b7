"""The steps of `decode` in loops that numba compiles: the same names and bits, about a hundred times as fast.

Between four neighboring samples of the output (a *cell*) lie 4x4 pixels of the upsampled map, each a fixed mix of the
four. So samples bound pixels, and only the cells that can hold a winner are upsampled, as by `maps.upsample`. It takes
one thread, without the GIL; compiled code is kept in `__pycache__`, or where `NUMBA_CACHE_DIR` says.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numba
import numpy as np

from helpers.pose.maps import FAR_WEIGHTS, NEAR_WEIGHTS, UPSCALE

_HALF = UPSCALE // 2  # pixels before the first sample and behind the last
_TILE = 4  # cells per side of a tile, the unit of the search for missing keypoints
_TOLERANCE = 1e-5  # by how much, relative to the largest value, rounding may lift a pixel above its samples
_U = np.uint64  # an index of this type is not tried for counting from the end, so loops become vector code


class Maps(NamedTuple):
    """One image's outputs, C-contiguous and finite; flipped ones are read backwards, not turned."""

    output: np.ndarray  # (2K, h, w) float32: K heatmaps, K tag maps
    flipped: np.ndarray  # the same as the network gave it for the flipped image; `output` again without flip test
    flip_index: np.ndarray  # (K,) int64; (0,) without flip test
    mean_heat: np.ndarray  # (K, h, w) float32 heatmaps averaged over the flip test; filled by `find_peaks`
    heat_tolerance: np.float32  # by how much rounding may lift a pixel above the samples that it mixes
    tag_tolerance: np.float32  # the same for tags, up or down


class Settings(NamedTuple):
    """The fields of `DecodeConfig`, and constants of `decode`."""

    max_num_people: int
    detection_threshold: float
    tag_threshold: float
    use_detection_val: bool
    ignore_too_much: bool
    adjust: bool
    refine: bool
    reach: int  # a peak is the highest within so many pixels, 2 or more
    no_match_cost: float


def _compile(function):
    """numba.njit without the GIL, cached on disk where a folder can be written to."""
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # a read-only installation without a home folder has no place for a cache
        return numba.njit(nogil=True, error_model="numpy")(function)


# --- Upsampling, one value or a few cells at a time -------------------------------------------------------
@_compile
def _lerp(near, far, phase):
    return np.float32(near * NEAR_WEIGHTS[phase] + far * FAR_WEIGHTS[phase])


@_compile
def _sample(channels, channel, flipped, row, column):
    """One sample of an output, or of a flipped one turned back; beyond the border, that of the border."""
    row, column = min(max(row, 0), channels.shape[1] - 1), min(max(column, 0), channels.shape[2] - 1)
    return channels[channel, _U(row), _U(channels.shape[2] - 1 - column if flipped else column)]


@_compile
def _pixel(channels, channel, flipped, y, x):
    """One pixel of an upsampled map; cell (row, column) lies between the samples of that index and those before."""
    row, phase_y = (y + _HALF) // UPSCALE, (y + _HALF) % UPSCALE
    column, phase_x = (x + _HALF) // UPSCALE, (x + _HALF) % UPSCALE
    nw, ne = (
        _sample(channels, channel, flipped, row - 1, column - 1),
        _sample(channels, channel, flipped, row - 1, column),
    )
    sw, se = _sample(channels, channel, flipped, row, column - 1), _sample(channels, channel, flipped, row, column)
    return _lerp(_lerp(nw, ne, phase_x), _lerp(sw, se, phase_x), phase_y)


@_compile
def _heat(maps, keypoint, y, x):
    """One pixel of decode.enlarge_heatmap."""
    heat = _pixel(maps.output, keypoint, False, y, x)
    if len(maps.flip_index):
        heat = (heat + _pixel(maps.flipped, maps.flip_index[keypoint], True, y, x)) / np.float32(2)
    return heat


@_compile
def _read_tags(maps, keypoint, y, x, into):
    """The tags of one pixel, into (S,)."""
    count = len(maps.mean_heat)
    into[0] = _pixel(maps.output, count + keypoint, False, y, x)
    if len(maps.flip_index):
        into[1] = _pixel(maps.flipped, count + maps.flip_index[keypoint], True, y, x)


@_compile
def _upsample(channels, channel, flipped, row, column, cells, lines, block):
    """Upsamples cells x cells cells from (row, column) on into block (4 cells, 4 cells); lines (cells + 1, 4 cells)."""
    for i in range(cells + 1):
        near = _sample(channels, channel, flipped, row - 1 + i, column - 1)
        for cell in range(cells):
            far = _sample(channels, channel, flipped, row - 1 + i, column + cell)
            for phase in range(UPSCALE):
                lines[i, UPSCALE * cell + phase] = _lerp(near, far, phase)
            near = far
    for cell in range(cells):
        for phase in range(UPSCALE):
            for k in range(UPSCALE * cells):
                block[UPSCALE * cell + phase, k] = _lerp(lines[cell, k], lines[cell + 1, k], phase)


@_compile
def _upsample_heat(maps, keypoint, row, column, cells, lines, blocks):
    """Upsamples a square of cells and averages over the flip test, into blocks[0]; blocks (2, 4 cells, 4 cells)."""
    _upsample(maps.output, keypoint, False, row, column, cells, lines, blocks[0])
    if len(maps.flip_index):
        _upsample(maps.flipped, maps.flip_index[keypoint], True, row, column, cells, lines, blocks[1])
        for y in range(UPSCALE * cells):
            for x in range(UPSCALE * cells):
                blocks[0, y, x] = (blocks[0, y, x] + blocks[1, y, x]) / np.float32(2)


# --- Step 1: maps -----------------------------------------------------------------------------------------
@_compile
def largest_magnitude(bits):
    """The largest of (n,) float32, given and returned as uint32 bits without the sign: they order alike, NaN last."""
    largest = np.uint32(0)
    for i in range(len(bits)):
        largest = max(largest, np.uint32(bits[i] & np.uint32(0x7FFFFFFF)))
    return largest


@_compile
def _average(maps, keypoint):
    """Averages a heatmap over the flip test, into maps.mean_heat."""
    _, height, width = maps.mean_heat.shape
    for y in range(height):
        row, own = maps.mean_heat[keypoint, y], maps.output[keypoint, y]
        if len(maps.flip_index):
            other = maps.flipped[maps.flip_index[keypoint], y]
            for x in range(width):
                row[x] = (own[x] + other[_U(width - 1 - x)]) / np.float32(2)
        else:
            row[:] = own


# --- Step 2: peaks ----------------------------------------------------------------------------------------
@_compile
def _rise(before, own, after):
    """Highest rise on the lines of pixels at a sample: they mix its own line of samples with up to 3/8 of another."""
    return np.float32(0.625) * own + np.float32(0.375) * max(max(before, own), after)


@_compile
def _peak_margin(above, at, below, left, x, right):
    """How much higher than each of its four neighbors a sample is, at best; the least of the four.

    Along a line of pixels the map is straight between two samples: a pixel beside a sample can be the highest of five
    only if the sample, on that line, is no lower than both neighbors.
    """
    nw, n, ne, w, c, e = above[left], above[x], above[right], at[left], at[x], at[right]
    sw, s, se = below[left], below[x], below[right]
    rows = min(_rise(n - nw, c - w, s - sw), _rise(n - ne, c - e, s - se))
    return min(rows, min(_rise(w - nw, c - n, e - ne), _rise(w - sw, c - s, e - se)))


@_compile
def _samples_near_peaks(heat, row, least, tolerance, high, margin, columns):
    """Fills `columns` with samples whose 4x4 pixels may hold a peak above `least`; high, margin (w,) are scratch."""
    height, width = heat.shape
    above, at, below = heat[max(row - 1, 0)], heat[row], heat[min(row + 1, height - 1)]
    limit, some = least - tolerance, 0
    for x in range(width):
        high[x] = max(max(above[x], at[x]), below[x])
        some += high[x] > limit
    if not some:
        return 0
    last = width - 1
    for x in range(1, last):
        margin[_U(x)] = _peak_margin(above, at, below, _U(x - 1), _U(x), _U(x + 1))
    margin[last] = _peak_margin(above, at, below, _U(max(last - 1, 0)), _U(last), _U(last))
    margin[0] = _peak_margin(above, at, below, _U(0), _U(0), _U(min(1, last)))
    count = 0
    for x in range(width):
        near = max(max(high[_U(max(x - 1, 0))], high[x]), high[_U(min(x + 1, last))])
        if margin[x] >= -tolerance and near > limit:
            columns[count] = x
            count += 1
    return count


@_compile
def _is_peak(block, y, x, reach):
    for i in range(y - reach, y + reach + 1):
        for j in range(x - reach, x + reach + 1):
            if block[i, j] > block[y, x]:
                return False
    return True


@_compile
def _sift(values, pixels, hole, size, value, pixel):
    """libstdc++'s `__adjust_heap`: the hole sinks along the lower children, then the item climbs from there."""
    top = hole
    while 2 * hole + 1 < size:
        child = 2 * hole + 2
        if child == size or values[child] > values[child - 1]:
            child -= 1
        values[hole], pixels[hole] = values[child], pixels[child]
        hole = child
    while hole > top and values[(hole - 1) // 2] > value:
        parent = (hole - 1) // 2
        values[hole], pixels[hole] = values[parent], pixels[parent]
        hole = parent
    values[hole], pixels[hole] = value, pixel


@_compile
def _topk(maps, keypoint, reach, values, pixels, filled):
    """decode._topk of a suppressed heatmap, into `values` and `pixels`, whose first `filled` are taken already."""
    heat, size, rim = maps.mean_heat[keypoint], len(values), (reach + 1) // UPSCALE
    (height, width), cells = heat.shape, 2 + 2 * rim
    high, margin, columns = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int64)
    lines = np.empty((cells + 1, UPSCALE * cells), np.float32)
    blocks = np.empty((2, UPSCALE * cells, UPSCALE * cells), np.float32)
    band = np.empty((UPSCALE, UPSCALE * width), np.float32)
    own = UPSCALE * rim + _HALF  # where the sample's own pixels begin in a block
    for row in range(height):
        everything = filled < size or values[0] < 0  # then non-peaks count too, as 0
        if everything:
            count, columns[:] = width, np.arange(width)
        else:
            count = _samples_near_peaks(heat, row, values[0], maps.heat_tolerance, high, margin, columns)
        for k in range(count):
            _upsample_heat(maps, keypoint, row - rim, columns[k] - rim, cells, lines, blocks)
            for y in range(UPSCALE):
                for x in range(UPSCALE):
                    value = blocks[0, own + y, own + x]
                    if (everything or value > values[0]) and not _is_peak(blocks[0], own + y, own + x, reach):
                        value = np.float32(0)
                    band[y, UPSCALE * k + x] = value
        for y in range(UPSCALE):
            for k in range(count):
                for x in range(UPSCALE):
                    value = band[y, UPSCALE * k + x]
                    pixel = (UPSCALE * row + y) * UPSCALE * width + UPSCALE * columns[k] + x
                    if filled < size:
                        values[filled], pixels[filled] = value, pixel
                        filled += 1
                        if filled == size:
                            for hole in range(size // 2 - 1, -1, -1):
                                _sift(values, pixels, hole, size, values[hole], pixels[hole])
                    elif value > values[0]:
                        _sift(values, pixels, 0, size, value, pixel)
    for end in range(size - 1, 0, -1):
        value, pixel = values[end], pixels[end]
        values[end], pixels[end] = values[0], pixels[0]
        _sift(values, pixels, 0, end, value, pixel)


@_compile
def find_peaks(maps, settings):
    """decode.find_peaks: (K, M, 3 + S) float32 and (K,) how many of the M are peaks; averages the heatmaps as well."""
    keypoints, height, width = maps.mean_heat.shape
    most = settings.max_num_people
    peaks = np.zeros((keypoints, most, 4 + (len(maps.flip_index) > 0)), np.float32)
    counts = np.zeros(keypoints, np.int64)
    values, pixels = np.empty(most + 1, np.float32), np.empty(most + 1, np.int64)
    below = max(np.nextafter(np.float32(settings.detection_threshold), np.float32(-1)), np.float32(0))
    for keypoint in range(keypoints):
        _average(maps, keypoint)
        # Without ties the order is plain, and nothing below the threshold matters: the heap begins full of that.
        values[:] = below
        _topk(maps, keypoint, settings.reach, values, pixels, most + 1)
        for k in range(most):
            if values[k] > settings.detection_threshold and values[k] == values[k + 1]:
                size = min(most, UPSCALE * UPSCALE * height * width)
                values[size:] = -np.inf
                _topk(maps, keypoint, settings.reach, values[:size], pixels[:size], 0)
                break
        for k in range(most):
            if not values[k] > settings.detection_threshold:  # in float64, as in MMPose
                break
            counts[keypoint] += 1
            y, x = pixels[k] // (UPSCALE * width), pixels[k] % (UPSCALE * width)
            peaks[keypoint, k, 0], peaks[keypoint, k, 1], peaks[keypoint, k, 2] = x, y, values[k]
            _read_tags(maps, keypoint, y, x, peaks[keypoint, k, 3:])
    return peaks, counts


# --- Step 3: people ---------------------------------------------------------------------------------------
@_compile
def _sum(values):
    """Sum of float32 in NumPy's pairwise order: halves down to 128 numbers, then eight running sums and the rest."""
    count = len(values)
    if count > 128:
        half = count // 2 // 8 * 8
        return _sum(values[:half]) + _sum(values[half:])
    total, whole = np.float32(0), count // 8 * 8
    if whole:
        r = values[:8].copy()
        for k in range(8, whole):
            r[k % 8] += values[k]
        total = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
    for k in range(whole, count):
        total += values[k]
    return total


@_compile
def _mean_tag(members, into):
    """Mean of (n, S) tags as NumPy computes it over the first axis: running sums, or `_sum` if S is 1."""
    count, sources = members.shape
    if sources == 1:
        into[0] = _sum(members[:, 0]) / np.float32(count)
        return
    for s in range(sources):
        total = np.float32(0)
        for k in range(count):
            total += members[k, s]
        into[s] = total / np.float32(count)


@_compile
def _star_one_more(matrix, star):
    """Primes zeros until one has no starred (assigned) zero in its row, then stars one row more (munkres, 4 to 6)."""
    size = len(star)
    prime, row_covered, column_open = np.full(size, -1), np.zeros(size, np.bool_), np.ones(size, np.bool_)
    column_open[star[star >= 0]] = False
    row = column = 0
    while True:
        found = -1
        for step in range(size):  # rows from the last one on, round the end
            candidate = (row + step) % size
            if row_covered[candidate]:
                continue
            before = last = -1  # open zeros: the last one before `column`, and the last of all
            for k in range(size):
                if matrix[candidate, k] == 0 and column_open[k]:
                    last = k
                    if k < column:
                        before = k
            if last >= 0:
                found, column = candidate, before if before >= 0 else last
                break
        if found < 0:
            least = np.inf
            for i in range(size):
                for k in range(size):
                    if not row_covered[i] and column_open[k]:
                        least = min(least, matrix[i, k])
            for i in range(size):
                for k in range(size):
                    if row_covered[i]:
                        matrix[i, k] += least
                    if column_open[k]:
                        matrix[i, k] -= least
            row = column = 0
            continue
        row = found
        prime[row] = column
        if star[row] < 0:
            break
        column = star[row]
        row_covered[row], column_open[column] = True, True
    while row >= 0:  # primes along the path become stars, and displace the stars in their columns
        displaced = np.flatnonzero(star == prime[row])
        star[row] = prime[row]
        row = displaced[0] if len(displaced) else -1


@_compile
def _assign(matrix):
    """Column of each row of an (n, n) float64 cost matrix, least in sum; of equal sums the choice of munkres 1.1.4."""
    size = len(matrix)
    star, taken = np.full(size, -1), np.zeros(size, np.bool_)
    for row in range(size):
        matrix[row] -= matrix[row].min()
        for k in range(size):
            if matrix[row, k] == 0 and not taken[k]:
                star[row], taken[k] = k, True
                break
    while (star < 0).any():
        _star_one_more(matrix, star)
    return star


@_compile
def _match(candidates, means, settings):
    """decode._match for (M, 3 + S) candidates and (P, S) mean tags of people."""
    count, people = len(candidates), len(means)
    owners = np.full(count, -1)
    if not people:
        return owners
    distance = np.empty((count, people))
    size = max(count, people)
    cost = np.zeros((size, size))
    for i in range(count):
        for p in range(people):
            total = 0.0
            for s in range(means.shape[1]):
                gap = np.float64(candidates[i, 3 + s]) - np.float64(means[p, s])
                total += gap * gap
            distance[i, p] = cost[i, p] = np.sqrt(total)
            if settings.use_detection_val:
                cost[i, p] = np.rint(distance[i, p]) * 100 - candidates[i, 2]
        cost[i, people:] = settings.no_match_cost
    star = _assign(cost)
    for i in range(count):
        if star[i] < people and distance[i, star[i]] < settings.tag_threshold:
            owners[i] = star[i]
    return owners


@_compile
def group_peaks(peaks, counts, grouping_order, settings):
    """decode.group_peaks: (P, K, 3 + S) float32."""
    keypoints, _, width = peaks.shape
    most = max(counts.sum(), 1)
    people = np.zeros((most, keypoints, width), np.float32)
    members = np.empty((most, keypoints, width - 3), np.float32)
    means = np.empty((most, width - 3), np.float32)
    sizes = np.zeros(most, np.int64)
    founders = np.empty(most, np.float32)
    number, limit = 0, settings.max_num_people if settings.ignore_too_much else most
    for keypoint in grouping_order:
        if not counts[keypoint]:
            continue
        candidates = peaks[keypoint, : counts[keypoint]]
        known = min(number, limit)
        for p in range(known):
            _mean_tag(members[p, : sizes[p]], means[p])
        owners = _match(candidates, means[:known], settings)
        for k in range(len(candidates)):
            owner = owners[k]
            if owner < 0:
                owner = 0
                while owner < number and founders[owner] != candidates[k, 3]:
                    owner += 1
                if owner == number:
                    founders[number] = candidates[k, 3]
                    number += 1
                sizes[owner] = 0
            members[owner, sizes[owner]] = candidates[k, 3:]
            sizes[owner] += 1
            people[owner, keypoint] = candidates[k]
    return people[: min(number, limit)].copy()


# --- Step 4: a quarter pixel ------------------------------------------------------------------------------
@_compile
def _adjust(maps, keypoint, found):
    """Moves one keypoint (3 + S,) by a quarter pixel, and to the pixel's center."""
    y, x = np.int64(found[1]), np.int64(found[0])
    bottom, right = UPSCALE * maps.mean_heat.shape[1] - 1, UPSCALE * maps.mean_heat.shape[2] - 1
    rises_x = _heat(maps, keypoint, y, min(x + 1, right)) > _heat(maps, keypoint, y, max(x - 1, 0))
    rises_y = _heat(maps, keypoint, min(y + 1, bottom), x) > _heat(maps, keypoint, max(y - 1, 0), x)
    found[0] += np.float32(0.5 + 0.25 if rises_x else 0.5 - 0.25)
    found[1] += np.float32(0.5 + 0.25 if rises_y else 0.5 - 0.25)


@_compile
def adjust_keypoints(maps, people):
    """decode.adjust_keypoints, in place."""
    for p in range(people.shape[0]):
        for keypoint in range(people.shape[1]):
            if people[p, keypoint, 2] > 0:
                _adjust(maps, keypoint, people[p, keypoint])


# --- Step 5: missing keypoints, by branch and bound ---------------------------------------------------------
@_compile
def _affinity(heat, tags, person_tags):
    """Heat minus rounded tag distance."""
    total = np.float32(0)
    for s in range(len(tags)):
        gap = tags[s] - person_tags[s]
        total += gap * gap
    return heat - np.rint(np.sqrt(total))


@_compile
def _bound_maps(channels, channel, flipped, tolerance, low, high):
    """Bounds of each tile's pixels, from _TILE + 1 samples a side, into low (unless empty) and high: (tall, wide)."""
    _, height, width = channels.shape
    bottom, top = np.empty(width, np.float32), np.empty(width, np.float32)
    for i in range(high.shape[0]):
        bottom[:] = top[:] = channels[channel, min(max(_TILE * i - 1, 0), height - 1)]
        for k in range(_TILE):
            row = channels[channel, min(_TILE * i + k, height - 1)]
            if low.size:
                for x in range(width):
                    bottom[x] = min(bottom[x], row[x])
            for x in range(width):
                top[x] = max(top[x], row[x])
        for j in range(high.shape[1]):
            lowest, highest = np.float32(np.inf), np.float32(-np.inf)
            for x in range(min(max(_TILE * j - 1, 0), width - 1), min(_TILE * (j + 1), width)):
                at = _U(width - 1 - x if flipped else x)
                lowest, highest = min(lowest, bottom[at]), max(highest, top[at])
            high[i, j] = highest + tolerance if highest != 0 else highest  # mixes of numbers up to 0 stay up to 0
            if low.size:
                low[i, j] = lowest - tolerance if lowest != 0 else lowest


@_compile
def _can_win(affinity, pixel, best):
    """Whether a pixel beats the best (affinity, pixel) so far; of equals the first on the map wins."""
    return affinity > best[0] or (affinity == best[0] and pixel < best[1])


@_compile
def _search_cell(maps, keypoint, tags, row, column, best, here, lines, blocks):
    """The better of `best` and the pixels of a cell; tags are read only where the heat allows it."""
    _, height, width = maps.mean_heat.shape
    _upsample_heat(maps, keypoint, row, column, 1, lines, blocks)
    top, left = UPSCALE * row - _HALF, UPSCALE * column - _HALF
    for y in range(max(top, 0), min(top + UPSCALE, UPSCALE * height)):
        for x in range(max(left, 0), min(left + UPSCALE, UPSCALE * width)):
            heat, pixel = blocks[0, y - top, x - left], y * UPSCALE * width + x
            if _can_win(heat, pixel, best):
                _read_tags(maps, keypoint, y, x, here)
                affinity = _affinity(heat, here, tags)
                if _can_win(affinity, pixel, best):
                    best = affinity, pixel
    return best


@_compile
def _bound_cell(maps, keypoint, heat, tags, row, column):
    """Upper bound of heat minus rounded tag distance of the pixels of a cell."""
    count, total = len(maps.mean_heat), np.float32(0)
    for s in range(len(tags)):
        channels, channel = (maps.flipped, count + maps.flip_index[keypoint]) if s else (maps.output, count + keypoint)
        nw, ne = (
            _sample(channels, channel, s == 1, row - 1, column - 1),
            _sample(channels, channel, s == 1, row - 1, column),
        )
        sw, se = _sample(channels, channel, s == 1, row, column - 1), _sample(channels, channel, s == 1, row, column)
        low = min(min(nw, ne), min(sw, se)) - maps.tag_tolerance
        high = max(max(nw, ne), max(sw, se)) + maps.tag_tolerance
        gap = max(max(low - tags[s], tags[s] - high), np.float32(0))
        total += gap * gap
    return heat - np.rint(np.sqrt(total))


@_compile
def _search_tile(maps, keypoint, tags, tile_row, tile_column, best, here, lines, blocks):
    """The better of `best` and the pixels of a tile, of whose cells only those are searched that can win."""
    _, height, width = maps.mean_heat.shape
    top, left = _TILE * tile_row, _TILE * tile_column
    for row in range(top, min(top + _TILE, height + 1)):
        nw = _sample(maps.mean_heat, keypoint, False, row - 1, left - 1)
        sw = _sample(maps.mean_heat, keypoint, False, row, left - 1)
        for column in range(left, min(left + _TILE, width + 1)):
            ne = _sample(maps.mean_heat, keypoint, False, row - 1, column)
            se = _sample(maps.mean_heat, keypoint, False, row, column)
            heat = max(max(nw, ne), max(sw, se))
            if heat != 0:
                heat += maps.heat_tolerance
            if heat >= best[0] and _bound_cell(maps, keypoint, heat, tags, row, column) >= best[0]:
                best = _search_cell(maps, keypoint, tags, row, column, best, here, lines, blocks)
            nw, sw = ne, se
    return best


@_compile
def _likeliest(maps, keypoint, tags, seeds, heats, lows, highs, bounds, tops, here, lines, blocks):
    """The pixel where heat minus rounded tag distance is highest: branch and bound, the best tile first.

    Peaks, `seeds` (M, 3 + S), are the first guesses. heats (tall, wide), lows and highs (S, tall, wide) are from
    `_bound_maps`; bounds (tall, wide) of the difference and tops (wide,) are scratch.
    """
    width = maps.mean_heat.shape[2]
    best = np.float32(-np.inf), np.int64(0)
    for k in range(len(seeds)):
        affinity = _affinity(seeds[k, 2], seeds[k, 3:], tags)
        pixel = np.int64(seeds[k, 1]) * UPSCALE * width + np.int64(seeds[k, 0])
        if _can_win(affinity, pixel, best):
            best = affinity, pixel
    tops[:] = -np.inf
    for i in range(len(bounds)):
        row, heat = bounds[i], heats[i]
        row[:] = 0
        for s in range(len(tags)):
            low, high, tag = lows[s, i], highs[s, i], tags[s]
            for j in range(len(row)):
                gap = max(max(low[j] - tag, tag - high[j]), np.float32(0))
                row[j] += gap * gap
        for j in range(len(row)):
            row[j] = heat[j] - np.rint(np.sqrt(row[j]))
            tops[j] = max(tops[j], row[j])
    while True:
        j = tops.argmax()
        top = tops[j]
        if top < best[0] or top == -np.inf:
            return best[1]
        i, rest = -1, np.float32(-np.inf)
        for k in range(len(bounds)):
            if i < 0 and bounds[k, j] == top:
                i = k
            else:
                rest = max(rest, bounds[k, j])
        bounds[i, j], tops[j] = -np.inf, rest
        best = _search_tile(maps, keypoint, tags, i, j, best, here, lines, blocks)


@_compile
def fill_missing_keypoints(maps, people, tags, peaks, counts):
    """decode.fill_missing_keypoints, in place; tags (P, S) and peaks as `find_peaks` returns them."""
    keypoints, height, width = maps.mean_heat.shape
    sources = tags.shape[1]
    shape = height // _TILE + 1, width // _TILE + 1  # tiles that cover the cells, one more than samples
    heats, bounds, tops = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape[1], np.float32)
    lows, highs = np.empty((sources, *shape), np.float32), np.empty((sources, *shape), np.float32)
    here, lines = np.empty(sources, np.float32), np.empty((2, UPSCALE), np.float32)
    blocks = np.empty((2, UPSCALE, UPSCALE), np.float32)
    for keypoint in range(keypoints):
        if (people[:, keypoint, 2] != 0).all():
            continue
        _bound_maps(maps.mean_heat, keypoint, False, maps.heat_tolerance, lows[0, :0], heats)
        _bound_maps(maps.output, keypoints + keypoint, False, maps.tag_tolerance, lows[0], highs[0])
        if sources == 2:
            channel = keypoints + maps.flip_index[keypoint]
            _bound_maps(maps.flipped, channel, True, maps.tag_tolerance, lows[1], highs[1])
        for p in range(len(people)):
            if people[p, keypoint, 2] == 0:
                seeds = peaks[keypoint, : counts[keypoint]]
                pixel = _likeliest(
                    maps, keypoint, tags[p], seeds, heats, lows, highs, bounds, tops, here, lines, blocks
                )
                y, x = pixel // (UPSCALE * width), pixel % (UPSCALE * width)
                heat = _heat(maps, keypoint, y, x)
                if heat > 0:
                    people[p, keypoint, 0], people[p, keypoint, 1], people[p, keypoint, 2] = x, y, heat
                    _adjust(maps, keypoint, people[p, keypoint])


# --- All steps ----------------------------------------------------------------------------------------------
@_compile
def _decode(maps, grouping_order, settings):
    """All steps, in pixels of the network's input: people (P, K, 3 + S), scores (P,) and tags (P, S)."""
    peaks, counts = find_peaks(maps, settings)
    people = group_peaks(peaks, counts, grouping_order, settings)
    if settings.adjust:
        adjust_keypoints(maps, people)
    scores, tags = np.empty(len(people), np.float32), np.empty((len(people), peaks.shape[2] - 3), np.float32)
    for p in range(len(people)):
        scores[p] = _sum(people[p, :, 2].copy()) / np.float32(people.shape[1])
        _mean_tag(people[p][people[p, :, 2] > 0][:, 3:], tags[p])
    if settings.refine:
        fill_missing_keypoints(maps, people, tags, peaks, counts)
    return people, scores, tags


_work = threading.local()  # a thread's mean heatmaps, used again for the next image of the same size


def decode(output, flipped_output, config, keypoints, nms_size, no_match_cost):
    """Takes all steps of `decode.decode_steps` for (2K, h, w) float32 outputs of a `KeypointSet`.

    Returns (P, K, 3 + S) people, (P,) scores and (P, S) tags; None if an output holds NaN or infinity.
    """
    output = np.ascontiguousarray(output)
    flipped = output if flipped_output is None else np.ascontiguousarray(flipped_output)
    largest = np.zeros(2, np.uint32)  # of heatmaps and tag maps
    for array in (output,) if flipped is output else (output, flipped):
        largest = np.maximum(largest, [largest_magnitude(half) for half in array.view(np.uint32).reshape(2, -1)])
    tolerances = np.float32(_TOLERANCE) * largest.astype(np.uint32).view(np.float32)
    if not np.isfinite(tolerances).all():
        return None
    shape = (len(keypoints), *output.shape[1:])
    if getattr(_work, "mean_heat", np.empty(0)).shape != shape:
        _work.mean_heat = np.empty(shape, np.float32)
    flip_index = np.array(keypoints.flip_index if flipped_output is not None else (), np.int64)
    thresholds = {name: float(getattr(config, name)) for name in ("detection_threshold", "tag_threshold")}
    settings = Settings(**{**vars(config), **thresholds}, reach=nms_size // 2, no_match_cost=no_match_cost)
    maps = Maps(output, flipped, flip_index, _work.mean_heat, *tolerances)
    return _decode(maps, np.array(keypoints.grouping_order), settings)
