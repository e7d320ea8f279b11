"""Findings drawn over a picture: the same image for the model and for the person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fovea.types import Bools, Box, Bytes, Finding, Mask, OrientedBox, Panel, Picture, Region, Term


def overlay(picture: Picture, findings: Iterable[Finding], vocabulary: Iterable[Term], opacity: float = 0.35) -> Bytes:
    """Present findings with a region in the colour of their term: tinted inside, opaque at the edge.

    Returns uint8 (row, column, 3); the picture is left as it is.
    """
    colors: Mapping[str, tuple[int, int, int]] = {term.label: term.color for term in vocabulary}
    out = picture.pixels.astype(np.float32)
    for finding in findings:
        if finding.region is None or not finding.present:
            continue
        color = np.array(colors.get(finding.label, (255, 255, 0)), np.float32)
        for panel in picture.panels:
            if panel.image != finding.image:
                continue
            place = (slice(*panel.rows), slice(*panel.columns))
            inside = _project(finding.region, panel)
            if inside is None:
                continue
            edge = inside & ~_eroded(inside)
            weight = np.where(edge, 1.0, np.where(inside, opacity, 0.0))[..., None].astype(np.float32)
            out[place] = out[place] * (1 - weight) + color * weight
    return out.clip(0, 255).astype(np.uint8)


def _project(region: Region, panel: Panel) -> Bools | None:
    """The region inside a panel, bool (row, column) in the panel's size; None where it does not touch the slice."""
    rows, columns = (
        (np.arange(stop - start) + 0.5) * size / (stop - start)
        for (start, stop), size in zip((panel.rows, panel.columns), panel.shape, strict=True)
    )
    inside: Bools
    if isinstance(region, Mask):
        plane = region.data[panel.slice] if panel.slice < len(region.data) else np.zeros(panel.shape, bool)
        inside = plane[rows.astype(int)[:, None], columns.astype(int)]
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
