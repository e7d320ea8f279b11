"""How an expert that finds objects is trained, calibrated and examined."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors  # type: ignore[import-untyped]
from torchvision.transforms import v2  # type: ignore[import-untyped]

from experts import boxes as rectangles
from experts.boxes import NO_BOXES, Boxes
from experts.detection import MEASURES, STRIDE, Centers, DetectionExpert, build, is_oriented
from experts.detection_examination import Trial
from experts.network import card_of, digest_of, save
from experts.preparation import prepare
from experts.settings import ExpertConfig
from experts.training import Log, Pairs, apart, fit, seeded, usable
from fovea.errors import ConfigError
from fovea.progress import track
from fovea.types import Code, ExpertCard, Facts

Points = NDArray[np.float64]
_REACH = 0.54 / 6
"""Deviation of the peak of an object's centre, as a share of its size (Liu et al. 2020)."""
_RESAMPLED = 0.7
"""Share of the parts that are turned and scaled; the others are seen as sharp as they are."""
_CORE = 0.1
"""Height of a peak down to which a cell learns the shape of the object."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One study as the network learns it: features float16 (feature, row, column), for each label its boxes in these
    pixels, and which labels are known."""

    pixels: Tensor
    boxes: tuple[Boxes, ...]
    known: tuple[bool, ...]


def train(
    config: ExpertConfig,
    train: Pairs,
    validation: Pairs,
    folder: Path,
    seed: int,
    device: torch.device | str = "cpu",
    log: Log | None = None,
) -> ExpertCard:
    """Train, calibrate and examine on `validation`, and save; returns the card, with how good the expert is.

    The truth of a label are the instances, boxes or masks of its findings; of a mask, each connected piece is an
    object. Where the recipe has `patience`, the mean average precision of the labels tells when to stop. The same seed
    gives the same weights on a CPU with the same number of threads.
    """
    _check(config)
    device = torch.device(device)
    learned, stopping, examined = apart(config, train, validation)
    data, codes, digests = gather(config, learned)
    config = config.coded_by(codes)
    network = seeded(lambda: build(config), seed).to(device)
    _start(network, data)
    rng = np.random.default_rng(seed)

    def loss(indices: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001
        shown = [vary(config, data[i], rng) for i in indices.tolist()]
        pixels = torch.stack([item.pixels for item in shown]).to(device)
        targets = [torch.from_numpy(np.stack(part)).to(device) for part in zip(*map(draw, shown), strict=True)]
        return detection_loss(network(pixels).float(), *targets)

    def score() -> float:
        found = DetectionExpert(config, {}, network, card_of(config, network, digests), device)
        every = [trial.average_precision() for trial in _trials(found, stopping)[0].values()]
        return float(np.mean([value for value in every if np.isfinite(value)] or [0.0]))

    once = torch.ones(len(data), dtype=torch.long)
    step = fit(network, loss, once, config, seed, device, log, score if stopping else None)
    expert = DetectionExpert(config, {}, network, card_of(config, network, digests), device)
    trials, seen = _trials(expert, examined)
    calibrations = {label: trial.calibration() for label, trial in trials.items()}
    rows = [row for label, trial in trials.items() for row in trial.rows(label, digest_of(seen))]
    card = save(folder, config, calibrations, network, replace(expert.card, performance=tuple(rows)))
    if log:
        log(f"{config.name}/best step", step, step)
    return card


def _trials(expert: DetectionExpert, pairs: Pairs) -> tuple[dict[str, Trial], list[str]]:
    """How the expert does on each label, and the digests of the studies."""
    config, digests = expert.config, []
    trials = {label: Trial(config.training.calibration, wanted.operating) for label, wanted in config.labels.items()}
    for (study, facts), found in expert.looks(usable(config, pairs)):
        digests.append(study.digest)
        for label, trial in trials.items():
            wanted = truth(facts, label, found.image, is_oriented(config))
            if wanted is not None:
                trial.add(label, found, wanted)
    return trials, digests


def _start(network: Centers, data: list[Shown]) -> None:
    """The first steps are not spent on learning how large the objects of a label are."""
    with torch.no_grad():
        bias = network.shapes.get_parameter("3.bias").view(len(data[0].boxes), -1)
        for number, row in enumerate(bias):
            sides = np.concatenate([shown.boxes[number][:, 2:4] for shown in data])
            if len(sides):
                row[2:4] = torch.from_numpy(np.log(np.maximum(sides, 1)).mean(0))


def _check(config: ExpertConfig) -> None:
    for label, wanted in config.labels.items():
        if wanted.rule or set(wanted.measures) - set(MEASURES) or wanted.location not in ("", "side", "quadrant"):
            raise ConfigError(
                f"{config.name} finds objects, but {label} asks for what boxes do not tell",
                f"no rule, measures among {', '.join(MEASURES)}, the location side or quadrant",
                "Use the kind segmentation.",
            )
        if wanted.operating.startswith("specificity"):
            raise ConfigError(
                f"{label} of {config.name} is told by {wanted.operating}",
                'youden, f1, "sensitivity>=x" or a cost: nobody counts the objects that are not there',
            )
    if config.size[0] > 1:
        raise ConfigError(f"{config.name} finds objects in {config.size[0]} slices", "one slice")


def gather(config: ExpertConfig, pairs: Pairs) -> tuple[list[Shown], dict[str, Code], list[str]]:
    """The usable studies as the network learns them, the codes of their findings, and their digests."""
    data, digests = [], []
    codes: dict[str, Code] = {}
    oriented = is_oriented(config)
    for study, facts in track(usable(config, pairs), f"{config.name}: reading", len(pairs)):
        seen = prepare(config, study)
        ratio = seen.size[1] / seen.grid.shape[1], seen.size[2] / seen.grid.shape[2]
        found = [truth(facts, label, seen.image, oriented) for label in config.labels]
        boxes = tuple(NO_BOXES if one is None else rectangles.scaled(one, ratio, oriented) for one in found)
        pixels = torch.from_numpy(seen.pixels[:, 0].astype(np.float16))
        data.append(Shown(pixels, boxes, tuple(one is not None for one in found)))
        digests.append(study.digest)
        codes |= {finding.label: finding.code for finding in facts.findings}
    return data, codes, digests


def truth(facts: Facts, label: str, image: int, oriented: bool) -> Boxes | None:
    """The boxes of a label on the grid of an image, or None where they are not known."""
    findings = [f for f in facts.findings if f.label == label and f.present and f.image == image]
    if label not in facts.assessed:
        return None
    found = [NO_BOXES]
    for finding in findings:
        regions = tuple(item.region for item in finding.instances) or (finding.region,)
        if None in regions:
            return None
        found += [rectangles.of_region(region, oriented) for region in regions if region]
    return np.concatenate(found)


def vary(config: ExpertConfig, shown: Shown, rng: np.random.Generator) -> Shown:
    """A part of a study, a little different each time: place, scale, contrast and brightness, and a small turn of boxes
    that may be slanted; where the recipe allows turns, any turn of those, quarter turns of others, and mirroring.

    Parts lie around an object every other time. A slanted box stays if its centre is seen; of an upright one stays what
    is seen, if that is a third. Place and scale are changed by torchvision, the corners of boxes as key points.
    """
    training, oriented = config.training, is_oriented(config)
    side = np.array((training.crop,) * 2 if training.crop else config.size[1:])
    pixels, boxes = _window(shown, side, np.ceil(side * (1.5 if training.turns else 1.25)).astype(int), rng)
    points = torch.from_numpy(np.concatenate([rectangles.corners(one) for one in boxes]) + 0.5).flip(2)
    degrees = (180 if training.turns else 7) if oriented else 0
    affine = v2.RandomAffine(degrees, scale=(0.82, 1.22), interpolation=v2.InterpolationMode.BILINEAR)
    change = v2.Compose([v2.RandomApply([affine], _RESAMPLED), v2.CenterCrop(side.tolist())])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        seen, moved = change(tv_tensors.Image(pixels), tv_tensors.KeyPoints(points, canvas_size=pixels.shape[1:]))
    pixels, corners = seen.as_subclass(Tensor), moved.as_subclass(Tensor).flip(2).numpy() - 0.5
    if training.turns:
        pixels, corners = _mirrored(pixels, corners, rng)
    found = rectangles.of_corners(corners, oriented)
    if oriented:
        kept = ((found[:, :2] >= -0.5) & (found[:, :2] <= side - 0.5)).all(1)
    else:
        whole, found = found[:, 2] * found[:, 3], rectangles.cut(found, (int(side[0]), int(side[1])))
        kept = found[:, 2] * found[:, 3] > whole / 3
    ends = np.cumsum([len(one) for one in boxes])[:-1]
    parts = [part[inside] for part, inside in zip(np.split(found, ends), np.split(kept, ends), strict=True)]
    own = len(config.channels)
    pixels[: 2 * own] *= rng.uniform(0.85, 1.15)
    pixels[:own] += rng.uniform(-0.06, 0.06)
    return Shown(pixels, tuple(parts), shown.known)


def _window(
    shown: Shown, side: NDArray[np.int_], window: NDArray[np.int_], rng: np.random.Generator
) -> tuple[Tensor, list[Boxes]]:
    """A window of a study, 0 where it reaches beyond; the middle of it, `side` pixels large, is seen."""
    shape = np.array(shown.pixels.shape[1:])
    room = np.maximum((shape - side) / 2, 0.08 * side)
    middle = shape / 2 + rng.uniform(-1, 1, 2) * room
    every = np.concatenate(shown.boxes)
    if len(every) and (room > 0.1 * side).any() and rng.random() < 0.5:
        middle = every[rng.integers(len(every)), :2] + rng.uniform(-0.4, 0.4, 2) * side
    start = np.round(middle - window / 2).astype(int)
    (top, left), (below, right) = -start, start + window - shape
    pixels = functional.pad(shown.pixels.float(), (int(left), int(right), int(top), int(below)))
    return pixels, [one - np.array((*start, 0, 0, 0)) for one in shown.boxes]


def _mirrored(pixels: Tensor, corners: Points, rng: np.random.Generator) -> tuple[Tensor, Points]:
    """Mirrored along rows and columns, and with rows and columns exchanged, each as likely as not.

    torchvision's mirrors take key points for indices of pixels, its other transforms for places between them (0.29).
    """
    for axis in (1, 2):
        if rng.random() < 0.5:
            pixels = pixels.flip(axis)
            corners[..., axis - 1] = pixels.shape[axis] - 1 - corners[..., axis - 1]
    if pixels.shape[1] == pixels.shape[2] and rng.random() < 0.5:
        return pixels.transpose(1, 2), corners[..., ::-1]
    return pixels, corners


def draw(shown: Shown) -> tuple[NDArray[np.float32], ...]:
    """What the network should say: peaks (label, cell, cell), which labels count (label, 1, 1), shapes (label, 5, cell,
    cell) and the weight of each cell's shape (label, cell, cell).

    A shape is the way to the centre in cells (row, column), the logarithms of length and width, and the angle. The
    weights are those of the peak, 1 in all for an object (Liu et al. 2020).
    """
    size = np.array(shown.pixels.shape[1:]) // STRIDE
    peaks = np.zeros((len(shown.boxes), *size), np.float32)
    shapes, weights = np.zeros((len(shown.boxes), 5, *size), np.float32), np.zeros_like(peaks)
    for number, boxes in enumerate(shown.boxes):
        owner, nearest = np.full(size, -1), np.zeros(size, np.float32)
        for place, (row, column, length, width, turn) in enumerate(boxes):
            middle = (np.array((row, column)) + 0.5) / STRIDE - 0.5
            cell = np.clip(np.round(middle), 0, size - 1).astype(int)
            deviation = max(_REACH * np.sqrt(length * width) / STRIDE, 0.6)
            reach = int(3 * deviation) + 1
            near = tuple(slice(max(at - reach, 0), at + reach + 1) for at in cell)
            rows, columns = (np.arange(n)[part] for n, part in zip(size, near, strict=True))
            distance = (rows[:, None] - cell[0]) ** 2 + (columns - cell[1]) ** 2
            peak = np.exp(-distance / (2 * deviation**2)).astype(np.float32)
            wins = (peak > nearest[near]) & (peak > _CORE)
            nearest[near], owner[near] = np.where(wins, peak, nearest[near]), np.where(wins, place, owner[near])
            np.maximum(peaks[number][near], peak, out=peaks[number][near])
            values = (middle[0] - rows[:, None], middle[1] - columns, *np.log(np.maximum((length, width), 1)), turn)
            for channel, value in enumerate(values):
                shapes[number, channel][near] = np.where(wins, value, shapes[number, channel][near])
        total = np.bincount(owner.ravel() + 1, nearest.ravel(), len(boxes) + 1)
        weights[number] = np.where(owner >= 0, nearest / np.maximum(total[owner + 1], 1e-6), 0)
    return peaks, np.array(shown.known, np.float32)[:, None, None], shapes, weights


def detection_loss(logits: Tensor, peaks: Tensor, known: Tensor, shapes: Tensor, weights: Tensor) -> Tensor:
    """The penalty-reduced focal loss of peaks (Zhou et al. 2019) plus that of shapes; each the mean of an object of a
    label, and of the labels: a label with few objects counts as much as one with many.

    `peaks` (study, label, cell, cell) are 1 at centres only; see `draw` for the others.
    """
    axes, labels = (0, 2, 3), peaks.shape[1]
    said, told = logits[:, :labels], logits[:, labels:].reshape(*peaks.shape[:2], -1, *peaks.shape[2:])
    chance, centers = torch.sigmoid(said), (peaks == 1).float()
    right = centers * (1 - chance) ** 2 * functional.logsigmoid(said)
    wrong = (1 - centers) * (1 - peaks) ** 4 * chance**2 * functional.logsigmoid(-said)
    focal = -((right + wrong) * known).sum(axes) / (centers * known).sum(axes).clamp(min=1)
    error = (misfit(told, shapes) * weights).sum(axes) / weights.sum(axes).clamp(min=1)
    return (focal + error).mean()


def misfit(told: Tensor, wanted: Tensor) -> Tensor:
    """How far boxes are from the truth, at every scale alike.

    The way between the centres in half lengths and half widths, the differences of the logarithms of length and width,
    and of the cosine and sine of twice the angle, which count less the rounder the box is. Each by itself: with an
    overlap or a divergence of both boxes, lengths shrink where the angle is in doubt.

    `told` (study, label, 4 or 6, cell, cell) as the network says it, `wanted` with 5 channels as in `draw`.
    """
    rows, columns = ((told[:, :, i] - wanted[:, :, i]) * STRIDE for i in (0, 1))
    (length, width), turn = wanted[:, :, 2:4].exp().unbind(2), wanted[:, :, 4]
    along, across = columns * turn.cos() + rows * turn.sin(), rows * turn.cos() - columns * turn.sin()
    off = (4 * ((along / length) ** 2 + (across / width) ** 2) + 1e-8).sqrt()
    off = off + (told[:, :, 2:4] - wanted[:, :, 2:4]).abs().sum(2)
    if told.shape[2] > 4:
        way = torch.stack(((2 * turn).cos(), (2 * turn).sin()), 2)
        off = off + (1 - width / length).clamp(min=0) * (told[:, :, 4:] - way).abs().sum(2)
    return off
