"""The slender things on a chest radiograph: bones, airways, vessels, devices and the side marker, as solids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from domains.radiology.anatomy import LEFT, RIGHT, SIDES, Patient
from domains.radiology.beam import Solids, chain, ellipsoids, tubes, turn
from fovea.image import Matrix

_CORTEX, _MARROW = 0.034, 0.007
"""What bone attenuates more than the soft tissue in its place, 1/mm."""
_SOFT, _METAL, _PLASTIC = 0.0198, 0.3, 0.03
_VESSEL = 0.0146  # blood less lung


class Layer(NamedTuple):
    """Solids of one material: attenuation 1/mm, and how the core differs; one value, or one a solid."""

    solids: Solids
    weight: ArrayLike
    core: ArrayLike = 0.0
    lack: ArrayLike = 0.0


class Device(Enum):
    """The support devices there are."""

    PACEMAKER = "pacemaker"
    LINE = "central venous line"
    TUBE = "endotracheal tube"


def joined(parts: list[Solids]) -> Solids:
    """All solids in one."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def stacked(layers: Iterable[Layer]) -> Layer:
    """All layers in one, with weight, core and lack a solid."""
    parts = list(layers)

    def each(name: str) -> Matrix:
        return np.concatenate([np.broadcast_to(getattr(part, name), len(part.solids)) for part in parts])

    return Layer(joined([part.solids for part in parts]), each("weight"), each("core"), each("lack"))


def smooth(points: ArrayLike, n: int) -> Matrix:
    """`n` points along a curve through `points` (..., m, 3): cubic, with the slope of the chord between neighbours."""
    knots = np.asarray(points, float)
    slope = np.gradient(knots, axis=-2)
    place = np.linspace(0, knots.shape[-2] - 1, n)
    first = np.minimum(place.astype(int), knots.shape[-2] - 2)
    t = (place - first)[:, None]
    start, stop, leave, arrive = (
        knots[..., first, :],
        knots[..., first + 1, :],
        slope[..., first, :],
        slope[..., first + 1, :],
    )
    bend = (2 * t - 3) * t * t
    return np.asarray(start * (1 + bend) - stop * bend + leave * t * (1 - t) ** 2 - arrive * t * t * (1 - t))


def ribs(patient: Patient, lung: Mapping[int, tuple[Matrix, Matrix, Matrix]], rng: Generator) -> Layer:
    """Ribs around lungs given by centre, half-axes and rotation, and the clavicles."""
    slender = _ribs(lung, patient.size, rng) + _clavicles(patient.size, rng)
    return Layer(slender, _CORTEX * patient.bone, 0.76, 0.75)


def bones(patient: Patient, rng: Generator) -> list[Layer]:
    """Spine, shoulder blades and arms: broad and faint."""
    size, density = patient.size, patient.bone
    z = np.arange(-11, 9) * 24.0 * size + rng.uniform(-12, 12)
    level = np.zeros((len(z), 3))
    level[:, 2], level[:, 1] = z, 62 * size + 10 * np.cos(z / 90)
    body = ellipsoids(level, np.array([19, 17, 12.5]) * size)
    behind = level + np.array([0, 38 * size, -6])
    process = ellipsoids(behind, np.array([3.5, 14, 8]) * size)
    pedicles = [ellipsoids(level + np.array([s * 13 * size, 18 * size, 4]), np.array([4, 6, 6]) * size) for s in SIDES]
    blades = [
        ellipsoids([[s * rng.uniform(105, 150) * size, 85 * size, 55 * size]], [[38 * size, 4, 68 * size]],
                   turn(s * rng.uniform(5, 25), 1))
        for s in SIDES
    ]  # fmt: skip
    heads = ellipsoids([[s * 172 * size, 10, 112 * size] for s in SIDES], [[24 * size] * 3])
    return [
        Layer(body, _MARROW * 0.8 * density),
        Layer(joined([process, *pedicles]), _MARROW * density),
        Layer(joined([*blades, heads]), _MARROW * density, 0.9, 0.5),
    ]


def _ribs(lungs: Mapping[int, tuple[Matrix, Matrix, Matrix]], size: float, rng: Generator) -> Solids:
    """Eleven arcs a side from the spine around the lung, falling towards the front."""
    number = np.arange(1, 12)[:, None]
    start, full = np.deg2rad((-58, 148))
    end = full - np.deg2rad(17) * np.maximum(number - 7, 0) + rng.normal(0, 0.06, (2, 11, 1))
    angle = start + (end - start) * np.linspace(0, 1, 17)
    fall = (34 + 4.4 * number) * size * rng.uniform(0.85, 1.2) * ((angle - start) / (full - start)) ** 1.2
    fall += (number - 1) * rng.uniform(21.5, 24.5) * size + rng.normal(0, 1.5, (2, 11, 1))
    arcs = []
    for k, (side, (center, axes, rotation)) in enumerate(lungs.items()):
        wall = axes + 5 * size
        z = (0.93 - fall[k] / wall[2]).clip(-0.95, 0.95)
        around = np.sqrt(1 - z**2)
        local = np.stack([side * around * np.sin(angle[k]), around * np.cos(angle[k]), z], -1) * wall
        arcs.append(center + local @ rotation.T)
    radius = rng.uniform((5.4, 2.8), (7.0, 3.8), (2, 11, 1, 2)) * size
    return chain(np.stack(arcs), radius)


def _clavicles(size: float, rng: Generator) -> Solids:
    z, rise = rng.uniform(95, 118), rng.uniform(8, 22)
    knots = np.array([(16, -62, z - 14), (50, -66, z - 4), (95, -45, z + 8), (150, -8, z + rise)])
    return chain(smooth([knots * (side * size, size, size) for side in SIDES], 12), 5.5 * size)


def airways(size: float, radius: float) -> Layer:
    """Air in the trachea and the main bronchi, in place of soft tissue."""
    carina = np.array([2.0, 18, 52]) * size
    trachea = np.array([[0, 2, 200], [0, 8, 130], [1, 14, 90], [2, 18, 52]]) * size
    bronchi = [np.array([carina, carina + np.array(step) * size]) for step in ((-26, 2, -26), (34, 4, -24))]
    parts = [chain(smooth(trachea, 8), radius), *(chain(points, radius * 0.75) for points in bronchi)]
    return Layer(joined(parts), -_SOFT)


def vessels(lung: Solids, side: int, spacing: float, rng: Generator) -> tuple[Solids, Matrix]:
    """A branching tree from the hilum through one lung, with the attenuation of each twig.

    Twigs thinner than a pixel are drawn a pixel wide and weaker, so that none falls between the rays.
    """
    axes = np.sqrt(np.diagonal(lung.bound[0]))
    hilum = lung.center[0] + np.array([-side * 0.6, 0.08, 0.1]) * axes
    fan = np.deg2rad(np.linspace(-80, 84, 11) + rng.normal(0, 6, 11))
    heading = np.stack([side * np.cos(fan), rng.normal(0, 0.3, 11), np.sin(fan)], 1)
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    start = hilum + rng.normal(0, 6, (11, 3))
    radius = np.full(11, rng.uniform(3.6, 5.0))
    length = 0.25 * axes[2]
    starts, stops, radii = [], [], []
    for _ in range(6):
        stop = start + heading * (length * rng.uniform(0.6, 1.35, (len(start), 1)))
        kept = lung.level(stop)[:, 0] < 0.96
        start, stop, heading, radius = start[kept], stop[kept], heading[kept], radius[kept]
        starts.append(start)
        stops.append(stop)
        radii.append(radius)
        bend = rng.normal(0, (0.44, 0.25, 0.44), heading.shape)
        heading = np.concatenate([heading + bend, heading - bend])
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        start = np.concatenate([stop, stop])
        radius = np.concatenate([radius, radius]) * rng.uniform(0.68, 0.86, 2 * len(stop))
        length *= 0.78
    radius = np.concatenate(radii)
    drawn = np.maximum(radius, 0.65 * spacing)
    solids = tubes(np.concatenate(starts), np.concatenate(stops), drawn[:, None])
    return solids, _VESSEL * (radius / drawn) ** 2


def device(kind: Device, size: float, depth: float, rng: Generator) -> list[Layer]:
    """A support device in place."""
    side = LEFT if rng.random() < 0.6 else RIGHT
    jitter = rng.normal(0, 4, (8, 3))
    if kind is Device.PACEMAKER:
        can = np.array([side * rng.uniform(80, 105) * size, -depth + 6, rng.uniform(55, 85) * size])
        route = [(side * 62, -50, 100), (side * 24, -30, 84), (-17, -10, 55), (-24, -14, 0), (-8, -34, -48),
                 (rng.uniform(22, 40), -52, rng.uniform(-82, -66))]  # fmt: skip
        knots = np.concatenate([[can + np.array([-side * 18, 4, 14])], np.array(route) * size])
        lead = chain(smooth(knots + jitter[:7], 40), 1.3)
        box = ellipsoids([can], [[rng.uniform(21, 27), 5, rng.uniform(19, 25)]], turn(rng.uniform(-30, 30), 1))
        return [Layer(lead, _METAL), Layer(box, _METAL)]
    if kind is Device.LINE:
        top: list[tuple[float, float, float]] = (
            [(side * 34, -5, 190), (side * 32, -16, 130), (side * 18, -22, 96)]
            if rng.random() < 0.6
            else [(side * 110, -60, 92), (side * 70, -52, 104), (side * 26, -30, 88)]
        )
        down = [*top, (-17, -14, 60), (-24, -12, rng.uniform(-5, 30))]
        return [Layer(chain(smooth(np.array(down) * size + jitter[: len(down)] / 2, 30), 1.3), _METAL * 0.45)]
    tip = rng.uniform(60, 100)
    points = smooth(np.array([[0, -2, 205], [0, 4, 150], [1, 14, tip]]) * size + jitter[:3] / 3, 12)
    stripe = chain(points + np.array([rng.choice([-4.2, 4.2]), 0, 0]), 0.9)
    return [Layer(chain(points, 5.0), _PLASTIC, 0.76, 1.0), Layer(stripe, _METAL * 0.5)]


_STROKES: dict[int, list[list[tuple[float, float]]]] = {
    LEFT: [[(-0.6, 1), (-0.6, -1), (0.6, -1)]],
    RIGHT: [
        [(-0.6, -1), (-0.6, 1), (0.2, 1), (0.6, 0.75), (0.6, 0.3), (0.2, 0.05), (-0.6, 0.05)],
        [(0, 0), (0.65, -1)],
    ],
}


def marker(side: int, place: NDArray[np.float64], height: float) -> Layer:
    """The lead letter of a side, upright for the reader, at a point of the detector."""
    lines = [np.array([(x, 0, z) for x, z in stroke]) * height / 2 + place for stroke in _STROKES[side]]
    return Layer(joined([chain(line, height / 12) for line in lines]), 2 * _METAL)
