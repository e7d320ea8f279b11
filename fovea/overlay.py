"""Findings drawn over a picture: the same image for the model and for the person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.colors import color_of
from fovea.types import Bools, Box, Bytes, Finding, Floats, Mask, OrientedBox, Panel, Patch, Picture, Polygon, Term
from fovea.verbal import LISTED

Drawable = Mask | Patch | Box | OrientedBox | Polygon


def overlay(picture: Picture, findings: Iterable[Finding], vocabulary: Iterable[Term], opacity: float = 0.35) -> Bytes:
    """Present findings with a region in the colour of their label: tinted inside, opaque at the edge.

    Instances have an edge, and the first `LISTED` the number that the text gives them; patches are tinted too where the
    finding has no region of its own. Returns uint8 (row, column, 3); the picture is left as it is.
    """
    terms = tuple(vocabulary)
    out = picture.pixels.astype(np.float32)
    numbers: list[tuple[str, tuple[int, int], Panel, tuple[int, int, int]]] = []
    for finding in findings:
        if not finding.present:
            continue
        color = color_of(finding.label, terms)
        for panel in picture.panels:
            if panel.image != finding.image:
                continue
            part = out[slice(*panel.rows), slice(*panel.columns)]
            if finding.region is not None:
                _paint(part, project(finding.region, panel), color, opacity)
            for place, instance in enumerate(finding.instances, start=1):
                inside = project(instance.region, panel)
                tinted = finding.region is None and isinstance(instance.region, Patch)
                _paint(part, inside, color, opacity if tinted else 0.0)
                if inside is not None and place <= LISTED:
                    numbers.append((str(place), _above(inside), panel, color))
    drawn = out.clip(0, 255).astype(np.uint8)
    return _numbered(drawn, numbers) if numbers else drawn


def _paint(part: Floats, inside: Bools | None, color: tuple[int, int, int], opacity: float) -> None:
    """Blend a colour into a panel, in place."""
    if inside is None:
        return
    edge = inside & ~_eroded(inside)
    weight = np.where(edge, 1.0, np.where(inside, opacity, 0.0))[..., None].astype(np.float32)
    part[:] = part * (1 - weight) + np.array(color, np.float32) * weight


def _above(inside: Bools) -> tuple[int, int]:
    """The row of the upper end and the middle column of what is drawn."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return int(rows[0]), int(columns[0] + columns[-1]) // 2


def _numbered(drawn: Bytes, numbers: Iterable[tuple[str, tuple[int, int], Panel, tuple[int, int, int]]]) -> Bytes:
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.fromarray(drawn)
    pen = ImageDraw.Draw(canvas)
    for text, (row, column), panel, color in numbers:
        height, width = panel.rows[1] - panel.rows[0], panel.columns[1] - panel.columns[0]
        font = ImageFont.load_default(max(9, min(height, width) // 30))
        left, top, right, bottom = pen.textbbox((0, 0), text, font, "lt", stroke_width=1)
        x = min(max(column - (right - left) // 2, 1), max(1, width - int(right - left) - 1))
        y = row - (bottom - top) - 2 if row - (bottom - top) - 2 >= 1 else row + 3
        around = (0, 0, 0) if np.dot(color, (0.3, 0.59, 0.11)) > 90 else (255, 255, 255)
        pen.text((panel.columns[0] + x, panel.rows[0] + y), text, color, font, "lt", stroke_width=1, stroke_fill=around)
    return np.asarray(canvas)


def project(region: Drawable, panel: Panel) -> Bools | None:
    """The region inside a panel, bool (row, column) in the panel's size; None where it does not touch the slice."""
    rows, columns = (
        (np.arange(stop - start) + 0.5) * size / (stop - start)
        for (start, stop), size in zip((panel.rows, panel.columns), panel.shape, strict=True)
    )
    inside: Bools
    if isinstance(region, Mask):
        plane = region.data[panel.slice] if panel.slice < len(region.data) else np.zeros(panel.shape, bool)
        inside = plane[rows.astype(int)[:, None], columns.astype(int)]
    elif isinstance(region, Patch):
        inside = _patch(region, panel.slice, rows.astype(int), columns.astype(int))
    elif isinstance(region, Box):
        (first, top, left), (last, bottom, right) = region.start, region.stop
        if not first <= panel.slice < max(last, first + 1):
            return None
        inside = ((top <= rows) & (rows < bottom))[:, None] & ((left <= columns) & (columns < right))
    elif region.slice != panel.slice:
        return None
    elif isinstance(region, OrientedBox):
        turn = np.deg2rad(region.angle)
        y, x = rows[:, None] - region.center[0], columns - region.center[1]
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        inside = (abs(along) <= region.length / 2) & (abs(across) <= region.width / 2)
    else:
        inside = _inside_polygon(np.array(region.points), rows, columns)
    return inside if inside.any() else None


def _patch(patch: Patch, slice_: int, rows: NDArray[np.int_], columns: NDArray[np.int_]) -> Bools:
    """A patch at the given rows and columns of the image."""
    inside = np.zeros((len(rows), len(columns)), bool)
    first, top, left = patch.start
    if first <= slice_ < first + len(patch.data):
        plane = patch.data[slice_ - first]
        down = (rows >= top) & (rows < top + plane.shape[0])
        across = (columns >= left) & (columns < left + plane.shape[1])
        inside[np.ix_(down, across)] = plane[np.ix_(rows[down] - top, columns[across] - left)]
    return inside


def _inside_polygon(points: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any]) -> Bools:
    """Even-odd rule for a polygon of vertices (row, column), evaluated on a lattice."""
    inside = np.zeros((len(rows), len(columns)), bool)
    for (y0, x0), (y1, x1) in zip(points, np.roll(points, -1, 0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > rows) != (y1 > rows)
        inside ^= crosses[:, None] & (columns < (x0 + (rows - y0) * (x1 - x0) / (y1 - y0))[:, None])
    return inside


def _eroded(mask: Bools) -> Bools:
    """The mask less its outermost pixels (4-neighbours); the border of the picture counts as outside."""
    padded = np.pad(mask, 1)
    inner: Bools = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & mask
    return inner
