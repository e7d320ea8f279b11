"""Made-up places: relief, water, natural cover, parcels, blocks with streets, roads, and sites for buildings.

Everything is laid out in metres east and north of the centre of the scene, so that shapes, directions and
areas hold in any grid: north-up or not, projected or geographic.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from fovea.types import Bools, Bytes, Floats

Generator = np.random.Generator
Ints = NDArray[np.int32]
Matrix = NDArray[np.float64]


class Cover(IntEnum):
    """Land cover as the codes of cover maps; the names in lower case are the labels of the vocabulary."""

    WATER = 0
    FOREST = 1
    CROPLAND = 2
    GRASSLAND = 3
    BARE_SOIL = 4
    BUILT_UP = 5
    ROAD = 6
    CLOUD = 7

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, eq=False)
class Ground:
    """Where pixels lie: `step` float64 (2, 2) is metres (east, north) for one step of (column, row)."""

    shape: tuple[int, int]
    step: Matrix

    @cached_property
    def east(self) -> Floats:
        """Metres east of the centre, (row, column)."""
        return self._plane(0)

    @cached_property
    def north(self) -> Floats:
        """Metres north of the centre, (row, column)."""
        return self._plane(1)

    def _plane(self, axis: int) -> Floats:
        rows, columns = (np.arange(n, dtype=np.float32) - np.float32((n - 1) / 2) for n in self.shape)
        along, down = self.step[axis].astype(np.float32)
        plane: Floats = columns * along + rows[:, None] * down
        return plane

    @property
    def pixel_area(self) -> float:
        """In m2."""
        return float(abs(np.linalg.det(self.step)))

    @property
    def pitch(self) -> float:
        """The longer side of a pixel in metres."""
        return float(np.linalg.norm(self.step, axis=0).max())

    @property
    def radius(self) -> float:
        """Half the diagonal of the scene in metres."""
        corner = np.array(self.shape[::-1]) / 2
        return float(max(np.linalg.norm(self.step @ corner), np.linalg.norm(self.step @ (corner * (1, -1)))))

    def turned(self, angle: float) -> tuple[Floats, Floats]:
        """Coordinates (u, v) in metres along axes turned by `angle` (radians, from east towards north)."""
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return self.east * cos + self.north * sin, self.north * cos - self.east * sin

    def index(self, points: Matrix) -> Matrix:
        """Points (n, 2) in order (east, north) to fractional (row, column)."""
        offsets = points @ np.linalg.inv(self.step).T
        return offsets[:, ::-1] + (np.array(self.shape) - 1) / 2

    def points(self, index: NDArray[Any]) -> Matrix:
        """The inverse of `index`."""
        centred: Matrix = index - (np.array(self.shape) - 1) / 2
        return centred[:, ::-1] @ self.step.T


@lru_cache(maxsize=32)
def _amplitudes(size: int, smoothness: float) -> Floats:
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    return np.asarray(frequency ** -(1 + smoothness), np.float32)


@lru_cache(maxsize=512)
def _enlarging(size: int, coarse: int) -> Floats:
    """Catmull-Rom weights (size, coarse) that enlarge the middle 7/10 of a coarse line: no period is left."""
    at = 0.15 * coarse + (np.arange(size) + 0.5) / size * 0.7 * coarse
    first = np.floor(at).astype(int)
    t = at - first
    weights = np.zeros((size, coarse), np.float32)
    parts = (
        -0.5 * t + t**2 - 0.5 * t**3,
        1 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    )
    for shift, part in zip((-1, 0, 1, 2), parts, strict=True):
        np.add.at(weights, (np.arange(size), (first + shift) % coarse), part.astype(np.float32))
    return weights


def fractal(rng: Generator, shape: tuple[int, int], smoothness: float = 0.8, detail: int = 64) -> Floats:
    """Noise with a power-law spectrum, mean 0 and deviation 1, (row, column).

    The amplitude falls with frequency to the power -(1 + smoothness); `detail` is the number of samples a side
    before enlarging. Method: spectral synthesis (Saupe 1988).
    """
    white = rng.standard_normal((detail, detail // 2 + 1, 2), np.float32).view(np.complex64)[..., 0]
    coarse = fft.irfft2(white * _amplitudes(detail, smoothness), s=(detail, detail))
    field: Floats = _enlarging(shape[0], detail) @ coarse @ _enlarging(shape[1], detail).T
    field -= field.mean()
    field /= field.std()
    return field


def level(field: Floats, share: float) -> float:
    """The value that about `share` of a field exceeds."""
    return float(np.quantile(field[::4, ::4], 1 - share))


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A plane cut into strips and these into cells.

    `cell` int32 (row, column) numbers the cells; `edge` is the distance in metres to the nearest cut; `u`, `v`
    are the coordinates along and across the strips; `bounds` float (cell, 4) holds u0, u1, v0, v1.
    """

    angle: float
    cell: Ints
    edge: Floats
    u: Floats
    v: Floats
    bounds: Matrix

    def means(self, field: NDArray[Any]) -> Matrix:
        """The mean of a field in each cell; -inf in cells out of sight."""
        flat = self.cell.ravel()
        count = np.bincount(flat, minlength=len(self.bounds))
        total = np.bincount(flat, field.ravel(), minlength=len(self.bounds))
        return np.where(count > 0, total / np.maximum(count, 1), -np.inf)


def mosaic(
    rng: Generator,
    ground: Ground,
    angle: float,
    widths: tuple[float, float],
    lengths: tuple[float, float],
    grid: bool = False,
    bend: Floats | None = None,
) -> Mosaic:
    """Cut a scene into strips and cells with sides (low, high) in whole metres.

    In a grid all strips have the same cuts. `bend` (metres) is added to v, so that the strips follow it.
    """
    u, v = ground.turned(angle)
    if bend is not None:
        v = v + bend
    reach = int(ground.radius * 1.2)
    v_edges = _edges(rng, widths, reach, 1)[0]
    strips = len(v_edges) - 1
    u_edges = np.repeat(_edges(rng, lengths, reach, 1), strips, 0) if grid else _edges(rng, lengths, reach, strips)
    cells = np.arange(u_edges[:, 1:].size, dtype=np.int32)
    at_u, at_v = ((w + reach).astype(np.int32).clip(0, 2 * reach - 1) for w in (u, v))
    strip, from_v = _ruler(v_edges[None], np.arange(strips, dtype=np.int32))
    number, from_u = _ruler(u_edges, cells)
    place = strip[at_v] * np.int32(2 * reach) + at_u
    low, high = (np.repeat(edge[:, None], u_edges.shape[1] - 1, 1) for edge in (v_edges[:-1], v_edges[1:]))
    bounds = np.stack([u_edges[:, :-1], u_edges[:, 1:], low, high], -1).reshape(-1, 4) - float(reach)
    return Mosaic(angle, number[place], np.minimum(from_u[place], from_v[at_v]), u, v, bounds)


def _edges(rng: Generator, sides: tuple[float, float], reach: int, lines: int) -> Ints:
    """Cuts in whole metres from 0 to 2 reach, (line, cut)."""
    low, high = sides
    steps = rng.uniform(low, high, (lines, int(2 * reach / low) + 2))
    edges = np.cumsum(steps, 1) - rng.uniform(0, low, (lines, 1))
    used = int((edges < 2 * reach).sum(1).max()) + 1
    return np.pad(edges[:, :used], ((0, 0), (1, 0))).clip(0, 2 * reach).astype(np.int32)


def _ruler(edges: Ints, cells: Ints) -> tuple[Ints, Floats]:
    """For each metre of each line its cell, and the distance to the nearest cut; lines one after the other."""
    sizes = np.diff(edges).ravel()
    number = np.repeat(cells, sizes)
    middle = np.tile(np.arange(edges[0, -1], dtype=np.float32) + 0.5, len(edges))
    low, high = (np.repeat(edge.ravel().astype(np.float32), sizes) for edge in (edges[:, :-1], edges[:, 1:]))
    return number, np.minimum(middle - low, high - middle)


@dataclass(frozen=True, eq=False)
class Terrain:
    """A place without its weather and visitors.

    `cover` uint8 (row, column) of `Cover`; `relief` in metres above the lowest point; `depth` in metres, positive in
    water; `sites` float (site, 5) where buildings may stand: east, north, direction (radians), length, width;
    the first `urban` of them lie in blocks, the others are farms. There are parcels where there is cropland, and blocks
    where there is built-up land.
    """

    ground: Ground
    cover: Bytes
    relief: Floats
    depth: Floats
    parcels: Mosaic | None
    blocks: Mosaic | None
    sites: Matrix
    urban: int


CLIMATES: dict[str, tuple[float, float, float]] = {
    "temperate": (0.7, 0.75, 0.15),
    "boreal": (0.9, 0.55, 0.2),
    "mediterranean": (0.45, 0.6, 0.45),
    "arid": (0.08, 0.4, 0.95),
    "tropical": (0.8, 0.6, 0.25),
}
"""How likely forest, grassland and bare soil are to grow or lie in a place."""


def terrain(rng: Generator, ground: Ground, climate: str) -> Terrain:
    """Lay out a place: first what nature gives, then parcels, blocks with streets, and roads."""
    shape = ground.shape
    relief = fractal(rng, shape, rng.uniform(0.8, 1.8))
    depth = _water(rng, ground, relief)
    wet = depth > 0
    cover = _natural(rng, shape, climate)
    angle = rng.uniform(0, np.pi)
    parcels = _farm(rng, ground, cover, angle) if rng.random() < 0.42 else None
    angle = angle if rng.random() < 0.5 else rng.uniform(0, np.pi)
    lot = max(rng.uniform(26, 60), 10.5 * ground.pitch)
    blocks, sites = _town(rng, ground, cover, wet, lot, angle) if rng.random() < 0.42 else (None, np.empty((0, 5)))
    _roads(rng, ground, cover, angle)
    bridge = (cover == Cover.ROAD) & (depth < rng.uniform(3, 12)) & (rng.random() < 0.5)
    cover[wet & ~bridge] = Cover.WATER
    farms = _farms(rng, ground, angle, lot)
    height = np.float32(10 ** rng.uniform(0.7, 2.1) * ground.radius / 500)
    relief = (relief - relief.min()) * height
    return Terrain(ground, cover, relief, depth, parcels, blocks, np.concatenate([sites, farms]), len(sites))


def _water(rng: Generator, ground: Ground, relief: Floats) -> Floats:
    """Depth in metres of a lake, river or coast; negative where it is dry."""
    kind = rng.choice(["", "lake", "river", "coast"], p=[0.55, 0.17, 0.15, 0.13])
    if kind == "":
        return np.full(ground.shape, -1, np.float32)
    rough = relief + fractal(rng, ground.shape, 0.5, 96) * np.float32(rng.uniform(0.02, 0.12))
    if kind == "lake":
        return np.float32(-8) * (np.float32(level(-rough, rng.uniform(0.04, 0.4))) + rough)
    u, v = ground.turned(rng.uniform(0, 2 * np.pi))
    if kind == "coast":
        bays = np.float32(rng.uniform(0.05, 0.4))
        shore = np.asarray(v * np.float32(2 / ground.radius) + rough * bays, np.float32)
        return np.float32(-12) * (np.float32(level(-shore, rng.uniform(0.15, 0.7))) + shore)
    half = rng.uniform(6, 26) * ground.pitch
    course = v + rough * np.float32(rng.uniform(0.0, 0.3) * half) + np.float32(rng.uniform(-0.3, 0.3) * ground.radius)
    for wave in (1.1, 2.4):
        bow = rng.uniform(0.05, 0.22) * ground.radius / wave**1.5
        course += np.float32(bow) * np.sin(u * np.float32(np.pi * wave / ground.radius) + np.float32(rng.uniform(0, 6)))
    return (np.float32(half) - np.abs(course)) / np.float32(half) * np.float32(rng.uniform(3, 9))


def _natural(rng: Generator, shape: tuple[int, int], climate: str) -> Bytes:
    """Forest, grassland and bare soil by moisture, with rough edges."""
    covers = [Cover.FOREST, Cover.GRASSLAND, Cover.BARE_SOIL]
    drawn = [c for c, chance in zip(covers, CLIMATES[climate], strict=True) if rng.random() < chance * 0.72]
    chosen = drawn or [covers[int(np.argmax(CLIMATES[climate]))]]
    cover = np.full(shape, chosen[0], np.uint8)
    best = fractal(rng, shape, 0.75, 96)
    for other in chosen[1:]:
        rival = fractal(rng, shape, 0.75, 96) + np.float32(rng.uniform(-1.1, 1.1))
        cover[rival > best] = other
        best = np.maximum(best, rival)
    return cover


def _farm(rng: Generator, ground: Ground, cover: Bytes, angle: float) -> Mosaic:
    """Turn whole parcels into cropland where a smooth field is high."""
    bend = fractal(rng, ground.shape, 2.0, 16) * np.float32(rng.choice([0, 4, 10]) * ground.pitch)
    side = rng.uniform(14, 45) * ground.pitch
    parcels = mosaic(rng, ground, angle, (side, side * 2), (side * 1.2, side * 4), bend=bend)
    fitness = parcels.means(fractal(rng, ground.shape, 1.2, 32)) + rng.normal(0, 0.25, len(parcels.bounds))
    least = np.quantile(fitness[np.isfinite(fitness)], 1 - rng.uniform(0.12, 0.9))
    cover[(fitness >= least)[parcels.cell]] = Cover.CROPLAND
    return parcels


def _town(rng: Generator, ground: Ground, cover: Bytes, wet: Bools, lot: float, angle: float) -> tuple[Mosaic, Matrix]:
    """Blocks of a town around a dry centre, streets between them, and a site for a building on most lots."""
    street = max(rng.uniform(7, 13), 2.2 * ground.pitch)
    along, across = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    sides = [(n * lot + street, n * lot * rng.uniform(1, 1.15) + street + 1) for n in (across, along)]
    blocks = mosaic(rng, ground, angle, sides[0], sides[1], bool(rng.random() < 0.6))
    centre = ground.points(rng.uniform(0.15, 0.85, (1, 2)) * ground.shape)[0]
    away = np.hypot(ground.east - np.float32(centre[0]), ground.north - np.float32(centre[1]))
    fitness = blocks.means(-away - wet * np.float32(4 * ground.radius))
    fitness += rng.normal(0, 0.06 * ground.radius, len(fitness))
    wanted = rng.uniform(3, 36) * rng.uniform(1, 2.5) / (along * across)
    chosen = np.zeros(len(fitness), bool)
    chosen[np.argsort(-fitness)[: max(1, round(wanted))]] = True
    town = chosen[blocks.cell]
    cover[town] = np.where(blocks.edge[town] < street / 2, Cover.ROAD, Cover.BUILT_UP)
    return blocks, _lots(rng, ground, blocks, blocks.bounds[chosen], street, (along, across))


def _lots(
    rng: Generator, ground: Ground, blocks: Mosaic, cells: Matrix, street: float, counts: tuple[int, int]
) -> Matrix:
    """One site a lot, set back from streets and neighbours so that no two buildings touch."""
    gap = 4.5 * ground.pitch
    u0, u1, v0, v1 = cells.T + np.array([[1], [-1], [1], [-1]]) * street / 2
    k, j = (part.ravel() for part in np.meshgrid(range(counts[0]), range(counts[1])))
    length, width = (u1 - u0) / counts[0], (v1 - v0) / counts[1]
    u, v = u0[:, None] + (k + 0.5) * length[:, None], v0[:, None] + (j + 0.5) * width[:, None]
    room = np.stack(np.broadcast_arrays(length[:, None], width[:, None], u)[:2], -1).reshape(-1, 2) - gap
    size = np.maximum(room * rng.uniform(0.45, 1.0, room.shape), 4.5 * ground.pitch)
    slack = (room - size) / 2 * rng.uniform(-1, 1, room.shape)
    centre = np.stack([u.ravel(), v.ravel()], -1) + slack
    cos, sin = np.cos(blocks.angle), np.sin(blocks.angle)
    east_north = centre @ np.array([[cos, sin], [-sin, cos]])
    sites = np.concatenate([east_north, np.full((len(u.ravel()), 1), blocks.angle), size], 1)
    kept = sites[rng.random(len(sites)) < rng.uniform(0.4, 1)]
    return kept[rng.permutation(len(kept))]


def _roads(rng: Generator, ground: Ground, cover: Bytes, angle: float) -> None:
    """Draw roads that cross the scene, straight or winding, in the direction of the streets or any."""
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.6, 0.22, 0.12, 0.06]))):
        u, v = ground.turned(rng.choice([angle, angle + np.pi / 2, rng.uniform(0, np.pi)]))
        course = v + np.float32(rng.uniform(-0.45, 0.45) * ground.radius)
        wave, bow = rng.uniform(0.5, 2.0), rng.choice([0.0, 0.06, 0.14]) * ground.radius
        if bow:
            turn = u * np.float32(np.pi * wave / ground.radius) + np.float32(rng.uniform(0, 6))
            course += np.float32(bow / wave) * np.sin(turn)
        half = max(rng.uniform(7, 15), 2.2 * ground.pitch) / 2
        cover[np.abs(course) < half] = Cover.ROAD


def _farms(rng: Generator, ground: Ground, angle: float, lot: float) -> Matrix:
    """Sites of a few lone buildings, each turned its own way, none at all in most places."""
    count = int(rng.integers(1, 5)) if rng.random() < 0.3 else 0
    where = ground.points(rng.uniform(0.06, 0.94, (count, 2)) * ground.shape)
    turn = angle + rng.choice([0, np.pi / 2], (count, 1)) + rng.normal(0, 0.15, (count, 1))
    size = np.maximum(rng.uniform(0.25, 0.6, (count, 2)) * lot, 4.5 * ground.pitch)
    return np.concatenate([where, turn, size], 1)
