"""What a mask measures in real units.

Masks are bool (slice, row, column) on the grid. Lengths and areas on the Earth are those of the ellipsoid, those in
a patient are mm, cm2 and mL. A measure that the grid cannot support (a length on pixels without a size, an area
in a volume) is left out: None. Standard uncertainties are of type B (JCGM 100:2008, 4.3.7): the outline is taken to
lie anywhere within one pixel of the network, alike all around; whether the network drew the right thing is another
matter, and stands on the expert's card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts.ground import pixel_areas, steps
from fovea.types import DETECTOR, LPS, Bools, Grid, Measure

_FLAT = 12**-0.5
"""Standard deviation of what is uniform within one pixel."""
_BOTH_ENDS = 6**-0.5
"""That of a length whose two ends are so."""


@dataclass(frozen=True, eq=False)
class Context:
    """What measures may need beside the mask: where there is data, the masks of other labels, and how many pixels
    of the grid one pixel of the network covers."""

    valid: Bools | None = None
    structures: Mapping[str, Bools] = field(default_factory=dict)
    coarseness: float = 1.0


PLAIN = Context()
"""Nothing but the mask."""
Function = Callable[[Bools, Grid, Context], Measure | None]


def pieces(mask: Bools) -> tuple[NDArray[Any], int]:
    """Connected pieces (8 neighbours in a plane, 26 in space): their numbers, and how many there are."""
    from scipy import ndimage

    numbers, n = ndimage.label(mask, np.ones((3, 3, 3), bool))
    return numbers, int(n)


def without_specks(mask: Bools, smallest: float) -> Bools:
    """The mask without pieces of fewer than `smallest` pixels."""
    if smallest <= 1 or not mask.any():
        return mask
    numbers, n = pieces(mask)
    keep = np.bincount(numbers.ravel(), minlength=n + 1) >= smallest
    keep[0] = False
    out: Bools = keep[numbers]
    return out


def largest(mask: Bools) -> Bools:
    """The largest connected piece; an empty mask stays empty."""
    numbers, n = pieces(mask)
    if n <= 1:
        return mask
    out: Bools = numbers == np.argmax(np.bincount(numbers.ravel())[1:]) + 1
    return out


def count(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure:  # noqa: ARG001
    """How many connected pieces there are."""
    return Measure("count", float(pieces(mask)[1]), "1")


def area_cm2(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The area on a radiograph or a single slice in cm2."""
    return _area(mask, grid, context, "cm2", 100.0) if grid.frame in (DETECTOR, LPS) else None


def area_m2(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The area on the Earth's ellipsoid in m2."""
    return _area(mask, grid, context, "m2", 1.0) if grid.georeferenced else None


def area_ha(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The area on the Earth's ellipsoid in hectares of 10,000 m2."""
    return _area(mask, grid, context, "ha", 10_000.0) if grid.georeferenced else None


def fraction(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The share of the valid pixels, each weighted with its area."""
    valid = np.ones(grid.shape, bool) if context.valid is None else context.valid
    whole = _weigh(valid, grid)
    if not whole:
        return None
    return Measure("fraction", _weigh(mask & valid, grid) / whole, "1", _outline(mask & valid, grid, context) / whole)


def volume(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The volume in a patient in mL."""
    if grid.frame != LPS or grid.shape[0] == 1:
        return None
    voxel = float(abs(np.linalg.det(grid.affine[:3, :3]))) / 1000
    outline = int(np.count_nonzero(_edge(mask))) * context.coarseness * _FLAT
    return Measure("volume", np.count_nonzero(mask) * voxel, "mL", outline * voxel)


def longest_diameter(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The longest in-plane diameter of the largest piece, in mm: the axial slice with the longest counts (RECIST 1.1).

    The largest distance between outer pixels (maximum Feret diameter), each taken a quarter of a pixel outwards:
    a disc of four or more pixels then keeps its diameter within about half a pixel.
    """
    if grid.frame not in (DETECTOR, LPS) or not mask.any():
        return None
    plane = steps(grid, np.zeros((1, 2)))[0]
    one = largest(mask)
    lengths = [_feret(np.argwhere(layer), plane) for layer in one if layer.any()]
    return Measure("longest_diameter", max(lengths), "mm", _pixel(plane) * context.coarseness * _BOTH_ENDS)


def length(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The length in metres of the longest piece, along its principal axis."""
    found = _longest(mask, grid)
    if found is None:
        return None
    size, _, plane = found
    return Measure("length", size, "m", _pixel(plane) * context.coarseness * _BOTH_ENDS)


def bearing(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The direction of the longest piece's principal axis: degrees clockwise from geographic north, in [0, 180).

    The axis of second moments: on rotated rectangles and hulls of a few pixels its error is a half to a sixth of that
    of the rectangle of least area.
    """
    found = _longest(mask, grid)
    if found is None:
        return None
    size, (east, north), plane = found
    angle = float(np.degrees(np.arctan2(east, north)) % 180)
    return Measure(
        "bearing",
        0.0 if angle == 180 else angle,  # the remainder of a tiny negative number rounds to 180
        "deg",
        float(np.degrees(np.arctan(_pixel(plane) * context.coarseness * _BOTH_ENDS / size))),
    )


def cardiothoracic_ratio(mask: Bools, grid: Grid, context: Context = PLAIN) -> Measure | None:
    """The widest heart (`mask`) over the widest thorax, across the patient (Danzer 1919).

    The thorax reaches from the outer edge of one lung to that of the other, in the row where that is widest; lungs are
    the structures left_lung and right_lung. A ratio needs no pixel size. None without both lungs and a heart.
    """
    lungs = [context.structures.get(name, np.zeros_like(mask)) for name in ("left_lung", "right_lung")]
    if grid.georeferenced or grid.shape[0] > 1 or not mask.any() or not all(lung.any() for lung in lungs):
        return None
    heart = float(np.ptp(np.flatnonzero(largest(mask).any(axis=(0, 1))))) + 1
    both = (largest(lungs[0]) | largest(lungs[1]))[0]
    columns = np.arange(both.shape[1])
    rows = both[both.any(axis=1)]
    thorax = float((np.where(rows, columns, -1).max(1) - np.where(rows, columns, len(columns)).min(1)).max()) + 1
    ratio = heart / thorax
    spread = context.coarseness * _BOTH_ENDS * float(np.hypot(1 / heart, 1 / thorax))
    return Measure("cardiothoracic_ratio", ratio, "1", ratio * spread)


MEASURES: Mapping[str, Function] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            count,
            area_cm2,
            area_m2,
            area_ha,
            fraction,
            volume,
            longest_diameter,
            length,
            bearing,
            cardiothoracic_ratio,
        )
    }
)
"""What a recipe may name under a label's `measures`."""


def side(mask: Bools, grid: Grid, midline: float | None = None) -> str:
    """The side of the patient, "left", "right" or "both"; "" for an empty mask.

    `midline` is the world x that parts the sides; left out, the middle of the grid. In a patient x runs to the left;
    without a frame, the patient's left is taken to be at the picture's right, as is usual. A piece counts when its
    linear size is at least a fifth of the largest one's, so that a speck does not make "both".
    """
    from scipy import ndimage

    numbers, n = pieces(mask)
    if not n:
        return ""
    sizes = np.bincount(numbers.ravel())[1:]
    centers = np.array(ndimage.center_of_mass(mask, numbers, np.arange(1, n + 1)))
    big = (sizes / sizes.max()) ** (1 / (3 if grid.shape[0] > 1 else 2)) >= 0.2
    x = grid.world(centers[big])[:, 0]
    middle = float(grid.world((np.array([grid.shape], float) - 1) / 2)[0, 0]) if midline is None else midline
    lefts = x > middle
    return "both" if lefts.any() and not lefts.all() else "left" if lefts.all() else "right"


def midline(first: Bools, second: Bools, grid: Grid) -> float | None:
    """World x halfway between two paired organs; None where one is missing."""
    if not first.any() or not second.any():
        return None
    centers = np.array([np.argwhere(organ).mean(0) for organ in (first, second)])
    return float(grid.world(centers)[:, 0].mean())


def quadrant(mask: Bools, grid: Grid) -> str:
    """The quarter of the scene that holds most of the mask: "north-west", "north-east", "south-west" or "south-east".

    North is +y of the CRS; without a frame, the top of the picture. "" for an empty mask.
    """
    points = np.argwhere(mask)
    if not len(points):
        return ""
    offsets = points - (np.array(grid.shape) - 1) / 2
    east, north = (offsets @ grid.affine[:2, :3][:, ::-1].T).T
    if not grid.georeferenced:
        north = -north
    weights = pixel_areas(grid)[points[:, 1]]
    quarter = 2 * (north < 0) + (east >= 0)
    names = ("north-west", "north-east", "south-west", "south-east")
    return names[int(np.argmax(np.bincount(quarter.astype(int), weights, 4)))]


def _area(mask: Bools, grid: Grid, context: Context, unit: str, divisor: float) -> Measure | None:
    if grid.shape[0] > 1:
        return None
    return Measure("area", _weigh(mask, grid) / divisor, unit, _outline(mask, grid, context) / divisor)


def _weigh(mask: Bools, grid: Grid) -> float:
    """The summed area of the pixels, over all slices."""
    return float(np.dot(mask.sum(axis=(0, 2)), pixel_areas(grid)))


def _outline(mask: Bools, grid: Grid, context: Context) -> float:
    """Standard uncertainty of an area whose outline may lie anywhere within one pixel of the network."""
    return _weigh(_edge(mask), grid) * context.coarseness * _FLAT


def _edge(mask: Bools) -> Bools:
    """Pixels with a neighbour outside; the border of the grid counts as inside."""
    from scipy import ndimage

    cross = ndimage.generate_binary_structure(3, 1)
    out: Bools = mask & ~ndimage.binary_erosion(mask, cross, border_value=1)
    return out


def _pixel(plane: NDArray[Any]) -> float:
    """The side of a square of a pixel's area."""
    return float(np.sqrt(abs(np.linalg.det(plane))))


def _feret(points: NDArray[Any], plane: NDArray[Any]) -> float:
    """The largest distance between pixels (n, 2), each taken a quarter of a pixel outwards along the axes."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    quarter = np.array([(0.25, 0), (-0.25, 0), (0, 0.25), (0, -0.25)])
    corners = (points[:, None] + quarter).reshape(-1, 2) @ plane.T
    return float(pdist(corners[ConvexHull(corners).vertices]).max())


def _longest(mask: Bools, grid: Grid) -> tuple[float, tuple[float, float], NDArray[Any]] | None:
    """Length, direction (east, north) and local steps of the piece that is longest along its principal axis."""
    if not grid.georeferenced or grid.shape[0] > 1 or not mask.any():
        return None
    numbers = pieces(mask)[0]
    order = np.argsort(numbers[mask], kind="stable")
    points = np.argwhere(mask)[order][:, 1:].astype(float)
    groups = np.split(points, np.cumsum(np.bincount(numbers[mask])[1:-1]))
    planes = steps(grid, np.array([group.mean(0) for group in groups]))
    best: tuple[float, tuple[float, float], NDArray[Any]] | None = None
    half = np.array([(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)])
    for group, plane in zip(groups, planes, strict=True):
        metric = (group - group.mean(0)) @ plane.T
        axis = np.linalg.eigh(metric.T @ metric)[1][:, 1]
        extent = float(np.ptp(metric @ axis) + np.ptp(half @ plane.T @ axis))
        if best is None or extent > best[0]:
            best = extent, (float(axis[0]), float(axis[1])), plane
    return best
