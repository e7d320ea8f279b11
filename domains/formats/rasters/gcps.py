"""Rasters that ground control points place, laid on a north-up metric grid of about their own pixel size.

Choices:

- Between the points lies a thin-plate spline over a polynomial of degree 1 to 3: the one of least error. It meets every
  point, so that what it is worth is told by leaving points out: the error is the root mean square, over all points, of
  how far each lies from the surface through the others, in pixels of the raster.
- Points in degrees are laid on the UTM zone of their centre, or on UPS above 84 N and below 80 S; so the antimeridian
  is no seam. Points of a projected system stay in it. Heights of points are not used: a place is where the points say,
  and what stands higher or lower than they do is displaced.
- The origin is a whole multiple of the pixel, so that scenes of one zone share their pixels.
- Refused are an error above a hundredth of the raster's longer side, and points that fold the surface: from the raster
  to the ground and back has to lead to where it began.

Sources: Bookstein 1989, Principal Warps, for the spline; Rippa 1999, Adv. Comput. Math. 11, for leaving one point out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from domains.formats.rasters.earth import GEOGRAPHIC, metric, transformer
from domains.formats.rasters.warp import Resampling, lay
from fovea.errors import GeometryError
from fovea.image import Grid, Image, Matrix
from fovea.verbal import number

_TOLERANCE = 0.01
"""Of the raster's longer side: an error above it is refused."""
_MOST_GROWTH = 64
"""How many times the pixels of the raster its grid may have: a long strip that lies askew needs some ten."""
_LATTICE = 25
"""Points a side of the lattices that pixel size and folds are looked for at."""
_CHUNK = 2**22
"""Distances that are held at once."""


@dataclass(frozen=True)
class Points:
    """Rows and columns (n, 2), whole numbers being centres of pixels, and the x, y (n, 2) of a frame that lie there."""

    index: Matrix
    world: Matrix
    frame: str


def place(
    image: Image, points: Points, *, spacing: float | None = None, resampling: Resampling = "bilinear"
) -> tuple[Image, float]:
    """The image on the grid that its points give, lazily, and the error in pixels.

    `spacing` is the pixel size in units of the frame, else that of the raster to two digits. Raises GeometryError for
    points that lie on a line, fold, contradict each other, or leave the reach of their frame.
    """
    frame, world = _metric(points)
    rows, columns = image.grid.shape[1:]
    _, once = np.unique(np.column_stack([points.index, world]), axis=0, return_index=True)
    forward, inverse = Spline.best(points.index[once], world[once]), Spline.best(world[once], points.index[once])
    allowed = _TOLERANCE * max(rows, columns)
    if not inverse.error <= allowed:
        raise _unfit(len(points.index), f"that lie {number(inverse.error)} pixels from the surface through the others")
    spacing = spacing or _spacing(forward, rows, columns)
    grid = _grid(forward, spacing, frame, rows, columns)
    if not _astray(forward, inverse, grid, spacing, rows, columns) <= allowed:
        raise _unfit(len(points.index), "whose surface folds")
    return lay(image, grid, inverse, resampling), inverse.error


def told(error: float) -> str:
    """An error of `place` in words."""
    return f"{number(error) if error >= 0.01 else 'less than 0.01'} pixels off where one is left out"


@dataclass(frozen=True, eq=False)
class Spline:
    """A thin-plate spline over a polynomial of a degree, from the plane to the plane.

    `knots` (n, 2) are moved by `centre` and divided by `scale`, `weights` (n + terms, 2) are those of the kernels, then
    of the polynomial; `error` is the root mean square of the residuals where one knot is left out.
    """

    knots: Matrix
    centre: Matrix
    scale: float
    degree: int
    weights: Matrix
    error: float

    @classmethod
    def best(cls, points: Matrix, values: Matrix) -> Spline:
        """Through values (n, 2) at points (n, 2), of the degree of least error; GeometryError where there is none."""
        found = [spline for degree in (1, 2, 3) for spline in cls._fitted(points, values, degree)]
        if not found:
            raise GeometryError(
                f"{len(points)} ground control points that make no surface",
                "at least four apart from each other, and each in one place",
                "Correct or add points",
            )
        return min(found, key=lambda spline: spline.error)

    @classmethod
    def _fitted(cls, points: Matrix, values: Matrix, degree: int) -> Iterator[Spline]:
        """The spline, if the points tell all terms of the polynomial with at least one to spare."""
        centre, count = points.mean(0), len(points)
        scale = float(np.abs(points - centre).max()) or 1.0
        knots = (points - centre) / scale
        terms = _terms(knots, degree)
        size = terms.shape[1]
        if count <= size or np.linalg.matrix_rank(terms) < size:
            return
        matrix = np.block([[_kernel(knots, knots), terms], [terms.T, np.zeros((size, size))]])
        try:
            solved = np.linalg.inv(matrix)
        except np.linalg.LinAlgError:
            return
        weights = solved[:, :count] @ values
        diagonal = np.abs(np.diag(solved)[:count])
        if diagonal.min() <= 1e-9 * diagonal.max():  # without this point the others do not tell the polynomial
            return
        error = float(np.sqrt(np.square(weights[:count] / diagonal[:, None]).sum(1).mean()))
        spline = cls(knots, centre, scale, degree, weights, error)
        span = float(np.ptp(values, axis=0).max())
        if np.abs(spline(points) - values).max() <= 1e-6 * span:  # false where points contradict each other
            yield spline

    def __call__(self, points: Matrix) -> Matrix:
        """Values (n, 2) at points (n, 2)."""
        at = (points - self.centre) / self.scale
        step = max(_CHUNK // len(self.knots), 1)
        kernels, trend = self.weights[: len(self.knots)], self.weights[len(self.knots) :]
        parts = [
            _kernel(part, self.knots) @ kernels + _terms(part, self.degree) @ trend
            for part in (at[start : start + step] for start in range(0, len(at), step))
        ]
        return np.concatenate(parts) if parts else np.zeros((0, 2))


def _kernel(one: Matrix, other: Matrix) -> Matrix:
    """r² log r between points (n, 2) and (m, 2), of any factor."""
    squared = np.square(one[:, None, 0] - other[:, 0])
    squared += np.square(one[:, None, 1] - other[:, 1])
    return np.asarray(squared * np.log(np.maximum(squared, np.finfo(float).tiny)))


def _terms(points: Matrix, degree: int) -> Matrix:
    """The monomials (n, terms) up to a degree."""
    x, y = points.T
    return np.stack([x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)], 1)


def _metric(points: Points) -> tuple[str, Matrix]:
    """The frame of the grid, and the points in it."""
    from pyproj import CRS

    if not CRS.from_user_input(points.frame).is_geographic:
        return points.frame, points.world
    degrees = transformer(points.frame, GEOGRAPHIC)(points.world)
    frame = metric(degrees) if np.isfinite(degrees).all() else ""
    world = transformer(GEOGRAPHIC, frame)(degrees) if frame else degrees
    if not np.isfinite(world).all():
        raise GeometryError("ground control points off the Earth", "longitudes and latitudes near each other")
    return frame, world


def _spacing(forward: Spline, rows: int, columns: int) -> float:
    """The shorter side of a pixel in units of the frame, to two digits."""
    index = _lattice((0, rows - 1), (0, columns - 1))
    sides = [np.linalg.norm(forward(index + step) - forward(index - step), axis=1) for step in ((0.5, 0), (0, 0.5))]
    side = min(float(np.median(side)) for side in sides)
    if not 0 < side < np.inf:
        raise GeometryError("ground control points that leave pixels no size", "points that span the raster")
    return float(f"{side:.2g}")


def _grid(forward: Spline, spacing: float, frame: str, rows: int, columns: int) -> Grid:
    """North-up, around all of the raster's edge."""
    down, across = np.linspace(-0.5, rows - 0.5, _LATTICE), np.linspace(-0.5, columns - 0.5, _LATTICE)
    sides = [np.stack(np.broadcast_arrays(down, edge), 1) for edge in across[[0, -1]]]
    sides += [np.stack(np.broadcast_arrays(edge, across), 1) for edge in down[[0, -1]]]
    edge = forward(np.concatenate(sides))
    if not np.isfinite(edge).all():
        raise GeometryError("ground control points that lead off the Earth", "points that span the raster")
    (west, south), (east, north) = np.floor(edge.min(0) / spacing + 1e-6), np.ceil(edge.max(0) / spacing - 1e-6)
    height, width = max(int(north - south), 1), max(int(east - west), 1)
    if height * width > _MOST_GROWTH * max(rows * columns, 2**12):
        raise GeometryError(
            f"ground control points that spread {rows} x {columns} pixels over {height} x {width}",
            f"a grid of at most {_MOST_GROWTH} times the pixels",
            "Correct the points, or warp the raster with gdalwarp -tps",
        )
    transform = (spacing, 0.0, float(west * spacing), 0.0, -spacing, float(north * spacing))
    return Grid.from_gdal(transform, frame, height, width)


def _astray(forward: Spline, inverse: Spline, grid: Grid, spacing: float, rows: int, columns: int) -> float:
    """How many pixels apart, at most, the way there and back ends from where it began."""
    index = _lattice((0, rows - 1), (0, columns - 1))
    from_raster = np.linalg.norm(inverse(forward(index)) - index, axis=1)
    spots = _lattice((0, grid.shape[1] - 1), (0, grid.shape[2] - 1))
    world = grid.world(np.column_stack([np.zeros(len(spots)), spots]))[:, :2]
    index = inverse(world)
    inside = ((index >= -0.5) & (index <= np.array([rows, columns]) - 0.5)).all(1)
    from_ground = np.linalg.norm(forward(index[inside]) - world[inside], axis=1) / spacing
    return float(np.concatenate([from_raster, from_ground]).max())


def _lattice(down: tuple[float, float], across: tuple[float, float]) -> Matrix:
    """Points (n, 2) all over a span of rows and one of columns."""
    sides = np.meshgrid(np.linspace(*down, _LATTICE), np.linspace(*across, _LATTICE), indexing="ij")
    return np.stack([side.ravel() for side in sides], 1)


def _unfit(count: int, what: str) -> GeometryError:
    return GeometryError(
        f"{count} ground control points {what}",
        f"points that agree to a hundredth of the raster's side ({_TOLERANCE:.0%})",
        "Correct or add points, or warp the raster with gdalwarp -tps",
    )
