"""ONNX networks with a model card, on the CPU.

The module is the kind `onnx` of the entry points `fovea.experts`; see `experts.foreign.rasters`.
"""

from __future__ import annotations

from pathlib import Path

from experts.foreign import programs
from experts.foreign.rasters import RasterExpert, open_with


def open(folder: Path | None) -> RasterExpert:
    """The expert of a folder; raises ModelError."""
    return open_with(folder, "onnx", programs.onnx)
