"""Scenes as pictures: band combinations by name, a robust stretch, and NDVI in fixed colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fovea.errors import InputError, UnsupportedError
from fovea.types import Bools, Bytes, Floats, Image, Panel, Picture, Study, View

PRESETS = ("true colour", "false colour", "ndvi", "single band")
"""Red, green, blue; near infrared, red, green; vegetation index; the first band in grey."""

_LEAST_SPAN = 0.08
"""The least reflectance that a stretch spreads from black to white."""
_WHITE = 0.35
"""Reflectance that may be drawn white, so that clouds do not darken the land; more where the land is brighter."""
_GAMMA = 0.65
"""Exponent that brings linear light to a screen."""
_SAMPLED = 20_000
"""Pixels that a stretch is measured on."""
_DECIBELS = (-25.0, 0.0)
"""Sigma nought from black to white: calm water lies near the first, towns near the second."""
_INDEX_COLORS = (
    (-0.3, (40, 60, 130)), (0.0, (165, 120, 80)), (0.2, (235, 220, 160)), (0.5, (120, 190, 70)), (0.9, (0, 80, 20)),
)  # fmt: skip
"""Colours of the vegetation index, between which the others are mixed."""


def render(study: Study, view: View) -> Picture:
    """One image of the study by a preset, reduced to `view.size`; pixels without data and the border are black.

    Only the reduced picture is read. "true colour" of a scene without bands of those names shows its first three
    bands, or the first one in grey; the others need their bands and raise UnsupportedError without them. A map of
    classes keeps its colours.
    """
    preset = PRESETS[0] if view.preset == "default" else view.preset
    if preset not in PRESETS:
        raise InputError(f"preset {view.preset!r}", f"one of {', '.join(PRESETS)}")
    if not 0 <= view.image < len(study.images):
        raise InputError(f"image {view.image}", f"0 to {len(study.images) - 1}")
    if view.size < 1:
        raise InputError(f"a picture of {view.size} pixels", "at least 1")
    image = study.images[view.image]
    rows, columns = image.grid.shape[1:]
    scale = view.size / max(rows, columns)
    shape = max(1, round(rows * scale)), max(1, round(columns * scale))
    bands = _bands(image, preset)
    values, valid = image.read(None, shape)
    values, valid = values[bands, 0], valid[0]
    if preset == "ndvi":
        drawn = _index(values)
    elif study.modality == "classes" and len(bands) == 3:
        drawn = np.moveaxis(values.clip(0, 255).astype(np.uint8), 0, -1)
    else:
        drawn = _stretched(values, valid, image.channels[bands[0]].unit)
    pixels = np.zeros((view.size, view.size, 3), np.uint8)
    top, left = (view.size - shape[0]) // 2, (view.size - shape[1]) // 2
    panel = Panel(view.image, 0, (top, top + shape[0]), (left, left + shape[1]), (rows, columns))
    pixels[slice(*panel.rows), slice(*panel.columns)] = np.where(valid[..., None], drawn, np.uint8(0))
    return Picture(pixels, (panel,))


def _bands(image: Image, preset: str) -> list[int]:
    """The channels that a preset shows."""
    names = [channel.name for channel in image.channels]
    if preset == "single band":
        return [0]
    wanted = {"true colour": ("red", "green", "blue"), "false colour": ("nir", "red", "green"), "ndvi": ("nir", "red")}
    near = {"nir": ("nir", "nir08")}
    found = [next((names.index(n) for n in near.get(name, (name,)) if n in names), None) for name in wanted[preset]]
    bands = [index for index in found if index is not None]
    if len(bands) == len(found):
        return bands
    if preset == "true colour":
        return [0, 1, 2] if len(names) >= 3 else [0]
    raise UnsupportedError(
        f"{preset} of a scene of bands {', '.join(names[:12])}",
        f"bands {', '.join(wanted[preset])}",
        "Take true colour",
    )


def _stretched(values: Floats, valid: Bools, unit: str) -> Bytes:
    """From 2 % to 98 % of the valid pixels, uint8 (row, column, 3).

    Each channel starts at its own low end, which takes off haze; all share the widest channel's span, so that
    colours keep their relation. A scene without contrast is not blown up to noise, but drawn grey. Reflectance and
    digital numbers above 255 are linear in light and get a gamma; those up to 255 are taken to be made for a screen.
    Sigma nought of a radar is drawn in decibels, between fixed ends, so that two scenes compare.
    """
    if unit == "sigma0":
        return _shaded(values)
    sample = values[:, valid]
    sample = sample[:, :: max(1, sample.shape[1] // _SAMPLED)]
    if not sample.size:
        return np.zeros((*valid.shape, 3), np.uint8)
    low, middle, high = np.percentile(sample, (2, 50, 98), axis=1).astype(np.float32)
    top = float(abs(high).max())
    if unit == "reflectance":
        high = np.minimum(high, max(_WHITE, 1.6 * float(middle.max())))
    least = _LEAST_SPAN if unit == "reflectance" else 0.25 * top
    width = float((high - low).max())
    span = max(width, least, 1e-6)
    low = np.maximum(low - np.float32((span - width) / 2), np.minimum(low, 0))
    shown = ((values - low[:, None, None]) * np.float32(1 / span)).clip(0, 1)
    if unit == "reflectance" or (unit == "digital number" and top > 255):
        shown **= np.float32(_GAMMA)
    return _screen(shown)


def _shaded(power: Floats) -> Bytes:
    """Power in decibels from the first of `_DECIBELS` to the second, uint8 (row, column, 3)."""
    low, high = _DECIBELS
    decibels = 10 * np.log10(np.maximum(power, np.float32(1e-9)))
    return _screen(((decibels - low) / (high - low)).clip(0, 1))


def _screen(shown: Floats) -> Bytes:
    """From 0 to 1 (one or three channels, row, column) as uint8 (row, column, 3)."""
    scaled = (shown * np.float32(255)).astype(np.uint8)
    return np.moveaxis(np.broadcast_to(scaled, (3, *scaled.shape[1:])), 0, -1)


def _index(values: Floats) -> Bytes:
    """(nir - red) / (nir + red) in the colours of `_INDEX_COLORS`, uint8 (row, column, 3)."""
    nir, red = values.clip(0)
    index = (nir - red) / np.maximum(nir + red, np.float32(1e-6))
    at = [value for value, _ in _INDEX_COLORS]
    colors: Sequence[Floats] = [np.interp(index, at, [c[i] for _, c in _INDEX_COLORS]) for i in range(3)]
    return np.stack(colors, -1).astype(np.uint8)
