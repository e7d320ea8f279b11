"""Image towers: anything that turns pixels into a grid of tokens, behind one form.

A tower is named by a string: `openclip:FOLDER|NAME`, `timm:NAME`, `hf:FOLDER|NAME`. What it was built from is kept as
a description, so that a saved model can be rebuilt without the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import open_clip
import timm
import timm.data as timm_data
import torch
from torch import Tensor, nn

from fovea.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Features:
    """What a tower sees: tokens (batch, token, channel) of a grid (rows, columns), maps from fine to coarse
    (batch, channel, row, column), and one vector for the image (batch, channel)."""

    tokens: Tensor
    grid: tuple[int, int]
    pyramid: tuple[Tensor, ...]
    pooled: Tensor


class ImageTower(nn.Module):
    """A backbone with its preprocessing. Input is uint8 (batch, row, column, 3) at `image_size`."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.description = dict(description)
        self.image_size = int(description["image_size"])
        self._maps: Callable[[Tensor], list[Tensor]] = _MAPS[description["kind"]](backbone)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(description[name]).view(1, 3, 1, 1) * 255, persistent=False)
        with torch.no_grad():
            backbone.eval()
            last = self._maps(torch.zeros(1, 3, self.image_size, self.image_size))[-1]
        self.channels, self.grid = int(last.shape[1]), (int(last.shape[2]), int(last.shape[3]))

    def normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (batch, row, column, 3) to normalised float (batch, 3, row, column)."""
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std

    def forward(self, pixels: Tensor) -> Features:
        maps = self._maps(self.normalize(pixels))
        last = maps[-1]
        tokens = last.flatten(2).transpose(1, 2)  # (batch, token, channel), row by row
        return Features(tokens, (last.shape[2], last.shape[3]), tuple(maps), tokens.mean(1))


def build_tower(reference: str) -> ImageTower:
    """A tower from its name with pretrained weights where the name points at some; raises ModelError."""
    kind, _, name = reference.partition(":")
    if kind not in _OPEN or not name:
        raise ConfigError(
            f"tower {reference!r}", "openclip:FOLDER, timm:NAME or hf:FOLDER, or a hub name in place of the folder"
        )
    try:
        return _OPEN[kind](name)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"tower {reference!r} cannot be opened ({error})", "a folder or name of pretrained weights"
        ) from None


def rebuild_tower(description: Mapping[str, Any]) -> ImageTower:
    """A tower of the described architecture with fresh weights."""
    return ImageTower(_REBUILD[description["kind"]](description), description)


def _open_openclip(name: str) -> ImageTower:
    from models.clip.model import ContrastiveModel

    model = ContrastiveModel.open(name)
    visual: Any = model.clip.visual
    return ImageTower(
        visual,
        {
            "kind": "openclip",
            "config": {key: model.config["model_cfg"].get(key) for key in ("embed_dim", "vision_cfg", "quick_gelu")},
            "image_size": model.image_size,
            "mean": list(visual.image_mean),
            "std": list(visual.image_std),
        },
    )


def _rebuild_openclip(description: Mapping[str, Any]) -> nn.Module:
    config = {key: value for key, value in description["config"].items() if value is not None}
    tiny = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}  # only the vision tower is kept
    visual: nn.Module = open_clip.CLIP(text_cfg=tiny, **config).visual
    return visual


def _open_timm(name: str) -> ImageTower:
    backbone = timm.create_model(name, pretrained=":" in name or "/" in name, num_classes=0)
    data = timm_data.resolve_model_data_config(backbone)  # type: ignore[no-untyped-call,attr-defined]
    return ImageTower(
        backbone,
        {
            "kind": "timm",
            "config": {"model_name": getattr(backbone, "pretrained_cfg", {}).get("architecture") or name},
            "image_size": data["input_size"][-1],
            "mean": list(data["mean"]),
            "std": list(data["std"]),
        },
    )


def _rebuild_timm(description: Mapping[str, Any]) -> nn.Module:
    backbone: nn.Module = timm.create_model(description["config"]["model_name"], pretrained=False, num_classes=0)
    return backbone


def _open_hf(name: str) -> ImageTower:
    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(name)
    backbone = getattr(model, "vision_model", model)
    processor = AutoImageProcessor.from_pretrained(name)  # type: ignore[no-untyped-call]
    return ImageTower(
        backbone,
        {
            "kind": "hf",
            "config": backbone.config.to_dict(),
            "image_size": backbone.config.image_size,
            "mean": list(processor.image_mean),
            "std": list(processor.image_std),
        },
    )


def _rebuild_hf(description: Mapping[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    config = dict(description["config"])
    model: Any = AutoModel.from_config(  # type: ignore[no-untyped-call]
        AutoConfig.for_model(config.pop("model_type"), **config)
    )
    backbone: nn.Module = getattr(model, "vision_model", model)
    return backbone


def _intermediate_maps(backbone: Any) -> Callable[[Tensor], list[Tensor]]:
    def maps(pixels: Tensor) -> list[Tensor]:
        out = backbone.forward_intermediates(pixels, intermediates_only=True, output_fmt="NCHW")
        return list(out["image_intermediates"] if isinstance(out, dict) else out)

    return maps


def _hf_maps(backbone: Any) -> Callable[[Tensor], list[Tensor]]:
    def maps(pixels: Tensor) -> list[Tensor]:
        hidden = backbone(pixels, output_hidden_states=True).hidden_states
        rows = backbone.config.image_size // backbone.config.patch_size
        return [h[:, -rows * rows :].transpose(1, 2).unflatten(2, (rows, rows)) for h in hidden]

    return maps


_OPEN: dict[str, Callable[[str], ImageTower]] = {"openclip": _open_openclip, "timm": _open_timm, "hf": _open_hf}
_REBUILD: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "openclip": _rebuild_openclip,
    "timm": _rebuild_timm,
    "hf": _rebuild_hf,
}
_MAPS: dict[str, Callable[[Any], Callable[[Tensor], list[Tensor]]]] = {
    "openclip": _intermediate_maps,
    "timm": _intermediate_maps,
    "hf": _hf_maps,
}
