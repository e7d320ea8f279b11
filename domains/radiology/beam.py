"""X-rays from a point source through solids onto a flat detector: path lengths in closed form.

World points are the patient's, in mm: x to the left, y to the back, z to the head. A ray through a quadric
(x - c)ᵀ Q (x - c) <= 1 enters and leaves at the roots of a quadratic; the discriminant of that quadratic is
itself a quadratic in the position on the detector, so a shadow is a conic and costs a handful of operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fovea.image import Bools, Floats, Matrix, Span

_UNCUT = 1e6
_FAR = 1e9
_CHUNK = 1 << 16  # pixels at a time, to stay in the cache
_LONG = 1e-9  # a cylinder is an ellipsoid this flat along its axis: keeps the quadratic solvable end-on
_SIZES = np.array([24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048])


@dataclass(frozen=True, eq=False)
class Solids:
    """Ellipsoids and elliptic cylinders, each cut by two planes.

    `center` (n, 3); `form` (n, 3, 3), the matrix Q; `normal` (n, 2, 3) and `offset` (n, 2): a point is inside
    when Q allows it and -offset[0] <= normal[0] · (x - c) and normal[1] · (x - c) <= offset[1]; `axis` (n, 3),
    half the length of a cylinder as a vector, and `bound` (n, 3, 3), the inverse of Q without the axis.
    """

    center: Matrix
    form: Matrix
    bound: Matrix
    axis: Matrix
    normal: Matrix
    offset: Matrix

    def __len__(self) -> int:
        return len(self.center)

    def __add__(self, other: Solids) -> Solids:
        return Solids(*(np.concatenate(pair) for pair in zip(self._arrays(), other._arrays(), strict=True)))

    def __getitem__(self, index: Any) -> Solids:
        return Solids(*(array[index] for array in self._arrays()))

    def _arrays(self) -> tuple[Matrix, ...]:
        return self.center, self.form, self.bound, self.axis, self.normal, self.offset

    def turned(self, rotation: Matrix) -> Solids:
        """The solids after a rotation (3, 3) of the world about its origin."""
        form, bound = (rotation @ matrix @ rotation.T for matrix in (self.form, self.bound))
        center, axis, normal = (vectors @ rotation.T for vectors in (self.center, self.axis, self.normal))
        return Solids(center, form, bound, axis, normal, self.offset)

    def grown(self, factor: float, about: ArrayLike) -> Solids:
        """Uncut ellipsoids scaled about a point."""
        about = np.asarray(about, float)
        center = about + (self.center - about) * factor
        return Solids(center, self.form / factor**2, self.bound * factor**2, self.axis, self.normal, self.offset)

    def level(self, points: Matrix) -> Matrix:
        """The root of the quadratic form of points (m, 3) in each uncut solid, (m, n): 1 on the surface."""
        offset = points[:, None] - self.center
        return np.asarray(np.sqrt(np.einsum("mni,nij,mnj->mn", offset, self.form, offset)))


def ellipsoids(center: ArrayLike, axes: ArrayLike, rotation: ArrayLike | None = None) -> Solids:
    """Ellipsoids from centres (n, 3), half-axes (n, 3) and rotations about the centres, (3, 3) or (n, 3, 3)."""
    center, axes = np.atleast_2d(np.asarray(center, float)), np.atleast_2d(np.asarray(axes, float))
    turn = np.eye(3) if rotation is None else np.asarray(rotation, float)
    turn = np.broadcast_to(turn, (len(center), 3, 3))
    axes = np.broadcast_to(axes, center.shape)
    form, bound = (np.einsum("nij,nj,nkj->nik", turn, axes**power, turn) for power in (-2.0, 2.0))
    empty = np.zeros_like(center)
    return Solids(center, form, bound, empty, np.zeros((len(center), 2, 3)), np.full((len(center), 2), _UNCUT))


def tubes(start: Matrix, stop: Matrix, radius: ArrayLike, joints: tuple[Matrix, Matrix] | None = None) -> Solids:
    """Straight elliptic cylinders between points (n, 3).

    `radius` broadcasts to (n, 2): half-width towards the head and across. `joints` are the normals of the two
    end planes (n, 3), by default the axes.
    """
    radius = np.broadcast_to(np.asarray(radius, float), (len(start), 2))
    axis = (stop - start) / 2
    half = np.linalg.norm(axis, axis=1, keepdims=True)
    along = axis / half
    up = np.where(abs(along[:, 2:]) < 0.95, [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]])
    up = up - (up * along).sum(1, keepdims=True) * along
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    frame = np.stack([up, np.cross(along, up), along], 2)
    flat = np.concatenate([radius**-2, np.full((len(start), 1), _LONG)], 1)
    wide = np.concatenate([radius**2, np.zeros((len(start), 1))], 1)
    form, bound = (np.einsum("nij,nj,nkj->nik", frame, weights, frame) for weights in (flat, wide))
    normal = np.stack(joints or (along, along), 1)
    offset = np.einsum("ni,nki->nk", axis, normal)
    return Solids((start + stop) / 2, form, bound, axis, normal, offset)


def chain(points: Matrix, radius: ArrayLike) -> Solids:
    """Bent tubes through points (..., n + 1, 3), mitred at their joints so that no length counts twice.

    `radius` broadcasts to (..., n, 2), as in `tubes`.
    """
    along = np.diff(points, axis=-2)
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    joint = np.concatenate([along[..., :1, :], along[..., 1:, :] + along[..., :-1, :], along[..., -1:, :]], -2)
    joint /= np.linalg.norm(joint, axis=-1, keepdims=True)
    ends = (points[..., :-1, :], points[..., 1:, :], joint[..., :-1, :], joint[..., 1:, :])
    start, stop, first, last = (each.reshape(-1, 3) for each in ends)
    radius = np.broadcast_to(np.asarray(radius, float), (*along.shape[:-1], 2)).reshape(-1, 2)
    return tubes(start, stop, radius, (first, last))


def turn(degrees: float, axis: int) -> Matrix:
    """Rotation (3, 3) about a coordinate axis, right-handed."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[[a, b], [a, b]] = np.cos(np.deg2rad(degrees))
    matrix[b, a] = np.sin(np.deg2rad(degrees))
    matrix[a, b] = -matrix[b, a]
    return matrix


class Spans(NamedTuple):
    """Where each ray enters and leaves, as depth from the source in mm; entry lies behind exit where it misses."""

    near: Floats
    far: Floats

    @property
    def hit(self) -> Bools:
        return np.asarray(self.far > self.near)

    @property
    def length(self) -> Floats:
        return np.asarray(np.maximum(self.far - self.near, 0))

    def __and__(self, other: Spans) -> Spans:
        return Spans(np.maximum(self.near, other.near), np.minimum(self.far, other.far))

    def __or__(self, other: Spans) -> Spans:
        """From the first entry to the last exit; what lies between two solids on a ray is filled."""
        return Spans(np.minimum(self.near, other.near), np.maximum(self.far, other.far))

    def outside(self, *obstacles: Spans) -> Floats:
        """The length of each ray inside these spans and outside all obstacles."""
        if not obstacles:
            return self.length
        *others, last = obstacles
        return self.outside(*others) - (self & last).outside(*others)


@dataclass(frozen=True)
class Beam:
    """A focal spot, and a detector in the plane y = `plane` whose columns run to the patient's left, rows to the feet.

    `source` and the centre of the first pixel, `corner` (x, z), in mm; `shape` (rows, columns).
    """

    source: tuple[float, float, float]
    plane: float
    corner: tuple[float, float]
    spacing: float
    shape: tuple[int, int]

    def coarse(self, factor: int) -> Beam:
        """The same detector with larger pixels, covering at least the same area."""
        shift = self.spacing * (factor - 1) / 2
        rows, columns = (-(-size // factor) for size in self.shape)
        corner = (self.corner[0] + shift, self.corner[1] - shift)
        return Beam(self.source, self.plane, corner, self.spacing * factor, (rows, columns))

    @property
    def distance(self) -> float:
        """From the source to the detector."""
        return abs(self.plane - self.source[1])

    def obliquity(self) -> Floats:
        """Length of each ray in units of its depth, float32 (row, column)."""
        x = (self.corner[0] + np.arange(self.shape[1]) * self.spacing - self.source[0]) / self.distance
        z = (self.corner[1] - np.arange(self.shape[0]) * self.spacing - self.source[2]) / self.distance
        return np.sqrt(1 + x**2 + z[:, None] ** 2).astype(np.float32)

    def project(self, points: Matrix) -> Matrix:
        """World points (n, 3) to (row, column), fractional."""
        ray = points - self.source
        hit = np.asarray(self.source) + ray * (self.distance / abs(ray[:, 1:2]))
        return np.stack([self.corner[1] - hit[:, 2], hit[:, 0] - self.corner[0]], 1) / self.spacing

    def shadows(self, solids: Solids) -> Shadows:
        """What is needed to draw the solids on this detector."""
        return Shadows.of(self, solids)


@dataclass(frozen=True, eq=False)
class Shadows:
    """The shadows of n solids on a detector: conics, and the end planes as lines.

    With e = (x, z), a pixel's offset in mm from the ray through the centre at the centre's depth t, and
    B = slope · e, E = eᵀ curve e: discriminant = lead + 2B/t + B² - (lead - 1/t²) E; the quadratic's leading
    coefficient = lead + 2B/t + E/t², its middle one B + E/t.
    """

    depth: Matrix  # (solid,)
    scale: Matrix  # (solid,) mm a pixel at that depth
    place: Matrix  # (solid, 2) row and column of the centre
    reach: Matrix  # (solid, 2) half-height and half-width in pixels
    lead: Matrix  # (solid,)
    slope: Matrix  # (solid, 2)
    curve: Matrix  # (solid, 3): xx, xz, zz
    normal: Matrix  # (solid, plane, 2)
    steep: Matrix  # (solid, plane) normal · ray, positive
    offset: Matrix  # (solid, plane)
    shape: tuple[int, int]

    @classmethod
    def of(cls, beam: Beam, solids: Solids) -> Shadows:
        ray = solids.center - beam.source
        depth = abs(ray[:, 1])
        ray = ray / depth[:, None]
        slope = np.einsum("nij,nj->ni", solids.form, ray)
        steep = np.einsum("npi,ni->np", solids.normal, ray)
        back = steep.sum(1) < 0  # turn the solid end for end, so that rays enter through its first plane
        normal = np.where(back[:, None, None], -solids.normal[:, ::-1], solids.normal)
        steep = np.where(back[:, None], -steep[:, ::-1], steep)
        offset = np.where(back[:, None], solids.offset[:, ::-1], solids.offset)
        across = np.zeros((len(solids), 2, 3))
        across[:, 0, 2] = across[:, 1, 0] = 1
        across[:, :, 1] = -ray[:, [2, 0]] * np.sign(ray[:, 1:2])
        scale = beam.spacing * depth / beam.distance
        half = abs(np.einsum("nki,ni->nk", across, solids.axis))
        half += np.sqrt(np.einsum("nki,nij,nkj->nk", across, solids.bound, across))
        return cls(
            depth, scale, beam.project(solids.center), half * 1.01 / scale[:, None] + 1,
            np.einsum("ni,ni->n", slope, ray), slope[:, [0, 2]], solids.form[:, [0, 0, 2], [0, 2, 2]],
            normal[:, :, [0, 2]], np.maximum(steep, 1e-3), offset, beam.shape,
        )  # fmt: skip

    def take(self, index: NDArray[np.intp]) -> Shadows:
        """Some of the shadows."""
        return replace(self, **{item.name: getattr(self, item.name)[index] for item in fields(self)[:-1]})

    def widths(self) -> tuple[Matrix, Matrix]:
        """First and last column (solid,), fractional, of the shadows of uncut ellipsoids."""
        xx, xz, zz = self.curve.T
        lead, (x, z), t = self.lead - self.depth**-2.0, self.slope.T, self.depth
        xx, xz, zz = lead * xx - x * x, lead * xz - x * z, lead * zz - z * z
        det = xx * zz - xz * xz
        x, z = x / t, z / t
        middle = (zz * x - xz * z) / det
        half = np.sqrt((self.lead + x * middle + z * (xx * z - xz * x) / det) * zz / det)
        return self.place[:, 1] + (middle - half) / self.scale, self.place[:, 1] + (middle + half) / self.scale

    def box(self) -> tuple[Span, Span]:
        """Half-open rows and columns around all shadows, inside the detector."""
        low = np.floor((self.place - self.reach).min(0)).clip(0, self.shape).astype(int)
        high = np.ceil((self.place + self.reach).max(0) + 1).clip(low, self.shape).astype(int)
        return (int(low[0]), int(high[0])), (int(low[1]), int(high[1]))

    def spans(self, rows: Span, columns: Span) -> Spans:
        """Entry and exit of the rays of a window through the hull of uncut ellipsoids, float32 (row, column)."""
        spans = Spans(*(np.full((rows[1] - rows[0], columns[1] - columns[0]), s * _FAR, np.float32) for s in (1, -1)))
        box = self.box()
        (top, bottom), (left, right) = (
            (max(a, c), min(b, d)) for (a, b), (c, d) in zip((rows, columns), box, strict=True)
        )
        if top >= bottom or left >= right:
            return spans
        start = np.zeros(len(self.depth), int)
        middle, half, hit, _ = self.chords(start + top, start + left, bottom - top, right - left)
        middle += self.depth.astype(np.float32)[:, None, None]
        np.copyto(half, np.float32(-_FAR), where=~hit)
        inner = slice(top - rows[0], bottom - rows[0]), slice(left - columns[0], right - columns[0])
        spans.near[inner], spans.far[inner] = (middle - half).min(0), (middle + half).max(0)
        return spans

    def deposit(self, weight: ArrayLike, core: ArrayLike = 0.0, lack: ArrayLike = 0.0) -> Floats:
        """The sum over the solids of path length × weight, float32 (row, column).

        With `core`, the part inside the solid shrunk by that factor counts by the share `lack` less. All three are one
        value, or one a solid.
        """
        image = np.zeros(self.shape, np.float32)
        n = len(self.depth)
        weight, core, lack = (np.broadcast_to(np.asarray(item, np.float32), n) for item in (weight, core, lack))
        for index, rows, columns, height, width in self.windows():
            part, size = self.take(index), (height, width)
            middle, half, _, inner = part.chords(rows, columns, *size, core[index])
            low, high = part.cut(rows, columns, *size)
            path = _clipped(middle, half, low, high)
            if inner is not None:
                hollow = _clipped(middle, inner, low, high)
                hollow *= lack[index, None, None]
                path -= hollow
            path *= weight[index, None, None]
            for k, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
                image[row : row + height, column : column + width] += path[k]
        return image

    def windows(self) -> Iterator[tuple[NDArray[np.intp], Any, Any, int, int]]:
        """Groups of solids whose shadows fit windows of one size: indices, first rows, first columns, height, width."""
        first = np.floor(self.place - self.reach).astype(int)
        size = np.ceil(self.place + self.reach).astype(int) + 1 - first
        seen = ((first < self.shape) & (first + size > 0)).all(1)
        size = np.minimum(_SIZES[np.searchsorted(_SIZES, size)], self.shape)
        first = np.clip(first, 0, self.shape - size)
        for height, width in np.unique(size[seen], axis=0).tolist():
            index = np.flatnonzero(seen & (size == (height, width)).all(1))
            step = max(1, _CHUNK // (height * width))
            for start in range(0, len(index), step):
                part = index[start : start + step]
                yield part, first[part, 0], first[part, 1], height, width

    def offsets(self, rows: Any, columns: Any, height: int, width: int) -> tuple[Floats, Floats]:
        """x (solid, 1, column) and z (solid, row, 1) of the pixels of windows."""
        x = (columns[:, None] + np.arange(width) - self.place[:, 1:]) * self.scale[:, None]
        z = (self.place[:, :1] - rows[:, None] - np.arange(height)) * self.scale[:, None]
        return x.astype(np.float32)[:, None], z.astype(np.float32)[..., None]

    def chords(
        self, rows: Any, columns: Any, height: int, width: int, core: Floats | None = None
    ) -> tuple[Floats, Floats, Bools, Floats | None]:
        """Middle and half-length of each chord relative to the centre's depth, hits, and the core's half-length."""
        x, z = self.offsets(rows, columns, height, width)
        lead, inverse, gx, gz, xx, xz, zz = (
            value.astype(np.float32)[:, None, None]
            for value in (self.lead, 1 / self.depth, *self.slope.T, *self.curve.T)
        )
        rise = gx * x + gz * z
        bend = (2 * xz * x + zz * z) * z
        bend += xx * x * x
        middle = bend * inverse
        middle += rise
        top = rise + middle
        top *= inverse
        top += lead  # leading coefficient
        below = rise * (rise + 2 * inverse)
        bend *= lead - inverse**2
        below -= bend
        below += lead  # discriminant
        hit = below > 0
        inner = None
        if core is not None and core.any():
            inner = np.sqrt(np.maximum(below - top * (1 - core[:, None, None] ** 2), 0)) / top
        half = np.sqrt(np.maximum(below, 0, out=below), out=below)
        half /= top
        middle /= -top
        return middle, half, hit, inner

    def cut(self, rows: Any, columns: Any, height: int, width: int) -> tuple[Floats, Floats]:
        """Depths relative to the centre's at which rays pass the two end planes, as if they were parallel there."""
        x, z = self.offsets(rows, columns, height, width)
        n = (self.normal / self.steep[..., None]).astype(np.float32)[..., None, None]
        limit = (self.offset / self.steep).astype(np.float32)[..., None, None]
        first, last = ((sign * limit[:, k] - n[:, k, 0] * x) - n[:, k, 1] * z for k, sign in ((0, -1), (1, 1)))
        return first, last


def _clipped(middle: Floats, half: Floats, low: Floats, high: Floats) -> Floats:
    """The length of middle ± half between low and high."""
    far = middle + half
    np.minimum(far, high, out=far)
    near = middle - half
    np.maximum(near, low, out=near)
    far -= near
    return np.asarray(np.maximum(far, 0, out=far))
