"""A chest radiograph of a made thorax: path lengths through its solids, and their shadows as truth.

Everything is measured on its shadow, in mm on the detector, as a reader would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter, label

from domains.radiology.anatomy import LEFT, RIGHT, SIDES, Patient, Truth, caliper, side_word
from domains.radiology.beam import Beam, chain, ellipsoids, turn
from domains.radiology.chest import Chest, Plan, upright, with_heart, worsened
from domains.radiology.exposure import exposed, fractal, resized, toned
from domains.radiology.structures import Layer, airways, bones, device, joined, marker, ribs, stacked, vessels
from fovea.image import Matrix
from fovea.types import Bools, Floats, Measure, Span

_SOFT, _FAT, _LUNG = 0.0198, 0.0176, 0.0052
"""Linear attenuation at about 65 keV, 1/mm; the lung's is that of 26 % tissue."""
_STRIP = 96  # rows at a time, to stay in the cache
_LEAST = 4.0  # cm²; an effusion or pneumothorax with a smaller shadow is made larger


@dataclass(frozen=True, eq=False)
class Radiograph:
    """A finished picture, float32 (row, column) in [0, 1] with bone bright and columns to the patient's left."""

    pixels: Floats
    spacing: float
    view: str
    truths: tuple[Truth, ...]


def radiograph(patient: Patient, body: Generator, rng: Generator) -> Radiograph:
    """One radiograph of a patient: `body` draws what stays with the patient, `rng` what belongs to the study."""
    plan, view = Plan.draw(rng), "AP" if rng.random() < 0.4 else "PA"
    chest = upright(patient, plan, body, rng)
    pose = turn(rng.normal(0, 3.5), 2) @ turn(rng.normal(0, 4), 0) @ turn(rng.normal(0, 2), 1)
    depth = (105 + patient.fat * 0.5) * patient.size * body.uniform(0.92, 1.1)
    beam = _framed(_aimed(view, depth, rng), chest.turned(pose), rng)
    chest = with_heart(chest, plan.ratio, beam, pose)
    path = _body(patient, depth, chest, pose, beam, rng)
    masks: dict[str, Bools] = {}
    texture = fractal(rng, beam.shape, 0.75)
    chest = _hemithoraces(path, chest, pose, beam, texture, masks)
    nodules = _nodules(path, chest, plan.nodules, pose, beam, masks, rng)
    sharp = ribs(patient, chest.frames, body), _trees(chest, beam.spacing, rng)
    broad = *bones(patient, body), airways(patient.size, rng.uniform(7, 9)), *_gas(patient, chest, rng)
    path += _drawn(stacked(sharp), pose, beam)
    path += resized(_drawn(stacked(broad), pose, beam.coarse(2)), 2, beam.shape)
    if plan.device:
        parts = [_drawn(layer, pose, beam) for layer in device(plan.device, patient.size, depth, rng)]
        masks["support_device"] = np.any([part > 0 for part in parts], axis=0)
        path += sum(parts)
    path *= beam.obliquity()
    _mark(path, beam, rng)
    pixels = toned(exposed(path, beam.spacing, rng, view == "AP"), beam.spacing, rng)
    _collimate(pixels, masks, beam.spacing, rng)
    return Radiograph(pixels, beam.spacing, view, tuple(_truths(masks, nodules, beam.spacing)))


def _aimed(view: str, depth: float, rng: Generator) -> Beam:
    """Source and detector plane; rows and columns are set by `_framed`."""
    front = -1 if view == "PA" else 1  # the side of the patient that faces the detector
    plane = front * (depth + rng.uniform(15, 45))
    distance = rng.uniform(1700, 1850) if view == "PA" else rng.uniform(1000, 1400)
    return Beam((rng.normal(0, 12), plane - front * distance, rng.normal(0, 20)), plane, (0, 0), 1, (1, 1))


def _framed(beam: Beam, chest: Chest, rng: Generator) -> Beam:
    """The beam with a detector that holds both lungs: centring, format, and 384 to 512 pixels along most sides."""
    lungs = beam.shadows(joined([*chest.lung.values()]))
    low, high = lungs.widths()
    top = (lungs.place - lungs.reach)[:, 0].min()
    bottom = beam.project(np.concatenate([dome.center for dome in chest.dome.values()]))[:, 0].max() - 30
    margin = rng.uniform((10, 10, 12, 10), (60, 60, 60, 80))
    left, right, first, last = low.min() - margin[0], high.max() + margin[1], top - margin[2], bottom + margin[3]
    if rng.random() < 0.3:  # a square detector
        grow = ((right - left) - (last - first)) / 2
        first, last = first - max(grow, 0), last + max(grow, 0)
        left, right = left - max(-grow, 0), right + max(-grow, 0)
    width, height = right - left, last - first
    least = max(width, height) / 512
    spacing = float(np.clip(rng.uniform(0.7, 1.1), least, max(min(width, height) / 384, least)))
    shape = (int(height / spacing), int(width / spacing))
    return replace(beam, corner=(left, -first), spacing=round(spacing, 4), shape=shape)


def _strips(rows: Span) -> Iterable[Span]:
    return ((first, min(first + _STRIP, rows[1])) for first in range(rows[0], rows[1], _STRIP))


def _hemithoraces(
    path: Floats, chest: Chest, pose: Matrix, beam: Beam, texture: Floats, masks: dict[str, Bools]
) -> Chest:
    """Take the air of both lungs out of `path` and note shadows; what is too small to be seen grows on the way."""
    heart = beam.shadows(chest.heart.turned(pose))
    rows, columns = heart.box()
    masks["heart"] = np.zeros(beam.shape, bool)
    masks["heart"][slice(*rows), slice(*columns)] = heart.spans(rows, columns).hit
    for side, word in SIDES.items():
        for _ in range(9):
            window, air, found = _hemithorax(chest.turned(pose), side, beam, texture)
            areas = {name: mask.sum() * beam.spacing**2 / 100 for name, mask in found.items()}
            small = {name for name, area in areas.items() if area < _LEAST}
            if not small:
                break
            chest = worsened(chest, side, small)
        path[window] -= air
        for name, mask in found.items():
            masks[f"{word} {name}"] = np.zeros(beam.shape, bool)
            masks[f"{word} {name}"][window] = mask
    return chest


def _hemithorax(
    chest: Chest, side: int, beam: Beam, texture: Floats
) -> tuple[tuple[slice, slice], Floats, dict[str, Bools]]:
    """A window around one lung, what its air attenuates less than soft tissue, and the shadows of lung, effusion and
    pneumothorax in it.

    The lung's shadow is the whole lung field beside heart and mediastinum and above the diaphragm, whatever fills
    it; fluid is where it takes half of the lung's depth or more, pneumothorax where a ray misses the lung.
    """
    lung, dome = beam.shadows(chest.lung[side]), beam.shadows(chest.dome[side])
    others = [beam.shadows(chest.heart), beam.shadows(chest.mediastinum), dome]
    bowl, remnant = chest.bowl.get(side), chest.remnant.get(side)
    fluid, rest = (beam.shadows(solid) if solid else None for solid in (bowl, remnant))
    pleura = beam.shadows(remnant.grown(0.993, remnant.center[0])) if remnant else None
    density = _LUNG / chest.remaining.get(side, 1.0) ** 2
    rows, columns = lung.box()
    rows = rows[0], min(rows[1], int(dome.place[0, 0]))  # below, the dome covers all
    air = np.zeros((rows[1] - rows[0], columns[1] - columns[0]), np.float32)
    names = ["lung", *(["effusion"] if fluid else []), *(["pneumothorax"] if rest else [])]
    found = {name: np.zeros(air.shape, bool) for name in names}
    for strip in _strips(rows):
        here, there = slice(strip[0] - rows[0], strip[1] - rows[0]), (slice(*strip), slice(*columns))
        space = lung.spans(strip, columns)
        obstacles = [spans for spans in (other.spans(strip, columns) for other in others) if spans.hit.any()]
        seen = space.hit
        for obstacle in obstacles:
            seen &= ~obstacle.hit
        found["lung"][here] = seen
        dry = space.outside(*obstacles)
        if fluid:
            whole, space = dry, space & fluid.spans(strip, columns)
            dry = space.outside(*obstacles)
            found["effusion"][here] = seen & (dry < 0.5 * whole)
            seen &= ~found["effusion"][here]
        breath = dry
        if rest and pleura:
            kept = rest.spans(strip, columns)
            breath = (space & kept).outside(*obstacles)
            found["pneumothorax"][here] = seen & ~kept.hit
            air[here] -= (_SOFT - _LUNG) * seen * (kept.length - pleura.spans(strip, columns).length)
            air[here] += _SOFT * (dry - breath)
        air[here] += (_SOFT - density * (1 + 0.2 * texture[there])) * breath
    numbers, _ = label(found["lung"])
    field = numbers == np.bincount(numbers.ravel())[1:].argmax() + 1  # without slivers beside the heart
    return (slice(*rows), slice(*columns)), air, {name: mask & field for name, mask in found.items()}


def _nodules(
    path: Floats, chest: Chest, diameters: Iterable[float], pose: Matrix, beam: Beam, masks: Mapping[str, Bools],
    rng: Generator,
) -> list[tuple[int, Bools]]:  # fmt: skip
    """Add soft-tissue nodules to `path`; returns the side and the shadow of each.

    They lie in air that is seen beside the heart or, one in four, also behind it, and their shadows stay apart.
    """
    placed: list[tuple[int, Bools]] = []
    taken: list[tuple[Matrix, float]] = []
    for diameter in diameters:
        side, radius = (LEFT if rng.random() < 0.5 else RIGHT), diameter / 2
        points = _places(chest, side, radius, rng)
        if not len(points):
            continue
        spots = beam.project(points @ pose.T)
        reach = 1.15 * radius / beam.spacing
        clear = _field(masks, side, hidden=bool(rng.random() < 0.25))
        ring = np.stack([np.sin(_AROUND), np.cos(_AROUND)], 1) * (reach + 1)
        rows, columns = np.moveaxis(np.rint(spots[:, None] + ring), 2, 0).astype(int)
        good = ((rows >= 0) & (rows < beam.shape[0]) & (columns >= 0) & (columns < beam.shape[1])).all(1)
        good[good] = clear[rows[good], columns[good]].all(1)
        for other, size in taken:
            good &= np.linalg.norm(spots - other, axis=1) > reach + size + 5 / beam.spacing
        if not good.any():
            continue
        chosen = int(np.argmax(good))
        taken.append((spots[chosen], reach))
        axes = radius * np.array([1, rng.uniform(0.78, 1), rng.uniform(0.78, 1)])
        turned = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        depth = beam.shadows(ellipsoids(points[chosen] @ pose.T, axes, turned)).deposit(1.0)
        calcium = rng.uniform(1.6, 2.4) * max(1.0, 14 / diameter)  # a small one without it would not be seen
        path += np.float32((_SOFT - _LUNG) * calcium) * depth
        placed.append((side, depth > 0))
    return placed


_AROUND = np.linspace(0, 2 * np.pi, 8, endpoint=False)


def _places(chest: Chest, side: int, radius: float, rng: Generator) -> Matrix:
    """Points (n, 3) of a lung at which a sphere lies in air."""
    lung = chest.remnant.get(side, chest.lung[side])
    ball = rng.standard_normal((160, 3))
    ball *= rng.random((160, 1)) ** (1 / 3) / np.linalg.norm(ball, axis=1, keepdims=True)
    points = lung.center[0] + ball @ np.linalg.cholesky(lung.bound[0]).T
    free = lung.level(points)[:, 0] < 1 - radius / chest.axes[0]
    free &= (chest.heart.level(points) > 1 + radius / 35).all(1)
    free &= (chest.mediastinum.level(points) > 1 + radius / 18).all(1)
    free &= chest.dome[side].level(points)[:, 0] > 1 + radius / 80
    if side in chest.bowl:
        free &= chest.bowl[side].level(points)[:, 0] < 1 - radius / 140
    return np.asarray(points[free])


def _field(masks: Mapping[str, Bools], side: int, *, hidden: bool) -> Bools:
    """Where a nodule of one side may show: the lung field less fluid and free air; `hidden` adds the heart."""
    word = SIDES[side]
    clear = masks[f"{word} lung"].copy()
    for name in ("effusion", "pneumothorax"):
        if f"{word} {name}" in masks:
            clear &= ~masks[f"{word} {name}"]
    return clear | masks["heart"] if hidden else clear


def _body(patient: Patient, depth: float, chest: Chest, pose: Matrix, beam: Beam, rng: Generator) -> Floats:
    """Path through trunk, shoulders, neck, breasts and arms as if they were solid: smooth, so drawn coarsely."""
    size, skin = patient.size, 5 + 0.45 * patient.fat
    width = float(chest.lung[LEFT].center[0, 0] + chest.axes[0]) + (17 + 0.9 * patient.fat) * size
    both = np.array([[side, 1, 1] for side in SIDES])
    center = [[0, 4, -60], [0, -4, -240], [0, 14, 205 * size], *(both * (100 * size, 12, 112 * size))]
    axes = np.array([[width, depth, 520], [width, depth * 1.08, 190], [60, 58, 120], [96, 54, 48], [96, 54, 48]])
    axes[2:] *= size
    lean = [turn(0, 1)] * 3 + [turn(side * 12, 1) for side in SIDES]
    flesh = ellipsoids(center, np.maximum(axes - skin, 25), np.stack(lean))
    outer = ellipsoids(center, axes, np.stack(lean))
    coarse = beam.coarse(3)
    whole = (0, coarse.shape[0]), (0, coarse.shape[1])
    shadows = [coarse.shadows(solid.turned(pose)).spans(*whole) for solid in (outer, flesh)]
    path = _FAT * shadows[0].length + (_SOFT - _FAT) * shadows[1].length
    if patient.breast:
        hang = rng.uniform(-75, -40) * size
        shape = np.array([66, 20 + patient.breast, 62]) * size
        breast = ellipsoids(both * (78 * size, 14 - depth, hang), [shape, shape])
        more = (shadows[0] | coarse.shadows(breast.turned(pose)).spans(*whole)).length - shadows[0].length
        path += _FAT * gaussian_filter(more, 7 / coarse.spacing, truncate=2.5)
    if rng.random() < 0.4:
        gap = width + 55 * size
        arms = [chain(np.array([[s * gap, 5, 90], [s * (gap + 25), 0, -320]]), 40.0 * size) for s in SIDES]
        path += coarse.shadows(joined(arms).turned(pose)).deposit(_SOFT)
    return resized(path, 3, beam.shape)


def _gas(patient: Patient, chest: Chest, rng: Generator) -> list[Layer]:
    """Gas in the stomach under the left dome, and in the bowel."""
    dome = chest.dome[LEFT]
    top = dome.center[0, 2] + np.sqrt(dome.bound[0, 2, 2])
    spots = []
    if rng.random() < 0.65:
        axes = rng.uniform((18, 22, 11), (38, 34, 22)) * patient.size
        spots.append(
            ellipsoids([dome.center[0, 0] - rng.uniform(0, 22), -15, top - axes[2] - rng.uniform(7, 14)], axes)
        )
    for _ in range(rng.integers(0, 5)):
        place = [rng.uniform(-110, 110), -40, top - rng.uniform(75, 150)]
        spots.append(ellipsoids(place, rng.uniform((10, 10, 8), (30, 20, 18))))
    return [Layer(joined(spots), -_SOFT)] if spots else []


def _trees(chest: Chest, spacing: float, rng: Generator) -> Layer:
    """The vessels of both lungs, where there is air around them."""
    solids, weights = [], []
    for side in SIDES:
        tree, weight = vessels(chest.remnant.get(side, chest.lung[side]), side, spacing, rng)
        kept = (chest.heart.level(tree.center) > 1).all(1) & (chest.dome[side].level(tree.center)[:, 0] > 1)
        if side in chest.bowl:
            kept &= chest.bowl[side].level(tree.center)[:, 0] < 1
        solids.append(tree[kept])
        weights.append(weight[kept])
    return Layer(joined(solids), np.concatenate(weights))


def _drawn(layer: Layer, pose: Matrix, beam: Beam) -> Floats:
    return beam.shadows(layer.solids.turned(pose)).deposit(layer.weight, layer.core, layer.lack)


def _mark(path: Floats, beam: Beam, rng: Generator) -> None:
    """The letter of the side in an upper corner, on three pictures of four."""
    if rng.random() < 0.25:
        return
    side = LEFT if rng.random() < 0.6 else RIGHT
    inset, drop = rng.uniform(16, 34), rng.uniform(16, 60)
    width = (beam.shape[1] - 1) * beam.spacing
    x = beam.corner[0] + (width - inset if side == LEFT else inset)
    letter = marker(
        side, np.array([x, beam.plane - np.sign(beam.plane) * 3, beam.corner[1] - drop]), rng.uniform(10, 16)
    )
    path += beam.shadows(letter.solids).deposit(letter.weight)


def _collimate(pixels: Floats, masks: Mapping[str, Bools], spacing: float, rng: Generator) -> None:
    """Black out a frame that spares all that is to be found, on two pictures of five."""
    if rng.random() < 0.6:
        return
    every = np.logical_or.reduce([*masks.values()])
    for axis in (0, 1):
        inside = np.flatnonzero(every.any(axis=1 - axis))
        view = np.moveaxis(pixels, axis, 0)
        first, last = inside[0] - 6 / spacing, len(view) - inside[-1] - 6 / spacing
        before, after = (int(rng.uniform(0, np.clip(room, 0, 25 / spacing))) for room in (first, last))
        view[:before] = 0
        view[len(view) - after :] = 0


def _truths(masks: Mapping[str, Bools], nodules: list[tuple[int, Bools]], spacing: float) -> Iterable[Truth]:
    """Labels with their measures, as they can be read off the shadows."""
    for word in SIDES.values():
        yield Truth(f"{word}_lung", masks[f"{word} lung"])
    ratio = cardiothoracic_ratio(masks["heart"], masks["left lung"] | masks["right lung"])
    yield Truth("heart", masks["heart"], measures=(Measure("cardiothoracic_ratio", ratio, "1"),))
    if ratio > 0.5:
        yield Truth("cardiomegaly", None)
    for found, name in (("pleural_effusion", "effusion"), ("pneumothorax", "pneumothorax")):
        shadows = {side: masks[f"{word} {name}"] for side, word in SIDES.items() if f"{word} {name}" in masks}
        if shadows:
            union = np.logical_or.reduce([*shadows.values()])
            area = float(union.sum()) * spacing**2 / 100
            yield Truth(found, union, side_word(shadows), (Measure("area", area, "cm2"),))
    if nodules:
        size = max((mask for _, mask in nodules), key=np.count_nonzero)
        measures = Measure("count", len(nodules), "1"), Measure("longest_diameter", caliper(size, spacing), "mm")
        union = np.logical_or.reduce([mask for _, mask in nodules])
        yield Truth("nodule", union, side_word([side for side, _ in nodules]), measures)
    if "support_device" in masks:
        yield Truth("support_device", masks["support_device"])


def cardiothoracic_ratio(heart: Bools, lungs: Bools) -> float:
    """The widest heart over the thorax in the row where it is widest, from outer edge to outer edge (Danzer 1919)."""
    rows = lungs[lungs.any(axis=1)]
    width = rows.shape[1] - rows.argmax(1) - rows[:, ::-1].argmax(1)
    return float((np.ptp(np.flatnonzero(heart.any(axis=0))) + 1) / width.max())
