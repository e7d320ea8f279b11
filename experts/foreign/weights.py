"""Weights from outside: safetensors, or PyTorch files that are read without running anything."""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from experts.foreign.settings import FILE_LIMIT
from fovea.errors import LimitError, ModelError

_WRAPPERS = ("state_dict", "model", "network", "net", "model_state_dict")


def load(path: Path) -> dict[str, Tensor]:
    """Tensors by name from .safetensors, .pt, .pth or .bin; common wrappers and a "module." before are taken off.

    Only tensors and plain containers are read (`weights_only`); a file that holds a whole pickled network is refused
    with ModelError, as is TorchScript, which carries code.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix in (".ts", ".jit"):
        raise ModelError(
            "weights as TorchScript, which carries code", "safetensors, or a state dict saved by torch.save"
        )
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > FILE_LIMIT:
                    raise LimitError(f"weights that unpack to more than {FILE_LIMIT >> 30} GB", "smaller ones")
        data: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError, SafetensorError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"a file of weights that cannot be read safely ({type(error).__name__})",
            "safetensors, or a state dict of tensors saved by torch.save",
            "Where you trust its maker, load it elsewhere and save its state dict as safetensors.",
        ) from error
    return _unwrapped(data)


def _unwrapped(data: Any) -> dict[str, Tensor]:
    for _ in range(3):
        if isinstance(data, dict) and data and all(isinstance(value, Tensor) for value in data.values()):
            prefix = "module." if all(str(name).startswith("module.") for name in data) else ""
            return {str(name).removeprefix(prefix): value for name, value in data.items()}
        inner = [data[name] for name in _WRAPPERS if isinstance(data, dict) and isinstance(data.get(name), dict)]
        if not inner:
            break
        data = inner[0]
    raise ModelError("a file without a table of tensors", "a state dict, or one under 'state_dict' or 'model'")


def fill(network: torch.nn.Module, weights: dict[str, Tensor], name: str) -> torch.nn.Module:
    """The network with these weights, ready to infer; raises ModelError where names or shapes differ."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        own = network.state_dict()
        missing, strange = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
        shapes = sorted(key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape)
        raise ModelError(
            f"the weights of {name} do not fit its network: {len(missing)} missing, {len(strange)} unknown, "
            f"{len(shapes)} of another shape, {', '.join((missing + strange + shapes)[:3])} among them",
            "the weights that belong to the configuration",
        ) from error
    return network.eval().requires_grad_(False)
