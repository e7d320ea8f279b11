"""A volume painted with ellipsoids in a space bent at random, their edges as soft as partial volume makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from fovea.image import Bools, Floats, Matrix

_SWAY = 3.0
"""The displacement along each axis is a sum of two waves of at most this height in mm."""
Block = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Weight:
    """How much of each voxel of a block something fills, float32 (slice, row, column) in [0, 1]."""

    block: Block
    values: Floats

    def times(self, factor: Floats) -> Weight:
        """The share that `factor`, on the block, leaves."""
        return Weight(self.block, self.values * factor)

    def within(self, room: Floats) -> Weight:
        """The share that `room`, on the whole grid, leaves."""
        return self.times(room[self.block])


@dataclass(frozen=True, eq=False)
class Canvas:
    """Hounsfield units, float32 (slice, row, column), the displaced coordinates of the voxels, and their true grid:
    spacing (slice, row, column) and the first voxel's centre (x, y, z), in mm."""

    values: Floats
    x: Floats
    y: Floats
    z: Floats
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]

    @classmethod
    def blank(
        cls,
        shape: tuple[int, int, int],
        spacing: tuple[float, float, float],
        origin: tuple[float, float, float],
        rng: Generator,
    ) -> Canvas:
        """Air, in a space bent at random: each axis is displaced by waves along the other two."""
        axes = [np.float32(o) + np.arange(n, dtype=np.float32) * np.float32(d)
                for o, n, d in zip(origin, shape[::-1], spacing[::-1], strict=True)]  # fmt: skip
        z, y, x = np.meshgrid(*axes[::-1], indexing="ij", sparse=True)

        def bent(along: Floats, first: Floats, second: Floats) -> Floats:
            waves = [
                np.float32(rng.uniform(0.3, 1) * _SWAY)
                * np.sin(across * np.float32(2 * np.pi / rng.uniform(90, 200)) + np.float32(rng.uniform(0, 6.3)))
                for across in (first, second)
            ]
            return np.asarray(along + waves[0] + waves[1])

        return cls(np.full(shape, -1000, np.float32), bent(x, y, z), bent(y, z, x), bent(z, x, y), spacing, origin)

    def weigh(self, center: ArrayLike, axes: ArrayLike, rotation: Matrix | None = None) -> Weight:
        """The weight of an ellipsoid with its half-axes turned about its centre."""
        middle, half = np.asarray(center, float), np.asarray(axes, float)
        frame = np.eye(3) if rotation is None else rotation
        block = self._block(middle, np.sqrt(frame**2 @ half**2) + 2 * _SWAY)
        points = [grid[block] - np.float32(c) for grid, c in zip((self.x, self.y, self.z), middle, strict=True)]
        level = np.zeros(points[0].shape, np.float32)
        for axis in range(3):
            terms = [
                np.float32(frame[k, axis] / half[axis]) * points[k] for k in range(3) if abs(frame[k, axis]) > 1e-9
            ]
            along = terms[0]
            for term in terms[1:]:
                along = along + term
            level += along * along
        edge = np.sort(half)[:2].mean() / self.spacing[1]
        return Weight(block, np.clip(0.5 + (1 - np.sqrt(level)) * np.float32(edge), 0, 1))

    def ellipsoid(self, center: ArrayLike, axes: ArrayLike, value: float, rotation: Matrix | None = None) -> None:
        """Paint an ellipsoid."""
        self.paint(self.weigh(center, axes, rotation), value)

    def paint(self, weight: Weight, value: float) -> None:
        """Lay a material over what is there."""
        part = self.values[weight.block]
        part += weight.values * (np.float32(value) - part)

    def spread(self, weight: Weight) -> Floats:
        """A weight on the whole grid."""
        whole = np.zeros(self.values.shape, np.float32)
        whole[weight.block] = weight.values
        return whole

    def mask(self, weight: Weight) -> Bools:
        """Voxels that are filled by half or more."""
        whole = np.zeros(self.values.shape, bool)
        whole[weight.block] = weight.values > 0.5
        return whole

    def joined(self, first: Weight, second: Weight) -> Weight:
        """The larger of two weights, on a block that holds both."""
        spans = [
            slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first.block, second.block, strict=True)
        ]
        block = spans[0], spans[1], spans[2]
        return Weight(block, np.maximum(self.spread(first)[block], self.spread(second)[block]))

    def _block(self, middle: Matrix, reach: Matrix) -> Block:
        spans = []
        for size, start, step, c, r in zip(
            self.values.shape, self.origin[::-1], self.spacing, middle[::-1], reach[::-1], strict=True
        ):
            first, last = np.clip((np.floor((c - r - start) / step), np.ceil((c + r - start) / step) + 1), 0, size)
            spans.append(slice(int(first), int(last)))
        return spans[0], spans[1], spans[2]
