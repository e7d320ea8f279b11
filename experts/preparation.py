"""From a study to what a network reads, and from what it draws back to the study's own grid."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from experts.ground import steps
from experts.resampling import reach, resample, resize
from experts.settings import ExpertConfig
from fovea.errors import ExpertError
from fovea.types import LPS, Bools, Floats, Grid, Image, Pixels, Span, Study, Window

Shape = tuple[int, int, int]
REACH = 17
"""Pixels a side of the neighbourhood that local detail is told from, at a fixed spacing."""
_ROWS = 32
"""Rows whose local detail is told at once: they stay in the processor's cache."""
_NATIVE = 0.01
"""A grid this close to the wanted spacing, as a share, is read as it is."""
_CHUNK = 2**25
"""Samples of a picture that are resampled at once."""
_SAMPLE = 1024
"""Rows and columns of a reduced picture whose percentiles are taken for those of a large one."""


@dataclass(frozen=True)
class Turn:
    """How the axes (slice, row, column) of an image are put in order: which axis comes first, second, third, and
    which of them then run backwards."""

    axes: Shape = (0, 1, 2)
    backwards: tuple[int, ...] = ()

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn the last three axes."""
        lead = array.ndim - 3
        out = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return np.flip(out, tuple(lead + axis for axis in self.backwards))

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `apply`."""
        lead = array.ndim - 3
        out = np.flip(array, tuple(lead + axis for axis in self.backwards))
        return out.transpose(*range(lead), *(lead + int(axis) for axis in np.argsort(self.axes)))


@dataclass(frozen=True, eq=False)
class Input:
    """One image as a network reads it.

    `pixels` float32 (feature, slice, row, column) in the network's size: what `features` makes of the channels, 0 where
    there is no data; `valid` bool (slice, row, column) in that size, `known` in the image's own; `image` is the image's
    place in the study and `grid` its grid. Of a network with a spacing, `extent` is the size of the picture at that
    spacing: what lies beyond, up to the size of a window, is padding.
    """

    pixels: Floats
    valid: Bools
    known: Bools
    image: int
    grid: Grid
    turn: Turn
    extent: Shape | None = None

    def shrink(self, mask: Bools) -> Bools:
        """A mask on the image's grid in the network's size: pixels that it covers at least half."""
        turned = self.turn.apply(mask).astype(np.float32)
        if self.extent is None:
            covered: Bools = resize(turned, self.valid.shape) >= 0.5
            return covered
        out = np.zeros(self.valid.shape, bool)
        out[_corner(self.extent)] = resample(turned, self.extent) >= 0.5
        return out

    def enlarge(self, probability: Floats, cut: float) -> Bools:
        """Where a map (slice, row, column) in the network's size, interpolated on the image's grid, reaches `cut`."""
        shape = self.turn.apply(self.known).shape
        out = np.zeros(shape, bool)
        scale = resize if self.extent is None else resample
        probability = probability if self.extent is None else probability[_corner(self.extent)]
        box = _box(probability >= cut, shape)
        if box is not None:
            here, there = box
            out[there] = scale(probability, shape, here, there) >= cut
        return self.turn.undo(out) & self.known

    @property
    def coarseness(self) -> float:
        """How many pixels of the image one in-plane pixel of the network covers, at least 1."""
        shape = self.turn.apply(self.known).shape
        ratios = [n / m for n, m in zip(shape[1:], self.size[1:], strict=True)]
        return float(max(1.0, *ratios))

    @property
    def size(self) -> Shape:
        """Slices, rows and columns of the picture in the network's size, without padding."""
        return self.extent or self.valid.shape


def choose(config: ExpertConfig, study: Study) -> int | str:
    """The place of the image that the expert reads, or why it takes none."""
    if study.modality not in config.modalities:
        return f"modality {study.modality!r}, not {' or '.join(config.modalities)}"
    for key, values in config.meta.items():
        if study.meta.get(key, values[0]) not in values:
            return f"{key} {study.meta[key]!r}, not {' or '.join(values)}"
    for place, image in enumerate(study.images):
        if _channels(config, image) and (image.grid.shape[0] > 1) == (config.size[0] > 1):
            return place
    return f"no image with {'several slices' if config.size[0] > 1 else 'one slice'} and {_names(config)}"


def _names(config: ExpertConfig) -> str:
    return "a channel" if "*" in config.channels else f"channels {', '.join(config.channels)}"


def _channels(config: ExpertConfig, image: Image) -> list[int]:
    """Indices of the channels that the network reads; empty where one is missing."""
    there = {channel.name: index for index, channel in reversed(list(enumerate(image.channels)))} | {"*": 0}
    return [there[name] for name in config.channels] if set(config.channels) <= set(there) else []


def prepare(config: ExpertConfig, study: Study) -> Input:
    """Read, turn, reduce and scale what the network looks at; raises ExpertError for a study that it does not take.

    With a spacing the input has the picture's own extent at that spacing, but at least the size of a window.
    """
    image, place = chosen(config, study)
    if config.spacing is not None:
        return _whole(Sampled(config, image), place)
    read, known = image.read(None, None)  # not image.pixels: a large picture is not kept
    turn = _turn(image.grid)
    values = turn.apply(read[_channels(config, image)])
    there = turn.apply(known & np.isfinite(read).all(axis=0))
    share = resize(there.astype(np.float32), config.size)
    pixels = resize(np.where(there, values, np.float32(0)), config.size) / np.maximum(share, 1e-6)
    valid = share >= 0.5
    if not valid.any():
        raise _no_data(config)
    low, high = config.low, config.high
    if low is None or high is None:
        low, high = (float(value) for value in np.percentile(pixels[:, valid], (1, 99)))
    scaled = np.clip((pixels - low) / max(high - low, 1e-6), 0, 1)
    return Input(features(np.where(valid, scaled, 0), valid), valid, known, place, image.grid, turn)


def chosen(config: ExpertConfig, study: Study) -> tuple[Image, int]:
    """The image that the expert reads, and its place; raises ExpertError for a study that it does not take."""
    place = choose(config, study)
    if isinstance(place, str):
        raise ExpertError(f"{config.name} does not take this study: {place}")
    return study.images[place], place


def _no_data(config: ExpertConfig) -> ExpertError:
    return ExpertError(f"{config.name} cannot answer: the image holds no data")


def features(channels: NDArray[Any], valid: Bools) -> Floats:
    """What a network reads of channels (channel, slice, row, column) between 0 and 1.

    First the channels, then their local detail (the difference from the mean of a neighbourhood of a sixteenth of the
    picture, eight times as strong, within -1 and 1: small things of little contrast), then where in the picture each
    pixel lies, 0 to 1 along the axes (CoordConv; Liu et al. 2018): a part of a picture still knows its left from its
    right.
    """
    from scipy.ndimage import uniform_filter

    reach = [2 * (side // 32) + 1 for side in valid.shape[1:]]
    around = np.stack([uniform_filter(channel, (1, *reach), mode="nearest") for channel in channels.astype(np.float32)])
    detail = np.clip(8 * (channels - around), -1, 1)
    places = [(np.arange(side) + 0.5) / side for side in valid.shape]
    position = np.stack(np.meshgrid(*places, indexing="ij"))[0 if valid.shape[0] > 1 else 1 :]
    return np.where(valid, np.concatenate((channels, detail, position)), 0).astype(np.float32)


def local_features(channels: Floats, valid: Bools) -> Floats:
    """As `features`, but of no position, and with a neighbourhood of `REACH` pixels: the same wherever a part is cut,
    but for half of that at its borders. Channels are 0 where not valid.
    """
    found = np.empty((2 * len(channels), *valid.shape), np.float32)
    found[: len(channels)] = channels
    for channel, place in np.ndindex(channels.shape[:2]):
        wide = np.pad(channels[channel, place], REACH // 2, mode="edge")
        for top in range(0, valid.shape[1], _ROWS):
            part = slice(top, top + _ROWS)
            around = _sums(_sums(wide[top : top + _ROWS + REACH - 1]).T).T / np.float32(REACH**2)
            detail = np.subtract(channels[channel, place, part], around, out=around)
            detail *= 8
            np.clip(detail, -1, 1, out=detail)
            np.multiply(detail, valid[place, part], out=found[len(channels) + channel, place, part])
    return found


def _sums(values: Floats) -> Floats:
    """Sums of `REACH` neighbours along the first axis."""
    sums = values
    for held in (1, 2, 4, 8):  # 16 in the end, and one more
        sums = sums[:-held] + sums[held:]
    return sums[:-1] + values[REACH - 1 :]


def n_features(config: ExpertConfig) -> int:
    """How many features there are."""
    if config.spacing is not None:
        return 2 * len(config.channels)
    return 2 * len(config.channels) + (3 if config.size[0] > 1 else 2)


def _turn(grid: Grid) -> Turn:
    """Volumes of patients are put in one order: columns to the left, rows to the back, slices to the head."""
    if grid.frame != LPS or grid.shape[0] == 1:
        return Turn()
    toward = grid.affine[:3, :3][:, ::-1] / np.array(grid.spacing)  # (world axis, index axis)
    _, index = linear_sum_assignment(-np.abs(toward))
    axes = index[[2, 1, 0]]  # z, y, x
    backwards = tuple(place for place, axis in enumerate(axes) if toward[2 - place, axis] < 0)
    return Turn((int(axes[0]), int(axes[1]), int(axes[2])), backwards)


def _box(mask: Bools, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """The extent of a mask with a margin, in its own size and in another; None where it is empty."""
    here, there = [], []
    for axis, (before, after) in enumerate(zip(mask.shape, shape, strict=True)):
        found = np.flatnonzero(mask.any(axis=tuple(i for i in range(3) if i != axis)))
        if not len(found):
            return None
        start, stop = max(int(found[0]) - 2, 0), min(int(found[-1]) + 3, before)
        here.append(slice(start, stop))
        # one pixel less than what is read, so that every wanted pixel has its neighbours
        first = 0 if start == 0 else int(np.ceil((start + 1) * after / before))
        last = after if stop == before else int((stop - 1) * after / before)
        there.append(slice(first, last))
    return tuple(here), tuple(there)


def _corner(extent: Shape) -> tuple[slice, ...]:
    return tuple(slice(0, length) for length in extent)


def _whole(sampled: Sampled, place: int) -> Input:
    """All of an image at the network's spacing, padded to the size of a window."""
    extent = sampled.shape
    pixels, valid = sampled.read(tuple((0, length) for length in extent))
    if not valid.any():
        raise _no_data(sampled.config)
    missing = [(0, max(wanted - length, 0)) for wanted, length in zip(sampled.config.size, extent, strict=True)]
    if np.any(missing):
        pixels, valid = np.pad(pixels, [(0, 0), *missing]), np.pad(valid, missing)
    known = sampled.image.read(None, None)[1]
    return Input(pixels, valid, known, place, sampled.image.grid, sampled.turn, extent)


class Sampled:
    """An image at the spacing of a network, read part by part: what is held does not grow with the image.

    Raises ExpertError where pixels have no physical size. Metres of a scene are those at its middle; a volume is turned
    as a whole, and kept.
    """

    def __init__(self, config: ExpertConfig, image: Image) -> None:
        if config.spacing is None:
            raise ExpertError(f"{config.name} reads pictures as a whole", "an expert with a spacing")
        self.config, self.image, self.turn = config, image, _turn(image.grid)
        self._channels = _channels(config, image)
        apart = spacing(image.grid)
        self._source = tuple(image.grid.shape[axis] for axis in self.turn.axes)
        self._kept: Pixels | None = None
        self.shape: Shape = tuple(  # type: ignore[assignment]
            length
            if length == 1 or abs(apart[axis] / wanted - 1) <= _NATIVE
            else max(round(length * apart[axis] / wanted), 1)
            for axis, length, wanted in zip(self.turn.axes, self._source, config.spacing, strict=True)
        )
        self._low, self._high = self._range()

    @property
    def grid(self) -> Grid:
        """Where the network's pixels lie, in the order of the image's own axes."""
        return self.image.grid.resample(tuple(self.shape[axis] for axis in np.argsort(self.turn.axes)))  # type: ignore[arg-type]

    def read(self, spans: tuple[Span, ...]) -> tuple[Floats, Bools]:
        """Features (feature, slice, row, column) and validity of a part, by its span on each axis."""
        margin = (0, REACH // 2, REACH // 2)
        outer = [(max(a - m, 0), min(b + m, n)) for (a, b), m, n in zip(spans, margin, self.shape, strict=True)]
        channels, valid = self._scaled(outer)
        found = local_features(channels, valid)
        part = tuple(slice(a - start, b - start) for (a, b), (start, _) in zip(spans, outer, strict=True))
        return found[:, *part], valid[part]

    def _scaled(self, spans: list[Span]) -> Pixels:
        """Channels between 0 and 1, 0 where there is no data, and validity."""
        size = tuple(stop - start for start, stop in spans)
        out, known = np.empty((len(self._channels), *size), np.float32), np.empty(size, bool)
        for part in self._chunks(spans):
            values, there = self._resampled(part)
            where = tuple(slice(a - start, b - start) for (a, b), (start, _) in zip(part, spans, strict=True))
            scaled = out[:, *where]
            np.subtract(values, self._low, out=scaled)
            scaled /= max(self._high - self._low, 1e-6)
            np.clip(scaled, 0, 1, out=scaled)
            scaled *= there
            known[where] = there
        return out, known

    def _chunks(self, spans: list[Span]) -> list[list[Span]]:
        """A part in pieces of rows and columns whose source is not too large."""
        ratios = [before / after for before, after in zip(self._source, self.shape, strict=True)]
        whole = np.prod([(stop - start) * ratio for (start, stop), ratio in zip(spans, ratios, strict=True)])
        cuts = int(np.ceil(np.sqrt(whole * len(self.image.channels) / _CHUNK)))
        if cuts <= 1:
            return [spans]
        edges = [
            np.linspace(start, stop, min(cuts, stop - start) + 1).astype(int).tolist() for start, stop in spans[1:]
        ]
        rows, columns = (list(pairwise(edge)) for edge in edges)
        return [[spans[0], row, column] for row in rows for column in columns]

    def _resampled(self, spans: list[Span]) -> Pixels:
        """Values and validity at the network's spacing: means of what is valid, where at least half is."""
        inside = [reach(a, b, span) for a, b, span in zip(self._source, self.shape, spans, strict=True)]
        values, there = self._read(inside)
        if self._source == self.shape:
            return values, there
        here, wanted = (tuple(slice(*span) for span in part) for part in (inside, spans))
        share = resample(there, self.shape, here, wanted, self._source)
        sums = resample(values, self.shape, here, wanted, self._source)
        return np.divide(sums, np.maximum(share, 1e-6), dtype=np.float32), share >= 0.5

    def _read(self, spans: list[Span]) -> Pixels:
        """Values of the network's channels, 0 where not valid, and validity, by spans of the turned image."""
        if self.turn != Turn():
            self._kept = self._kept or self._valid(self.image.read(None, None))
            part = tuple(slice(*span) for span in spans)
            return self._kept[0][:, *part], self._kept[1][part]
        slices, rows, columns = spans
        whole = (slices, rows, columns) == tuple((0, length) for length in self._source)
        return self._valid(self.image.read(None if whole else Window(rows, columns, slices), None))

    def _valid(self, read: Pixels) -> Pixels:
        there = self.turn.apply(read[1] & np.isfinite(read[0]).all(axis=0))
        values = self.turn.apply(read[0] if self._channels == [*range(len(read[0]))] else read[0][self._channels])
        return values if there.all() else np.where(there, values, np.float32(0)), there

    def _range(self) -> tuple[float, float]:
        """The values that the network sees as 0 and 1: of a large picture, percentiles of a reduced one."""
        if self.config.low is not None and self.config.high is not None:
            return self.config.low, self.config.high
        rows, columns = self.image.grid.shape[1:]
        small = min(rows, _SAMPLE), min(columns, _SAMPLE)
        values, there = self._valid(self.image.read(None, None if small == (rows, columns) else small))
        if not there.any():
            raise _no_data(self.config)
        low, high = np.percentile(values[:, there], (1, 99))
        return float(low), float(high)


def spacing(grid: Grid) -> tuple[float, float, float]:
    """Distance between neighbours along (slice, row, column): mm, or metres on the ground at a scene's middle.

    Raises ExpertError where pixels have no physical size.
    """
    if not grid.physical:
        raise ExpertError(
            "pixels without a physical size", "a picture that tells its spacing", "Ask an expert without one."
        )
    if not grid.georeferenced:
        return grid.spacing
    middle = (np.array([grid.shape[1:]], float) - 1) / 2
    row, column = np.linalg.norm(steps(grid, middle)[0], axis=0)
    return grid.spacing[0], float(row), float(column)
