"""Checkpoints of a running stage: weights, optimizer and step, in safetensors and JSON, replaced at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.weights import WEIGHTS, load_into, load_tensors, read_json, save_tensors, write_json


def save_checkpoint(folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    """Write `folder` whole, or leave the one that is there."""
    partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    save_tensors(model.state_dict(), partial / WEIGHTS)
    tensors: dict[str, Tensor] = {}
    plain: list[Any] = []
    for number, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        scalars: dict[str, Any] = {}
        for index, values in state["state"].items():
            for name, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"{number}/{index}/{name}"] = value
                else:
                    scalars[f"{index}/{name}"] = value
        plain.append(scalars)
    save_tensors(tensors, partial / "optimizer.safetensors")
    write_json(partial / "state.json", {"step": step, "scalars": plain})
    if folder.exists():
        folder.replace(old)
    partial.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> int:
    """Restore in place; the number of steps that are done. Raises ModelError on a damaged checkpoint."""
    load_into(model, folder / WEIGHTS)
    saved = read_json(folder / "state.json")
    states: list[dict[int, dict[str, Any]]] = [{} for _ in optimizers]
    for key, tensor in load_tensors(folder / "optimizer.safetensors").items():
        which, place, name = key.split("/")
        states[int(which)].setdefault(int(place), {})[name] = tensor
    for number, scalars in enumerate(saved["scalars"]):
        for key, value in scalars.items():
            place, name = key.split("/")
            states[number].setdefault(int(place), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(saved["step"])
