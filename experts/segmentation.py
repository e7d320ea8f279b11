"""Experts that draw: one mask a label, which may overlap, and what the masks measure.

The module is the kind `segmentation` of the entry points `fovea.experts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from scipy.special import logit
from torch import Tensor, nn
from torch.nn import functional

from experts import measure
from experts.calibration import Calibration
from experts.measure import VALUES, Context
from experts.memory import kept
from experts.network import NetworkExpert, fill, fused, load
from experts.preparation import Input, Shape, n_features, prepare
from experts.resampling import resample
from experts.settings import ExpertConfig, LabelConfig
from experts.training import Log, Pairs
from experts.windows import Block, Read, blocks, plan
from fovea.types import Bools, ExpertCard, Finding, Floats, Image, Instance, Mask, Measure, Origin, Span, Study

STRIDES = 16, 32, 32
"""Slices, rows and columns that the network reduces to one."""
LAYOUTS = torch.channels_last, torch.channels_last_3d
"""How pixels lie in memory where windows are read, in 2-D and in 3-D: the fastest for inference on a CPU."""
WINDOWED = 2**20, 2**23
"""Pixels of the windows that are looked at together, in 2-D and in 3-D; PyTorch is slow with a single small volume."""
GROWN = (2, 8), (4, 3, 3)
"""How many times the size of training windows may be, along the axes of 2-D and of 3-D."""


class Folded(nn.Module):
    """A network that works on blocks of 2 x 2 pixels, a quarter of the positions with four times the channels.

    Pixels go in and logits come out at full resolution (space to depth and back; Shi et al. 2016); a bias for each
    label starts at its share of the pixels, so that the first steps are not spent on learning that most are empty.
    """

    def __init__(self, inner: nn.Module, labels: int) -> None:
        super().__init__()
        self.inner = inner
        self.bias = nn.Parameter(torch.zeros(labels))

    def forward(self, pixels: Tensor) -> Tensor:  # (batch, channel, [slice,] row, column)
        volume = pixels.ndim == 5
        folded = functional.pixel_unshuffle(pixels.transpose(1, 2) if volume else pixels, 2)
        drawn: Tensor = self.inner(folded.transpose(1, 2) if volume else folded)
        out = functional.pixel_shuffle(drawn.transpose(1, 2) if volume else drawn, 2)
        out = out.transpose(1, 2) if volume else out
        return out + self.bias.view(-1, *([1] * (pixels.ndim - 2)))  # (batch, label, [slice,] row, column)


def build(config: ExpertConfig) -> Folded:
    """MONAI's basic U-Net, in 2-D or, where the input has several slices, in 3-D."""
    from monai.networks.nets.basic_unet import BasicUNet

    width, labels = config.training.width, len(config.drawn)
    inner = BasicUNet(
        spatial_dims=3 if config.size[0] > 1 else 2,
        in_channels=4 * n_features(config),
        out_channels=4 * labels,
        features=(width, width, 2 * width, 4 * width, 4 * width, width),
        act="RELU",
        norm="BATCH",
        upsample="nontrainable",
    )
    if config.spacing is not None:
        for layer in inner.modules():
            if isinstance(layer, nn.Upsample):
                layer.align_corners = False  # with it, what is drawn would depend on where a window begins
    return Folded(inner, labels)


class Drawn(Mapping[str, Bools]):
    """The masks of one study on its own grid by label, each made when first asked for."""

    def __init__(
        self, config: ExpertConfig, calibrations: Mapping[str, Calibration], seen: Input, maps: Floats
    ) -> None:
        self.seen, self.maps = seen, maps
        self._config, self._calibrations = config, calibrations
        self._masks: dict[str, Bools] = {}

    def __getitem__(self, label: str) -> Bools:
        if label not in self._masks:
            whole = self.seen.enlarge(self.map(label), self._calibrations[label].cut)
            pixels = self.seen.known.size / math.prod(self.seen.size)  # of the image in one of the network
            self._masks[label] = measure.without_specks(whole, self._config.labels[label].smallest * pixels)
        return self._masks[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._config.drawn)

    def __len__(self) -> int:
        return len(self._config.drawn)

    def map(self, label: str) -> Floats:
        """The probability of each pixel in the network's size, (slice, row, column)."""
        shares: Floats = self.maps[self._config.drawn.index(label)]
        return shares

    def evidence(self, label: str, support: int) -> float:
        """The logit of the mean of the `support` likeliest pixels, or of all where there are fewer."""
        flat = self.map(label).ravel()
        support = min(support, flat.size)
        share = float(np.partition(flat, -support)[-support:].mean())
        return float(logit(np.clip(share, 1e-5, 1 - 1e-5)))


class SegmentationExpert(NetworkExpert[Drawn]):
    """Draws, measures what it drew, and says how sure it is."""

    def read(self, seen: Input, logits: Tensor) -> Drawn:
        maps = rivals(logits) if self.config.exclusive else torch.sigmoid(logits)
        return Drawn(
            self.config, self.calibrations, seen, maps.numpy().reshape(len(self.config.drawn), *self.config.size)
        )

    def outputs(self, studies: Iterable[Study]) -> list[Drawn]:
        """What is drawn of each study: in one batch, or with a spacing in windows that are blended."""
        if self.config.spacing is None:
            return super().outputs(studies)
        return [self._draw(prepare(self.config, study)) for study in studies]

    def _draw(self, seen: Input) -> Drawn:
        maps = np.zeros((len(self.config.drawn), *seen.valid.shape), np.float32)

        def read(spans: tuple[Span, ...]) -> tuple[Floats, Bools]:
            part = tuple(slice(*span) for span in spans)
            return seen.pixels[:, *part], seen.valid[part]

        for block in self.blocks(read, seen.valid.shape):
            maps[:, *(slice(*span) for span in block.spans)] = block.probabilities.numpy() * block.valid
        return Drawn(self.config, self.calibrations, seen, maps)

    def blocks(self, read: Read, shape: Shape, window: Shape | None = None, start: int = 0) -> Iterator[Block]:
        """The blended probabilities of a picture (slice, row, column) of any size: see `experts.windows.blocks`.

        Windows are of `window` pixels; left out, as large as is fast.
        """
        flat = self.config.size[0] == 1
        size, picture, align = (given[flat:] for given in (window or self.config.size, shape, STRIDES))
        grown, most = (1,) * len(size) if window else GROWN[not flat], WINDOWED[not flat]
        windows = plan(size, picture, self.config.overlap, align, grown, most)
        found = blocks(
            self.probabilities, _flat(read) if flat else read, picture, windows, len(self.config.drawn),
            batch=max(most // math.prod(windows.size), 1), start=start,
        )  # fmt: skip
        with kept():
            for block in found:
                yield (
                    Block(((0, 1), *block.spans), block.probabilities[:, None], block.valid[None]) if flat else block
                )

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Of features (window, feature, [slice,] row, column), how probable each label is: (window, label, …)."""
        logits = self.logits(pixels.contiguous(memory_format=LAYOUTS[pixels.ndim == 5]))
        return rivals(logits.transpose(0, 1)).transpose(0, 1) if self.config.exclusive else torch.sigmoid(logits)

    def finding(self, label: str, output: Drawn, by: Origin) -> Finding:
        wanted, calibration, code = self.config.labels[label], self.calibrations[label], self.config.code(label)
        if wanted.rule:
            value = measured(wanted.rule.measure, wanted.rule.of, output)
            if value is None:
                return Finding(label, code, False, 0.0, by)
            present = value.value > wanted.rule.above
            score = calibration.probability(value.value - wanted.rule.above)
            return Finding(label, code, present, score, by, measures=(value,) if present else ())
        score = calibration.probability(output.evidence(label, calibration.support))
        if score < calibration.threshold or not output[label].any():
            return Finding(label, code, False, score, by, image=output.seen.image)
        mask, grid, context = output[label], output.seen.grid, context_of(label, output)
        study = self._studies.get(by.digest)
        if study and not VALUES.keys().isdisjoint(wanted.measures):
            context = replace(context, **_pixels(self.config, study.images[output.seen.image]))
        found = [measure.MEASURES[name](mask, grid, context) for name in wanted.measures]
        place = self._place(wanted, output)
        return Finding(
            label,
            code,
            True,
            score,
            by,
            place(mask),
            tuple(item for item in found if item),
            Mask(mask),
            output.seen.image,
            _slices(mask),
            _instances(wanted, mask, output.seen, context, place),
        )

    def _recall(self, studies: list[Study]) -> list[Drawn]:
        self._studies.update((study.digest, study) for study in studies)
        return super()._recall(studies)

    @cached_property
    def _studies(self) -> WeakValueDictionary[str, Study]:
        """The studies that are asked about, by digest, for measures of what their pixels hold."""
        return WeakValueDictionary()

    def _place(self, wanted: LabelConfig, output: Drawn) -> Callable[[Bools], str]:
        """What tells the place of a mask, as the recipe wants it."""
        grid, pair = output.seen.grid, [output[label] for label in self.config.midline or ()]
        if wanted.location == "quadrant":
            return lambda mask: measure.quadrant(mask, grid)
        if wanted.location == "side":
            middle = measure.midline(pair[0], pair[1], grid) if pair else None
            return lambda mask: measure.side(mask, grid, middle)
        if wanted.location == "zone":
            lungs = pair[0] | pair[1]
            return lambda mask: measure.zone(mask, lungs, grid)
        if wanted.location == "within":
            structures = {label: output[label] for label in wanted.within}
            return lambda mask: measure.within(mask, structures)
        return lambda mask: ""  # noqa: ARG005


def open(folder: Path | None) -> SegmentationExpert:
    """The expert that `train` saved in a folder; raises ModelError."""
    config, calibrations, weights, card = load(folder, "segmentation")
    network = fill(build(config), weights, card.name)
    if config.spacing is not None:
        network = fused(network).to(memory_format=LAYOUTS[config.size[0] > 1])
    return SegmentationExpert(config, calibrations, network, card)


def train(
    config: ExpertConfig,
    train: Pairs,
    validation: Pairs,
    folder: Path,
    seed: int,
    device: torch.device | str = "cpu",
    log: Log | None = None,
) -> ExpertCard:
    """Train an expert and save it: see `experts.segmentation_training.train`."""
    from experts import segmentation_training

    return segmentation_training.train(config, train, validation, folder, seed, device, log)


def _flat(read: Read) -> Read:
    """The same without the axis of the one slice that there is."""

    def flat(spans: tuple[Span, ...]) -> tuple[Floats, Bools]:
        pixels, valid = read(((0, 1), *spans))
        return pixels[:, 0], valid[0]

    return flat


def rivals(logits: Tensor) -> Tensor:
    """Of exclusive labels (label, …), each against the likeliest other or none: above 0.5 for one label at most."""
    logits = logits.contiguous()  # a plane for each label
    rest = torch.zeros_like(logits)
    for labels in (range(len(logits)), reversed(range(len(logits)))):
        most = torch.zeros_like(logits[0])
        for label in labels:
            torch.maximum(rest[label], most, out=rest[label])
            most = torch.maximum(most, logits[label])
    return torch.sub(logits, rest, out=rest).sigmoid_()


def measured(name: str, label: str, drawn: Drawn) -> Measure | None:
    """One measure of a label's mask; None where the grid or the picture does not support it."""
    return measure.MEASURES[name](drawn[label], drawn.seen.grid, context_of(label, drawn))


def context_of(label: str, drawn: Drawn) -> Context:
    """What the measures of a label may need: the other labels, and how sure the network is of each pixel."""
    seen, calibration = drawn.seen, drawn._calibrations[label]
    chances = calibration.pixel(drawn.map(label))
    part = tuple(slice(0, length) for length in seen.size)  # beyond it is padding
    return Context(
        seen.known,
        drawn,
        seen.coarseness,
        np.where(seen.valid[part], chances[part], np.float32(0)),
        seen.known.size / math.prod(seen.size),
        float(calibration.pixel(np.array([calibration.cut], np.float32))[0]),
        lru_cache(maxsize=2)(lambda cut: seen.enlarge(chances, cut)),
    )


def _pixels(config: ExpertConfig, image: Image) -> dict[str, Any]:
    """The values and the unit of the first channel that the expert reads."""
    name = config.channels[0]
    place = next(i for i, channel in enumerate(image.channels) if name in ("*", channel.name))
    return {"pixels": image.pixels[place], "unit": image.channels[place].unit}


def _instances(
    wanted: LabelConfig, mask: Bools, seen: Input, context: Context, place: Callable[[Bools], str]
) -> tuple[Instance, ...]:
    if not wanted.instances or context.probabilities is None:
        return ()
    shape = seen.turn.apply(mask).shape
    chances = seen.turn.undo(resample(context.probabilities, shape))
    return measure.instances(mask, seen.grid, wanted.measures, context, chances, limit=wanted.instances, locate=place)


def _slices(mask: Bools) -> Span | None:
    """The half-open span of slices that a mask touches, in a volume."""
    touched = np.flatnonzero(mask.any(axis=(1, 2)))
    return (int(touched[0]), int(touched[-1]) + 1) if len(mask) > 1 else None
