"""What a reader has to know of a grid: its scale on the ground or in the patient, and which way it looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fovea.image import DETECTOR, LPS, PIXEL, SLIDE, Grid, Matrix
from fovea.verbal import number

_PATIENT = (("R", "L"), ("A", "P"), ("F", "H"))
"""Letters at the low and the high end of x, y and z in LPS."""


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


def edges(grid: Grid, frontal: bool = True) -> tuple[str, str, str]:
    """The letters for the left, the upper and the right edge of a patient: ("R", "A", "L") of an axial CT.

    An edge that looks in no direction known is "". `frontal` says whether a detector's plane is the frontal one.
    """
    if grid.frame not in (LPS, DETECTOR) or (grid.frame == DETECTOR and not frontal):
        return "", "", ""
    columns, rows = grid.affine[:3, 0], grid.affine[:3, 1]
    if grid.frame == DETECTOR:
        return ("R", "", "L") if columns[0] > 0 else ("L", "", "R")
    return _low_end(columns), _low_end(rows), _low_end(-columns)


def _low_end(direction: Matrix) -> str:
    """The letter that one meets going against `direction`."""
    axis = int(np.argmax(np.abs(direction)))
    low, high = _PATIENT[axis]
    return low if direction[axis] > 0 else high


def position(grid: Grid, slice_: int) -> str:
    """Where a slice stands in the patient, as viewers write it: "H 85 mm" is 85 mm towards the head from the origin."""
    if grid.frame != LPS:
        return ""
    _, rows, columns = grid.shape
    center = grid.world(np.array([[slice_, (rows - 1) / 2, (columns - 1) / 2]]))[0]
    axis = int(np.abs(grid.affine[:3, 2]).argmax())
    return f"{_PATIENT[axis][int(center[axis] > 0)]} {abs(center[axis]):.0f} mm"


def north_of(grid: Grid) -> Matrix | None:
    """The direction of true north on the screen at the centre of a scene, a unit vector (right, down).

    None where the grid is not on the Earth.
    """
    if not grid.georeferenced:
        return None
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError

    try:
        to_degrees = Transformer.from_crs(CRS.from_user_input(grid.frame), "EPSG:4326", always_xy=True)
    except CRSError:
        return None
    _, rows, columns = grid.shape
    world = grid.world(np.array([[0, (rows - 1) / 2, (columns - 1) / 2]]))[0]
    longitude, latitude = to_degrees.transform(world[0], world[1])
    if not np.isfinite([longitude, latitude]).all() or abs(latitude) > 89.9:
        return None
    x, y = to_degrees.transform([longitude] * 2, [latitude - 1e-4, latitude + 1e-4], direction="INVERSE")
    south, north = grid.index(np.array([[x[0], y[0], world[2]], [x[1], y[1], world[2]]]))
    step = np.array([north[2] - south[2], north[1] - south[1]])
    direction: Matrix = step / np.linalg.norm(step)
    return direction


def round_length(limit: float) -> float:
    """The largest of 1, 2, 5, 10, … that is at most `limit`."""
    power = 10.0 ** np.floor(np.log10(limit))
    return float(power * max(step for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9)))
