"""Buildings and ships: where they stand, which pixels they cover, how they look from above."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from domains.remote_sensing.terrain import Cover, Generator, Ground, Matrix, Terrain
from fovea.types import Bools, Bytes, Floats

MOST_BUILDINGS = 30
MOST_SHIPS = 8


@dataclass(frozen=True, eq=False)
class Objects:
    """Things with an outline, each in a square patch of its own.

    `points` (object, 2) are centres in metres (east, north); `length`, `width` in metres and `direction` (radians
    from east towards north) are of the outline. `rows`, `columns` int (object, side, side) are pixels of the scene;
    `u`, `v` their distance in metres from the centre along and across the long axis (u is infinite where the patch
    leaves the scene); `inside` is the signed distance in metres to the outline, positive inside.
    """

    points: Matrix
    length: Matrix
    width: Matrix
    direction: Matrix
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    u: Floats
    v: Floats
    inside: Floats

    def __len__(self) -> int:
        return len(self.length)

    def mask(self, shape: tuple[int, int]) -> Bools:
        """Pixels whose centre is inside an outline."""
        mask = np.zeros(shape, bool)
        hit = self.inside > 0
        mask[self.rows[hit], self.columns[hit]] = True
        return mask

    def chosen(self, which: NDArray[Any]) -> Objects:
        """Some of them, by index or by truth value."""
        return Objects(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


def place_buildings(rng: Generator, terrain: Terrain, cover: Bytes) -> Objects:
    """Buildings on those sites of the terrain that can be seen whole; `cover` holds clouds, 255 is no data."""
    ground, sites = terrain.ground, terrain.sites
    objects = oblongs(ground, sites[:, :2], sites[:, 2], sites[:, 3], sites[:, 4])
    winged = (sites[:, 3:].min(1) > 9 * ground.pitch) & (rng.random(len(sites)) < 0.5)
    notch = (sites[:, 3:].T * rng.uniform(-0.05, 0.15, (2, len(sites)))).astype(np.float32)[..., None, None]
    corner = rng.choice(np.array([-1, 1], np.float32), notch.shape)
    cut = np.minimum(objects.u * corner[0] - notch[0], objects.v * corner[1] - notch[1])
    inside = np.where(winged[:, None, None], np.minimum(objects.inside, -cut), objects.inside)
    objects = replace(objects, inside=inside)
    urban = np.arange(len(sites)) < terrain.urban
    town = cover == Cover.BUILT_UP
    field = (cover == Cover.CROPLAND) | (cover == Cover.GRASSLAND) | (cover == Cover.BARE_SOIL)
    near = inside > -1.5 * ground.pitch
    free = np.where(urban, _all(objects, near, town), _all(objects, near, field))
    most = int(rng.integers(1, MOST_BUILDINGS + 1)) if rng.random() < 0.5 else MOST_BUILDINGS
    return objects.chosen(_apart(free, sites[:, :2], np.hypot(*sites[:, 3:].T) / 2, 4 * ground.pitch, most, urban))


def place_ships(rng: Generator, ground: Ground, cover: Bytes) -> Objects:
    """Ships on open water, whole and apart from each other; `cover` as for `place_buildings`.

    One, the first, is clearly longer than the others.
    """
    wet = cover == Cover.WATER
    if not wet.any() or rng.random() < 0.2:
        return oblongs(ground, np.empty((0, 2)), *np.empty((3, 0)))
    sides = np.linalg.norm(ground.step, axis=0)[::-1]
    room = ndimage.distance_transform_edt(np.pad(wet, 1), sides)[1:-1, 1:-1] - 2 * ground.pitch
    shortest = 7 * ground.pitch
    rows, columns = np.nonzero(room > shortest / 2)
    count = int(rng.integers(1, MOST_SHIPS + 1)) if len(rows) else 0
    pick = rng.integers(0, max(len(rows), 1), 5 * count)
    drawn = shortest + (max(70.0, 1.8 * shortest) - shortest) * rng.random(len(pick)) ** 1.5
    length = np.minimum(drawn, 2 * room[rows[pick], columns[pick]])
    order = np.argsort(-np.where(np.arange(len(pick)) < count, length, 0), kind="stable")
    pick, length = pick[order], length[order]
    length[1:] = np.minimum(length[1:], 0.8 * length[:1])
    points = ground.points(np.stack([rows[pick], columns[pick]], -1) + rng.uniform(-0.5, 0.5, (len(pick), 2)))
    width = np.maximum(length * rng.uniform(0.2, 0.34, len(length)), 2.2 * ground.pitch)
    objects = oblongs(ground, points, rng.uniform(0, 2 * np.pi, len(length)), length, width)
    half_length, half_width = ((side[:, None, None] / 2).astype(np.float32) for side in (length, width))
    along = np.minimum(np.abs(objects.u) / half_length, 1)
    taper = 1 - along ** np.where(objects.u > 0, np.float32(3.4), np.float32(6))
    inside = np.minimum(half_width * taper - np.abs(objects.v), half_length - np.abs(objects.u))
    no = np.zeros(len(pick), bool)
    kept = _apart(~no, points, length / 2, 5 * ground.pitch, count, no)
    return replace(objects, inside=inside).chosen(kept)


def oblongs(ground: Ground, points: Matrix, direction: Matrix, length: Matrix, width: Matrix) -> Objects:
    """Rectangles, in square patches large enough for the largest of them and two pixels around it."""
    finest = float(np.linalg.svd(ground.step, compute_uv=False).min())
    side = int(np.ceil(np.hypot(length, width).max(initial=0) / 2 / finest)) + 2
    offset = np.arange(-side, side + 1)
    centre = ground.index(points)[:, :, None, None]
    near = np.round(centre).astype(np.intp)
    rows, columns = np.broadcast_arrays(near[:, 0] + offset[:, None], near[:, 1] + offset)
    back = columns - centre[:, 1], rows - centre[:, 0]
    east, north = (ground.step[axis, 0] * back[0] + ground.step[axis, 1] * back[1] for axis in (0, 1))
    cos, sin = np.cos(direction)[:, None, None], np.sin(direction)[:, None, None]
    last_row, last_column = (n - 1 for n in ground.shape)
    seen = (rows >= 0) & (rows <= last_row) & (columns >= 0) & (columns <= last_column)
    u = np.where(seen, east * cos + north * sin, np.inf).astype(np.float32)
    v = (north * cos - east * sin).astype(np.float32)
    half_length, half_width = ((size[:, None, None] / 2).astype(np.float32) for size in (length, width))
    inside = np.minimum(half_length - np.abs(u), half_width - np.abs(v))
    return Objects(points, length, width, direction, rows.clip(0, last_row), columns.clip(0, last_column), u, v, inside)


def _all(objects: Objects, near: Bools, free: Bools) -> Bools:
    """Whether all pixels near each object are free; the rim of the scene never is."""
    inner = np.zeros_like(free)
    inner[1:-1, 1:-1] = free[1:-1, 1:-1]
    whole = (inner[objects.rows, objects.columns] | ~near).all((1, 2)) & near.any((1, 2))
    return np.asarray(whole)


def _apart(free: Bools, points: Matrix, radius: Matrix, gap: float, most: int, kin: Bools) -> NDArray[np.intp]:
    """The first free objects that keep `gap` metres between their circles; kin are known to be apart."""
    kept: list[int] = []
    for i in np.flatnonzero(free):
        distance = np.hypot(*(points[kept] - points[i]).T) - radius[kept] - radius[i]
        if len(kept) < most and ((distance > gap) | (kin[kept] & kin[i])).all():
            kept.append(int(i))
    return np.array(kept, np.intp)
