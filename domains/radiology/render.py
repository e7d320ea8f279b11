"""Radiological studies drawn for model and person."""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow

from domains.radiology.vocabulary import PRESETS
from fovea.errors import InputError
from fovea.types import Bools, Bytes, Floats, Image, Panel, Picture, Study, View

_WINDOWS = {"soft tissue": (40.0, 400.0), "lung": (-600.0, 1500.0), "bone": (300.0, 1500.0)}
"""Centre and width in HU; CT is drawn in the first unless told otherwise."""
_STRETCHED = ("MR", "PT", "NM", "RTDOSE")
"""Modalities whose values have no scale of their own; what else is no measured map comes ready to be shown."""
_SAMPLES = 200_000


def render(study: Study, view: View) -> Picture:
    """A square of `view.size` pixels: one slice, or of a volume four evenly spaced ones, the last of the stack first.

    The aspect in mm is kept, the unused border and what is not valid are black, and shrinking averages. Raises
    InputError for an image, slice or preset that is not there, and where pixels cannot be read.
    """
    if view.preset not in PRESETS:
        raise InputError(f"preset {view.preset!r}", f"one of {', '.join(PRESETS)}")
    if not 0 <= view.image < len(study.images):
        raise InputError(f"image {view.image} of a study of {len(study.images)}", "the number of an image, from 0")
    image = study.images[view.image]
    count = image.grid.shape[0]
    if view.slice is not None and not 0 <= view.slice < count:
        raise InputError(f"slice {view.slice} of {count}", "the number of a slice, from 0")
    slices = [view.slice] if view.slice is not None else _spread(count)
    low, high = _range(image, study, view.preset)
    inverted = view.preset == "inverted"
    cell = view.size // (1 if len(slices) == 1 else 2)
    pixels, panels = np.zeros((view.size, view.size, 3), np.uint8), []
    for place, index in enumerate(slices):
        valid = image.valid[index]
        levels = _levels(image.pixels[:, index], valid, low, high)
        drawn = _fit(np.uint8(255) * valid[..., None] - levels if inverted else levels, image, cell)
        height, width = drawn.shape[:2]
        top = cell * (place // 2) + (cell - height) // 2
        left = cell * (place % 2) + (cell - width) // 2
        pixels[top : top + height, left : left + width] = drawn
        panels.append(Panel(view.image, index, (top, top + height), (left, left + width), image.grid.shape[1:]))
    return Picture(pixels, tuple(panels))


def _spread(count: int) -> list[int]:
    """Up to four indices spread evenly over a stack, the last first: head before feet in axial slices."""
    shown = min(count, 4)
    return [int((place + 0.5) * count / shown) for place in reversed(range(shown))]


def _range(image: Image, study: Study, preset: str) -> tuple[float, float]:
    """The values that are drawn black and white."""
    stored = _stored(study) if preset == "as stored" else None
    if image.channels[0].name == "HU":
        center, width = stored or _WINDOWS.get(preset, _WINDOWS["soft tissue"])
        return center - width / 2, center + width / 2
    if study.modality not in _STRETCHED and image.channels[0].name != "value":
        return 0.0, 1.0
    if stored:
        return stored[0] - stored[1] / 2, stored[0] + stored[1] / 2
    step = max(1, round((image.valid.size / _SAMPLES) ** 0.5))
    inside = image.pixels[0, :, ::step, ::step][image.valid[:, ::step, ::step]]
    low, high = np.percentile(inside, (0.5, 99.5)) if inside.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1


def _stored(study: Study) -> tuple[float, float] | None:
    """Centre and width of the first window that came with the study."""
    center, _, width = study.meta.get("windows", "").split(", ")[0].partition("/")
    return (float(center), float(width)) if width else None


def _levels(values: Floats, valid: Bools, low: float, high: float) -> Bytes:
    """uint8 (row, column, 1 or 3) of a slice (channel, row, column)."""
    levels = (values - np.float32(low)) * np.float32(255 / (high - low)) + np.float32(0.5)
    drawn = np.clip(levels, 0, 255).astype(np.uint8) * valid
    return np.moveaxis(drawn, 0, -1)


def _fit(drawn: Bytes, image: Image, cell: int) -> Bytes:
    """Resample to the largest size in mm proportion that fits into a square of `cell` pixels; RGB."""
    rows, columns, channels = drawn.shape
    height, width = rows * image.grid.spacing[1], columns * image.grid.spacing[2]
    scale = cell / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Pillow.fromarray(drawn[..., 0] if channels == 1 else drawn)
    shrinks = size[0] < columns or size[1] < rows
    method = Pillow.Resampling.BOX if shrinks else Pillow.Resampling.BICUBIC
    resized = np.asarray(picture.resize(size, method), np.uint8)
    return np.repeat(resized[..., None], 3, -1) if channels == 1 else resized
