"""A CT series of a made torso, from the lung bases to the lower poles of the kidneys, with lesions as truth.

Organs are ellipsoids in space bent by a smooth displacement, painted over each other with soft edges as partial
volume gives them; masks are where an organ fills half of a voxel or more. World points are the patient's, in mm:
x to the left, y to the back, z to the head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.ndimage import distance_transform_edt

from domains.radiology.anatomy import LEFT, RIGHT, SIDES, Patient, Truth, caliper
from domains.radiology.beam import turn
from domains.radiology.voxels import Canvas, Weight
from fovea.types import Bools, Floats, Measure

_TISSUES = ("liver", "spleen", "cortex", "medulla", "aorta", "vein", "muscle", "gut", "pancreas")
_PHASES: Mapping[str, tuple[float, ...]] = {
    "plain": (56, 47, 33, 32, 42, 40, 52, 38, 40),
    "arterial": (76, 125, 165, 75, 300, 80, 60, 80, 105),
    "portal": (110, 122, 172, 160, 155, 150, 64, 85, 95),
}
"""Typical Hounsfield units by contrast phase."""
_FAT, _LUNG, _GAS = -100.0, -860.0, -980.0


@dataclass(frozen=True, eq=False)
class Series:
    """A finished series: Hounsfield units, float32 (slice, row, column) with rows to the back, columns to the
    patient's left and slices to the head; spacing (slice, row, column) and the first voxel's centre (x, y, z) in mm."""

    pixels: Floats
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    phase: str
    truths: tuple[Truth, ...]


@dataclass(frozen=True)
class Build:
    """The frame of the torso in mm: half-width, half-depth, flank fat, the dome of the diaphragm, and size relative
    to the mean."""

    width: float
    depth: float
    fat: float
    top: float
    size: float


def series(patient: Patient, body: Generator, rng: Generator) -> Series:
    """One series of a patient: `body` draws what stays with the patient, `rng` what belongs to the study."""
    size, fat = patient.size, 8 + 0.8 * patient.fat
    build = Build((138 + fat) * size, (98 + 0.7 * fat) * size, fat, rng.uniform(64, 84) * size, size)
    phase = ("plain", "arterial", "portal")[int(rng.choice(3, p=(0.2, 0.3, 0.5)))]
    tissue = {name: value + body.normal(0, 4) for name, value in zip(_TISSUES, _PHASES[phase], strict=True)}
    if body.random() < 0.15:  # fat in the liver
        tissue["liver"] -= 30
    canvas = _canvas(build, rng)
    cavity = _wall(canvas, build, tissue, patient, rng)
    room = cavity * (1 - _chest(canvas, build, tissue, cavity, rng))
    _bowel(canvas, build, tissue, room, rng)
    _vessels_and_spine(canvas, build, tissue, patient, rng)
    organs = _organs(canvas, build, tissue, room, body, rng)
    masks = {name: canvas.mask(weight) for name, weight in organs.items()}
    lesions = _liver_lesions(canvas, masks["liver"], phase, tissue["liver"], rng)
    _finish(canvas, rng)
    return Series(canvas.values, canvas.spacing, canvas.origin, phase, tuple(_truths(canvas, masks, lesions)))


def _canvas(build: Build, rng: Generator) -> Canvas:
    """A field of view around the body, 96 to 128 pixels of 3 to 4 mm wide, and 24 to 36 slices of 5 to 8 mm."""
    field = 2 * build.width + rng.uniform(20, 70)
    n = int(np.clip(rng.integers(96, 129), np.ceil(field / 4), max(96, min(128, field // 3))))
    last = build.top + rng.uniform(14, 34)
    extent = last + rng.uniform(130, 148) * build.size
    thick = round(max(rng.uniform(5, 8), extent / 35), 2)
    count = int(extent / thick) + 1
    start = (-field / 2 + rng.normal(0, 5), -field / 2 + rng.normal(0, 5), last - thick * (count - 1))
    spacing = (thick, round(field / n, 4), round(field / n, 4))
    return Canvas.blank((count, n, n), spacing, start, rng)


def _wall(canvas: Canvas, build: Build, tissue: Mapping[str, float], patient: Patient, rng: Generator) -> Floats:
    """Couch, skin, fat, muscle and ribs; returns how much of each voxel belongs to the body's cavity."""
    x, y, z = canvas.x, canvas.y, canvas.z
    power = np.float32(rng.uniform(2.1, 2.6))
    radius = (abs(x / build.width) ** power + abs(y / build.depth) ** power) ** (1 / power)
    rim = build.fat / build.width
    muscle = rng.uniform(15, 20) * build.size / build.width
    sharp = np.float32(build.width / canvas.spacing[1])

    def within(level: Floats, limit: float) -> Floats:
        return np.asarray(np.clip(0.5 + (limit - level) * sharp, 0, 1))

    whole = slice(None), slice(None), slice(None)
    if rng.random() < 0.6:  # a couch
        slab = abs(y - build.depth - rng.uniform(8, 16) + x**2 * np.float32(rng.uniform(0, 6e-4))) < 5
        canvas.values[slab & (abs(x) < 190)] = rng.uniform(-500, -100)
    canvas.paint(Weight(whole, within(radius, 1)), _FAT)
    canvas.paint(Weight(whole, within(radius, 1 - rim)), tissue["muscle"])
    inside = radius + np.float32(0.05) * y / np.float32(build.depth)  # the back is thicker
    cavity = within(inside, 1 - rim - muscle)
    canvas.paint(Weight(whole, cavity), _FAT - 5)
    ring = abs(inside - (1 - rim - 0.55 * muscle)) * build.width < 4.5
    slope = abs(x) * np.float32(0.5) - y * np.float32(0.35)
    ribs = ring & (np.sin((z + slope) * np.float32(2 * np.pi / (27 * build.size)) + rng.uniform(0, 6)) > 0.45)
    ribs &= z > -45 * build.size + 0.35 * y
    canvas.values[ribs] = 330 * patient.bone
    return cavity


def _above(canvas: Canvas, build: Build) -> Floats:
    """How much of each voxel lies above the two domes of the diaphragm."""
    x, y = canvas.x / np.float32(build.size), canvas.y / np.float32(build.size)
    drop = np.minimum(((x + 58) / 92) ** 2, ((x - 62) / 88) ** 2 + 0.16) + 0.8 * (y / 100) ** 2
    return np.asarray(np.clip(0.5 + (canvas.z - build.top + 62 * drop) / np.float32(canvas.spacing[0]), 0, 1))


def _chest(canvas: Canvas, build: Build, tissue: Mapping[str, float], cavity: Floats, rng: Generator) -> Floats:
    """Lung bases with vessels, and the lower heart; returns how much of each voxel lies above the diaphragm."""
    above = _above(canvas, build)
    canvas.paint(Weight((slice(None), slice(None), slice(None)), cavity * above), _LUNG)
    for _ in range(30):
        center = rng.uniform((-110, -60, 20), (110, 75, 120)) * build.size
        long = rng.uniform((8, 1.6, 1.6), (22, 3.2, 3.2))
        canvas.paint(canvas.weigh(center, long, turn(rng.uniform(0, 180), 1)).within(above).within(cavity), 20)
    heart = np.array([18, -28, 34]) * build.size + np.array([0, 0, build.top])
    canvas.paint(canvas.weigh(heart, np.array([62, 48, 48]) * build.size).within(cavity), tissue["muscle"])
    blood = canvas.weigh(heart + np.array([14, 0, 4]), np.array([36, 34, 38]) * build.size).within(cavity)
    canvas.paint(blood, tissue["aorta"])
    return above


def _bowel(canvas: Canvas, build: Build, tissue: Mapping[str, float], room: Floats, rng: Generator) -> None:
    """Loops with fluid, stool or gas in front of the kidneys, and the stomach with gas above its fluid."""
    size = build.size
    for _ in range(int(rng.integers(14, 24))):
        center = rng.uniform((-95, -70, -140), (95, 2, -25)) * size
        if center[0] < -20 * size and center[2] > -70 * size:
            continue
        axes, lean = rng.uniform(9, 22, 3) * size, turn(rng.uniform(0, 180), 2)
        loop = canvas.weigh(center, axes, lean).within(room)
        canvas.paint(loop, tissue["gut"])
        canvas.paint(canvas.weigh(center, axes * 0.75, lean).within(room), rng.uniform(5, 45))
        if rng.random() < 0.3:
            canvas.paint(canvas.weigh(center - np.array([0, axes[1] * 0.3, 0]), axes * 0.5).within(room), _GAS)
    center = np.array([rng.uniform(45, 62), rng.uniform(-52, -38), rng.uniform(14, 34)]) * size
    axes = rng.uniform((30, 22, 38), (44, 34, 54)) * size
    canvas.paint(canvas.weigh(center, axes).within(room), tissue["gut"])
    filled = canvas.weigh(center, axes - 4).within(room)
    canvas.paint(filled, rng.uniform(5, 60))
    level = center[1] - rng.uniform(0, 0.8) * axes[1]
    canvas.paint(filled.times(np.clip(0.5 + (level - canvas.y[filled.block]) / canvas.spacing[1], 0, 1)), _GAS)


def _vessels_and_spine(
    canvas: Canvas, build: Build, tissue: Mapping[str, float], patient: Patient, rng: Generator
) -> None:
    size, far = build.size, 2000.0
    back = build.depth - (44 + 0.4 * build.fat) * size
    wide = rng.uniform(8.5, 12) * size
    for side in SIDES:
        canvas.ellipsoid((side * 30 * size, back + 14 * size, 0), (26 * size, 17 * size, far), tissue["muscle"])
        psoas = (side * 33 * size, back - 22 * size, -150 * size), (15 * size, 17 * size, 110 * size)
        canvas.ellipsoid(*psoas, tissue["muscle"])
    canvas.ellipsoid((8 * size, back - 36 * size, 0), (wide, wide, far), tissue["aorta"])
    canvas.ellipsoid((-17 * size, back - 40 * size, 0), (12 * size, 9 * size, far), tissue["vein"])
    canvas.ellipsoid((4, back - 58 * size, -22 * size), (62 * size, 10 * size, 13 * size), tissue["pancreas"],
                     turn(rng.uniform(-25, -5), 1))  # fmt: skip
    bone = 170 * patient.bone
    canvas.ellipsoid((0, back - 8 * size, 0), (21 * size, 17 * size, far), bone + 180)
    canvas.ellipsoid((0, back - 8 * size, 0), (18 * size, 14 * size, far), bone)
    canvas.ellipsoid((0, back + 24 * size, 0), (4 * size, 16 * size, far), bone + 200)
    for side in SIDES:
        canvas.ellipsoid((side * 14 * size, back + 10 * size, 0), (9 * size, 6 * size, far), bone + 200)
    canvas.ellipsoid((0, back + 13 * size, 0), (8.5 * size, 7.5 * size, far), 35)
    pitch, offset = 31 * size, rng.uniform(0, 31)
    for z in np.arange(canvas.origin[2] - pitch + offset, -canvas.origin[2], pitch):
        canvas.ellipsoid((0, back - 9 * size, z), (19.5 * size, 15.5 * size, 4 * size), 85)


def _organs(
    canvas: Canvas, build: Build, tissue: Mapping[str, float], room: Floats, body: Generator, rng: Generator
) -> dict[str, Weight]:
    """Paint kidneys, gall bladder, liver and spleen; one patient in sixteen has lost a kidney."""
    size, scale = build.size, body.uniform(0.86, 1.12)
    organs = {}
    lost = {0: LEFT, 1: RIGHT}.get(int(body.integers(0, 32)))
    for side, word in SIDES.items():
        kidney = _kidney(canvas, build, side, room, body)
        if side != lost:
            organs[f"{word}_kidney"] = kidney[0]
            room = room * (1 - canvas.spread(kidney[0]))
            for weight, value in zip(kidney, (tissue["cortex"], tissue["medulla"], _FAT + 10), strict=True):
                canvas.paint(weight, value)
    gall = canvas.weigh(np.array([-35, -60, -32]) * size, np.array([14, 13, 24]) * size * body.uniform(0.7, 1.2))
    canvas.paint(gall, rng.uniform(4, 18))
    room = room * (1 - canvas.spread(gall))
    right = np.array([66, 72, 72]) * size * scale, turn(body.uniform(-12, 12), 1)
    left = np.array([body.uniform(55, 80), 36, 34]) * size * scale, turn(body.uniform(-5, 15), 1)
    lobe = canvas.weigh(np.array([body.uniform(-8, 14), -42, 26]) * size, *left)
    organs["liver"] = canvas.joined(canvas.weigh(np.array([-66, -12, 12]) * size, *right), lobe).within(room)
    canvas.paint(organs["liver"], tissue["liver"])
    room = room * (1 - canvas.spread(organs["liver"]))
    grow = body.uniform(0.8, 1.1) if body.random() < 0.8 else body.uniform(1.1, 1.45)
    axes = np.array([25, 42, 50]) * size * grow
    organs["spleen"] = canvas.weigh(np.array([94, 26, 20]) * size, axes, turn(body.uniform(-25, 5), 1)).within(room)
    canvas.paint(organs["spleen"], tissue["spleen"])
    return organs


def _kidney(canvas: Canvas, build: Build, side: int, room: Floats, body: Generator) -> tuple[Weight, Weight, Weight]:
    """The whole kidney, its medulla, and the fat of its sinus."""
    low = body.uniform(-62, -44) - (8 if side == RIGHT else 0)
    center = np.array([side * body.uniform(58, 66), body.uniform(24, 34), low]) * build.size
    axes = body.uniform((25, 24, 46), (31, 30, 57)) * build.size
    lean = turn(side * body.uniform(4, 16), 1)
    kidney = canvas.weigh(center, axes, lean).within(room)
    whole = canvas.spread(kidney)
    medulla = canvas.weigh(center, axes * 0.72, lean).within(whole)
    inward = center - np.array([side * 0.55 * axes[0], 2, 0])
    return kidney, medulla, canvas.weigh(inward, axes * (0.55, 0.38, 0.5), lean).within(whole)


def _liver_lesions(canvas: Canvas, liver: Bools, phase: str, around: float, rng: Generator) -> list[Bools]:
    """Nought to three lesions deep in the liver: dark, or in arterial phase at times bright."""
    count = int(rng.choice(4, p=(0.4, 0.3, 0.18, 0.12)))
    bright = phase == "arterial" and rng.random() < 0.45
    step = rng.uniform(38, 75) if bright else -rng.uniform(22, 42) if phase == "plain" else -rng.uniform(38, 85)
    found: list[Bools] = []
    for _ in range(count):
        radius = float(np.exp(rng.uniform(np.log(12), np.log(48)))) / 2
        lesion = _lesion(canvas, liver, found, radius, rng)
        if lesion is not None:
            canvas.paint(lesion.times(liver[lesion.block].astype(np.float32)), around + step * rng.uniform(0.85, 1.15))
            found.append(canvas.mask(lesion) & liver)
    return found


def _lesion(canvas: Canvas, organ: Bools, others: Iterable[Bools], radius: float, rng: Generator) -> Weight | None:
    """An ellipsoid well inside an organ and away from others; None where there is no such place."""
    spans = [np.flatnonzero(organ.any(axis=tuple(k for k in range(3) if k != axis))) for axis in range(3)]
    block = tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    inside = np.pad(organ[block], 1)
    good = distance_transform_edt(inside, sampling=canvas.spacing)[1:-1, 1:-1, 1:-1] >= 1.15 * radius
    for other in (mask[block] for mask in others):
        if other.any():
            good &= distance_transform_edt(~other, sampling=canvas.spacing) > radius + 2 * max(canvas.spacing)
    places = np.argwhere(good)
    if not len(places):
        return None
    chosen = places[rng.integers(len(places))] + [span.start for span in block]
    jitter = np.append(rng.uniform(-0.5, 0.5, 2) * canvas.spacing[1], 0)
    center = np.array([grid[tuple(chosen)] for grid in (canvas.x, canvas.y, canvas.z)]) + jitter
    return canvas.weigh(center, radius * np.array([1, rng.uniform(0.8, 1), rng.uniform(0.85, 1.1)]),
                        turn(rng.uniform(0, 180), 2))  # fmt: skip


def _finish(canvas: Canvas, rng: Generator) -> None:
    """The scanner's correlated noise, and whole numbers in its range."""
    values = canvas.values
    sigma = rng.uniform(7, 16)
    noise = rng.standard_normal(values.shape, np.float32)
    noise[:, :, 1:] += noise[:, :, :-1]
    noise[:, 1:] += noise[:, :-1]
    values += noise * np.float32(sigma / 2)
    np.clip(np.rint(values, out=values), -1024, 3071, out=values)


def _truths(canvas: Canvas, masks: Mapping[str, Bools], lesions: list[Bools]) -> Iterable[Truth]:
    """Labels with their measures, as they can be read off the masks; organs hold their lesions."""
    voxel = float(np.prod(canvas.spacing)) / 1000

    def volume(mask: Bools) -> Measure:
        return Measure("volume", float(np.count_nonzero(mask) * voxel), "mL")

    for name, mask in masks.items():
        yield Truth(name, mask, measures=(volume(mask),))
    if lesions:
        largest, union = max(lesions, key=np.count_nonzero), np.logical_or.reduce(lesions)
        size = max(caliper(plane, canvas.spacing[1]) for plane in largest if plane.any())
        count, diameter = Measure("count", len(lesions), "1"), Measure("longest_diameter", size, "mm")
        yield Truth("liver_lesion", union, measures=(count, diameter, volume(union)))
