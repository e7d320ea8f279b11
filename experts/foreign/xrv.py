"""Chest X-ray classifiers of TorchXRayVision from a local file of weights.

The module is the kind `torchxrayvision` of the entry points `fovea.experts`. Nothing is downloaded. The picture is
scaled to [-1024, 1024], its middle square is cut out and resized, and the probabilities are put on a scale on which the
published operating point is 0.5 (Cohen et al. 2022, "TorchXRayVision: A library of chest X-ray datasets and models").
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from experts.foreign import settings, weights
from experts.foreign.answers import ForeignExpert, Place, pixels
from fovea.errors import ExpertError, ModelError
from fovea.types import ExpertCard, Finding, Origin, Study


class XrvConfig(settings.ForeignConfig):
    """A TorchXRayVision model: labels name its pathologies."""

    model: str
    """Its name there, such as densenet121-res224-all or resnet50-res512-all: pathologies, size and operating points."""
    weights: str = "model.safetensors"
    """File of weights inside the folder: the state dict of that model."""
    low: float | Literal["least"] = 0.0
    """The pixel value that the network sees as -1024: 0 for radiographs as displayed, or the least of each picture."""
    high: float | Literal["greatest"] = 1.0
    """The pixel value that it sees as 1024: 1 for radiographs as displayed, or the greatest of each picture. Values
    beyond a range that is named are refused."""


class XrvExpert(ForeignExpert):
    """Says which pathologies are there, without saying where."""

    volumes = False

    def __init__(
        self,
        config: XrvConfig,
        card: ExpertCard,
        network: nn.Module,
        pathologies: Sequence[str],
        points: Tensor,
        side: int,
    ) -> None:
        super().__init__(config, card)
        self.low, self.high = config.low, config.high
        self.network, self.pathologies, self.points, self.side = network, tuple(pathologies), points, side

    def look(self, study: Study, found: Sequence[Place], argument: str, by: Origin) -> Mapping[str, Finding]:  # noqa: ARG002
        """Findings of all labels."""
        shares = self.probabilities(self.prepare(study, found))
        return {
            label: self.named(label, shares[self.config.source(label)], by, found[0][0]) for label in self.card.labels
        }

    def prepare(self, study: Study, found: Sequence[Place]) -> Tensor:
        """The middle square in the network's size, float32 (1, 1, side, side) in [-1024, 1024]; -1024 without data."""
        values, valid = pixels(study, found[:1])
        picture, there = values[0, 0], valid[0]
        low = float(picture[there].min()) if self.low == "least" else self.low
        high = float(picture[there].max()) if self.high == "greatest" else self.high
        if high <= low:
            raise ExpertError(f"{self.card.name} cannot answer: the picture is of one value")
        shares = np.where(there, (picture - low) / (high - low), 0)
        if shares.min() < -1e-3 or shares.max() > 1 + 1e-3:
            raise ExpertError(
                f"{self.card.name} was given other values", f"{low:g} to {high:g}, or another low and high"
            )
        scaled = (np.clip(shares, 0, 1) * 2 - 1) * 1024
        rows, columns = scaled.shape
        square = min(rows, columns)
        top, left = rows // 2 - square // 2, columns // 2 - square // 2
        cut = torch.from_numpy(scaled[top : top + square, left : left + square].astype(np.float32))[None, None]
        return nn.functional.interpolate(cut, (self.side, self.side), mode="bilinear", antialias=True)

    def probabilities(self, picture: Tensor) -> dict[str, float]:
        """The probability of each pathology, 0.5 at its operating point."""
        library = _library()
        with torch.inference_mode(), redirect_stdout(io.StringIO()):
            shares = torch.sigmoid(self.network(picture))
            shares = torch.where(torch.isnan(self.points), shares, library.op_norm(shares, self.points))
        return {name: float(share) for name, share in zip(self.pathologies, shares[0], strict=True) if name}


def open(folder: Path | None) -> XrvExpert:
    """The expert of a folder with `expert.json` and weights; raises ModelError."""
    config, written = settings.read(folder, XrvConfig, "torchxrayvision")
    folder = written.parent
    library = _library()
    published = library.model_urls.get(config.model)
    if published is None:
        raise ModelError(
            f"TorchXRayVision has no model {config.model!r}", f"one of {', '.join(sorted(library.model_urls))}"
        )
    names: list[str] = published["labels"]
    strange = [label for label in config.labels if config.source(label) not in names]
    if strange:
        raise ModelError(
            f"{config.name} has labels {', '.join(strange)}, which {config.model} does not name",
            f"a source among {', '.join(name for name in names if name)}",
        )
    file = settings.inside(folder, config.weights)
    table = {name.removeprefix("model."): tensor for name, tensor in weights.load(file).items()}
    points = table.pop("op_threshs", torch.tensor(published["op_threshs"]))
    if points.shape != (len(names),):
        raise ModelError(f"{config.name}: {len(points)} operating points", f"{len(names)}, one a pathology")
    network = weights.fill(_network(library, config.model, len(names)), table, config.name)
    side = int(published["input_resolution"])
    card = settings.card_of(
        config,
        settings.version_of(folder, [written, file]),
        summary=f"TorchXRayVision {config.model}: a probability for each of {len(config.labels)} pathologies",
        data=str(published.get("description", "")),
        accepts=f"one slice, read at {side} x {side}",
    )
    return XrvExpert(config, card, network, names, points, side)


def _network(library: Any, model: str, labels: int) -> nn.Module:
    """The architecture without weights."""
    if model.startswith("resnet50"):
        from torchvision.models import resnet50  # type: ignore[import-untyped]

        network: nn.Module = resnet50(weights=None, num_classes=labels)
        network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        return network
    made: nn.Module = library.DenseNet(num_classes=labels, weights=None)
    return made


def _library() -> Any:
    """The models of TorchXRayVision; importing it would silence all warnings of the process, so they are put back."""
    with warnings.catch_warnings():
        try:
            from torchxrayvision import models
        except ImportError as error:
            raise ModelError("a TorchXRayVision model without its package", remedy="Install fovea[xrv].") from error
    return models
