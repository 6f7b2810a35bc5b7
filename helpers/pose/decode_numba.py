"""The decoder of `decode` once more, as loops that numba compiles: same numbers to the last bit, quicker.

`decode` says what is computed and why; this room is called by it where numba is installed, and imported only
then. Written in loops, a candidate costs what it is: no table of all of them, no enlarged patch that nobody asked
for, and a search for a missing joint looks at a few tiles. One thread, and the GIL is free meanwhile.

Compiled code is kept on disk (in `__pycache__`, or where `NUMBA_CACHE_DIR` says), so that only the first run on a
machine waits for the compiler; `helpers.pose.decode.warm_up` does that waiting in advance.

Frames and terms are those of `decode`: *samples* (h, w) of an output, *pixels* (4h, 4w) of the enlarged map.
An output's border is repeated outwards here by clamping indices, not by a rim.
"""

from __future__ import annotations

import functools

import numba
import numpy as np

_JOINTS = 17
_TILE = 4  # cells per side of a tile, the unit of the search for missing joints
_PEAKS = 1024  # peaks of one joint kept before order among equals is looked into; more are a plateau or noise
_HEAD = 3  # so many times the samples whose pixels fill the heap are looked at whole
_NO_MATCH_COST = 1e10  # as in decode._match
_U = np.uint64  # an index of this type is not tried for counting from the end, and loops over it become vector code

# Weights of the near sample (float64) and the far one (float32) for the four pixels between two samples.
_NEAR = np.array([0.875, 0.625, 0.375, 0.125])
_FAR = np.array([0.125, 0.375, 0.625, 0.875], dtype=np.float32)


def _compile(function):
    """numba.njit without the GIL, cached on disk where a folder can be written to."""
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # a read-only installation without a home folder has no place for a cache
        return numba.njit(nogil=True, error_model="numpy")(function)


# --- The enlarged map -------------------------------------------------------------------------------------


@_compile
def _lerp(near, far, phase):
    """decode._lerp for one value: a float32 product inside, a float64 sum, as a fused multiply-add rounds."""
    return np.float32(near * _NEAR[phase] + far * _FAR[phase])


@_compile
def _clamp(index, size):
    return min(max(index, 0), size - 1)


@_compile
def _sample(maps, channel, mirrored, row, column):
    """One sample of an output, of a mirror image turned back; beyond the border, that of the border."""
    column = _clamp(column, maps.shape[2])
    if mirrored:
        column = maps.shape[2] - 1 - column
    return maps[channel, _U(_clamp(row, maps.shape[1])), _U(column)]


@_compile
def _pixel(maps, channel, mirrored, y, x):
    """One pixel of an enlarged map."""
    row, phase_y = (y + 2) // 4, (y + 2) % 4
    column, phase_x = (x + 2) // 4, (x + 2) % 4
    above = _lerp(
        _sample(maps, channel, mirrored, row - 1, column - 1),
        _sample(maps, channel, mirrored, row - 1, column),
        phase_x,
    )
    below = _lerp(
        _sample(maps, channel, mirrored, row, column - 1), _sample(maps, channel, mirrored, row, column), phase_x
    )
    return _lerp(above, below, phase_y)


@_compile
def _heat(output, flipped, twins, joint, y, x):
    """One pixel of the enlarged mean heatmap; `twins` is empty without flip test."""
    own = _pixel(output, joint, False, y, x)
    if not len(twins):
        return own
    return (own + _pixel(flipped, twins[joint], True, y, x)) / np.float32(2)


@_compile
def _read_tags(output, flipped, twins, joint, y, x, into):
    """The tags of one pixel of the enlarged tag maps, image first, into (S,)."""
    into[0] = _pixel(output, _JOINTS + joint, False, y, x)
    if len(twins):
        into[1] = _pixel(flipped, _JOINTS + twins[joint], True, y, x)


@_compile
def _enlarge(maps, channel, mirrored, row, column, cells, lines, block):
    """The pixels of a square of cells, into block (4 cells, 4 cells); `lines` (cells + 1, 4 cells) is scratch.

    Cell (row, column) lies between the samples of that index and those before.
    """
    for i in range(cells + 1):
        near = _sample(maps, channel, mirrored, row - 1 + i, column - 1)
        for cell in range(cells):
            far = _sample(maps, channel, mirrored, row - 1 + i, column + cell)
            for phase in range(4):
                lines[i, 4 * cell + phase] = _lerp(near, far, phase)
            near = far
    for cell in range(cells):
        for phase in range(4):
            for k in range(4 * cells):
                block[4 * cell + phase, k] = _lerp(lines[cell, k], lines[cell + 1, k], phase)


@_compile
def _enlarge_heat(output, flipped, twins, joint, row, column, cells, lines, blocks):
    """The mean heat pixels of a square of cells, into blocks[0]; blocks (2, 4 cells, 4 cells) float32."""
    _enlarge(output, joint, False, row, column, cells, lines, blocks[0])
    if len(twins):
        _enlarge(flipped, twins[joint], True, row, column, cells, lines, blocks[1])
        for y in range(4 * cells):
            for x in range(4 * cells):
                blocks[0, y, x] = (blocks[0, y, x] + blocks[1, y, x]) / np.float32(2)


@_compile
def _heat_around(output, flipped, twins, joint, row, column, lines, blocks):
    """The 8x8 mean heat pixels of the four cells that meet in a sample, into blocks[0]; -inf beyond the map."""
    _, height, width = output.shape
    _enlarge_heat(output, flipped, twins, joint, row, column, 2, lines, blocks)
    if row == 0:
        blocks[0, :2] = -np.inf
    if row == height - 1:
        blocks[0, 6:] = -np.inf
    if column == 0:
        blocks[0, :, :2] = -np.inf
    if column == width - 1:
        blocks[0, :, 6:] = -np.inf


@_compile
def _is_peak(blocks, y, x):
    """Whether a pixel of the 8x8 in blocks[0] is the greatest of its 5x5."""
    value = blocks[0, y, x]
    for i in range(y - 2, y + 3):
        for j in range(x - 2, x + 3):
            if blocks[0, i, j] > value:
                return False
    return True


# --- Step 1: maps -----------------------------------------------------------------------------------------


@_compile
def largest_magnitude(bits):
    """Largest magnitude of float32 numbers, found on their bit patterns.

    Magnitudes order as their bit patterns do, infinity and NaN above all numbers, and whole numbers compare many at
    a time.

    Args:
        bits: (channels, n) uint32 view of float32.

    Returns:
        Its bit pattern, uint32; 0x7F800000 or more means infinity or NaN.
    """
    found = np.uint32(0)
    for channel in range(bits.shape[0]):
        row = bits[channel]
        largest = np.uint32(0)
        for i in range(row.shape[0]):
            largest = max(largest, np.uint32(row[i] << np.uint32(1)))  # without the sign
        found = max(found, largest)
    return np.uint32(found >> np.uint32(1))


@_compile
def _average(output, flipped, twins, joint, means):
    """The mean heatmap of a joint, into means (17, h, w)."""
    _, height, width = means.shape
    for y in range(height):
        row, own = means[joint, y], output[joint, y]
        if len(twins):
            other = flipped[twins[joint], y]
            for x in range(width):
                row[x] = (own[x] + other[_U(width - 1 - x)]) / np.float32(2)
        else:
            row[:] = own


# --- Step 2: peaks ----------------------------------------------------------------------------------------


@_compile
def _may_peak(before_0, before_1, before_2, at_0, at_1, at_2, after_0, after_1, after_2):
    """How much higher, at best, the sample in the middle is than both its neighbours, along a line of pixels.

    The line of pixels mixes two lines of samples, 1/8 or 3/8 of the one on either side: see
    decode._samples_near_peaks. 0, 1, 2 count across the line. All float32 and no branches, to be vector code.
    """
    a, b, rest_a, rest_b = np.float32(0.125), np.float32(0.375), np.float32(0.875), np.float32(0.625)
    up_0, up_1, up_2 = at_0 - before_0, at_1 - before_1, at_2 - before_2
    down_0, down_1, down_2 = at_0 - after_0, at_1 - after_1, at_2 - after_2
    first = min(a * up_0 + rest_a * up_1, a * down_0 + rest_a * down_1)
    second = min(b * up_0 + rest_b * up_1, b * down_0 + rest_b * down_1)
    third = min(a * up_2 + rest_a * up_1, a * down_2 + rest_a * down_1)
    fourth = min(b * up_2 + rest_b * up_1, b * down_2 + rest_b * down_1)
    return max(max(first, second), max(third, fourth))


@_compile
def _chance(above, at, below, left, x, right):
    """How much a sample may rise over its neighbours along rows and along columns, the lesser of both."""
    nw, n, ne, w, c, e = above[left], above[x], above[right], at[left], at[x], at[right]
    sw, s, se = below[left], below[x], below[right]
    return min(_may_peak(nw, w, sw, n, c, s, ne, e, se), _may_peak(nw, n, ne, w, c, e, sw, s, se))


@_compile
def _samples_near_peaks(means, joint, row, least, slack, lines, columns):
    """Columns of the samples of a row whose 4x4 pixels may hold a peak above `least`; how many.

    Args:
        lines: (2, w) float32, scratch.
        columns: (w,) int64, filled.
    """
    _, height, width = means.shape
    above, at, below = means[joint, max(row - 1, 0)], means[joint, row], means[joint, min(row + 1, height - 1)]
    high, chance = lines[0], lines[1]
    limit, some = least - slack, 0
    for x in range(width):
        high[x] = max(max(above[x], at[x]), below[x])
        some += high[x] > limit
    if not some:
        return 0
    last = width - 1
    for x in range(1, last):
        chance[_U(x)] = _chance(above, at, below, _U(x - 1), _U(x), _U(x + 1))
    chance[last] = _chance(above, at, below, _U(max(last - 1, 0)), _U(last), _U(last))
    chance[0] = _chance(above, at, below, _U(0), _U(0), _U(min(1, last)))
    count = 0
    for x in range(width):
        near = max(max(high[_U(max(x - 1, 0))], high[x]), high[_U(min(x + 1, last))])
        if chance[x] >= -slack and near > limit:
            columns[count] = x
            count += 1
    return count


@_compile
def _find_peaks(output, flipped, twins, joint, means, threshold, slack, found, pixels, scratch):
    """Peaks above the threshold in the order they are come by; how many, or -1 if they are more than fit.

    Args:
        found: (M,) float32 heat, filled.
        pixels: (M,) int64 y * 4w + x, filled.
        scratch: (rows, columns, lines, blocks).
    """
    rows, columns, lines, blocks = scratch
    _, height, width = means.shape
    count = 0
    for row in range(height):
        for k in range(_samples_near_peaks(means, joint, row, threshold, slack, rows, columns)):
            column = columns[k]
            _heat_around(output, flipped, twins, joint, row, column, lines, blocks)
            for y in range(2, 6):
                for x in range(2, 6):
                    if blocks[0, y, x] > threshold and _is_peak(blocks, y, x):
                        if count == len(found):
                            return -1
                        found[count] = blocks[0, y, x]
                        pixels[count] = (4 * row + y - 2) * 4 * width + 4 * column + x - 2
                        count += 1
    return count


@_compile
def _order(found, pixels, count, most):
    """Sorts the best `most` + 1 of `count` peaks to the front, best first; False if two of them are equally high."""
    for k in range(min(count, most + 1)):
        best = k
        for other in range(k + 1, count):
            if found[other] > found[best]:
                best = other
        found[k], found[best] = found[best], found[k]
        pixels[k], pixels[best] = pixels[best], pixels[k]
        if k and found[k] == found[k - 1]:
            return False
    return True


# --- Order among equally high peaks: torch.topk's (see decode._TopK) -----------------------------------------


@_compile
def _sift(values, pixels, hole, size, value, pixel):
    """libstdc++'s `__adjust_heap`: the hole sinks along the lesser children, then the item climbs from there."""
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
def _suppress(output, flipped, twins, joint, row, columns, count, scratch, rows):
    """The 4x4 pixels of `count` samples of a row, 0 where is no peak, side by side into rows (4, 4 count)."""
    _, _, lines, blocks = scratch
    for k in range(count):
        _heat_around(output, flipped, twins, joint, row, columns[k], lines, blocks)
        for y in range(4):
            for x in range(4):
                value = blocks[0, y + 2, x + 2]
                rows[y, 4 * k + x] = value if _is_peak(blocks, y + 2, x + 2) else value * np.float32(0)


@_compile
def _keep_best(output, flipped, twins, joint, means, slack, most, everything, found, pixels, scratch, rows):
    """Streams the enlarged heatmap, 0 where is no peak, through a heap of the best `most` in found and pixels.

    The heap begins as the first `most` pixels of the map. While its least is below 0, pixels that are no peak count
    too, as 0; that is over after a few more of them. From then on what matters exceeds the least, so that few samples
    are looked at, unless `everything` is to be. False, before the end, if those few more were not enough.
    """
    near_rows, columns = scratch[0], scratch[1]
    _, height, width = means.shape
    filled = 0
    for row in range(height):
        if everything:
            first = count = width
            columns[:] = np.arange(width)
        else:
            first = min(_HEAD * ((most + 3) // 4), width) if filled < most else 0
            least = found[0] if filled == most else np.float32(0)
            near = _samples_near_peaks(means, joint, row, least, slack, near_rows, columns)
            skip = 0
            while skip < near and columns[skip] < first:
                skip += 1
            count = first + near - skip
            if first:
                columns[first:count] = columns[skip:near].copy()
                columns[:first] = np.arange(first)
        _suppress(output, flipped, twins, joint, row, columns, count, scratch, rows)
        for y in range(4):
            for k in range(count):
                for x in range(4):
                    value, pixel = rows[y, 4 * k + x], (4 * row + y) * 4 * width + 4 * columns[k] + x
                    if filled < most:
                        found[filled], pixels[filled] = value, pixel
                        filled += 1
                        if filled == most:
                            for hole in range(most // 2 - 1, -1, -1):
                                _sift(found, pixels, hole, most, found[hole], pixels[hole])
                    elif value > found[0]:
                        _sift(found, pixels, 0, most, value, pixel)
                if row == 0 and y == 0 and k + 1 == first and found[0] < 0 and not everything:
                    return False
    return True


@_compile
def _peaks_in_torch_order(output, flipped, twins, joint, means, threshold, slack, most, found, pixels, scratch):
    """The best `most` peaks as torch.topk leaves them, into `found` and `pixels`; how many exceed the threshold."""
    _, height, width = means.shape
    most = min(most, 16 * height * width)
    rows = np.empty((4, 4 * width), np.float32)
    thin = most > 4 * width  # more are asked for than a row of pixels has
    if not _keep_best(output, flipped, twins, joint, means, slack, most, thin, found, pixels, scratch, rows):
        _keep_best(output, flipped, twins, joint, means, slack, most, True, found, pixels, scratch, rows)
    for size in range(most - 1, 0, -1):
        value, pixel = found[size], pixels[size]
        found[size], pixels[size] = found[0], pixels[0]
        _sift(found, pixels, 0, size, value, pixel)
    count = 0
    while count < most and found[count] > threshold:
        count += 1
    return count


# --- Step 3: people ---------------------------------------------------------------------------------------


@_compile
def _sum(values):
    """Sum of up to 128 float32 in NumPy's order: eight running sums, then the rest."""
    count = len(values)
    total = np.float32(0)
    if count < 8:
        for value in values:
            total += value
        return total
    r = values[:8].copy()
    start = 8
    while start + 8 <= count:
        for k in range(8):
            r[k] += values[start + k]
        start += 8
    total = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
    for k in range(start, count):
        total += values[k]
    return total


@_compile
def _mean_tag(members, into):
    """Mean of (n, S) float32 tags, as NumPy's mean over the first axis: running sums, or `_sum` if S is 1."""
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
    """decode._star_one_more in loops."""
    size = len(star)
    prime = np.full(size, -1)
    row_covered = np.zeros(size, np.bool_)
    column_open = np.ones(size, np.bool_)
    for row in range(size):
        if star[row] >= 0:
            column_open[star[row]] = False
    row = column = 0
    while True:
        found = -1
        for step in range(size):
            candidate = row + step if row + step < size else row + step - size
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
                if not row_covered[i]:
                    for k in range(size):
                        if column_open[k] and matrix[i, k] < least:
                            least = matrix[i, k]
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
        row_covered[row] = True
        column_open[column] = True
    while row >= 0:
        column = prime[row]
        displaced = -1
        for i in range(size):
            if star[i] == column:
                displaced = i
                break
        star[row] = column
        row = displaced


@_compile
def _assign(matrix):
    """decode._assign: the column of each row of an (n, n) float64 cost matrix, which is overwritten."""
    size = len(matrix)
    star = np.full(size, -1)
    taken = np.zeros(size, np.bool_)
    for row in range(size):
        least = matrix[row].min()
        for k in range(size):
            matrix[row, k] -= least
    for row in range(size):
        for k in range(size):
            if matrix[row, k] == 0 and not taken[k]:
                star[row] = k
                taken[k] = True
                break
    while (star < 0).any():
        _star_one_more(matrix, star)
    return star


@_compile
def _match(candidates, heats, means, tag_threshold, use_detection_val):
    """decode._match: the person of each of M candidates, -1 for nobody.

    Args:
        candidates: (M, S) float32 tags.
        heats: (M,) float32.
        means: (P, S) float32 mean tags.
    """
    count, people = len(candidates), len(means)
    owner = np.full(count, -1)
    if not people:
        return owner
    distance = np.empty((count, people))
    size = max(count, people)
    cost = np.zeros((size, size))
    for i in range(count):
        for p in range(people):
            total = 0.0
            for s in range(candidates.shape[1]):
                difference = np.float64(candidates[i, s]) - np.float64(means[p, s])
                total += difference * difference
            distance[i, p] = np.sqrt(total)
            cost[i, p] = np.rint(distance[i, p]) * 100 - heats[i] if use_detection_val else distance[i, p]
        cost[i, people:] = _NO_MATCH_COST
    star = _assign(cost)
    for i in range(count):
        if star[i] < people and distance[i, star[i]] < tag_threshold:
            owner[i] = star[i]
    return owner


@_compile
def _group(peaks, counts, order, limit, tag_threshold, use_detection_val):
    """decode.group_peaks: (P, 17, 3 + S) float32.

    Args:
        peaks: (17, M, 3 + S) float32: x, y, heat, tags.
        counts: (17,) of them.
        order: (17,) joints in the order they are dealt with.
        limit: most people that may be joined or kept.
    """
    width = peaks.shape[2]
    most = max(counts.sum(), 1)
    people = np.zeros((most, _JOINTS, width), np.float32)
    members = np.empty((most, _JOINTS, width - 3), np.float32)
    means = np.empty((most, width - 3), np.float32)
    sizes = np.zeros(most, np.int64)
    founders = np.empty(most, np.float32)
    number = 0
    for joint in order:
        if not counts[joint]:
            continue
        here = peaks[joint, : counts[joint]]
        known = min(number, limit)
        for p in range(known):
            _mean_tag(members[p, : sizes[p]], means[p])
        owners = _match(here[:, 3:], here[:, 2], means[:known], tag_threshold, use_detection_val)
        for k in range(len(here)):
            owner = owners[k]
            if owner < 0:
                owner = number
                for p in range(number):
                    if founders[p] == here[k, 3]:
                        owner = p
                        break
                if owner == number:
                    founders[number] = here[k, 3]
                    number += 1
                sizes[owner] = 0
            members[owner, sizes[owner]] = here[k, 3:]
            sizes[owner] += 1
            people[owner, joint] = here[k]
    return people[: min(number, limit)].copy()


# --- Step 4: a quarter pixel ------------------------------------------------------------------------------


@_compile
def _quarter_step(output, flipped, twins, joint, y, x):
    """decode._quarter_steps for one pixel: (x, y) steps."""
    bottom, right = 4 * output.shape[1] - 1, 4 * output.shape[2] - 1
    before = above = np.float32(0)
    x_rises = y_rises = False
    for way in (-1, 1):  # in the end, the pixel after is compared with the one before
        beside = _heat(output, flipped, twins, joint, y, _clamp(x + way, right + 1))
        under = _heat(output, flipped, twins, joint, _clamp(y + way, bottom + 1), x)
        x_rises, y_rises = beside > before, under > above
        before, above = beside, under
    return np.float32(0.25 if x_rises else -0.25), np.float32(0.25 if y_rises else -0.25)


@_compile
def _adjust(output, flipped, twins, people):
    """decode.adjust_joints, in place."""
    for p in range(len(people)):
        for joint in range(_JOINTS):
            if people[p, joint, 2] > 0:
                x, y = np.int64(people[p, joint, 0]), np.int64(people[p, joint, 1])
                step_x, step_y = _quarter_step(output, flipped, twins, joint, y, x)
                people[p, joint, 0] += step_x + np.float32(0.5)
                people[p, joint, 1] += step_y + np.float32(0.5)


# --- Step 5: missing joints ---------------------------------------------------------------------------------


@_compile
def _rounded_norm(gap):
    """decode._rounded_norm of (S,) float32."""
    total = gap[0] * gap[0]
    for s in range(1, len(gap)):
        total += gap[s] * gap[s]
    return np.rint(np.sqrt(total))


@_compile
def _tile_extremes(maps, channel, mirrored, least, low, high, lines):
    """Least (where asked for) and greatest sample of each tile of a map, into low and high (tall, wide).

    A tile's cells lie between the _TILE + 1 rows and columns of samples that end with the last one of the tile.

    Args:
        least: whether `low` is wanted.
        lines: (2, w) float32, scratch.
    """
    _, height, width = maps.shape
    bottom, top = lines[0], lines[1]
    for i in range(high.shape[0]):
        first = maps[channel, _clamp(_TILE * i - 1, height)]
        bottom[:] = first
        top[:] = first
        for k in range(_TILE):
            row = maps[channel, _clamp(_TILE * i + k, height)]
            if least:
                for x in range(width):
                    bottom[x] = min(bottom[x], row[x])
            for x in range(width):
                top[x] = max(top[x], row[x])
        for j in range(high.shape[1]):
            lowest, highest = np.float32(np.inf), np.float32(-np.inf)
            for x in range(max(_TILE * j - 1, 0), min(_TILE * (j + 1), width)):
                at = _U(width - 1 - x if mirrored else x)
                lowest, highest = min(lowest, bottom[at]), max(highest, top[at])
            if _TILE * j - 1 >= width - 1:  # nothing but what lies beyond the border
                at = _U(0 if mirrored else width - 1)
                lowest, highest = bottom[at], top[at]
            low[i, j], high[i, j] = lowest, highest


@_compile
def _can_win(affinity, first, best, pixel):
    """Whether something beats the best so far, or may be as good at an earlier pixel."""
    return affinity > best or (affinity == best and first < pixel)


@_compile
def _first_pixel(row, column, width):
    """Index of the first pixel on the map of the square that begins with a cell."""
    return max(4 * row - 2, 0) * 4 * width + max(4 * column - 2, 0)


@_compile
def _over(heat, slack):
    """What the pixels of samples up to `heat` may reach. Mixes of numbers up to 0 never round to more than 0."""
    return heat + slack if heat != 0 else heat


@_compile
def _bound_cell(output, flipped, twins, joint, heat, slack, tags, row, column, gap):
    """Upper bound of heat minus rounded tag distance of the pixels of a cell; `gap` (S,) is scratch."""
    for s in range(len(gap)):
        maps, channel = (flipped, _JOINTS + twins[joint]) if s else (output, _JOINTS + joint)
        nw, ne = (
            _sample(maps, channel, s == 1, row - 1, column - 1),
            _sample(maps, channel, s == 1, row - 1, column),
        )
        sw, se = _sample(maps, channel, s == 1, row, column - 1), _sample(maps, channel, s == 1, row, column)
        low, high = min(min(nw, ne), min(sw, se)) - slack, max(max(nw, ne), max(sw, se)) + slack
        gap[s] = max(max(low - tags[s], tags[s] - high), np.float32(0))
    return heat - _rounded_norm(gap)


@_compile
def _search_cell(output, flipped, twins, joint, tags, row, column, best, pixel, scratch):
    """The better of (best, pixel) and the pixels of a cell; tags are read only where the heat allows it."""
    _, gap, lines, blocks = scratch
    _, height, width = output.shape
    _enlarge_heat(output, flipped, twins, joint, row, column, 1, lines, blocks)
    for y in range(max(4 * row - 2, 0), min(4 * row + 2, 4 * height)):
        for x in range(max(4 * column - 2, 0), min(4 * column + 2, 4 * width)):
            heat, here = blocks[0, y + 2 - 4 * row, x + 2 - 4 * column], y * 4 * width + x
            if not _can_win(heat, here, best, pixel):
                continue
            _read_tags(output, flipped, twins, joint, y, x, gap)
            for s in range(len(gap)):
                gap[s] -= tags[s]
            affinity = heat - _rounded_norm(gap)
            if _can_win(affinity, here, best, pixel):
                best, pixel = affinity, here
    return best, pixel


@_compile
def _search_tile(output, flipped, twins, joint, means, slacks, tags, tile_row, tile_column, best, pixel, scratch):
    """The better of (best, pixel) and the pixels of a tile, of which only cells are looked at that can win."""
    corners, gap = scratch[0], scratch[1]
    _, height, width = means.shape
    top, left = _TILE * tile_row, _TILE * tile_column
    for i in range(_TILE + 1):
        for j in range(_TILE + 1):
            corners[i, j] = _sample(means, joint, False, top - 1 + i, left - 1 + j)
    for i in range(min(_TILE, height + 1 - top)):
        for j in range(min(_TILE, width + 1 - left)):
            row, column = top + i, left + j
            first = _first_pixel(row, column, width)
            heat = max(max(corners[i, j], corners[i, j + 1]), max(corners[i + 1, j], corners[i + 1, j + 1]))
            bound = _over(heat, slacks[0])
            if not _can_win(bound, first, best, pixel):
                continue
            bound = _bound_cell(output, flipped, twins, joint, bound, slacks[1], tags, row, column, gap)
            if _can_win(bound, first, best, pixel):
                best, pixel = _search_cell(output, flipped, twins, joint, tags, row, column, best, pixel, scratch)
    return best, pixel


@_compile
def _bound_tiles(heats, lows, highs, tags, bounds, tops):
    """Upper bounds of heat minus rounded tag distance of all tiles for one person.

    Args:
        heats: (tall, wide) float32 upper bounds of heat.
        lows, highs: (S, tall, wide) float32 bounds of tags.
        tags: (S,) float32.
        bounds: (tall, wide) float32, filled.
        tops: (wide,) float32, filled: the greatest bound of each column of tiles.
    """
    tops[:] = -np.inf
    for i in range(heats.shape[0]):
        heat, row, first, low, high = heats[i], bounds[i], tags[0], lows[0, i], highs[0, i]
        if len(tags) == 1:
            for j in range(len(row)):
                gap = max(max(low[j] - first, first - high[j]), np.float32(0))
                row[j] = heat[j] - np.rint(np.sqrt(gap * gap))
        else:
            second, low_2, high_2 = tags[1], lows[1, i], highs[1, i]
            for j in range(len(row)):
                gap = max(max(low[j] - first, first - high[j]), np.float32(0))
                gap_2 = max(max(low_2[j] - second, second - high_2[j]), np.float32(0))
                row[j] = heat[j] - np.rint(np.sqrt(gap * gap + gap_2 * gap_2))
        for j in range(len(row)):
            tops[j] = max(tops[j], row[j])


@_compile
def _likeliest(output, flipped, twins, joint, means, slacks, tags, seeds, bounds, tops, scratch):
    """The pixel of the enlarged map where one joint of one person is likeliest: branch and bound, best tile first.

    Args:
        slacks: what rounding may add: heat, tags.
        tags: (S,) float32 of the person.
        seeds: (M, 3 + S) float32 peaks of the joint: the better the first guess, the fewer tiles are searched.
        bounds, tops: from `_bound_tiles`; used up.
        scratch: (corners, gap, lines, blocks).
    """
    gap = scratch[1]
    width = means.shape[2]
    best, pixel = np.float32(-np.inf), np.int64(0)
    for k in range(len(seeds)):
        for s in range(len(tags)):
            gap[s] = seeds[k, 3 + s] - tags[s]
        affinity = seeds[k, 2] - _rounded_norm(gap)
        here = np.int64(seeds[k, 1]) * 4 * width + np.int64(seeds[k, 0])
        if _can_win(affinity, here, best, pixel):
            best, pixel = affinity, here
    while True:
        j = 0
        for k in range(1, len(tops)):
            if tops[k] > tops[j]:
                j = k
        top = tops[j]
        if top < best or top == -np.inf:
            return pixel
        i, rest = -1, np.float32(-np.inf)
        for k in range(len(bounds)):
            if i < 0 and bounds[k, j] == top:
                i = k
            else:
                rest = max(rest, bounds[k, j])
        bounds[i, j], tops[j] = -np.inf, rest
        if _can_win(top, _first_pixel(_TILE * i, _TILE * j, width), best, pixel):
            best, pixel = _search_tile(output, flipped, twins, joint, means, slacks, tags, i, j, best, pixel, scratch)


@_compile
def _fill(output, flipped, twins, people, tags, peaks, counts, means, slacks):
    """decode.fill_missing_joints, in place; `means` (17, h, w) are the mean heatmaps."""
    _, height, width = output.shape
    sources = tags.shape[1]
    tall, wide = height // _TILE + 1, width // _TILE + 1
    heats, bounds, tops = (
        np.empty((tall, wide), np.float32),
        np.empty((tall, wide), np.float32),
        np.empty(wide, np.float32),
    )
    lows, highs = np.empty((sources, tall, wide), np.float32), np.empty((sources, tall, wide), np.float32)
    lines = np.empty((2, width), np.float32)
    scratch = (
        np.empty((_TILE + 1, _TILE + 1), np.float32),
        np.empty(sources, np.float32),
        np.empty((2, 4), np.float32),
        np.empty((2, 4, 4), np.float32),
    )
    for joint in range(_JOINTS):
        begun = False
        for p in range(len(people)):
            if people[p, joint, 2] != 0:
                continue
            if not begun:
                begun = True
                _tile_extremes(means, joint, False, False, bounds, heats, lines)
                for i in range(tall):
                    for j in range(wide):
                        heats[i, j] = _over(heats[i, j], slacks[0])
                _tile_extremes(output, _JOINTS + joint, False, True, lows[0], highs[0], lines)
                if sources == 2:
                    _tile_extremes(flipped, _JOINTS + twins[joint], True, True, lows[1], highs[1], lines)
                lows -= slacks[1]
                highs += slacks[1]
            _bound_tiles(heats, lows, highs, tags[p], bounds, tops)
            seeds = peaks[joint, : counts[joint]]
            pixel = _likeliest(output, flipped, twins, joint, means, slacks, tags[p], seeds, bounds, tops, scratch)
            y, x = pixel // (4 * width), pixel % (4 * width)
            heat = _heat(output, flipped, twins, joint, y, x)
            if heat > 0:
                step_x, step_y = _quarter_step(output, flipped, twins, joint, y, x)
                people[p, joint, 0] = np.float32(x) + np.float32(0.5) + step_x
                people[p, joint, 1] = np.float32(y) + np.float32(0.5) + step_y
                people[p, joint, 2] = heat


# --- All steps ----------------------------------------------------------------------------------------------


@_compile
def decode(
    output,
    flipped,
    twins,
    order,
    means,
    slacks,
    most,
    threshold,
    tag_threshold,
    limit,
    use_detection_val,
    adjust,
    refine,
):
    """Decodes one image as `helpers.pose.decode.decode_poses` does, in pixels of the network's input.

    Args:
        output: (34, h, w) float32, C-contiguous and finite.
        flipped: the same for the mirror image, as the network gave it; without flip test, any such array.
        twins: (17,) int64, channel of each joint in a mirror image; (0,) without flip test.
        order: (17,) int64, joints in the order of grouping.
        means: (17, h, w) float32, work array.
        slacks: (float32, float32): by how much rounding may lift a pixel of heat, of tags.
        most: candidates per joint.
        threshold: float32, heat that a candidate must exceed.
        tag_threshold: float64, tag distance below which a candidate joins a person.
        limit: people that may be joined or kept.
        use_detection_val, adjust, refine: as in `DecodeConfig`.

    Returns:
        (people, scores, tags): (P, 17, 3 + S), (P,) and (P, S) float32.
    """
    width = output.shape[2]
    sources = 2 if len(twins) else 1
    found, pixels = np.empty(max(_PEAKS, most), np.float32), np.empty(max(_PEAKS, most), np.int64)
    scratch = (
        np.empty((2, width), np.float32),
        np.empty(width, np.int64),
        np.empty((3, 8), np.float32),
        np.empty((2, 8, 8), np.float32),
    )
    peaks = np.zeros((_JOINTS, most, 3 + sources), np.float32)
    counts = np.zeros(_JOINTS, np.int64)
    for joint in range(_JOINTS):
        _average(output, flipped, twins, joint, means)
        count = _find_peaks(output, flipped, twins, joint, means, threshold, slacks[0], found, pixels, scratch)
        if count < 0 or not _order(found, pixels, count, most):
            count = _peaks_in_torch_order(
                output, flipped, twins, joint, means, threshold, slacks[0], most, found, pixels, scratch
            )
        counts[joint] = min(count, most)
        for k in range(counts[joint]):
            y, x = pixels[k] // (4 * width), pixels[k] % (4 * width)
            peaks[joint, k, 0], peaks[joint, k, 1], peaks[joint, k, 2] = x, y, found[k]
            _read_tags(output, flipped, twins, joint, y, x, peaks[joint, k, 3:])
    people = _group(peaks, counts, order, limit, tag_threshold, use_detection_val)
    if adjust:
        _adjust(output, flipped, twins, people)
    scores, tags = np.empty(len(people), np.float32), np.empty((len(people), sources), np.float32)
    for p in range(len(people)):
        scores[p] = _sum(people[p, :, 2].copy()) / np.float32(_JOINTS)
        _mean_tag(people[p][people[p, :, 2] > 0][:, 3:], tags[p])
    if refine:
        _fill(output, flipped, twins, people, tags, peaks, counts, means, slacks)
    return people, scores, tags


@functools.lru_cache(maxsize=None)
def warm_up() -> None:
    """Compiles everything, or loads it from the cache, by decoding two small maps."""
    blank = np.zeros((2 * _JOINTS, 8, 8), np.float32)
    joints = np.arange(_JOINTS)
    slack = np.float32(0)
    largest_magnitude(blank.view(np.uint32).reshape(2 * _JOINTS, -1))
    decode(
        blank,
        blank,
        joints,
        joints,
        blank[:_JOINTS].copy(),
        (slack, slack),
        30,
        np.float32(0.1),
        1.0,
        30,
        True,
        True,
        True,
    )
