"""Exported networks with a model card: what `torch_export` and `onnx` experts share.

The card is a STAC item with the mlm extension (`experts.foreign.mlm`): bands are found by name and scaled as it says.
Segmentation works through windows of the card's size, whatever the size of the scene (`experts.windows`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from experts import measure
from experts.foreign import mlm, settings
from experts.foreign.answers import UNDRAWN, Drawing, ForeignExpert, Place, pixels, rival
from experts.foreign.programs import Run
from experts.resampling import resize
from experts.windows import Windows, blocks
from fovea.errors import ExpertError, ModelError
from fovea.types import Bools, ExpertCard, Finding, Floats, Origin, Span, Study, Window

Opener = Callable[[Path, str], tuple[Run, list[Path]]]
_WHOLE = ("", "crop", "pad")
_RESIZED = ("interpolation-linear", "interpolation-area", "interpolate-linear")


class RasterConfig(settings.ForeignConfig):
    """An exported network: labels name classes of its card."""

    item: str = "item.json"
    """The STAC item inside the folder that tells bands, scaling and classes."""
    activation: Literal["softmax", "sigmoid", "none"]
    """What the network leaves to be done: its answer is logits of exclusive classes, logits of classes that may
    overlap, or probabilities."""
    exclusive: bool = True
    """Whether a pixel has one class at most; false only where the activation is sigmoid or none."""
    bands: dict[str, str] = Field(default_factory=dict)
    """Names of channels in studies for bands of the card that are called otherwise there: `{B04: red}`."""
    window: int = Field(default=256, ge=32, le=4096, multiple_of=32)
    """Side of a window where the card takes any size."""
    windows: int = Field(default=4, ge=1, le=64)
    """Windows that the network reads at a time, where the card does not say."""

    @model_validator(mode="after")
    def _activated(self) -> RasterConfig:
        if self.activation == "sigmoid" and self.exclusive and "exclusive" in self.model_fields_set:
            raise ValueError("exclusive: classes of a sigmoid may overlap")
        return self

    @property
    def overlapping(self) -> bool:
        """Whether a pixel may have several classes."""
        return self.activation == "sigmoid" or not self.exclusive


class RasterExpert(ForeignExpert):
    """Draws, or classifies, with a network that somebody exported."""

    volumes = False

    def __init__(self, config: RasterConfig, card: ExpertCard, model: mlm.Model, run: Run) -> None:
        super().__init__(config, card)
        self.settings, self.model, self.network = config, model, run
        self.numbers = {label: model.classes.index(config.source(label)) for label in config.labels}

    def look(self, study: Study, found: Sequence[Place], argument: str, by: Origin) -> Mapping[str, Finding]:  # noqa: ARG002
        """Findings of all labels."""
        try:
            if self.model.task == "classification":
                shares = self._classify(study, found)
                return {
                    label: self.named(label, float(shares[number]), by, found[0][0])
                    for label, number in self.numbers.items()
                }
            drawing = self._draw(study, found)
        except (RuntimeError, ValueError, IndexError) as error:
            raise self.failed(error) from error
        return {label: drawing.finding(self, label, by) for label in self.card.labels}

    def _predict(self, batch: Tensor) -> Tensor:
        """Probabilities (window, class, …) of bands (window, band, row, column), filled up where a batch is fixed."""
        size = self.model.batch
        parts = torch.split(batch, size) if size > 0 else (batch,)
        answers = []
        with torch.inference_mode():
            for part in parts:
                missing = max(size - len(part), 0)
                padded = torch.cat((part, part[-1:].expand(missing, *part.shape[1:]))) if missing else part
                answers.append(self.network(padded)[: len(part)].float())
        answer = torch.cat(answers)
        wanted = (len(batch), len(self.model.classes), *(batch.shape[2:] if self.model.task == "segmentation" else ()))
        if answer.shape != wanted:
            raise ExpertError(
                f"{self.card.name} answered in shape {tuple(answer.shape)}", f"{wanted}, as its card says"
            )
        if self.settings.activation == "softmax":
            return torch.softmax(answer, 1)
        return torch.sigmoid(answer) if self.settings.activation == "sigmoid" else answer.clamp(0, 1)

    def _classify(self, study: Study, found: Sequence[Place]) -> Tensor:
        """The probability of each class: of the picture resized, or of its middle."""
        values, valid = pixels(study, found)
        scaled = np.where(valid, self._scaled(values[:, 0])[:, None], np.float32(0))
        height, width = (
            have if want < 0 else want for want, have in zip(self.model.size, valid.shape[1:], strict=True)
        )
        if self.model.resize in _RESIZED or (height, width) == valid.shape[1:]:
            read = resize(scaled, (1, height, width))[:, 0]
        else:
            read = np.zeros((len(scaled), height, width), np.float32)
            have = scaled.shape[2:]
            size = [min(a, b) for a, b in zip(have, (height, width), strict=True)]
            here, there = (
                tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(whole, size, strict=True))
                for whole in (have, (height, width))
            )
            read[:, there[0], there[1]] = scaled[:, 0, here[0], here[1]]
        return self._predict(torch.from_numpy(read)[None])[0]

    def _scaled(self, values: Floats) -> Floats:
        with warnings.catch_warnings(), np.errstate(all="ignore"):  # pixels without data may be anything
            return self.model.scale(values)

    def _draw(self, study: Study, found: Sequence[Place]) -> Drawing:
        """Masks of all labels, block by block."""
        image = study.images[found[0][0]]
        rows, columns = image.grid.shape[1:]
        size = tuple(self.settings.window if n < 0 else n for n in self.model.size)
        windows = Windows(size, tuple(n // 4 for n in size))

        def read(spans: tuple[Span, ...]) -> tuple[Floats, Bools]:
            part = Window(spans[0], spans[1])
            taken = {i: study.images[i].read(part, None) for i in dict.fromkeys(i for i, _ in found)}
            values = np.stack([taken[i][0][channel, 0] for i, channel in found])
            valid = np.logical_and.reduce([known[0] for _, known in taken.values()]) & np.isfinite(values).all(axis=0)
            return np.where(valid, self._scaled(values), np.float32(0)), valid

        masks = {label: np.zeros(image.grid.shape, bool) for label in self.numbers}
        maps = {label: np.zeros(image.grid.shape, np.float32) for label in masks if self.config.labels[label].objects}
        known = np.zeros(image.grid.shape, bool)
        tally = {label: _Tally() for label in self.numbers}
        for block in blocks(
            self._predict, read, (rows, columns), windows, len(self.model.classes), batch=self.settings.windows
        ):
            where = slice(*block.spans[0]), slice(*block.spans[1])
            known[0][where] = block.valid
            for label, number in self.numbers.items():
                likely = block.probabilities[number].numpy()
                if not self.settings.overlapping:
                    likely = rival(likely, np.delete(block.probabilities.numpy(), number, 0).max(0))
                mask = (likely >= self.config.labels[label].cut) & block.valid
                masks[label][0][where] = mask
                if label in maps:
                    maps[label][0][where] = likely
                tally[label].add(likely, mask, block.valid)
        if not known.any():
            raise ExpertError(f"{self.card.name} cannot answer: the image holds no data")
        for label, mask in masks.items():
            masks[label] = measure.without_specks(mask, self.config.labels[label].smallest)
        shares = {label: tally[label].share(bool(mask.any())) for label, mask in masks.items()}
        return Drawing(masks, shares, image.grid, found[0][0], known, maps=maps)


class _Tally:
    """The mean probability of what was drawn, and the highest of what was not, block by block."""

    def __init__(self) -> None:
        self.total, self.drawn, self.peak = 0.0, 0, 0.0

    def add(self, likely: Floats, mask: Bools, valid: Bools) -> None:
        """One block more."""
        self.total += float(likely[mask].sum(dtype=np.float64))
        self.drawn += int(mask.sum())
        self.peak = max(self.peak, float(likely[valid].max(initial=0.0)))

    def share(self, drawn: bool) -> float:
        """The label's probability."""
        return self.total / self.drawn if drawn else min(self.peak, UNDRAWN)


def open_with(folder: Path | None, kind: str, opener: Opener) -> RasterExpert:
    """The expert of a folder with `expert.json`, a STAC item and a model file; raises ModelError."""
    config, written = settings.read(folder, RasterConfig, kind)
    folder = written.parent
    item = settings.inside(folder, config.item, settings.TEXT_LIMIT)
    model = mlm.read(settings.tree(item))
    if len(model.classes) < 2 and not config.overlapping:
        raise ModelError(f"{config.name}: one class excludes no other", "activation sigmoid, or exclusive: false")
    strange = [label for label in config.labels if config.source(label) not in model.classes]
    if strange:
        raise ModelError(
            f"{config.name} has labels {', '.join(strange)}, which its card does not name",
            f"a source among {', '.join(model.classes)}",
        )
    if model.resize not in _WHOLE and (model.task == "segmentation" or model.resize not in _RESIZED):
        raise ModelError(f"resize_type {model.resize!r}", "crop, pad or none; for a classification also linear or area")
    config = config.model_copy(update={"channels": tuple(config.bands.get(band, band) for band in model.bands)})
    run, files = opener(folder, model.file)
    height, width = model.size
    card = settings.card_of(
        config,
        settings.version_of(folder, [written, item, *files]),
        summary=f"{model.architecture or model.name}: {model.summary or model.task}",
        licence=model.licence,
        data=model.data,
        accepts="one slice of any size" if height < 0 else f"one slice, read in windows of {height} x {width}",
    )
    return RasterExpert(config, card, model, run)
