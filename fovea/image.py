"""Pictures and where they lie.

Axis order of arrays is (channel, slice, row, column), of points (slice, row, column). An affine maps
(column, row, slice, 1) to world (x, y, z, 1), and an index names the centre of its pixel, as in NIfTI
and ITK; `Grid.from_gdal` converts from the corner convention of GDAL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.errors import GeometryError, InputError

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Span = tuple[int, int]

LPS = "LPS mm"
"""Patient coordinates in mm: x to the left, y to the back (posterior), z to the head (superior)."""
DETECTOR = "detector mm"
"""The plane of a projection image in mm: x to the patient's left, y towards the feet."""
SLIDE = "slide mm"
"""The plane of a microscope slide in mm, as DICOM PS3.3 C.8.12.2 defines it: x and y along its edges."""
PIXEL = "pixel"
"""No physical size is known: lengths and areas in real units cannot be given."""


@dataclass(frozen=True)
class Window:
    """A part of an image by half-open index spans."""

    rows: Span
    columns: Span
    slices: Span | None = None


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the pixels of an image lie.

    `affine` is float64 (4, 4); `frame` is LPS, DETECTOR, SLIDE, PIXEL or the name of a CRS ("EPSG:32636", WKT);
    `shape` is (slices, rows, columns). A singular or non-finite affine raises GeometryError.
    """

    affine: Matrix
    frame: str
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-24:
            raise GeometryError(f"affine {affine.tolist()}", "a finite, invertible 4 x 4 matrix")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError(f"shape {self.shape}", "(slices, rows, columns), each at least 1")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def plain(cls, rows: int, columns: int, slices: int = 1) -> Grid:
        """A grid without physical size."""
        return cls(np.eye(4), PIXEL, (slices, rows, columns))

    @classmethod
    def from_gdal(cls, transform: tuple[float, ...], crs: str, rows: int, columns: int) -> Grid:
        """From the six coefficients a, b, c, d, e, f of x = a·column + b·row + c, y = d·column + e·row + f."""
        a, b, c, d, e, f = transform[:6]
        affine = np.eye(4)
        affine[:2, :2] = (a, b), (d, e)
        affine[:2, 3] = c + (a + b) / 2, f + (d + e) / 2
        return cls(affine, crs, (1, rows, columns))

    def to_gdal(self) -> tuple[float, float, float, float, float, float]:
        """The inverse of `from_gdal`."""
        (a, b), (d, e) = self.affine[:2, :2]
        c, f = self.affine[:2, 3]
        return float(a), float(b), float(c - (a + b) / 2), float(d), float(e), float(f - (d + e) / 2)

    @property
    def physical(self) -> bool:
        """Whether lengths have a real unit."""
        return self.frame != PIXEL

    @property
    def georeferenced(self) -> bool:
        """Whether the frame is a coordinate reference system of the Earth."""
        return self.frame not in (LPS, DETECTOR, SLIDE, PIXEL)

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbours along (slice, row, column), in the unit of the frame."""
        column, row, slice_ = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slice_), float(row), float(column)

    def world(self, points: NDArray[Any]) -> Matrix:
        """Index points (n, 3) in order (slice, row, column) to world points (n, 3) in order (x, y, z)."""
        return np.asarray(points, float)[:, ::-1] @ self.affine[:3, :3].T + self.affine[:3, 3]

    def index(self, points: NDArray[Any]) -> Matrix:
        """The inverse of `world`; indices are fractional."""
        flat: Matrix = (np.asarray(points, float) - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T
        return flat[:, ::-1]

    def same(self, other: Grid) -> bool:
        """Whether both have one frame and shape, and their pixels lie within a hundredth of a pixel of each other."""
        if self.frame != other.frame or self.shape != other.shape:
            return False
        corners = np.array(list(product(*((0, length) for length in self.shape))))
        return bool(np.abs(self.index(other.world(corners)) - corners).max() < 0.01)

    def crop(self, window: Window) -> Grid:
        """The grid of a window; raises InputError when the window leaves the grid or is empty."""
        spans = (window.slices or (0, self.shape[0]), window.rows, window.columns)
        for (start, stop), size in zip(spans, self.shape, strict=True):
            if not 0 <= start < stop <= size:
                raise InputError(f"window {window}", f"non-empty spans inside shape {self.shape}")
        affine = np.array(self.affine)
        affine[:3, 3] = self.world(np.array([[start for start, _ in spans]]))[0]
        return Grid(
            affine, self.frame, (spans[0][1] - spans[0][0], spans[1][1] - spans[1][0], spans[2][1] - spans[2][0])
        )

    def resample(self, shape: tuple[int, int, int]) -> Grid:
        """The grid of the same extent with another number of pixels."""
        factor = np.array(self.shape, float) / np.array(shape, float)
        affine = np.array(self.affine)
        affine[:3, :3] = affine[:3, :3] * factor[::-1]
        affine[:3, 3] = self.world(((factor - 1) / 2)[None])[0]
        return Grid(affine, self.frame, shape)


@dataclass(frozen=True)
class Channel:
    """One channel: its name, the unit of its values, and for optical bands the centre wavelength in nm."""

    name: str
    unit: str = ""
    wavelength: float | None = None


Pixels = tuple[Floats, Bools]
"""Values (channel, slice, row, column) and validity (slice, row, column)."""
Reader = Callable[[Window | None, tuple[int, int] | None], Pixels]
"""Reads a window, reduced to (rows, columns) where a shape is given."""


@dataclass(frozen=True, eq=False)
class Image:
    """Pixels in physical units, read when first asked for."""

    channels: tuple[Channel, ...]
    grid: Grid
    read: Reader = field(repr=False)

    @classmethod
    def from_array(cls, channels: tuple[Channel, ...], grid: Grid, pixels: Floats, valid: Bools | None = None) -> Image:
        """An image in memory; a reduced read takes the nearest pixels."""
        pixels = np.asarray(pixels, np.float32)
        valid = np.ones(grid.shape, bool) if valid is None else np.asarray(valid, bool)
        if pixels.shape != (len(channels), *grid.shape) or valid.shape != grid.shape:
            raise InputError(
                f"pixels {pixels.shape} and validity {valid.shape}",
                f"{(len(channels), *grid.shape)} and {grid.shape} (channel, slice, row, column)",
            )

        def read(window: Window | None, shape: tuple[int, int] | None) -> Pixels:
            part, mask = pixels, valid
            if window is not None:
                grid.crop(window)
                where = (slice(*(window.slices or (None,))), slice(*window.rows), slice(*window.columns))
                part, mask = part[:, *where], mask[where]
            if shape is not None:
                rows, columns = (
                    ((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(shape, mask.shape[1:], strict=True)
                )
                part, mask = part[..., rows[:, None], columns], mask[..., rows[:, None], columns]
            return part, mask

        return cls(channels, grid, read)

    def window(self, window: Window | None = None, shape: tuple[int, int] | None = None) -> Image:
        """A lazy view of a window, reduced to `shape` (rows, columns) where given; the grid moves along.

        A view cannot be windowed again: take all windows from the image itself.
        """
        grid = self.grid.crop(window) if window else self.grid
        if shape is not None:
            grid = grid.resample((grid.shape[0], *shape))

        def read(inner: Window | None, reduced: tuple[int, int] | None) -> Pixels:
            if inner is not None or reduced is not None:
                raise InputError("a window of a window", "windows of the image itself", "Compose the spans first")
            return self.read(window, shape)

        return Image(self.channels, grid, read)

    @cached_property
    def _loaded(self) -> Pixels:
        return self.read(None, None)

    @property
    def pixels(self) -> Floats:
        """float32 (channel, slice, row, column); reads the file at the first use."""
        return self._loaded[0]

    @property
    def valid(self) -> Bools:
        """bool (slice, row, column): False where there is no data."""
        return self._loaded[1]
