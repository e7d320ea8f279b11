"""What a reader has to know of a grid: its scale on the ground or in the patient, and which way it looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fovea.image import DETECTOR, LPS, PIXEL, SLIDE, Grid
from fovea.verbal import number

_PATIENT = (("R", "L"), ("A", "P"), ("F", "H"))
"""Letters at the low and the high end of x, y and z in LPS."""
_EARTH = (("W", "E"), ("S", "N"))


@dataclass(frozen=True)
class Scale:
    """The size of a pixel along (row, column) in `unit`, "mm" or "m"."""

    row: float
    column: float
    unit: str

    def __str__(self) -> str:
        same = np.isclose(self.row, self.column, rtol=0.005)
        return f"{number(self.column)}{'' if same else f' × {number(self.row)}'} {self.unit}"


def scale(grid: Grid) -> Scale | None:
    """The true size of a pixel; None where the file gives none.

    On the Earth it is the geodesic distance between neighbours at the centre of the image, so it also
    holds for degrees and for Web Mercator.
    """
    if grid.frame in (LPS, DETECTOR, SLIDE):
        return Scale(grid.spacing[1], grid.spacing[2], "mm")
    if grid.frame == PIXEL:
        return None
    return _ground(grid)


def _ground(grid: Grid) -> Scale | None:
    from pyproj import CRS, Geod, Transformer
    from pyproj.exceptions import CRSError

    try:
        crs = CRS.from_user_input(grid.frame)
    except CRSError:
        return None
    row, column = (grid.shape[1] - 1) / 2, (grid.shape[2] - 1) / 2
    points = grid.world(
        np.array([(0, row, column - 0.5), (0, row, column + 0.5), (0, row - 0.5, column), (0, row + 0.5, column)])
    )
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(points[:, 0], points[:, 1])
    if not np.isfinite(longitude).all():
        return None
    _, _, length = Geod(ellps="WGS84").inv(longitude[::2], latitude[::2], longitude[1::2], latitude[1::2])
    return Scale(float(length[1]), float(length[0]), "m")


def frame_name(grid: Grid) -> str:
    """The frame in words: "EPSG:32636, WGS 84 / UTM zone 36N", "patient coordinates"."""
    known = {
        LPS: "patient coordinates",
        DETECTOR: "detector plane",
        SLIDE: "microscope slide",
        PIXEL: "none: sizes are in pixels",
    }
    if grid.frame in known:
        return known[grid.frame]
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        name = CRS.from_user_input(grid.frame).name
    except CRSError:
        return grid.frame
    return name if len(grid.frame) > 24 else f"{grid.frame}, {name}"


def edges(grid: Grid, frontal: bool = True) -> tuple[str, str]:
    """The letters for the left and the upper edge: ("R", "A") of an axial CT, ("W", "N") of a north-up scene.

    An edge that looks in no direction known is "". `frontal` says whether a detector's plane is the frontal one.
    """
    if grid.frame in (PIXEL, SLIDE) or (grid.frame == DETECTOR and not frontal):
        return "", ""
    columns, rows = grid.affine[:3, 0], grid.affine[:3, 1]
    if grid.frame == DETECTOR:
        return ("R" if columns[0] > 0 else "L"), ""
    axes = _PATIENT if grid.frame == LPS else _EARTH
    return _low_end(columns, axes), _low_end(rows, axes)


def _low_end(direction: np.ndarray[tuple[int], np.dtype[np.float64]], axes: tuple[tuple[str, str], ...]) -> str:
    """The letter that one meets going against `direction`."""
    axis = int(np.argmax(np.abs(direction[: len(axes)])))
    low, high = axes[axis]
    return low if direction[axis] > 0 else high


def round_length(limit: float) -> float:
    """The largest of 1, 2, 5, 10, … that is at most `limit`."""
    power = 10.0 ** np.floor(np.log10(limit))
    return float(power * max(step for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9)))
