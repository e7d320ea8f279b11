"""Segmentation networks in MONAI bundles: the folder as it was published, with `expert.json` beside it.

The module is the kind `monai_bundle` of the entry points `fovea.experts`. The image goes through the bundle's own
transforms in their order (`experts.foreign.bundle_config` tells which), the network slides over it, and probabilities
are brought back to the study's grid by MONAI's inverse of the transforms before anything is drawn or measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from experts import measure
from experts.foreign import bundle_config, settings, weights
from experts.foreign.answers import UNDRAWN, Drawing, ForeignExpert, Place, mean_of, pixels, rival
from experts.foreign.bundle_config import Plan
from fovea.errors import ExpertError, ModelError
from fovea.types import LPS, Bools, ExpertCard, Finding, Floats, Grid, Origin, Study

PROMPTS = 16
"""Classes that a network is told at a time: each costs a map of the whole volume."""
_WEIGHTS = ("models/model.safetensors", "models/model.pt")
Drawn = tuple[dict[str, Bools], dict[str, float], dict[str, Floats]]
"""Masks, probabilities, and maps of the labels whose objects are told apart."""
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class BundleConfig(settings.ForeignConfig):
    """A bundle: labels name output channels of its metadata, or for VISTA3D its classes."""

    weights: str = ""
    """File of weights inside the folder; left out, models/model.safetensors or models/model.pt."""
    leave_out: tuple[str, ...] = ()
    """Places of the configuration that are not needed here, such as postprocessing#3."""
    windows: int = Field(default=1, ge=1, le=64)
    """Windows that the network reads at a time."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the network reads of a study, and the way back."""

    chain: Any
    image: Any  # MetaTensor (channel, column, row, slice)

    def coarseness(self, grid: Grid) -> float:
        """How many pixels of the grid one of the network covers along an axis, in the mean."""
        ratio = abs(np.linalg.det(np.asarray(self.image.affine)) / np.linalg.det(grid.affine))
        return float(max(1.0, ratio ** (1 / 3)))

    def back(self, map_: Tensor) -> Floats:
        """A map on the network's grid (column, row, slice) on the study's, (slice, row, column)."""
        from monai.data.meta_tensor import MetaTensor

        moved = MetaTensor(
            map_[None].float(),
            affine=self.image.affine,
            meta=deepcopy(self.image.meta),
            applied_operations=deepcopy(self.image.applied_operations),
        )
        out = self.chain.inverse({"image": moved})["image"][0]
        return np.ascontiguousarray(np.asarray(out, np.float32).transpose(2, 1, 0))


class BundleExpert(ForeignExpert):
    """Draws with a bundle's network, and measures what it drew as our own experts do."""

    volumes = True

    def __init__(
        self, config: BundleConfig, card: ExpertCard, plan: Plan, network: nn.Module, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(config, card)
        self.plan, self.device = plan, torch.device(device)
        self.windows = config.windows
        self.network = network.to(self.device)
        numbers = {name.lower(): number for number, name in plan.channels.items()}
        self.numbers = {label: numbers[config.source(label).lower()] for label in config.labels}

    def look(self, study: Study, found: Sequence[Place], argument: str, by: Origin) -> Mapping[str, Finding]:
        """Findings of all labels, of a network that is told its classes only of those asked for."""
        labels = self.card.arguments[argument] if self.plan.prompted else self.card.labels
        image = found[0][0]
        grid = study.images[image].grid
        if grid.frame != LPS:
            raise ExpertError(f"{self.card.name} needs to know how the volume lies in the patient", "a grid in LPS mm")
        values, valid = pixels(study, found)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI's notes on its own future
            try:
                seen = self._prepare(values, valid, grid)
                drawn = self._draw_all(seen, labels, valid)
            except (RuntimeError, ValueError, IndexError) as error:
                raise self.failed(error) from error
        masks, shares, maps = drawn
        unit = study.images[image].channels[found[0][1]].unit
        drawing = Drawing(masks, shares, grid, image, valid, seen.coarseness(grid), maps, values[0], unit)
        return {label: drawing.finding(self, label, by) for label in labels}

    def _prepare(self, values: Floats, valid: Bools, grid: Grid) -> _Seen:
        """The bundle's own transforms on the image in MONAI's order of axes, with the affine in RAS."""
        from monai import transforms
        from monai.data.meta_tensor import MetaTensor
        from monai.transforms.compose import Compose

        lowest = values[:, valid].min(axis=1)
        filled = np.where(valid, values, lowest[:, None, None, None]).transpose(0, 3, 2, 1)
        steps = []
        for name, given in self.plan.transforms:
            options = dict(given)
            if name == "CropForeground":
                options["source_key"] = "image"
            steps.append(getattr(transforms, f"{name}d")(keys="image", **options))
        chain = Compose(steps)
        tensor = MetaTensor(
            torch.from_numpy(np.ascontiguousarray(filled)), affine=torch.from_numpy(_TO_RAS @ grid.affine)
        )
        return _Seen(chain, chain({"image": tensor})["image"])

    def _forward(self, image: Tensor, classes: Sequence[int]) -> Tensor:
        """Logits (channel, column, row, slice): of the network's channels, or of the classes it is told."""
        from monai.inferers.inferer import SlidingWindowInferer

        options: dict[str, Any] = {}
        if self.plan.prompted:
            prompt = torch.tensor(classes, device=self.device)[:, None]
            options = {"class_vector": prompt, "transpose": True}

        def predict(window: Tensor, **given: Any) -> Any:
            answer = self.network(window, **given)
            return answer[0] if isinstance(answer, (list, tuple)) else answer

        batch = image.as_subclass(Tensor)[None].float().to(self.device)
        with torch.inference_mode():
            if self.plan.inferer is None:
                answer: Any = predict(batch, **options)
            else:
                many = 1 if self.plan.prompted else self.windows
                answer = SlidingWindowInferer(sw_batch_size=many, device="cpu", **self.plan.inferer)(
                    batch, predict, **options
                )
        drawn: Tensor = answer[0].float().cpu()
        return drawn

    def _draw_all(self, seen: _Seen, labels: Sequence[str], valid: Bools) -> Drawn:
        """What `_draw` draws, of a network that is told its classes some of them at a time."""
        size = PROMPTS if self.plan.prompted else len(labels)
        parts = [self._draw(seen, labels[start : start + size], valid) for start in range(0, len(labels), size)]
        masks, shares, maps = parts[0]
        for more in parts[1:]:
            masks, shares, maps = masks | more[0], shares | more[1], maps | more[2]
        return masks, shares, maps

    def _draw(self, seen: _Seen, labels: Sequence[str], valid: Bools) -> Drawn:
        classes = [self.numbers[label] for label in labels]
        logits = self._forward(seen.image, classes)
        if not self.plan.prompted and len(logits) <= max(classes):
            raise ValueError("fewer channels than the metadata names")
        rows = range(len(classes)) if self.plan.prompted else classes
        if self.plan.answer == "softmax":
            return self._exclusive(seen, torch.softmax(logits, 0), labels, valid)
        masks, shares, maps = {}, {}, {}
        for label, row in zip(labels, rows, strict=True):
            likely = seen.back(torch.sigmoid(logits[row])) * valid
            wanted = self.config.labels[label]
            cut = wanted.cut if "cut" in wanted.model_fields_set else self.plan.threshold
            masks[label] = self._cleaned(label, likely >= cut)
            shares[label] = mean_of(likely, masks[label])
            if wanted.objects:
                maps[label] = likely
        return masks, shares, maps

    def _exclusive(self, seen: _Seen, shares: Tensor, labels: Sequence[str], valid: Bools) -> Drawn:
        """Each pixel to its likeliest channel; one channel at a time is held on the study's grid."""
        best, second = np.zeros(valid.shape, np.float32), np.zeros(valid.shape, np.float32)
        winner = np.full(valid.shape, -1, np.int16)
        kept = {self.numbers[label]: label for label in labels if self.config.labels[label].objects}
        maps = {}
        for number, map_ in enumerate(shares):
            likely = seen.back(map_)
            better = likely > best
            second = np.where(better, best, np.maximum(second, likely))
            best[better], winner[better] = likely[better], number
            if number in kept:
                maps[kept[number]] = likely
        for label, likely in maps.items():
            other = np.where(winner == self.numbers[label], second, best)
            maps[label] = rival(likely, other) * valid
        masks = {label: self._cleaned(label, (winner == self.numbers[label]) & valid) for label in labels}
        certain, said = rival(best, second), {}
        for label, mask in masks.items():
            one = shares[self.numbers[label]]
            others = torch.cat((shares[: self.numbers[label]], shares[self.numbers[label] + 1 :])).amax(0)
            peak = float((one / (one + others)).max())
            said[label] = float(certain[mask].mean()) if mask.any() else min(peak, UNDRAWN)
        return masks, said, maps

    def _cleaned(self, label: str, mask: Bools) -> Bools:
        mask = measure.without_specks(mask, self.config.labels[label].smallest)
        return measure.largest(mask) if self.numbers[label] in self.plan.largest else mask


def open(folder: Path | None) -> BundleExpert:
    """The expert of a bundle's folder; raises ModelError for what is missing, not understood, or does not fit."""
    config, written = settings.read(folder, BundleConfig, "monai_bundle")
    folder = written.parent
    plan = bundle_config.read(folder, config.leave_out)
    file = next(_files(folder, config.weights), None)
    if file is None:
        raise ModelError(
            "a bundle without weights that can be read safely", " or ".join(_WEIGHTS), "TorchScript (.ts) is not run."
        )
    names = {name.lower() for name in plan.channels.values()}
    strange = [label for label in config.labels if config.source(label).lower() not in names]
    if strange:
        raise ModelError(
            f"{config.name} has labels {', '.join(strange)}, which the bundle does not name",
            f"a source among {', '.join(list(plan.channels.values())[:20])}",
        )
    inputs = plan.options.get("in_channels", 1)
    if len(config.channels) != inputs:
        raise ModelError(
            f"{config.name} names {len(config.channels)} channels", f"the {inputs} of the network, in order"
        )
    network = weights.fill(plan.build(), weights.load(file), config.name)
    configs = [path for path in (folder / "configs").glob("*") if path.stem in ("inference", "metadata")]
    said = plan.metadata
    card = settings.card_of(
        config,
        settings.version_of(folder, [written, file, *configs]),
        summary=f"MONAI bundle {said.get('version', '')} with {plan.network}: {said.get('description', '')}",
        licence=str(said.get("license") or said.get("copyright") or ""),
        data=str(said.get("data_source") or ""),
        accepts="a volume in a patient",
    )
    return BundleExpert(config, card, plan, network)


def _files(folder: Path, named: str) -> Iterator[Path]:
    """The file of weights that is named, or those that a bundle usually has."""
    for name in (named,) if named else _WEIGHTS:
        if named or (folder / name).is_file():
            yield settings.inside(folder, name)
