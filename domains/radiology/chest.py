"""The large organs of a made chest, and the findings that change them.

Lungs, heart, domes of the diaphragm and mediastinum are ellipsoids; a lung's air is the part of its ellipsoid
outside the others. An effusion leaves the lung that lies in a bowl above the fluid; a pneumothorax leaves a smaller
lung inside the same chest wall.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from domains.radiology.anatomy import LEFT, RIGHT, SIDES, Patient
from domains.radiology.beam import Beam, Solids, ellipsoids, turn
from domains.radiology.structures import Device, joined
from fovea.image import Matrix

Frame = tuple[Matrix, Matrix, Matrix]


@dataclass(frozen=True)
class Plan:
    """Which findings a study shall have: extents in [0, 1] by side, the anatomical cardiothoracic ratio, nodule
    diameters in mm."""

    ratio: float
    effusion: Mapping[int, float]
    pneumothorax: Mapping[int, float]
    nodules: tuple[float, ...]
    device: Device | None

    @classmethod
    def draw(cls, rng: Generator) -> Plan:
        """Findings at random, each in two to three of seven studies or more, the sides alike."""
        first, other = (LEFT, RIGHT) if rng.random() < 0.5 else (RIGHT, LEFT)
        sides = ((), (first,), (first, other))[int(rng.choice(3, p=(0.58, 0.3, 0.12)))]
        count = int(rng.choice(4, p=(0.56, 0.22, 0.13, 0.09)))
        lost = ((), (LEFT,), (RIGHT,))[int(rng.choice(3, p=(0.62, 0.19, 0.19)))]
        kinds = (None, *Device)
        return cls(
            float(rng.triangular(0.36, 0.45, 0.64)),
            {side: float(rng.beta(1.1, 1.6)) for side in sides},
            {side: float(rng.beta(1.1, 1.6)) for side in lost},
            tuple(np.exp(rng.uniform(np.log(5), np.log(30), count)).tolist()),
            kinds[int(rng.choice(4, p=(0.62, 0.14, 0.12, 0.12)))],
        )


@dataclass(frozen=True, eq=False)
class Chest:
    """The large organs; those with two sides by side.

    `frames` holds centre, half-axes and rotation of each upright lung. `bowl` is there for each effusion: what of the
    lung lies in it stays lung; `remnant` for each pneumothorax: what is left of the lung, by the factor `remaining`.
    """

    frames: Mapping[int, Frame]
    lung: Mapping[int, Solids]
    dome: Mapping[int, Solids]
    mediastinum: Solids
    heart: Solids
    bowl: Mapping[int, Solids] = field(default_factory=dict)
    remnant: Mapping[int, Solids] = field(default_factory=dict)
    remaining: Mapping[int, float] = field(default_factory=dict)

    @property
    def axes(self) -> Matrix:
        """Half-axes of the lungs, mm."""
        return self.frames[LEFT][1]

    def collapsed(self, side: int, factor: float) -> Solids:
        """An upright lung shrunk towards its foot, so that most air gathers at the apex and beside it."""
        return self.lung[side].grown(
            factor, self.lung[side].center[0] + np.array([-side * 0.8, 0.1, -0.45]) * self.axes
        )

    def turned(self, rotation: Matrix) -> Chest:
        """The chest after a rotation about the origin."""

        def both(solids: Mapping[int, Solids]) -> dict[int, Solids]:
            return {side: solid.turned(rotation) for side, solid in solids.items()}

        return replace(
            self,
            lung=both(self.lung), dome=both(self.dome), bowl=both(self.bowl), remnant=both(self.remnant),
            mediastinum=self.mediastinum.turned(rotation), heart=self.heart.turned(rotation),
        )  # fmt: skip


def upright(patient: Patient, plan: Plan, body: Generator, rng: Generator) -> Chest:
    """The chest with its findings: `body` draws what stays with the patient, `rng` what belongs to the study."""
    size = patient.size
    axes = np.array([70 * body.uniform(0.94, 1.06), 84 * body.uniform(0.88, 1.15), 160 * body.uniform(0.95, 1.05)])
    axes *= size
    lean, across = body.uniform(5, 10), axes[0] * body.uniform(0.91, 0.97)
    frames = {s: (np.array([s * across, 0, -25 * size]), axes, turn(-s * lean, 1)) for s in SIDES}
    top = rng.uniform(-100, -60) * size
    tops = {RIGHT: top, LEFT: top - rng.uniform(3, 20) * size}
    vault = np.array([axes[0] * body.uniform(1.16, 1.28), axes[1] * 1.2, 90 * size])
    chest = Chest(
        frames=frames,
        lung={side: ellipsoids(*frame) for side, frame in frames.items()},
        dome={s: ellipsoids([s * (across + 12 * size), -4, tops[s] - 90 * size], vault) for s in SIDES},
        mediastinum=_mediastinum(size, patient.age, body),
        heart=_heart(size, tops[LEFT], body),
    )
    bowl = {}
    for side, extent in plan.effusion.items():
        center = [side * (across - rng.uniform(8, 30)), -12, tops[side] + 260 + (-32 + 125 * extent) * size]
        bowl[side] = ellipsoids(center, np.array([rng.uniform(140, 190), rng.uniform(170, 220), 260]) * (size, size, 1))
    remaining = {side: 0.965 - 0.34 * extent for side, extent in plan.pneumothorax.items()}
    remnant = {side: chest.collapsed(side, factor) for side, factor in remaining.items()}
    return replace(chest, bowl=bowl, remnant=remnant, remaining=remaining)


def _mediastinum(size: float, age: int, body: Generator) -> Solids:
    """Spine and gullet, great vessels, aortic knob (which grows with age), pulmonary trunk, superior vena cava,
    descending aorta, hila."""
    knob = body.uniform(0.8, 1.0) + 0.004 * age
    vessels, trunk, cava, aorta = body.uniform((24, 18, 12, 17), (33, 26, 18, 24))
    center = [(0, 40, 0), (2, 5, 95), (18, 8, 58), (16, -22, 24), (-18, -8, 45), (6, 34, -30), (0, 0, 10)]
    axes = [
        (12, 200, 900), (vessels, 72, 85), (18 * knob, 40, 20 * knob), (trunk, 40, 30), (cava, 40, 80),
        (aorta, 60, 170), (22, 90, 60),
    ]  # fmt: skip
    return ellipsoids(np.array(center) * size, np.array(axes) * size)


def _heart(size: float, floor: float, body: Generator) -> Solids:
    """Left ventricle, right atrium and outflow on a diaphragm at the height `floor`."""
    center = np.array([(36, -36, 40), (-15, -30, 46), (17, -32, 84)]) * size + np.array([0, 0, floor])
    axes = np.array([(60, 62, 45), (36, 56, 48), (29, 48, 38)]) * size * body.uniform(0.93, 1.07, (3, 3))
    return ellipsoids(center, axes, np.stack([turn(body.uniform(20, 42), 1), np.eye(3), np.eye(3)]))


def worsened(chest: Chest, side: int, names: Collection[str]) -> Chest:
    """The chest with more fluid ("effusion") or less lung ("pneumothorax") on one side."""
    bowl, remnant, remaining = dict(chest.bowl), dict(chest.remnant), dict(chest.remaining)
    if "effusion" in names:
        bowl[side] = replace(bowl[side], center=bowl[side].center + np.array([0, 0, 14]))
    if "pneumothorax" in names:
        remaining[side] -= 0.04
        remnant[side] = chest.collapsed(side, remaining[side])
    return replace(chest, bowl=bowl, remnant=remnant, remaining=remaining)


def with_heart(chest: Chest, ratio: float, beam: Beam, pose: Matrix) -> Chest:
    """The heart grown about its foot until it is `ratio` as wide as the thorax without magnification in depth."""
    lungs = beam.shadows(joined([*chest.lung.values()]).turned(pose))
    low, high = lungs.widths()
    foot = chest.heart.center[1] + np.array([8, 0, -46])
    for _ in range(3):
        shadow = beam.shadows(chest.heart.turned(pose))
        first, last = shadow.widths()
        share = (last.max() - first.min()) / (high.max() - low.min()) * (shadow.scale[0] / lungs.scale[0])
        chest = replace(chest, heart=chest.heart.grown(float(ratio / share), foot))
    return chest
