"""Networks saved by `torch.export.save` (.pt2), with a model card.

The module is the kind `torch_export` of the entry points `fovea.experts`; see `experts.foreign.rasters`.
"""

from __future__ import annotations

from pathlib import Path

from experts.foreign import programs
from experts.foreign.rasters import RasterExpert, open_with


def open(folder: Path | None) -> RasterExpert:
    """The expert of a folder; raises ModelError, for files that would run code among others."""
    return open_with(folder, "torch_export", programs.exported)
