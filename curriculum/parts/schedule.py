"""What changes with the step: the learning rate, and which parameters are trained."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from curriculum.recipe import Phase, StageConfig
from fovea.errors import ConfigError


def rate(step: int, config: StageConfig) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then cosine to a tenth."""
    warm = max(1, round((config.warmup or 0) * config.steps))
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, config.steps - warm)))


def phase_at(step: int, config: StageConfig) -> Phase:
    """The phase that a step belongs to, by the shares in order; the last one takes what is left."""
    phases: Sequence[Phase] = config.phases or ()
    reached = 0.0
    for phase in phases:
        reached += phase.share * config.steps
        if step < reached:
            return phase
    return phases[-1]


def freeze_all_but(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Let only parameters under `prefixes` learn; a child module without any is put in evaluation mode.

    Raises ConfigError when a prefix names nothing.
    """
    for prefix in prefixes:
        if not any(_under(name, prefix) for name, _ in model.named_parameters()):
            known = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(f"train: {prefix!r} names no parameter", f"a prefix such as {known}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(_under(name, prefix) for prefix in prefixes))
    for child in model.children():
        child.train(any(parameter.requires_grad for parameter in child.parameters()))


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")
