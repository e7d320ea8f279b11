"""Overlay planes of DICOM images: regions of interest as annotations, and what all of them mark as pixels.

Source: DICOM PS3.3 C.9.2 and C.9.3, PS3.5 8.1.2; the retired ones in the high bits of the pixels by PS3.5 of 2003.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.overlays.numpy_handler import get_overlay_array
from pydicom.uid import UID, ExplicitVRBigEndian

from domains.formats.content import check_size, foreign
from domains.formats.dicom.annotation import Annotation, Annotations, Patch, affine
from domains.formats.dicom.mosaic import is_mosaic
from domains.formats.dicom.planes import planes
from domains.formats.isolation import isolated
from fovea.errors import InputError, UnsupportedError
from fovea.image import Bools
from fovea.types import Channel, Measure

CHANNEL = Channel("overlay")
_GROUPS = range(0x6000, 0x6020, 2)
_MEASURES = ((0x1301, "pixels"), (0x1302, "mean"), (0x1303, "standard_deviation"))
"""Elements of a region of interest; in which unit its pixel values are, a file does not say."""


@dataclass(frozen=True, eq=False)
class _Overlay:
    """One overlay: `masks` bool (frame or 1, row, column) on the whole image, for the `frames` (from 0) it lies on."""

    region: bool
    name: str = field(repr=False)
    frames: range
    masks: Bools
    measures: tuple[Measure, ...]

    def mask(self, frame: int) -> Bools:
        place = self.frames.index(frame)
        mask: Bools = self.masks[place if len(self.masks) > 1 else 0]
        return mask


def read(path: Path) -> Annotations:
    """One annotation a region of interest among the overlays of an image; those of graphics are left out.

    The file is parsed in a process of its own. Raises UnsupportedError for an image without regions of interest and for
    mosaics and slides, GeometryError where planes lack, LimitError before decoding, and InputError.
    """
    facts, found = _read(path)
    items = []
    for overlay in (overlay for overlay in found if overlay.region):
        filled = [frame for frame in overlay.frames if overlay.mask(frame).any()]
        patches = tuple(
            Patch(overlay.mask(frame), np.array(facts["planes"][frame], float) if facts["planes"] else None, frame)
            for frame in filled
        )
        items.append(
            Annotation(
                None, "unknown", name=overlay.name, patches=patches, measures=overlay.measures, found=bool(filled)
            )
        )
    if not items:
        raise UnsupportedError("an image without regions of interest in overlays", "DICOM with findings")
    return Annotations("overlay", tuple(items), names=frozenset({facts["instance"]}), instance=facts["instance"])


def marks(path: Path) -> dict[int, Bools]:
    """Frame (from 0) to what the overlays of all kinds mark on it, bool (row, column) as stored; raises as `read`."""
    found: dict[int, Bools] = {}
    for overlay in _read(path)[1]:
        for frame in overlay.frames:
            found[frame] = found[frame] | overlay.mask(frame) if frame in found else overlay.mask(frame)
    return found


def _read(path: Path) -> tuple[dict[str, Any], list[_Overlay]]:
    facts, masks = isolated(parse, path)
    found = []
    for item in facts["overlays"]:
        first, last = item["masks"]
        measures = tuple(Measure(*measure) for measure in item["measures"])
        found.append(_Overlay(item["region"], item["name"], range(*item["frames"]), masks[first:last], measures))
    return facts, found


def parse(path: Path) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """What the overlays say, as JSON has it, and the masks of all (mask, row, column); for a child process."""
    with foreign("overlays in DICOM", BytesLengthException, InvalidDicomError):
        ds = dcmread(path, force=True)
        groups = [group for group in _GROUPS if (group, 0x0010) in ds or (group, 0x0102) in ds]
        count, rows, columns = int(ds.get("NumberOfFrames") or 1), int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
        if groups:
            check_size(count, rows, columns)
            _check(ds)
        told = [_told(ds, group, count) for group in groups]
        lie = planes(ds, count, required=False) if any(item["region"] for item in told) else ()
        if len({(plane.position, plane.along_row, plane.along_column) for plane in lie}) < len(lie):
            raise UnsupportedError(
                "regions of interest on frames at one position", "a frame a position", "Split the file."
            )
        total = 0
        for item in told:
            item["masks"] = total, total + item.pop("count")
            total = item["masks"][1]
            check_size(total, rows, columns)
        masks = np.zeros((total, rows, columns), bool)
        for group, item in zip(groups, told, strict=True):
            _draw(masks[slice(*item["masks"])], ds, group)
        lies = [affine(plane).tolist() for plane in lie]
        return {"overlays": told, "planes": lies, "instance": str(ds.get("SOPInstanceUID") or "")}, masks


def _check(ds: Dataset) -> None:
    if is_mosaic(ds) or "TotalPixelMatrixRows" in ds:
        raise UnsupportedError("overlays on a mosaic or on the tiles of a slide", "overlays on whole frames")
    if ds.file_meta.get("TransferSyntaxUID") == ExplicitVRBigEndian:
        raise UnsupportedError("overlays in the retired Explicit VR Big Endian", "Little Endian", "Convert the file.")


def _told(ds: Dataset, group: int, count: int) -> dict[str, Any]:
    """What one overlay is: its kind, frames, number of masks, name and measures.

    One that does not tell its frames lies on all, and so does one in the pixels, with a mask for each.
    """
    origin = _value(ds, group, 0x0051)
    frames = (_value(ds, group, 0x0015) or (1 if origin else None)) if (group, 0x3000) in ds else None
    first = int(origin or 1) - 1 if frames else 0
    masks = int(frames or 1) if (group, 0x3000) in ds else count
    last = first + masks if frames else count
    if not 0 <= first < last <= count or masks < 1:
        raise InputError(f"an overlay of the frames {first + 1} to {last} of {count}", "frames of the image")
    measures = [(name, _value(ds, group, element)) for element, name in _MEASURES]
    return {
        "region": str(_value(ds, group, 0x0040) or "").strip() == "R",
        "name": str(_value(ds, group, 0x1500) or _value(ds, group, 0x0022) or ""),
        "frames": (first, last),
        "count": masks,
        "measures": [(name, float(value), "1") for name, value in measures if value is not None and isfinite(value)],
    }


def _draw(masks: Bools, ds: Dataset, group: int) -> None:
    """Write the masks of one overlay (mask, row, column), cut to the image."""
    if (group, 0x3000) not in ds:
        masks[...] = _embedded(ds, group, masks.shape)
        return
    height, width = (int(_value(ds, group, element)) for element in (0x0010, 0x0011))
    check_size(len(masks), height, width)
    if len(ds[group, 0x3000].value) > (len(masks) * height * width + 7) // 8 + 64:
        raise InputError("an overlay with more bytes than its size takes", "as many", "Export it again.")
    plane = get_overlay_array(ds, group).reshape(len(masks), height, width)
    top, left = (int(value) - 1 for value in _value(ds, group, 0x0050) or (1, 1))
    rows, columns = _inside(top, height, masks.shape[1]), _inside(left, width, masks.shape[2])
    cut = plane[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    masks[:, rows, columns] = cut


def _inside(start: int, length: int, size: int) -> slice:
    """The part of an axis of the image that an overlay from `start` on covers; it may be empty."""
    first = min(max(0, start), max(0, start + length), size)
    return slice(first, max(first, min(size, start + length)))


def _embedded(ds: Dataset, group: int, shape: tuple[int, ...]) -> Bools:
    """The bits of an overlay that stand in the pixels beside their values."""
    bit, allocated = int(_value(ds, group, 0x0102) or 0), int(ds.BitsAllocated)
    plain = not UID(ds.file_meta.get("TransferSyntaxUID") or "1.2.840.10008.1.2").is_encapsulated
    values = range(int(ds.HighBit) - int(ds.BitsStored) + 1, int(ds.HighBit) + 1)
    usual = plain and allocated in (8, 16, 32) and int(ds.get("SamplesPerPixel") or 1) == 1
    if not usual or bit in values or not 0 <= bit < allocated:
        raise InputError("an overlay neither in OverlayData nor in unused bits of plain pixels", "one of both")
    stored = np.frombuffer(ds.PixelData, f"<u{allocated // 8}", int(np.prod(shape)))
    found: Bools = (stored.reshape(shape) >> bit & 1).astype(bool)
    return found


def _value(ds: Dataset, group: int, element: int) -> Any:
    found = ds.get((group, element))
    return None if found is None else found.value
