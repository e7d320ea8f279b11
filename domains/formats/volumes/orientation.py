"""Volumes stored along any axes, turned to those of a patient: columns left, rows back, slices up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.formats.content import check_size
from fovea.errors import GeometryError, LimitError
from fovea.image import Matrix
from fovea.types import LPS, Channel, Grid, Image, Pixels, Window

GRAY = (Channel("intensity"),)
COLOR = (Channel("red"), Channel("green"), Channel("blue"))
_MOST = 10_000
"""The most volumes that one file may hold."""


@dataclass(frozen=True)
class Stored:
    """What a file holds: `count` volumes on one lattice of `shape` (i, j, k), as they are stored.

    `affine` maps (i, j, k, 1) to LPS in mm; None where the file does not tell it, and the grid is one of pixels then.
    `values(n)` gives volume n, (i, j, k), or (i, j, k, channel) where there are several channels.
    """

    shape: tuple[int, int, int]
    affine: Matrix | None
    values: Callable[[int], NDArray[Any]]
    count: int = 1
    channels: tuple[Channel, ...] = GRAY


def images(stored: Stored) -> tuple[Image, ...]:
    """Every volume as an image. Axes are permuted and flipped to the nearest of LPS; nothing is interpolated.

    Values that are not finite are invalid and 0; they are rounded to float32 once. Raises GeometryError for an affine
    that is singular or not finite, LimitError for too large a declaration. Values are read when asked for.
    """
    check_size(*stored.shape, stored.count, len(stored.channels))
    if stored.count > _MOST:
        raise LimitError(f"a file of {stored.count} volumes", f"at most {_MOST}", "Split it.")
    grid, turn = _turned(stored.affine, stored.shape)
    return tuple(_image(stored, grid, turn, number) for number in range(stored.count))


def _turned(affine: Matrix | None, shape: tuple[int, int, int]) -> tuple[Grid, Matrix | None]:
    """The grid on the axes of a patient, and the turn there in nibabel's notation."""
    if affine is None:
        return Grid.plain(shape[1], shape[0], shape[2]), None
    from nibabel import orientations

    turns: Any = orientations  # untyped
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise GeometryError("a volume with a singular affine", "one that can be inverted", "Convert it again.")
    turn: Matrix = turns.io_orientation(affine)
    i, j, k = (shape[int(np.flatnonzero(turn[:, 0] == axis)[0])] for axis in range(3))
    return Grid(affine @ turns.inv_ornt_aff(turn, shape), LPS, (k, j, i)), turn


def _image(stored: Stored, grid: Grid, turn: Matrix | None, number: int) -> Image:
    def load(window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        from nibabel import orientations

        turns: Any = orientations
        values = np.asarray(stored.values(number), np.float32)
        if turn is not None:
            values = turns.apply_orientation(values, turn)
        values = values[None] if values.ndim == 3 else np.moveaxis(values, 3, 0)
        values = np.ascontiguousarray(values.transpose(0, 3, 2, 1))
        valid = np.asarray(np.isfinite(values).all(0), bool)
        return Image.from_array(stored.channels, grid, np.where(valid, values, 0), valid).read(window, shape)

    return Image(stored.channels, grid, load)
