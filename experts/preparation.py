"""From a study to what a network reads, and from what it draws back to the study's own grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from experts.settings import ExpertConfig
from fovea.errors import ExpertError
from fovea.types import LPS, Bools, Floats, Grid, Image, Study

Shape = tuple[int, int, int]


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
    place in the study and `grid` its grid.
    """

    pixels: Floats
    valid: Bools
    known: Bools
    image: int
    grid: Grid
    turn: Turn

    def shrink(self, mask: Bools) -> Bools:
        """A mask on the image's grid in the network's size: pixels that it covers at least half."""
        out: Bools = resize(self.turn.apply(mask).astype(np.float32), self.valid.shape) >= 0.5
        return out

    def enlarge(self, probability: Floats, cut: float) -> Bools:
        """Where a map (slice, row, column) in the network's size, interpolated on the image's grid, reaches `cut`."""
        shape = self.turn.apply(self.known).shape
        out = np.zeros(shape, bool)
        box = _box(probability >= cut, shape)
        if box is not None:
            here, there = box
            out[there] = resize(probability, shape, here, there) >= cut
        return self.turn.undo(out) & self.known

    @property
    def coarseness(self) -> float:
        """How many pixels of the image one in-plane pixel of the network covers, at least 1."""
        shape = self.turn.apply(self.known).shape
        ratios = [n / m for n, m in zip(shape[1:], self.valid.shape[1:], strict=True)]
        return float(max(1.0, *ratios))


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
    """Read, turn, reduce and scale what the network looks at; raises ExpertError for a study that it does not take."""
    place = choose(config, study)
    if isinstance(place, str):
        raise ExpertError(f"{config.name} does not take this study: {place}")
    image = study.images[place]
    read, known = image.read(None, None)  # not image.pixels: a large picture is not kept
    turn = _turn(image.grid)
    values = turn.apply(read[_channels(config, image)])
    there = turn.apply(known & np.isfinite(read).all(axis=0))
    share = resize(there.astype(np.float32), config.size)
    pixels = resize(np.where(there, values, np.float32(0)), config.size) / np.maximum(share, 1e-6)
    valid = share >= 0.5
    if not valid.any():
        raise ExpertError(f"{config.name} cannot answer: the image holds no data")
    low, high = config.low, config.high
    if low is None or high is None:
        low, high = (float(value) for value in np.percentile(pixels[:, valid], (1, 99)))
    scaled = np.clip((pixels - low) / max(high - low, 1e-6), 0, 1)
    return Input(features(np.where(valid, scaled, 0), valid), valid, known, place, image.grid, turn)


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


def n_features(config: ExpertConfig) -> int:
    """How many features there are."""
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


def resize(
    array: NDArray[Any],
    shape: tuple[int, ...],
    inside: tuple[slice, ...] | None = None,
    wanted: tuple[slice, ...] | None = None,
) -> Floats:
    """The last three axes in another size: area means where there are fewer pixels, linear interpolation where more.

    Exact for any ratio, and free of shift: the extent stays the same. With `inside`, only these pixels are read, and
    with `wanted`, only those are computed.
    """
    out = np.asarray(array, np.float32)
    for axis, (before, after) in enumerate(zip(array.shape[-3:], shape, strict=True)):
        rows, columns = (part[axis] if part else slice(None) for part in (wanted, inside))
        place = out.ndim - 3 + axis
        if before == after:
            out = out[(slice(None),) * place + (rows,)]
            continue
        weights = _weights(before, after)[rows, columns]
        out = np.moveaxis(np.moveaxis(out[(slice(None),) * place + (columns,)], place, -1) @ weights.T, -1, place)
    return np.ascontiguousarray(out)


def _weights(before: int, after: int) -> Floats:
    """What each of `before` pixels contributes to each of `after` pixels of the same extent, (after, before)."""
    ratio = before / after
    old = np.arange(before)
    if after < before:
        start = np.arange(after)[:, None] * ratio
        weights = np.clip(np.minimum(start + ratio, old + 1) - np.maximum(start, old), 0, 1) / ratio
    else:
        center = np.clip((np.arange(after)[:, None] + 0.5) * ratio - 0.5, 0, before - 1)
        weights = np.clip(1 - np.abs(center - old), 0, 1)
    return np.asarray(weights, np.float32)


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
