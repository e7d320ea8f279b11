"""Siemens mosaics: the slices of one volume as tiles of one picture. Source: nibabel's account of DICOM mosaics.

The standard has no elements for them: how many tiles there are and which way they are stacked stands in the CSA header,
a private element, of which nothing else is taken.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from domains.formats.content import check_size, foreign
from domains.formats.dicom.planes import Plane, moved, numbers, plane_of, texts
from domains.formats.isolation import isolated
from fovea.errors import GeometryError, InputError, UnsupportedError

_BYTES = 2**18
"""The longest CSA header that is parsed: usual ones have a tenth of it."""
_SECONDS = 5.0


def is_mosaic(ds: Any) -> bool:
    """Whether a header is that of a mosaic."""
    return "MOSAIC" in texts(ds, "ImageType")


def unfold(path: Path, ds: Any) -> tuple[int, tuple[Plane, ...]]:
    """How many tiles stand side by side, and the plane of each tile in the order of the tiles, row by row.

    The position in the file is the corner of the whole picture as if it were one slice around the middle of the tiles;
    the tiles are stacked along the slice normal of the CSA header, which may be against that of their axes. Raises
    UnsupportedError without that header, GeometryError where the place of the tiles does not follow, LimitError, and
    InputError.
    """
    if int(ds.get("NumberOfFrames") or 1) != 1:
        raise UnsupportedError("a mosaic of several frames", "one frame", "Convert it with dcm2niix.")
    count, normal = isolated(parse, path, seconds=_SECONDS)
    rows, columns, across = int(ds.Rows), int(ds.Columns), ceil(sqrt(count))
    if rows % across or columns % across:
        raise InputError(
            f"a mosaic of {count} slices in {rows} × {columns} pixels",
            f"{across} × {across} equal tiles",
            "Fetch it again.",
        )
    height, width = rows // across, columns // across
    check_size(count, height, width)
    plane, step = plane_of(ds, ds, ds), numbers(ds, "SpacingBetweenSlices", 1)
    if plane is None or not step or step[0] <= 0:
        raise GeometryError(
            "a mosaic without full geometry",
            "ImagePositionPatient, ImageOrientationPatient, PixelSpacing and SpacingBetweenSlices",
            "Export it again.",
        )
    down, right = (rows - height) / 2 * plane.spacing[0], (columns - width) / 2 * plane.spacing[1]
    corner = plane.position + down * np.array(plane.along_column) + right * np.array(plane.along_row)
    first = replace(plane, position=tuple(corner.tolist()), thickness=step[0])
    turn = float(np.cross(plane.along_row, plane.along_column) @ normal)
    if abs(abs(turn) - 1) > 0.01:
        raise GeometryError("a mosaic whose slices are stacked askew", "a normal of its slices", "Export it again.")
    return across, moved(first, [number * step[0] * np.sign(turn) for number in range(count)])


def parse(path: Path) -> tuple[int, list[float]]:
    """Number of slices and slice normal (x, y, z) by the CSA header; for a child process."""
    from nibabel.nicom import csareader

    csa: Any = csareader

    # nibabel checks what it reads by assertions too, and knows no first element with values in the oldest headers
    with foreign("a CSA header", csa.CSAError, AssertionError, UnboundLocalError):
        ds = dcmread(path, stop_before_pixels=True, force=True)
        sizes = [len(ds.get_item(tag).value or b"") for tag in sorted(ds.keys()) if tag.group == 0x29]
        if max(sizes, default=0) > _BYTES:
            raise InputError("a CSA header that is too long", f"at most {_BYTES} bytes", "Export it again.")
        told = csa.get_csa_header(ds)
        count, normal = (csa.get_n_mosaic(told), csa.get_slice_normal(told)) if told else (None, None)
        if not count or normal is None:
            raise UnsupportedError(
                "a mosaic without the CSA header that tells its slices",
                "that header",
                "Convert the originals with dcm2niix.",
            )
        found = int(count), [float(value) for value in normal]
    if not 0 < found[0] <= 4096 or not np.isfinite(found[1]).all():
        raise InputError(
            "a CSA header with values that no mosaic has", "its slices and their normal", "Export it again."
        )
    return found


def tiles(picture: NDArray[Any], across: int) -> NDArray[Any]:
    """The tiles (..., tile, row, column) of a picture (..., 1, row, column), row by row; empty ones at the end too."""
    *lead, _, height, width = picture.shape
    rows, columns = height // across, width // across
    cut = picture.reshape(*lead, across, rows, across, columns).swapaxes(-3, -2)
    return cut.reshape(*lead, across * across, rows, columns)
