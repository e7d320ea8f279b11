"""Experts that find single objects: a box around each, upright or, of what is seen from above, along the object.

A network draws for each label a map with a peak at the centre of every object, and tells around it how far the centre
is from the middle of the cell, how long and wide the object is and, as cosine and sine of twice the angle, how it lies
(CenterNet; Zhou et al. 2019; learned all over the peak, as in Liu et al. 2020). Boxes lie along the object where a
label asks for its length or bearing. Objects are told from the probability on that the label's `operating` rule sets,
at an overlap of 0.5. Nobody counts the objects that are not there: youden is the best F1, and specificity is refused.

The module is the kind `detection` of the entry points `fovea.experts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from experts import boxes as rectangles
from experts import measure
from experts.boxes import NO_BOXES, Boxes
from experts.ground import steps
from experts.network import NetworkExpert, fill, load
from experts.preparation import Input, Sampled, chosen, n_features, prepare
from experts.settings import ExpertConfig
from experts.training import Log, Pairs
from fovea.types import Box, ExpertCard, Finding, Grid, Instance, Mask, Measure, OrientedBox, Origin, Study

STRIDE = 2
"""Pixels of the network's input along each side of a cell of its maps."""
OVERLAP = 0.5
"""Boxes of one label that overlap more than this are one object; it is also how well a box has to fit the truth."""
MEASURES = ("count", "length", "bearing")
"""What is measured of objects; the last two of the longest one."""
_FLOOR = 0.005
"""Peaks below this are no candidates."""
_MOST = 500
"""Candidates of a label in a window."""
_BOTH_ENDS = 6**-0.5
"""Standard deviation of a length whose two ends are uniform within one pixel."""


class Centers(nn.Module):
    """MONAI's basic U-Net on blocks of 2 x 2 pixels, with a head for peaks and one for the places, sizes and angles of
    each label."""

    def __init__(self, features: int, width: int, labels: int, oriented: bool) -> None:
        from monai.networks.nets.basic_unet import BasicUNet

        super().__init__()
        self.inner = BasicUNet(
            spatial_dims=2,
            in_channels=features * STRIDE**2,
            out_channels=width,
            features=(width, width, 2 * width, 4 * width, 4 * width, width),
            act=("leakyrelu", {"negative_slope": 0.1}),
            norm="BATCH",
            upsample="nontrainable",
        )
        self.peaks, self.shapes = (
            nn.Sequential(
                nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
                nn.BatchNorm2d(2 * width),
                nn.LeakyReLU(0.1),
                nn.Conv2d(2 * width, channels, 1),
            )
            for channels in (labels, labels * (6 if oriented else 4))
        )
        nn.init.constant_(self.peaks.get_parameter("3.bias"), -2.2)  # few cells are centres (Lin et al. 2017)

    def forward(self, pixels: Tensor) -> Tensor:  # (batch, feature, row, column)
        drawn = self.inner(functional.pixel_unshuffle(pixels, STRIDE))
        return torch.cat((self.peaks(drawn), self.shapes(drawn)), 1)  # (batch, label and shape, cell, cell)


def build(config: ExpertConfig) -> Centers:
    """The network of a recipe, without weights."""
    return Centers(n_features(config), config.training.width, len(config.labels), is_oriented(config))


def is_oriented(config: ExpertConfig) -> bool:
    """Whether boxes lie along objects: where a length or a bearing is asked for."""
    return any({"length", "bearing"} & set(label.measures) for label in config.labels.values())


@dataclass(frozen=True, eq=False)
class Candidates:
    """What may be an object: by label its boxes on the image's grid, and the logits of their peaks, greatest first."""

    boxes: Mapping[str, Boxes]
    evidence: Mapping[str, NDArray[np.float64]]
    image: int
    grid: Grid
    coarseness: float


class DetectionExpert(NetworkExpert[Candidates]):
    """Finds objects, counts and measures them, and says of each how sure it is."""

    def read(self, seen: Input, logits: Tensor) -> Candidates:
        return self._candidates([decode(self.config, logits)], seen.image, seen.grid, seen.size[1:])

    def outputs(self, studies: Iterable[Study]) -> list[Candidates]:
        """What may be an object in each study: in one batch, or with a spacing window by window."""
        if self.config.spacing is None:
            return super().outputs(studies)
        return [self._by_windows(study) for study in studies]

    def _by_windows(self, study: Study) -> Candidates:
        """Each window tells the objects whose centre is nearest to its own middle: an object is told once."""
        image, place = chosen(self.config, study)
        sampled, size = Sampled(self.config, image), self.config.size[1:]
        shape, found = sampled.shape[1:], []
        axes = [list(_starts(n, side, self.config.overlap)) for n, side in zip(shape, size, strict=True)]
        for corner in product(*axes):
            stops = [min(start + side, n) for start, side, n in zip(corner, size, shape, strict=True)]
            spans = tuple(zip(corner, stops, strict=True))
            pixels, valid = sampled.read(((0, 1), *spans))
            if not valid.any():
                continue
            lacking = [(0, side - (stop - start)) for side, (start, stop) in zip(size, spans, strict=True)]
            padded = np.pad(pixels[:, 0], [(0, 0), *lacking])
            told = decode(self.config, self.logits(torch.from_numpy(padded)[None])[0])
            cores = [_core(axis, start, side) for axis, start, side in zip(axes, corner, size, strict=True)]
            for boxes, _ in told.values():
                boxes[:, :2] += corner
            found.append(
                {
                    label: (boxes[inside], evidence[inside])
                    for label, (boxes, evidence) in told.items()
                    for inside in [
                        np.all([(a <= boxes[:, i]) & (boxes[:, i] < b) for i, (a, b) in enumerate(cores)], 0)
                    ]
                }
            )
        if not found:
            prepare(self.config, study)  # raises: no data
        return self._candidates(found, place, image.grid, shape)

    def _candidates(
        self, found: list[dict[str, tuple[Boxes, NDArray[np.float64]]]], image: int, grid: Grid, shape: tuple[int, ...]
    ) -> Candidates:
        """Candidates of all windows on the image's grid, each object once."""
        oriented = is_oriented(self.config)
        ratio = grid.shape[1] / shape[0], grid.shape[2] / shape[1]
        boxes, evidence = {}, {}
        for label in self.config.labels:
            all_boxes, logits = (np.concatenate([part[label][i] for part in found]) for i in (0, 1))
            kept = rectangles.suppress(all_boxes, logits, OVERLAP, oriented)
            boxes[label], evidence[label] = rectangles.scaled(all_boxes[kept], ratio, oriented), logits[kept]
        return Candidates(boxes, evidence, image, grid, max(1.0, *ratio))

    def finding(self, label: str, output: Candidates, by: Origin) -> Finding:
        wanted, calibration, code = self.config.labels[label], self.calibrations[label], self.config.code(label)
        chances = calibration.probabilities(output.evidence[label])
        score, told = float(chances.max(initial=0.0)), chances >= calibration.threshold
        if not told.any():
            return Finding(label, code, False, score, by, image=output.image)
        grid, oriented = output.grid, is_oriented(self.config)
        boxes, shape = output.boxes[label][told], (output.grid.shape[1], output.grid.shape[2])
        mask = rectangles.covered(boxes, shape)[None]
        regions = [rectangles.to_region(box, oriented, shape) for box in boxes]
        sizes = [lengths(region, grid, output.coarseness) for region in regions]
        instances = tuple(
            Instance(region, float(chance), size)
            for region, chance, size in zip(regions, chances[told], sizes, strict=True)
        )
        doubt = float(np.sqrt(np.sum(chances * (1 - chances))))
        measures: list[Measure] = [Measure("count", float(told.sum()), "1", doubt)]
        measures += sorted(sizes, key=_longest)[-1]
        where = {"quadrant": measure.quadrant, "side": measure.side}.get(wanted.location)
        return Finding(
            label,
            code,
            True,
            score,
            by,
            where(mask, grid) if where else "",
            tuple(item for item in measures if item.name in wanted.measures),
            Mask(mask),
            output.image,
            None,
            instances,
        )


def decode(config: ExpertConfig, logits: Tensor) -> dict[str, tuple[Boxes, NDArray[np.float64]]]:
    """Peaks of the maps (label and shape, cell, cell) of a window: by label boxes in its pixels, and their logits."""
    heat = torch.sigmoid(logits[: len(config.labels)])
    shapes = logits[len(config.labels) :].double().view(len(config.labels), -1, *logits.shape[1:])
    peak = (heat == functional.max_pool2d(heat[None], 3, 1, 1)[0]) & (heat >= _FLOOR)
    found = {}
    for number, label in enumerate(config.labels):
        rows, columns = torch.nonzero(peak[number], as_tuple=True)
        best = torch.argsort(heat[number, rows, columns], descending=True, stable=True)[:_MOST]
        rows, columns = rows[best], columns[best]
        told = shapes[number][:, rows, columns].numpy()
        center = np.stack((rows.numpy(), columns.numpy())) + told[:2]
        sides = np.exp(np.clip(told[2:4], -1, 9))
        turn = np.arctan2(told[5], told[4]) / 2 if len(told) > 4 else np.zeros(len(rows))
        boxes = np.concatenate(((center + 0.5) * STRIDE - 0.5, sides, turn[None])).T if len(rows) else NO_BOXES.copy()
        found[label] = boxes, logits[number, rows, columns].double().numpy()
    return found


def open(folder: Path | None) -> DetectionExpert:
    """The expert that `train` saved in a folder; raises ModelError."""
    config, calibrations, weights, card = load(folder, "detection")
    return DetectionExpert(config, calibrations, fill(build(config), weights, card.name), card)


def train(
    config: ExpertConfig,
    train: Pairs,
    validation: Pairs,
    folder: Path,
    seed: int,
    device: torch.device | str = "cpu",
    log: Log | None = None,
) -> ExpertCard:
    """Train an expert and save it: see `experts.detection_training.train`."""
    from experts import detection_training

    return detection_training.train(config, train, validation, folder, seed, device, log)


def _longest(sizes: tuple[Measure, ...]) -> float:
    return sizes[0].value if sizes else 0.0


def lengths(region: Box | OrientedBox, grid: Grid, coarseness: float) -> tuple[Measure, ...]:
    """Length in metres and bearing in degrees of an object on the Earth; nothing elsewhere."""
    if not grid.georeferenced or not isinstance(region, OrientedBox):
        return ()
    turn = np.deg2rad(region.angle)
    plane = steps(grid, np.array([region.center]))[0]
    east, north = plane @ (np.sin(turn), np.cos(turn)) * region.length
    length = float(np.hypot(east, north))
    spread = float(np.sqrt(abs(np.linalg.det(plane)))) * coarseness * _BOTH_ENDS
    angle = float(np.rad2deg(np.arctan2(east, north)) % 180)
    doubt = float(np.rad2deg(np.arctan(spread / max(length, 1e-9))))
    return Measure("length", length, "m", spread), Measure("bearing", 0.0 if angle == 180 else angle, "deg", doubt)


def _starts(length: int, side: int, overlap: float) -> Iterator[int]:
    """Where windows of `side` pixels begin along an axis, so that they share `overlap` and reach the end."""
    last, step = max(length - side, 0), max(int(side * (1 - overlap)), 1)
    yield from range(0, last, step)
    yield last


def _core(starts: list[int], start: int, side: int) -> tuple[float, float]:
    """The part of an axis that is nearer to the middle of this window than to that of another."""
    place = starts.index(start)
    low = (starts[place - 1] + start + side - 1) / 2 if place else -np.inf
    high = (start + starts[place + 1] + side - 1) / 2 if place + 1 < len(starts) else np.inf
    return low, high
