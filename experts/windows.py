"""A network over more than its window: windows overlap, their probabilities are blended, and blocks come out in order.

Windows lie where the whole picture puts them, and the weights with which they are blended add up to one along each
axis: so no block depends on where the work began. What is held is one row of windows, no wider than a band, however
large the picture is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, inf, prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fovea.errors import ConfigError
from fovea.types import Bools, Floats, Span

BAND = 8192
"""Columns that are worked on together; windows across the border of two bands are looked at for both."""
Read = Callable[[tuple[Span, ...]], tuple[Floats, Bools]]
"""Features (feature, …) and validity (…) of a part of the picture, given by a half-open span on each axis."""
Predict = Callable[[Tensor], Tensor]
"""Probabilities (window, label, …) of features (window, feature, …)."""


class Place(NamedTuple):
    """Where a window begins on an axis, and the weight of each of its pixels there."""

    start: int
    weight: Tensor


@dataclass(frozen=True)
class Windows:
    """How a picture is cut: the `size` of a window along each axis, and how many pixels neighbours share at least.

    The outermost `margin` pixels of a window do not count where a neighbour sees them: a network knows less there.
    Windows begin at multiples of `align`, the pixels that a network reduces to one, so that it reduces the same ones
    in all of them. Both may be given for each axis. Raises ConfigError where these do not fit together.
    """

    size: tuple[int, ...]
    overlap: tuple[int, ...]
    margin: int | tuple[int, ...] = 0
    align: int | tuple[int, ...] = 1

    def __post_init__(self) -> None:
        for axis, (size, overlap) in enumerate(zip(self.size, self.overlap, strict=True)):
            margin, align = _along(self.margin, axis), _along(self.align, axis)
            if not 2 * margin <= overlap <= size // 2 or (size - overlap) % align:
                raise ConfigError(
                    f"windows of {size} pixels that share {overlap}",
                    f"at least two margins of {margin} shared, at most half, steps in multiples of {align}",
                )

    def places(self, axis: int, length: int) -> tuple[Place, ...]:
        """The windows along an axis of so many pixels; the last one may reach beyond them.

        A weight is level, but over what neighbours share it rises as half a cosine, from zero at the margin.
        """
        size, step = self.size[axis], self.size[axis] - self.overlap[axis]
        margin, align = _along(self.margin, axis), _along(self.align, axis)
        last = max(ceil((length - size) / align), 0) * align
        starts = [*range(0, last, step), last]
        ramp = max(self.overlap[axis] - 2 * margin, 1)
        rise = 0.5 - 0.5 * np.cos(np.pi * np.clip((np.arange(size) + 0.5 - margin) / ramp, 0, 1))
        weights, total = [], np.zeros(last + size)
        for start in starts:
            weights.append((rise if start else 1) * (rise[::-1] if start < last else np.ones(size)))
            total[start : start + size] += weights[-1]
        return tuple(
            Place(start, torch.from_numpy((weight / total[start : start + size]).astype(np.float32)))
            for start, weight in zip(starts, weights, strict=True)
        )


def _along(value: int | tuple[int, ...], axis: int) -> int:
    return value if isinstance(value, int) else value[axis]


def plan(
    size: tuple[int, ...], shape: tuple[int, ...], overlap: float, align: tuple[int, ...], grown: tuple[int, ...],
    most: float = inf,
) -> Windows:  # fmt: skip
    """Windows for a picture, of a network that was trained on windows of `size`.

    Neighbours share `overlap` of `size`, in whole steps of `align`, and a quarter of that is margin. As what is shared
    is computed twice, windows are up to `grown` times as large, and share no more for that, but have no more than
    `most` pixels where that is more than `size`; each axis has as few as that allows, of one size. `align` must divide
    `size`.
    """
    sizes, shared = [], []
    for whole, length, step, factor in zip(size, shape, align, grown, strict=True):
        common = ceil(overlap * whole / step) * step
        least = max(whole, 2 * common)
        number = max(ceil((length - common) / (max(factor * whole, least) - common)), 1)
        sizes.append(max(ceil(((length - common) / number + common) / step) * step, least))
        shared.append(common)
    if prod(sizes) > most and max(grown) > 1:
        widest = grown.index(max(grown))
        less = (*grown[:widest], grown[widest] - 1, *grown[widest + 1 :])
        return plan(size, shape, overlap, align, less, most)
    return Windows(tuple(sizes), tuple(shared), tuple(common // 4 for common in shared), align)


@dataclass(frozen=True, eq=False)
class Block:
    """A part of the picture, by its span on each axis: probabilities (label, …), which live until the next block is
    asked for, and validity (…)."""

    spans: tuple[Span, ...]
    probabilities: Tensor
    valid: Bools


def blocks(
    predict: Predict, read: Read, shape: tuple[int, ...], windows: Windows, labels: int, *, batch: int = 4,
    band: int = BAND, start: int = 0,
) -> Iterator[Block]:  # fmt: skip
    """The blended probabilities of a picture: blocks along the first axis, and band after band of the last.

    Windows without a valid pixel are not looked at: the probability is 0 there. Of those that hold zeros alone, such as
    air around a body, one is looked at. With `start` the first blocks are left out; the others are the same to the bit.
    """
    first, *others = [windows.places(axis, length) for axis, length in enumerate(shape)]
    size = windows.size[-1]
    for number, left in enumerate(range(0, shape[-1], band)):
        span = left, min(left + band, shape[-1])
        inside = [place for place in others[-1] if place.start < span[1] and place.start + size > span[0]]
        skipped = start - number * len(first)
        if skipped < len(first):
            walk = _Walk(predict, read, shape, windows, (first, *others[:-1], inside), labels)
            yield from walk.blocks(span, batch, max(skipped, 0))


class _Walk:
    """One band: the sums of what its windows say, over one row of windows and all of the other axes."""

    def __init__(
        self, predict: Predict, read: Read, shape: tuple[int, ...], windows: Windows,
        places: Sequence[Sequence[Place]], labels: int,
    ) -> None:  # fmt: skip
        self.predict, self.read, self.shape, self.size = predict, read, shape, windows.size
        self.rows, self.others = places[0], places[1:]
        self.corner = [axis[0].start for axis in self.others]
        held = [axis[-1].start - axis[0].start + size for axis, size in zip(self.others, self.size[1:], strict=True)]
        self.sums = torch.zeros(labels, self.size[0], *held)
        self.blank: Tensor | None = None

    def blocks(self, columns: Span, batch: int, first: int) -> Iterator[Block]:
        """Blocks from the `first` on, after the rows of windows that reach into it."""
        begin = self.rows[first].start
        known = np.zeros(self.sums.shape[1:], bool)
        for number, row in enumerate(self.rows):
            if row.start + self.size[0] <= begin:
                continue
            known = self._add(row, batch)
            last = number + 1 == len(self.rows)
            done = (self.shape[0] if last else self.rows[number + 1].start) - row.start
            if number >= first:
                inner = [slice(0, length) for length in self.shape[1:-1]]
                part = slice(0, done), *inner, slice(columns[0] - self.corner[-1], columns[1] - self.corner[-1])
                spans = (row.start, row.start + done), *((0, length) for length in self.shape[1:-1]), columns
                yield Block(spans, self.sums[:, *part], known[part])
            kept = self.size[0] - done
            self.sums[:, :kept] = self.sums[:, done:].clone()
            self.sums[:, kept:] = 0

    def _add(self, row: Place, batch: int) -> Bools:
        """What the windows of one row say, into the sums; returns where the row has data."""
        pixels, known = self._pixels(row)
        waiting: list[Sequence[Place]] = []
        for places in product(*self.others):
            inside = self._inside(places)
            if not known[:, *inside].any():
                continue
            if pixels[:, :, *inside].numpy().any():
                waiting.append(places)
            else:
                if self.blank is None:
                    self.blank = self.predict(torch.zeros_like(pixels[None, :, :, *inside]))[0]
                self._blend(row, places, self.blank)
            if len(waiting) == batch:
                self._look(row, waiting, pixels)
                waiting = []
        if waiting:
            self._look(row, waiting, pixels)
        return known

    def _look(self, row: Place, group: Sequence[Sequence[Place]], pixels: Tensor) -> None:
        answer = self.predict(torch.stack([pixels[:, :, *self._inside(places)] for places in group]))
        for places, probabilities in zip(group, answer, strict=True):
            self._blend(row, places, probabilities)

    def _blend(self, row: Place, places: Sequence[Place], probabilities: Tensor) -> None:
        weight = row.weight
        for place in places:
            weight = weight[..., None] * place.weight
        self.sums[:, :, *self._inside(places)].addcmul_(probabilities, weight)

    def _inside(self, places: Sequence[Place]) -> tuple[slice, ...]:
        offsets = [place.start - corner for place, corner in zip(places, self.corner, strict=True)]
        return tuple(slice(offset, offset + size) for offset, size in zip(offsets, self.size[1:], strict=True))

    def _pixels(self, row: Place) -> tuple[Tensor, Bools]:
        """What the picture has under a row of windows, and no data beyond its borders."""
        held = self.sums.shape[1:]
        corner = (row.start, *self.corner)
        ends = [min(start + size, end) for start, size, end in zip(corner, held, self.shape, strict=True)]
        pixels, valid = self.read(tuple(zip(corner, ends, strict=True)))
        if valid.shape == tuple(held):
            return torch.from_numpy(pixels), valid
        part = tuple(slice(0, end - start) for start, end in zip(corner, ends, strict=True))
        whole, known = torch.zeros(len(pixels), *held), np.zeros(held, bool)
        whole[:, *part], known[part] = torch.from_numpy(pixels), valid
        return whole, known
