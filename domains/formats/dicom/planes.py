"""Where the frames of a DICOM file lie: a plane for each, or none. Source: DICOM PS3.3 C.7.6.2, C.7.6.16, C.8.8.3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from pydicom import Dataset

from fovea.errors import GeometryError

Vector = tuple[float, ...]


@dataclass(frozen=True)
class Plane:
    """Where one frame lies: centre of its first pixel and directions of growing column and row index in LPS mm,
    distances (between rows, between columns) in mm, and how thick it is, if known."""

    position: Vector
    along_row: Vector
    along_column: Vector
    spacing: Vector
    thickness: float | None


def planes(ds: Dataset | dict[str, Any], frames: int, *, required: bool) -> tuple[Plane, ...]:
    """A plane a frame, or nothing where the file gives none.

    Raises GeometryError for a frame without one beside others that have one, or where one is required.
    """
    found = _of_each(ds, frames)
    known = tuple(plane for plane in found if plane)
    if len(known) == frames:
        return known
    if known or required:
        missing = [number for number, plane in enumerate(found, 1) if not plane]
        raise GeometryError(
            f"no full geometry in frame {listed(missing)}",
            "ImagePositionPatient, ImageOrientationPatient and PixelSpacing",
            "Export the series again with its geometry.",
        )
    return ()


def first_item(ds: Any, sequence: str, *, frame: int | None = None) -> Dataset | None:
    """The first item of a functional group, of the frame or shared by all; None where there is none."""
    groups = [ds.get("SharedFunctionalGroupsSequence")]
    if frame is not None:
        per_frame = ds.get("PerFrameFunctionalGroupsSequence") or ()
        groups.insert(0, per_frame[frame : frame + 1])
    for group in groups:
        if group and group[0].get(sequence):
            item: Dataset = group[0].get(sequence)[0]
            return item
    return None


def numbers(ds: Any, name: str, count: int) -> Vector | None:
    """The finite numbers of an element, or None where it is empty; raises GeometryError for another count."""
    value: Any = ds.get(name)
    if value is None or value == "":
        return None
    found = tuple(float(item) for item in (value if isinstance(value, Sequence) or count > 1 else [value]))
    if len(found) != count or not all(map(isfinite, found)):
        raise GeometryError(f"{name} with {len(found)} values or values without end", f"{count} finite numbers")
    return found


def texts(ds: Any, name: str) -> list[str]:
    """The values of an element of texts, none where it is empty."""
    value: Any = ds.get(name) or ()
    return [str(item).strip() for item in ([value] if isinstance(value, str) else value)]


def listed(found: Sequence[int]) -> str:
    """The first eight of some numbers."""
    return ", ".join(map(str, found[:8])) + (" …" if len(found) > 8 else "")


def _of_each(ds: Any, frames: int) -> Sequence[Plane | None]:
    per_frame = ds.get("PerFrameFunctionalGroupsSequence")
    if per_frame:
        if len(per_frame) != frames:
            raise GeometryError(f"{frames} frames with {len(per_frame)} functional groups", "one a frame")
        names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        return [plane_of(*(first_item(ds, name, frame=frame) for name in names)) for frame in range(frames)]
    if ds.get("Modality") == "RTDOSE" and ds.get("GridFrameOffsetVector") is not None:
        return _dose(ds, frames)
    if ds.get("Modality") == "NM" and frames > 1 and ds.get("DetectorInformationSequence"):
        return _tomography(ds, frames)
    return [plane_of(ds, ds, ds)] if frames == 1 else [None]


def plane_of(position: Any, orientation: Any, measures: Any) -> Plane | None:
    """The plane of the items that hold its position, orientation and spacing; None where one of them lacks."""
    if position is None or orientation is None or measures is None:
        return None
    corner, turn = numbers(position, "ImagePositionPatient", 3), numbers(orientation, "ImageOrientationPatient", 6)
    spacing = numbers(measures, "PixelSpacing", 2)
    if not corner or not turn or not spacing or min(spacing) <= 0:
        return None
    thickness = numbers(measures, "SliceThickness", 1) or numbers(measures, "SpacingBetweenSlices", 1) or (0.0,)
    return Plane(corner, turn[:3], turn[3:], spacing, thickness[0] if thickness[0] > 0 else None)


def _dose(ds: Any, frames: int) -> Sequence[Plane | None]:
    """Frames of a dose grid: offsets along the normal from the first frame, or, of axial ones, absolute z."""
    plane = plane_of(ds, ds, ds)
    offsets = numbers(ds, "GridFrameOffsetVector", frames)
    if not plane or not offsets:
        return [None] * frames
    if offsets[0] != 0:
        if abs(offsets[0] - plane.position[2]) > 1e-3:
            raise GeometryError("GridFrameOffsetVector that starts neither at 0 nor at the first frame", "one of them")
        offsets = tuple(offset - offsets[0] for offset in offsets)
    return moved(plane, offsets)


def _tomography(ds: Any, frames: int) -> Sequence[Plane | None]:
    """Reconstructed slices of nuclear medicine: the detector's position is the first one's."""
    plane = plane_of(ds.DetectorInformationSequence[0], ds.DetectorInformationSequence[0], ds)
    step = numbers(ds, "SpacingBetweenSlices", 1)
    if not plane or not step or "TOMO" not in "".join(texts(ds, "ImageType")):
        return [None] * frames
    return moved(plane, [frame * step[0] for frame in range(frames)])


def moved(plane: Plane, offsets: Sequence[float]) -> tuple[Plane, ...]:
    """Copies of a plane at distances along its normal, in mm."""
    normal = np.cross(plane.along_row, plane.along_column)
    return tuple(replace(plane, position=tuple((plane.position + offset * normal).tolist())) for offset in offsets)
