"""Shapes whose measures are known without any pixel: ellipsoids in a patient, ellipses on the Earth.

They are drawn where the centre of a pixel lies inside. So large are they, in pixels, that this alone moves an area or
a volume by less than a third of what the tests allow: what a mask loses by being made of pixels is not the measure's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyproj import CRS, Transformer
from scipy.spatial.transform import Rotation

from fovea.types import DETECTOR, LPS, Grid


def volume_grid(shape, spacing, angles, flips):
    """An oblique grid in a patient: spacing along (slice, row, column) in mm, Euler angles in degrees, axes flipped."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(
        np.where(flips, -1, 1)[::-1] * np.array(spacing)[::-1]
    )
    affine[:3, 3] = -120.0, 35.5, 900.0
    return Grid(affine, LPS, shape)


def detector_grid(rows, columns, spacing):
    return Grid(np.diag([spacing[1], spacing[0], 1.0, 1.0]), DETECTOR, (1, rows, columns))


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """Semi-axes in mm along the columns of `axes`, in world coordinates, about a middle given as an index."""

    radii: np.ndarray
    axes: np.ndarray
    middle: np.ndarray

    @property
    def form(self):
        """Q of xᵀQx <= 1 about the middle."""
        return self.axes @ np.diag(self.radii**-2.0) @ self.axes.T

    def mask(self, grid):
        index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1).reshape(-1, 3)
        world = grid.world(index) - grid.world(self.middle[None])
        return (np.einsum("ij,jk,ik->i", world, self.form, world) <= 1).reshape(grid.shape)

    @property
    def volume(self):
        """In mL."""
        return 4 / 3 * np.pi * np.prod(self.radii) / 1000

    def diameters(self, grid):
        """The axes in mm of the ellipse that the slice nearest to the middle cuts out."""
        step, *plane = grid.affine[:3, :3].T[::-1]
        basis = np.linalg.qr(np.stack(plane, axis=1))[0]
        at = step * (np.round(self.middle[0]) - self.middle[0])
        inner = basis.T @ self.form @ basis
        # complete the square of the quadratic form within the plane
        shift = np.linalg.solve(inner, basis.T @ self.form @ at)
        rest = 1 - at @ self.form @ at + shift @ inner @ shift
        short, long = np.sort(2 * np.sqrt(rest / np.linalg.eigvalsh(inner)))
        return long, short

    @classmethod
    def fitting(cls, rng, spacing, least=14):
        """A random one of at least so many voxels from the middle to the skin, with a shape that holds it."""
        radii = rng.uniform(1, 1.7, 3) * least * max(spacing)
        shape = tuple(int(2 * radii.max() / s) + 6 for s in spacing)
        middle = (np.array(shape) - 1) / 2 + rng.uniform(-0.5, 0.5, 3)
        return cls(radii, Rotation.random(random_state=int(rng.integers(2**31))).as_matrix(), middle), shape


def scene_grid(rows, columns, pixel, crs, x, y, turn=0.0):
    """A scene about a middle (x, y), turned by degrees; pixels are (wide, high) in the unit of the CRS."""
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    steps = np.array([[cos, -sin], [sin, cos]]) @ np.diag([pixel[0], -pixel[1]])
    corner = np.array([x, y]) - steps @ (columns / 2, rows / 2)
    (a, b), (d, e) = steps
    return Grid.from_gdal((a, b, corner[0], d, e, corner[1]), crs, rows, columns)


@dataclass(frozen=True, eq=False)
class Ellipse:
    """An ellipse laid out by geodesics from its middle: semi-axes in metres, and the bearing of the long one."""

    grid: Grid
    middle: tuple[float, float]
    half: tuple[float, float]
    bearing: float

    def __post_init__(self):
        crs = CRS(self.grid.frame)
        object.__setattr__(self, "earth", crs.get_geod())
        object.__setattr__(self, "to_earth", Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True))
        world = self.grid.world(np.array([[0, *self.middle]]))[0, :2]
        object.__setattr__(self, "place", self.to_earth.transform(*world))

    def mask(self):
        _, rows, columns = self.grid.shape
        index = np.stack(np.meshgrid([0], np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 3)
        place = self.to_earth.transform(*self.grid.world(index)[:, :2].T)
        azimuth, _, distance = self.earth.inv(*(np.full(len(index), c) for c in self.place), *place)
        turn = np.deg2rad(azimuth - self.bearing)
        along, across = distance * np.cos(turn) / self.half[0], distance * np.sin(turn) / self.half[1]
        return (np.hypot(along, across) <= 1).reshape(self.grid.shape)

    @property
    def area(self):
        """In m2: of the geodesic polygon through 4000 points of the outline."""
        t = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
        along, across = np.cos(t) * self.half[0], np.sin(t) * self.half[1]
        azimuth = self.bearing + np.degrees(np.arctan2(across, along))
        ring = self.earth.fwd(*(np.full(len(t), c) for c in self.place), azimuth, np.hypot(along, across))
        return abs(self.earth.polygon_area_perimeter(*ring[:2])[0])
