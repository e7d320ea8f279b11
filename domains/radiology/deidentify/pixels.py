"""The pixels of a file without text: searched, masked where that is asked for, and written without anything beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from domains.formats.content import check_size
from domains.radiology.deidentify.burned_in import Box, find_text
from domains.radiology.deidentify.codestreams import strip_jpeg, strip_jpeg2000
from fovea.errors import InputError, UnsupportedError

BurnedIn = Literal["refuse", "mask"]
Stored = NDArray[Any]

_RISKY = ("US", "SC", "XC", "ES", "OT", "RF", "DG", "GM", "BDUS", "IVUS", "None", "")
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_NO_TEXT = {
    "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.30",
    "1.2.840.10008.5.1.4.1.1.481.2",
}  # fmt: skip
"""Segmentations, label maps, parametric maps and doses: what they hold is computed, and is no picture."""
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
_STRIPPED: dict[UID, Callable[[bytes], bytes]] = {
    **dict.fromkeys((*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes), strip_jpeg),
    **dict.fromkeys(JPEG2000TransferSyntaxes, strip_jpeg2000),
}
_MASK = "Give --burned-in mask to have text masked."


def clean_pixels(ds: Dataset, cleaned: Dataset, syntax: UID, burned_in: BurnedIn) -> tuple[UID, int]:
    """Give `cleaned` the pixels of `ds`; returns the transfer syntax and how many regions were masked.

    Raises UnsupportedError for pixels that show text or may (PS3.15 E.3.1), unless it is masked; for a file that
    declares text of which none is found; for films, and for compressions whose frames cannot be looked into.
    """
    for name in ("FloatPixelData", "DoubleFloatPixelData"):
        if name in ds:
            setattr(cleaned, name, _cut(ds, bytes(ds[name].value), np.dtype("f4" if name[0] == "F" else "f8").itemsize))
    if "PixelData" not in ds:
        return syntax if syntax in _NATIVE else ExplicitVRLittleEndian, 0
    if syntax not in _NATIVE and syntax not in _STRIPPED and syntax != RLELossless:
        raise UnsupportedError("pixels as film or in a rare compression", "single frames", "Convert the file.")
    regions = _searched(ds, syntax, burned_in)
    if regions or syntax == RLELossless or _embedded_overlay(ds):
        return _rewritten(ds, cleaned, syntax, regions), len(regions)
    if syntax in _STRIPPED:
        frames = generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1))
        stripped = [_STRIPPED[syntax](frame) for frame in frames]
        cleaned.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2) for frame in stripped])
        cleaned["PixelData"].VR = "OB"
        cleaned["PixelData"].is_undefined_length = True
        return syntax, 0
    cleaned.PixelData = _cut(ds, bytes(ds.PixelData), int(ds.BitsAllocated) / 8)
    cleaned["PixelData"].VR = ds["PixelData"].VR if ds["PixelData"].VR in ("OB", "OW") else "OW"
    return syntax, 0


def is_risky(ds: Dataset) -> bool:
    """Whether text on the pixels is likely: ultrasound, endoscopy, photographs and captures of screens."""
    return str(ds.get("Modality")) in _RISKY or str(ds.get("SOPClassUID", "")).startswith(_CAPTURE)


def _searched(ds: Dataset, syntax: UID, burned_in: BurnedIn) -> list[Box]:
    """The regions to mask."""
    declared = str(ds.get("BurnedInAnnotation") or "").strip().upper()
    if ds.get("SOPClassUID") in _NO_TEXT or int(ds.get("BitsAllocated", 0)) == 1:
        return []
    if "LABEL" in (ds.get("ImageType") or ()) and ds.get("Modality") == "SM":
        raise UnsupportedError("the label of a slide", "a picture of tissue", "Leave it out.")
    if burned_in == "refuse":
        if declared == "YES":
            raise UnsupportedError("a picture that declares text burned in", "none", _MASK)
        if is_risky(ds) and declared != "NO":
            raise UnsupportedError("a picture of a kind that often has text burned in", "BurnedInAnnotation NO", _MASK)
    outside = _outside(ds) if burned_in == "mask" else []
    found, likely = set(outside), is_risky(ds) or declared == "YES"
    for frame in _frames(ds, syntax):
        shown = _shown(ds, frame)
        for box in outside:
            shown[box.rows, box.columns] = 0
        found.update(find_text(shown, likely))
    if found and burned_in == "refuse":
        raise UnsupportedError("a picture with what looks like text", "none", _MASK)
    if declared == "YES" and not found:
        raise UnsupportedError("a picture that declares text, of which none is found", "", "Mask it by hand.")
    return sorted(found)


def _outside(ds: Dataset) -> list[Box]:
    """What lies outside the regions of an ultrasound image (PS3.3 C.8.5.5), as boxes; nothing where none are given."""
    regions = ds.get("SequenceOfUltrasoundRegions")
    if not regions:
        return []
    inside = np.zeros((int(ds.Rows), int(ds.Columns)), bool)
    for region in regions:
        edges = [int(region.get(f"RegionLocation{name}", 0)) for name in ("MinY0", "MaxY1", "MinX0", "MaxX1")]
        top, bottom, left, right = (max(edge, 0) for edge in edges)
        inside[top : bottom + 1, left : right + 1] = True
    if not inside.any():
        raise InputError("ultrasound regions outside the picture", "regions inside it", "Export it again.")
    boxes, rows = [], np.flatnonzero(np.any(inside[1:] != inside[:-1], axis=1)) + 1
    for top, bottom in zip([0, *rows], [*rows, len(inside)], strict=True):
        sides = np.flatnonzero(np.diff(np.r_[False, ~inside[top], False].astype(np.int8))).reshape(-1, 2)
        boxes += [Box(int(top), int(bottom), int(left), int(right)) for left, right in sides]
    return boxes


def _frames(ds: Dataset, syntax: UID) -> Any:
    check_size(int(ds.get("NumberOfFrames") or 1), int(ds.Rows), int(ds.Columns), int(ds.get("SamplesPerPixel", 1)))
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        raise UnsupportedError("pixels in a compression without a decoder", "one with a decoder", "Install one.")
    for index in range(int(ds.get("NumberOfFrames") or 1)):
        try:
            yield decoder.as_array(ds, index=index)[0]
        except RuntimeError:  # what pydicom raises when every decoder that it has failed
            raise InputError("pixels that no decoder here can read", "", "Decompress them elsewhere.") from None


def _shown(ds: Dataset, frame: Stored) -> NDArray[np.float32]:
    """A frame as grey in [0, 1] (row, column), from its lowest to its highest value."""
    gray = frame.astype(np.float32)
    if gray.ndim == 3:
        gray = gray.max(-1)
    elif ds.get("PhotometricInterpretation") == "PALETTE COLOR":
        gray = apply_color_lut(frame, ds)[..., :3].max(-1).astype(np.float32)
    low, high = float(gray.min()), float(gray.max())
    shown: NDArray[np.float32] = (gray - low) / np.float32(max(high - low, 1e-6))
    return shown


def _rewritten(ds: Dataset, cleaned: Dataset, syntax: UID, regions: list[Box]) -> UID:
    """All frames decoded, black in the regions, uncompressed."""
    frames = np.stack(list(_frames(ds, syntax)))
    stored, allocated = int(ds.BitsStored), int(ds.BitsAllocated)
    if _embedded_overlay(ds):  # PS3.5 8.1.2: bits of a pixel above those that are its value
        frames = frames << (allocated - stored) >> (allocated - stored)
    black = _black(ds, frames)
    for box in regions:
        frames[:, box.rows, box.columns] = black
    if frames.ndim == 4:
        cleaned.PlanarConfiguration = 0
        cleaned.PhotometricInterpretation = "RGB"
    target = syntax if syntax in _NATIVE else ExplicitVRLittleEndian
    data = frames.astype(frames.dtype.newbyteorder("<" if target.is_little_endian else ">")).tobytes()
    cleaned.PixelData = data + b"\0" * (len(data) % 2)
    cleaned["PixelData"].VR = "OB" if allocated <= 8 and not target.is_implicit_VR else "OW"
    return target


def _black(ds: Dataset, frames: Stored) -> Any:
    """The stored value that is shown darkest, of those in the first frame; 0 in each channel of colour."""
    if frames.ndim == 4:
        return 0
    shown = _shown(ds, frames[0])
    return frames[0].flat[shown.argmax() if ds.get("PhotometricInterpretation") == "MONOCHROME1" else shown.argmin()]


def _embedded_overlay(ds: Dataset) -> bool:
    return any(int(ds.get((group, 0x0102)).value or 0) for group in range(0x6000, 0x6020, 2) if (group, 0x0102) in ds)


def _cut(ds: Dataset, data: bytes, size: float) -> bytes:
    """Uncompressed values without what stands behind them; raises InputError where some are missing."""
    halved = 2 / 3 if ds.get("PhotometricInterpretation") == "YBR_FULL_422" else 1
    count = int(ds.get("NumberOfFrames") or 1) * int(ds.Rows) * int(ds.Columns) * int(ds.get("SamplesPerPixel", 1))
    length = int(np.ceil(count * halved * size))
    if len(data) < length:
        raise InputError("fewer pixels than the header declares", "all of them", "Fetch the file again.")
    even = length + length % 2  # of a big-endian word the last byte stands behind the padding
    return data[:even].ljust(even, b"\0")
