"""Weights on disk: safetensors only, written at once or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fovea.errors import ModelError

WEIGHTS = "model.safetensors"


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file atomically; tensors that share memory are stored apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, partial)
    partial.replace(path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; raises ModelError when it is missing or damaged. Other formats are not read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path.name} cannot be read ({error})", "a whole safetensors file", "Train again, or copy it again."
        ) from None


def load_into(module: nn.Module, path: Path) -> None:
    """Load a module's weights; a missing, unknown or misshapen tensor raises ModelError naming it."""
    try:
        missing, unknown = module.load_state_dict(load_tensors(path), strict=False)
    except RuntimeError as error:
        raise ModelError(
            f"weights of another size: {str(error).splitlines()[-1].strip()}", "the sizes of the config"
        ) from None
    if missing or unknown:
        raise ModelError(
            f"weights that miss {missing[:3]} and hold unknown {unknown[:3]}", "exactly the model's tensors"
        )


def digest(module: nn.Module) -> str:
    """SHA-256 over names and values of all tensors, in order of name: the model's identity."""
    total = sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(data, indent=1))
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON; raises ModelError when it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read ({error})", "the JSON that was saved with the model") from None
