"""Experts told to others: a STAC item with the Machine Learning Model extension (mlm) 1.5 for each.

Choices:

- The extension wants the model's file among the assets. It is not shipped with the item: the asset names it by its
  SHA-256 (RFC 6920), so that who has it can tell that it is the one.
- How a picture is prepared and how the network's answer is read cannot be told by a formula. The item names the
  functions, and says in words what they do.
- An item without geometry, over all time: the digest of the training studies tells no place.

Source: https://github.com/stac-extensions/mlm
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import file_digest
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from experts.detection import STRIDE, is_oriented
from experts.foreign import mlm
from experts.foreign.rasters import RasterExpert
from experts.network import NetworkExpert
from experts.preparation import n_features
from experts.settings import ExpertConfig
from fovea.contracts import Expert

_KINDS = {
    "segmentation": ("semantic-segmentation", "U-Net", "SegmentationExpert"),
    "classification": ("classification", "ResNet", "ClassificationExpert"),
    "detection": ("object-detection", "CenterNet", "DetectionExpert"),
}
"""Task and architecture of a network of each kind, and the class that reads its answer."""
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""How the names of tensors end that are no parameters."""


def describe(expert: Expert, folder: Path) -> dict[str, Any] | None:
    """The STAC item of an expert that was opened from a folder; None for one of which too little is known.

    The kinds segmentation, classification and detection are told, and torch_export and onnx by their own card.
    """
    card = expert.card
    if isinstance(expert, RasterExpert):
        told = mlm.properties(expert.model, card)
        return mlm.item(card, told, _asset(folder / expert.model.file, card.task))
    if not isinstance(expert, NetworkExpert) or expert.config.kind not in _KINDS:
        return None
    weights, config = folder / "weights.safetensors", expert.config
    task, architecture, _ = _KINDS[config.kind]
    bands = [{"name": name} for name in _bands(config)]
    told = ({"bands": bands} if bands else {}) | {
        "description": f"{card.task}. {card.summary}",
        "license": card.licence,
        "mlm:name": mlm.model_name(card.name),
        "mlm:architecture": architecture,
        "mlm:tasks": [task],
        "mlm:framework": "PyTorch",
        "mlm:total_parameters": _parameters(weights),
        "mlm:pretrained": False,
        "mlm:pretrained_source": None,
        "mlm:hyperparameters": config.training.model_dump(mode="json"),
        "mlm:input": [_input(config)],
        "mlm:output": [_output(config)],
    }
    return mlm.item(card, told, _asset(weights, card.task, "safetensors.torch.save_file"))


def _bands(config: ExpertConfig) -> tuple[str, ...]:
    """The channels by name; none where the first one is read, whatever its name."""
    return () if "*" in config.channels else config.channels


def _input(config: ExpertConfig) -> dict[str, Any]:
    low, high = config.low, config.high
    scaled = "its 1st to 99th percentile" if low is None or high is None else f"{low:g} to {high:g}"
    if config.spacing is None:
        read, features = "The whole picture at the size of the input", "and where in the picture each pixel lies"
    else:
        apart = " x ".join(f"{step:g}" for step in config.spacing)
        read, features = f"Windows at a spacing of {apart} (slice, row, column; mm, of a scene metres)", ""
    return {
        "name": "features",
        "description": f"{read}: each band, {scaled} as 0 to 1 and clipped, then its local detail {features}".strip(),
        "bands": list(_bands(config)),
        "input": _array(config, n_features(config), "channel"),
        "value_scaling": None if low is None else [{"type": "min-max", "minimum": low, "maximum": high}],
        "resize_type": None,
        "pre_processing_function": {"format": "python", "expression": "experts.preparation:prepare"},
    }


def _output(config: ExpertConfig) -> dict[str, Any]:
    task, _, reader = _KINDS[config.kind]
    labels = config.drawn if config.kind == "segmentation" else tuple(config.labels)
    result, described = _array(config, len(labels), "class"), "Logits of the classes"
    if config.kind == "classification":
        result |= {"shape": result["shape"][:2], "dim_order": result["dim_order"][:2]}
    elif config.kind == "detection":
        result = _array(config, len(labels) * (7 if is_oriented(config) else 5), "channel", STRIDE)
        described = "Logits of a centre of each class, then of each class how the box there lies and how large it is"
    elif config.exclusive:
        described += ", of which a pixel has one at most"
    return {
        "name": "logits",
        "description": described,
        "tasks": [task],
        "result": result,
        "classification:classes": [
            {"value": number, "name": label, "description": config.code(label).meaning}
            for number, label in enumerate(labels)
        ],
        "post_processing_function": {"format": "python", "expression": f"experts.{config.kind}:{reader}.read"},
    }


def _array(config: ExpertConfig, channels: int, name: str, stride: int = 1) -> dict[str, Any]:
    """The layout of what goes in or comes out; pictures that are drawn in windows have any size."""
    drawn = config.kind == "segmentation" and config.spacing is not None
    sides = config.size if config.size[0] > 1 else config.size[1:]
    return {
        "shape": [-1, channels, *(-1 if drawn else side // stride for side in sides)],
        "dim_order": ["batch", name, *("depth", "height", "width")[-len(sides) :]],
        "data_type": "float32",
    }


def _parameters(weights: Path) -> int:
    with safe_open(weights, "numpy") as file:
        names = [name for name in file.keys() if not name.endswith(_STATISTICS)]  # noqa: SIM118 -- not iterable
        return sum(prod(file.get_slice(name).get_shape()) for name in names)


def _asset(path: Path, title: str, artifact: str = "") -> dict[str, Any]:
    """The asset of a file that is named by its content."""
    with path.open("rb") as file:
        digest = file_digest(file, "sha256")
    name = urlsafe_b64encode(digest.digest()).decode().rstrip("=")
    return mlm.asset(f"ni:///sha-256;{name}", title, artifact or mlm.artifact(path.name)) | {
        "file:size": path.stat().st_size,
        "file:checksum": f"1220{digest.hexdigest()}",
    }
