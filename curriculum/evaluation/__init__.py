"""How good a model is on studies that it never saw."""

from curriculum.evaluation.arms import evaluate
from curriculum.evaluation.table import Row

__all__ = ["Row", "evaluate"]
