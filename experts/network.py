"""What experts that are networks share: they are saved, opened, asked and remembered in the same way."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from experts.calibration import Calibration
from experts.preparation import Input, choose, prepare
from experts.settings import ExpertConfig
from experts.training import has_bfloat16
from fovea.config import parse
from fovea.errors import ConfigError, InputError, ModelError
from fovea.jsonable import from_json, to_json
from fovea.types import ExpertCard, Facts, Finding, Origin, Study

Output = TypeVar("Output")
_REMEMBERED = 4
"""Studies whose result an expert keeps, so that several questions about one cost one pass."""


class NetworkExpert(ABC, Generic[Output]):
    """A trained network with its recipe, calibration and card."""

    def __init__(
        self,
        config: ExpertConfig,
        calibrations: Mapping[str, Calibration],
        network: nn.Module,
        card: ExpertCard,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.calibrations, self.card = config, calibrations, card
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self._seen: OrderedDict[str, Output] = OrderedDict()
        self._lock = Lock()  # of what is remembered: a pool gives one expert to several threads

    def accepts(self, study: Study) -> bool:
        """Whether the modality is one of the card's and an image has the channels that the network reads."""
        return not isinstance(choose(self.config, study), str)

    def run(self, study: Study, argument: str) -> tuple[Finding, ...]:
        """A finding for each label of the argument; raises ExpertError for another argument or study."""
        return next(self.run_many([study], argument))

    def run_many(self, studies: Iterable[Study], argument: str, batch: int = 16) -> Iterator[tuple[Finding, ...]]:
        """The findings of each study in turn, the network reading `batch` of them at a time."""
        labels = self.card.asked(argument)
        remaining = iter(studies)
        while chunk := list(islice(remaining, batch)):
            for study, output in zip(chunk, self._recall(chunk), strict=True):
                by = Origin(self.card.name, self.card.version, study.digest)
                yield tuple(self.finding(label, output, by) for label in labels)

    def _recall(self, studies: list[Study]) -> list[Output]:
        """What the network says of each study, remembered or new."""
        with self._lock:
            known = {study.digest: self._seen[study.digest] for study in studies if study.digest in self._seen}
        new = {study.digest: study for study in studies if study.digest not in known}
        known |= dict(zip(new, self.outputs(new.values()), strict=True))
        with self._lock:
            for study in studies[-_REMEMBERED:]:
                self._seen[study.digest] = known[study.digest]
                self._seen.move_to_end(study.digest)
            while len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        return [known[study.digest] for study in studies]

    def looks(
        self, pairs: Iterable[tuple[Study, Facts]], batch: int = 16
    ) -> Iterator[tuple[tuple[Study, Facts], Output]]:
        """Studies of known truth with what the network says of them, in turn."""
        remaining = iter(pairs)
        while chunk := list(islice(remaining, batch)):
            yield from zip(chunk, self.outputs([study for study, _ in chunk]), strict=True)

    def outputs(self, studies: Iterable[Study]) -> list[Output]:
        """What the network says of each study, read in one batch; raises ExpertError."""
        inputs = [prepare(self.config, study) for study in studies]
        return [self.read(*pair) for pair in zip(inputs, self._forward(inputs), strict=True)] if inputs else []

    def _forward(self, inputs: list[Input]) -> Iterable[Tensor]:
        """The network's logits of each study, (label, …)."""
        arrays = [torch.from_numpy(seen.pixels) for seen in inputs]
        flat = [pixels.squeeze(1) if self.config.size[0] == 1 else pixels for pixels in arrays]
        if self.config.spacing is not None:  # pictures of any size
            return [self.logits(pixels[None])[0] for pixels in flat]
        return self.logits(torch.stack(flat))

    def logits(self, pixels: Tensor) -> Tensor:
        """What the network says of features (picture, feature, [slice,] row, column), float32 on the CPU."""
        fast = torch.autocast(self.device.type, torch.bfloat16, enabled=has_bfloat16(self.device))
        with torch.inference_mode(), fast:
            answer: Tensor = self.network(pixels.to(self.device))
        return answer.float().cpu()

    @abstractmethod
    def read(self, seen: Input, logits: Tensor) -> Output:
        """The network's answer to one study in the terms of the kind."""

    @abstractmethod
    def finding(self, label: str, output: Output, by: Origin) -> Finding:
        """What is said of one label."""


def card_of(config: ExpertConfig, network: nn.Module, digests: Sequence[str]) -> ExpertCard:
    """The card of a network trained on studies with these digests, as yet without version and performance."""
    slices, rows, columns = config.size
    channels = "the first channel" if "*" in config.channels else f"channels {', '.join(config.channels)}"
    limits = [f"{key} {' or '.join(values)}" for key, values in config.meta.items()]
    shape = f"{slices} x {rows} x {columns}" if slices > 1 else f"{rows} x {columns}"
    if config.spacing is not None:
        apart = " x ".join(f"{step:g}" for step in config.spacing[0 if slices > 1 else 1 :])
        shape = f"{apart} (mm, in a scene metres) in windows of {shape}"
    volume = f"{'a volume' if slices > 1 else 'one slice'}, read at {shape}"
    size = sum(weights.numel() for weights in network.parameters())
    return ExpertCard(
        name=config.name,
        version="",
        task=config.task,
        summary=f"{config.kind} in {'3-D' if slices > 1 else '2-D'} by a MONAI network of {size / 1e6:.2f} M weights",
        modalities=config.modalities,
        arguments=config.arguments,
        accepts="; ".join((", ".join(config.modalities), *limits, channels, volume)),
        licence=config.licence,
        data=f"{len(digests)} studies, digest {digest_of(digests)}",
    )


def digest_of(digests: Iterable[str]) -> str:
    """The first 12 digits of the SHA-256 over the digests of studies, whatever their order."""
    return sha256("\n".join(sorted(digests)).encode()).hexdigest()[:12]


def save(
    folder: Path, config: ExpertConfig, calibrations: Mapping[str, Calibration], network: nn.Module, card: ExpertCard
) -> ExpertCard:
    """Write config.json, calibration.json, weights.safetensors and card.json; returns the card with its version.

    The version is the first 12 digits of a SHA-256 over the other three files: whatever changes an answer changes it.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")
    _write(folder / "config.json", config.model_dump(mode="json"))
    _write(folder / "calibration.json", {label: to_json(item) for label, item in calibrations.items()})
    card = replace(card, version=_version(folder))
    _write(folder / "card.json", to_json(card))
    return card


def load(folder: Path | None, kind: str) -> tuple[ExpertConfig, dict[str, Calibration], dict[str, Tensor], ExpertCard]:
    """Read what `save` wrote; raises ModelError where files are missing, damaged or do not belong together."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if folder is None:
        raise ModelError(f"a {kind} expert without a folder", "the folder that its training wrote")
    try:
        config = parse(ExpertConfig, json.loads((folder / "config.json").read_text()))
        calibrations = {
            label: from_json(Calibration, item)
            for label, item in json.loads((folder / "calibration.json").read_text()).items()
        }
        card = from_json(ExpertCard, json.loads((folder / "card.json").read_text()))
        weights = load_file(folder / "weights.safetensors")
        version = _version(folder)
    except (OSError, ValueError, ConfigError, InputError, SafetensorError) as error:
        raise ModelError(f"the folder of a {kind} expert cannot be read: {error}", remedy="Train it again.") from error
    if config.kind != kind or card.version != version or set(calibrations) != set(config.labels):
        raise ModelError(
            f"the files of {card.name} do not belong together", "those that one training wrote", "Train it again."
        )
    return config, calibrations, weights, card


def fill(network: nn.Module, weights: Mapping[str, Tensor], name: str) -> nn.Module:
    """The network with these weights; raises ModelError where they do not fit."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"the weights of {name} do not fit its recipe", remedy="Train it again.") from error
    return network


def fused(network: nn.Module) -> nn.Module:
    """The network for inference alone, in place: in blocks of MONAI, batch normalisation becomes part of the
    convolution before it, and what is rectified is not copied."""
    network.eval()
    for block in network.modules():
        conv, after = getattr(block, "conv", None), getattr(block, "adn", nn.Identity())
        norm = getattr(after, "N", None)
        if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
            block.conv, after.N = nn.utils.fuse_conv_bn_eval(conv, norm), nn.Identity()
            if isinstance(rectifier := getattr(after, "A", None), nn.ReLU):
                rectifier.inplace = True
    return network


def _version(folder: Path) -> str:
    whole = sha256()
    for name in ("config.json", "calibration.json", "weights.safetensors"):
        whole.update((folder / name).read_bytes())
    return whole.hexdigest()[:12]


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n")
