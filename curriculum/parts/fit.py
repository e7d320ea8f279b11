"""The one training loop, on accelerate: all four stages run through it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from curriculum.parts.checkpoint import load_checkpoint, save_checkpoint
from curriculum.parts.muon import Muon
from curriculum.parts.schedule import freeze_all_but, phase_at, rate
from curriculum.recipe import StageConfig
from fovea.progress import track

Objective = Callable[[nn.Module, int], Mapping[str, Tensor]]
"""A model and a step to named loss terms; their sum is minimised. The step alone decides which data are used."""
Log = Callable[[Mapping[str, float], int], None]

logger = logging.getLogger(__name__)


def precision() -> str:
    """bf16 where the processor has units for it, else full precision."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    cpu: Any = torch.cpu
    return "bf16" if cpu._is_amx_tile_supported() or cpu._is_avx512_bf16_supported() else "no"


def fit(
    model: nn.Module,
    objective: Objective,
    config: StageConfig,
    folder: Path,
    name: str,
    log: Log,
    resume: bool = False,
    stop_after: int | None = None,
) -> None:
    """Train `model` in place for `config.steps` steps.

    A checkpoint is written to `folder`/checkpoint every `config.checkpoint` steps; with `resume` the run goes on
    from it, and ends with the weights of an uninterrupted run, bit for bit on CPU. `stop_after` ends early, with a
    checkpoint, as an interruption would.
    """
    accelerator = Accelerator(mixed_precision=precision(), cpu=not torch.cuda.is_available())
    freeze_all_but(model, sorted({prefix for phase in config.phases or () for prefix in phase.train}))
    optimizers = _optimizers(model, config)
    checkpoint = folder / "checkpoint"
    start = load_checkpoint(checkpoint, model, optimizers) if resume and checkpoint.is_dir() else 0
    wrapped, *optimizers = accelerator.prepare(model, *optimizers)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    phase, began = None, time.monotonic()
    for step in track(range(start, config.steps), name, config.steps - start):
        if (current := phase_at(step, config)) is not phase:
            phase = current
            freeze_all_but(model, phase.train)
        for optimizer, groups in zip(optimizers, peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = peak * rate(step, config)
        with accelerator.autocast():
            terms = objective(wrapped, step)
        loss = torch.stack(list(terms.values())).sum()
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], config.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if done % 10 == 0 or done == config.steps:
            values = {key: float(term.detach()) for key, term in terms.items()}
            values |= {"grad_norm": float(norm), "lr_share": rate(step, config), "seconds": time.monotonic() - began}
            log(values, done)
        last = done == config.steps or done == stop_after
        if accelerator.is_main_process and (last or done % (config.checkpoint or config.steps) == 0):
            save_checkpoint(checkpoint, accelerator.unwrap_model(wrapped), [_plain(o) for o in optimizers], done)
        if done == stop_after:
            break
    model.eval()


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def _optimizers(model: nn.Module, config: StageConfig) -> list[torch.optim.Optimizer]:
    """AdamW with decay on matrices only; with `muon`, the hidden matrices of transformers go to Muon."""
    lr, decay = config.lr or 0.0, config.weight_decay or 0.0
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    hidden = [
        p for n, p in trained if config.optimizer == "muon" and p.ndim == 2 and "layers." in n and "embed" not in n
    ]
    taken = {id(p) for p in hidden}
    rest = [p for _, p in trained if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))]
    if hidden:
        found.append(Muon(hidden, lr=lr, weight_decay=decay))
    return found
