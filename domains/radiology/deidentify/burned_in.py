"""Text burned into a picture, found by its look: thin strokes of one brightness, of one height, on one line.

A heuristic that misses faint, very small, very large, handwritten and single characters; `benchmarks/burned_in.py`
measures what it finds. Light text and dark text are looked for alike, in two widths of stroke.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.intp]


class Box(NamedTuple):
    """Half-open ranges of rows and columns."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> slice:
        """The rows."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """The columns."""
        return slice(self.left, self.right)


class _Marks(NamedTuple):
    """Connected strokes: edges in pixels, brightness of the core, share of the ink that has it."""

    top: Ints
    bottom: Ints
    left: Ints
    right: Ints
    level: Floats
    flat: Floats

    def take(self, which: NDArray[np.bool_] | Ints) -> _Marks:
        top, bottom, left, right, level, flat = self
        return _Marks(top[which], bottom[which], left[which], right[which], level[which], flat[which])


_HEIGHTS = (5, 70)
_CONTRASTS = (0.12, 0.3, 0.6)
_STROKES = (5, 11)
_REACH = 4
_MOST = 6000


def find_text(picture: Floats, likely: bool) -> list[Box]:
    """Boxes around lines of text in grey values in [0, 1] (row, column); an empty list where none is found.

    Where text is `likely`, it may stand out less from the texture of the picture, and be shorter: more is found, and
    more that is none.
    """
    clear, fewest = (1, 4) if likely else (2, 6)
    found: list[Box] = []
    for light in (picture, 1 - picture):
        for stroke in _STROKES:
            hat = _thin(light, stroke)
            texture = clear * float(np.percentile(hat, 90))
            for contrast in (level for level in _CONTRASTS if level > texture):
                marks = _marks(light, hat > contrast)
                found += [_around(marks.take(line), picture.shape) for line in _lines(marks, fewest)]
    return _merged(found)


def _thin(picture: Floats, stroke: int) -> Floats:
    """How much brighter a pixel is than its surroundings, for things thinner than `stroke` pixels (white top hat)."""
    from scipy import ndimage

    opened: Floats = ndimage.grey_opening(picture, size=(stroke, stroke))
    return picture - opened


def _marks(picture: Floats, ink: NDArray[np.bool_]) -> _Marks:
    """The connected parts of the ink that may be a character, or a few that touch."""
    from scipy import ndimage

    labels, count = ndimage.label(ink, np.ones((3, 3)))
    slices = ndimage.find_objects(labels)
    edges = np.array([(r.start, r.stop, c.start, c.stop) for r, c in slices], int).reshape(count, 4)
    height, width = edges[:, 1] - edges[:, 0], edges[:, 3] - edges[:, 2]
    usable = (height >= _HEIGHTS[0]) & (height <= _HEIGHTS[1]) & (width <= 12 * height)
    kept = np.flatnonzero(usable)[:_MOST]
    levels, flat, area = np.zeros(len(kept), np.float32), np.zeros(len(kept), np.float32), np.zeros(len(kept))
    for at, index in enumerate(kept):
        inside = picture[slices[index]][labels[slices[index]] == index + 1]
        levels[at] = np.percentile(inside, 80)
        flat[at] = np.mean(np.abs(inside - levels[at]) < 0.08)
        area[at] = inside.size
    top, bottom, left, right = edges[kept].T
    fill = area / np.maximum((bottom - top) * (right - left), 1)
    good = (fill > 0.1) & (fill < 0.97) & (flat > 0.35)
    return _Marks(top, bottom, left, right, levels, flat).take(good)


def _lines(marks: _Marks, fewest: int) -> list[Ints]:
    """Which marks stand together on a line as characters do, so many at least."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if len(marks.top) == 0:
        return []
    first, second = _neighbours(marks)
    count = len(marks.top)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), (count, count))
    total, groups = connected_components(graph, directed=False)
    lines = [np.flatnonzero(groups == group) for group in np.flatnonzero(np.bincount(groups, minlength=total) > 1)]
    lines += [np.array([index]) for index in np.flatnonzero(np.bincount(groups)[groups] == 1)]
    return [line for line in lines if _is_text(marks.take(line), fewest)]


def _neighbours(marks: _Marks) -> tuple[Ints, Ints]:
    """Pairs that may be neighbours in a word: of like height and brightness, on one line, close."""
    order = np.argsort(marks.left, kind="stable")
    firsts, seconds = [], []
    height = marks.bottom - marks.top
    for step in range(1, min(60, len(order))):
        a, b = order[:-step], order[step:]
        tall = np.maximum(height[a], height[b])
        gap = marks.left[b] - marks.right[a]
        level = np.abs(marks.level[a] - marks.level[b]) < 0.1
        line = (np.abs(marks.bottom[a] - marks.bottom[b]) <= 0.12 * tall + 1) | (
            np.abs(marks.top[a] - marks.top[b]) <= 0.12 * tall + 1
        )
        close = (gap < 0.9 * tall) & (gap > -0.5 * tall)
        alike = np.minimum(height[a], height[b]) * 2 >= tall
        near = level & line & close & alike
        firsts.append(a[near])
        seconds.append(b[near])
    return np.concatenate([*firsts, np.zeros(0, int)]), np.concatenate([*seconds, np.zeros(0, int)])


def _is_text(line: _Marks, fewest: int) -> bool:
    """Whether marks on a line are characters: enough of them, even in height, foot and brightness."""
    height = line.bottom - line.top
    tall = float(np.median(height))
    characters = np.maximum(1, np.round((line.right - line.left) / (0.7 * tall))).sum()
    if characters < fewest or len(line.top) < 3:
        return False
    feet = np.abs(line.bottom - np.median(line.bottom)) <= 0.1 * tall + 1
    even = np.abs(height - tall) <= 0.35 * tall + 1
    return bool(feet.mean() > 0.6 and even.mean() > 0.7 and line.level.std() < 0.05 and line.flat.mean() > 0.5)


def _around(line: _Marks, shape: tuple[int, ...]) -> Box:
    height = int(line.bottom.max() - line.top.min())
    pad, reach = 2 + height // 3, _REACH * height
    return Box(
        max(int(line.top.min()) - pad, 0),
        min(int(line.bottom.max()) + pad, shape[0]),
        max(int(line.left.min()) - reach, 0),
        min(int(line.right.max()) + reach, shape[1]),
    )


def _merged(boxes: list[Box]) -> list[Box]:
    """Without those that lie inside another."""
    kept: list[Box] = []
    for box in sorted(set(boxes), key=lambda b: (b.top - b.bottom) * (b.right - b.left)):
        if not any(
            o.top <= box.top and o.bottom >= box.bottom and o.left <= box.left and o.right >= box.right for o in kept
        ):
            kept.append(box)
    return sorted(kept)
