"""DICOM headers without identifiers: what the pixels mean, where they lie, and which files belong together."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from domains.formats.content import check_size, foreign
from domains.formats.dicom import own
from domains.formats.dicom.mosaic import is_mosaic, unfold
from domains.formats.dicom.planes import Plane, Vector, first_item, numbers, planes, texts
from domains.formats.dicom.scan import Bounded, scan
from domains.formats.dicom.slide import Tiles, tiles
from domains.formats.dicom.units import measured
from fovea.errors import GeometryError, InputError, LimitError, UnsupportedError
from fovea.types import Channel

Kind = Literal["HU", "value", "display", "color"]
"""HU: Hounsfield units; value: what the scanner measured; display: grey for the eye in [0, 1]; color: RGB in [0, 1]."""

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
"""The transfer syntaxes without compression of pixels."""

PYDICOM = (BytesLengthException, InvalidDicomError)
"""The errors of pydicom that derive from Exception alone."""

PROJECTION = ("DX", "CR", "MG", "RF", "XA", "RG", "IO", "PX")
_SLICED = ("CT", "MR", "PT", "RTDOSE")
_MODALITIES = (*PROJECTION, *_SLICED, "US", "NM", "ES", "XC", "OP", "OPT", "SM", "OT")
_CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",
)  # fmt: skip
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
_LOST = "frames without a place in the patient"
_SETTLED = 1_000_000_000
"""Nanoseconds after which a second change of a file is sure to show in its time."""
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_INFLATED = 2**26
"""Bytes that a deflated file may grow to by more than a hundredfold."""
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MAP = "1.2.840.10008.5.1.4.1.1.30"
_SEGMENTS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_VIEWS = {
    "PA": "PA", "AP": "AP", "LL": "LATERAL", "RL": "LATERAL", "LAT": "LATERAL", "LATERAL": "LATERAL",
    "ML": "LATERAL", "LM": "LATERAL", "CC": "CC", "MLO": "MLO",
    "LAO": "OBLIQUE", "RAO": "OBLIQUE", "LPO": "OBLIQUE", "RPO": "OBLIQUE", "LLO": "OBLIQUE", "RLO": "OBLIQUE",
}  # fmt: skip
_BODY_PARTS = (
    "ABDOMEN", "ANKLE", "BRAIN", "BREAST", "CHEST", "CSPINE", "ELBOW", "FOOT", "HAND", "HEAD", "HEART", "HIP", "KIDNEY",
    "KNEE", "LIVER", "LSPINE", "LUNG", "NECK", "PELVIS", "PROSTATE", "SHOULDER", "SKULL", "SPINE", "TSPINE",
    "WHOLEBODY", "WRIST",
)  # fmt: skip
_APART = ("EchoNumbers", "EchoTime", "TemporalPositionIdentifier", "DiffusionBValue", "ConvolutionKernel")
"""What separates the stacks that scanners store under one SeriesInstanceUID."""
_WITHIN = ("DiffusionGradientOrientation", "AcquisitionNumber", "TriggerTime", "ContentTime")
"""What may separate stacks where positions repeat, tried in this order."""


@dataclass(frozen=True)
class Native:
    """Where the uncompressed pixels of a file with one grey image stand, and the elements that explain them."""

    start: int
    dtype: np.dtype[Any]
    unused: int
    fields: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Header:
    """What one file says.

    `planes` holds a plane a frame, or nothing; `factor` brings rescaled values to the unit of the channel. The frames
    of a mosaic are its tiles, `across` of them side by side in the one picture of the file; it is 0 in other files.
    `series`, `instance`, `within` and `path` stay inside the readers.
    """

    path: Path = field(repr=False)
    series: tuple[str, ...] = field(repr=False)
    instance: str = field(repr=False)
    within: tuple[str, ...] = field(repr=False)
    number: int
    modality: str
    kind: Kind
    channels: tuple[Channel, ...]
    factor: float
    frames: int
    rows: int
    columns: int
    planes: tuple[Plane, ...]
    pixel_size: Vector | None
    orientation: tuple[str, str]
    native: Native | None
    compressed: bool
    tiles: Tiles | None
    across: int
    meta: Mapping[str, str]


def read_header(path: Path, pictures: bool = False) -> Header:
    """Read all but the pixels; raises UnsupportedError for what is no picture, and other leaves of InputError.

    With `pictures` a file whose geometry cannot be read has no planes, and its meta says so.
    """
    with foreign("a DICOM file", warns=False):
        state = path.stat()
    settled = time.time_ns() - state.st_ctime_ns > _SETTLED
    return (_kept if settled else _read)(path, state.st_size, state.st_ctime_ns, state.st_ino, pictures=pictures)


@lru_cache(maxsize=4096)  # a series is grouped by its headers, and then read by them
def _kept(path: Path, size: int, *_: int, pictures: bool) -> Header:
    return _read(path, size, pictures=pictures)


def _read(path: Path, size: int, *_: int, pictures: bool = False) -> Header:
    with foreign("a DICOM file", *PYDICOM), Bounded(path) as file:
        _check_inflated(file)
        found = scan(file)
        ds: Any = found.fields
        if not ds or is_mosaic(ds):
            ds = dcmread(file, stop_before_pixels=True, force=True)
        syntax = UID("" if found.fields else str(ds.file_meta.get("TransferSyntaxUID") or ""))
        kind = _check_kind(ds)
        frames = int(ds.get("NumberOfFrames") or 1)
        rows, columns = int(ds.get("Rows")), int(ds.get("Columns"))
        modality = _modality(ds)
        slide = tiles(ds, frames, rows, columns) if modality == "SM" else None
        check_size(1 if slide else frames, rows, columns, int(ds.get("SamplesPerPixel") or 1))
        lost, across, lie = False, 0, tuple[Plane, ...]()
        if is_mosaic(ds):
            across, lie = unfold(path, ds)
            frames, rows, columns = len(lie), rows // across, columns // across
        elif not slide:
            lie, lost = _lie(ds, frames, modality, pictures)
        orientation = [text[:1].upper() for text in texts(ds, "PatientOrientation")]
        upright = (orientation[0], orientation[1]) if len(orientation) == 2 and modality in PROJECTION else ("", "")
        channels, factor = _channels(ds, kind, modality)
        return Header(
            path=path,
            series=_series(ds, modality, lie, slide),
            instance=str(ds.get("SOPInstanceUID", "")),
            within=tuple(_written(ds, name) for name in _WITHIN),
            number=int(ds.get("InstanceNumber") or 0),
            modality=modality,
            kind=kind,
            channels=channels,
            factor=factor,
            frames=frames,
            rows=rows,
            columns=columns,
            planes=lie,
            pixel_size=_pixel_size(ds) if modality in PROJECTION and frames == 1 else None,
            orientation=upright,
            native=None if across else _native(found.fields, found.pixels, (frames, rows, columns), size),
            compressed=bool(syntax) and syntax not in NATIVE,
            tiles=slide,
            across=across,
            meta=_meta(ds, modality, kind) | ({"geometry": _LOST} if lost else {}),
        )


def _lie(ds: Any, frames: int, modality: str, pictures: bool) -> tuple[tuple[Plane, ...], bool]:
    """The planes of the frames, or none, and whether they should be there; of pictures, they need not be."""
    try:
        return planes(ds, frames, required=modality in _SLICED), False
    except GeometryError as error:
        if pictures:
            return (), True
        raise GeometryError(
            error.given, error.expected, "Export it again, or read its frames as pictures with single_slices."
        ) from None


def _check_inflated(file: BinaryIO) -> None:
    """Raise LimitError when a deflated file would grow past the limit; leaves the file at its start."""
    head = file.read(144)
    if head[128:138] == b"DICM\x02\x00\x00\x00UL" and _DEFLATED in file.read(int.from_bytes(head[140:144], "little")):
        inflater, size, packed = zlib.decompressobj(-15), 0, 0
        while part := inflater.decompress(inflater.unconsumed_tail or file.read(2**16), 2**20):
            size, packed = size + len(part), file.tell()
            check_size(size)
            if size > max(_INFLATED, 100 * packed):
                raise LimitError("a deflated file that grows more than a hundredfold", "", "Inflate it elsewhere.")
    file.seek(0)


def _check_kind(ds: Any) -> Kind:
    sop = UID(str(ds.get("SOPClassUID") or "")) or (
        UID(str(ds.file_meta.get("MediaStorageSOPClassUID", ""))) if hasattr(ds, "file_meta") else UID("")
    )
    if sop in _SEGMENTS:
        raise UnsupportedError("a segmentation", "an image", "Its segments are findings of the images it refers to.")
    if not ds.get("Rows") or not ds.get("Columns"):
        name = sop.name if sop and sop.name != sop else "no image type that is known"
        if "Image Storage" in name:
            raise InputError(f"{name} without Rows and Columns", "a whole file", "Fetch it again.")
        raise UnsupportedError(f"DICOM without a picture ({name})", "an image", "Give the images that it refers to.")
    kinds = texts(ds, "ImageType")
    if ds.get("BurnedInAnnotation") == "YES" or {"LABEL", "OVERVIEW"} & set(kinds[2:3]):
        raise UnsupportedError("a picture with identifiers burned in", "none", "Run `fovea data deidentify` first.")
    if own.DRAWN in kinds[3:]:
        raise UnsupportedError("a picture with findings drawn over it", "an image", "Give those that it was made from.")
    if (ds.get("SamplesPerPixel") or 1) > 1 or ds.get("PhotometricInterpretation") == "PALETTE COLOR":
        return "color"
    if sop == _MAP or ds.get("Modality") == "RTDOSE":
        return "value"
    if sop in _CT_CLASSES or (not sop and ds.get("Modality") == "CT"):
        rescaled = ds.get("RescaleSlope") is not None or ds.get("ModalityLUTSequence") is not None
        if not rescaled and not first_item(ds, "PixelValueTransformationSequence", frame=0):
            raise InputError("CT without RescaleSlope and RescaleIntercept", "both", "Export the series again.")
        return "HU" if str(ds.get("RescaleType") or "HU") in ("HU", "US", "HU_MOD") else "value"
    return "value" if ds.get("Modality") in ("MR", "PT", "NM") and not sop.startswith(_CAPTURE) else "display"


def _modality(ds: Any) -> str:
    modality = str(ds.get("Modality"))
    capture = str(ds.get("SOPClassUID", "")).startswith(_CAPTURE)
    return modality if modality in _MODALITIES and not (capture and modality in _SLICED) else "OT"


def _channels(ds: Any, kind: Kind, modality: str) -> tuple[tuple[Channel, ...], float]:
    if kind == "HU":
        return (Channel("HU", "HU"),), 1.0
    if kind == "color":
        return (Channel("red"), Channel("green"), Channel("blue")), 1.0
    channel, factor = measured(ds, modality) if kind == "value" else (Channel("intensity"), 1.0)
    return (channel,), factor


def _native(
    fields: dict[str, Any] | None, pixels: tuple[int, int] | None, shape: tuple[int, int, int], size: int
) -> Native | None:
    """Plain pixels of one grey image; None leaves the file to pydicom. Raises InputError where pixels are missing."""
    if not fields or not pixels:
        return None
    bits, stored = int(fields.get("BitsAllocated") or 0), int(fields.get("BitsStored") or 0)
    usual = bits in (8, 16, 32) and 0 < stored <= bits and fields.get("HighBit") == stored - 1
    if not usual or shape[0] != 1 or (fields.get("SamplesPerPixel") or 1) != 1:
        return None
    if not str(fields.get("PhotometricInterpretation")).startswith("MONOCHROME"):
        return None
    wanted = shape[1] * shape[2] * bits // 8
    if min(pixels[1], size - pixels[0]) < wanted:
        raise InputError(
            f"{min(pixels[1], size - pixels[0])} bytes of pixels where {wanted} are declared",
            "a whole file",
            "Fetch it again.",
        )
    sign = "i" if fields.get("PixelRepresentation") else "u"
    return Native(pixels[0], np.dtype(f"<{sign}{bits // 8}"), bits - stored, fields)


def _pixel_size(ds: Any) -> Vector | None:
    """The distances (between rows, between columns) of a projection; one that is given as 0 counts as unknown."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        size = numbers(ds, name, 2)
        if size and min(size) > 0:
            return size
    return None


def _series(ds: Any, modality: str, lie: tuple[Plane, ...], slide: Tiles | None) -> tuple[str, ...]:
    """Equal for the files of one stack: series, shape, orientation, spacing and what tells acquisitions apart."""
    series = str(ds.get("SeriesInstanceUID", ""))
    if slide:
        return series, modality
    turn = [f"{value + 0.0:.2f}" for plane in lie[:1] for value in (*plane.along_row, *plane.along_column)]
    size = [f"{value:.3f}" for plane in lie[:1] for value in plane.spacing]
    kinds = texts(ds, "ImageType")
    apart = [_written(ds, name) for name in _APART]
    shape = [_written(ds, name) for name in ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation")]
    return (series, modality, *shape, *kinds, *apart, *turn, *size)


def _written(ds: Any, name: str) -> str:
    """The values of an element as text, numbers in one way however the file writes them."""
    value: Any = ds.get(name)
    items = [] if value is None else [value] if isinstance(value, (str, float, int)) else value
    return "\\".join(f"{float(item):.6g}" if isinstance(item, (int, float)) else str(item) for item in items)


def _meta(ds: Any, modality: str, kind: Kind) -> dict[str, str]:
    """Only words of closed lists and numbers: nothing that a person typed gets through."""
    view = _VIEWS.get(str(ds.get("ViewPosition", "")).upper())
    part = str(ds.get("BodyPartExamined", "")).upper()
    side = str(ds.get("ImageLaterality") or ds.get("Laterality") or "")
    found = {
        "modality": modality,
        "view": view,
        "body_part": part.lower() if part in _BODY_PARTS else None,
        "laterality": {"L": "left", "R": "right", "B": "both"}.get(side),
        "windows": _windows(ds) if kind in ("HU", "value") else None,
    }
    return {key: value for key, value in found.items() if value}


def _windows(ds: Any) -> str:
    """The linear windows that came with the values: "40/400, -600/1500" are two centres and widths."""
    item: Any = first_item(ds, "FrameVOILUTSequence", frame=0) or ds
    pairs = zip(*(_written(item, name).split("\\") for name in ("WindowCenter", "WindowWidth")), strict=False)
    return ", ".join(f"{c}/{w}" for c, w in pairs if _NUMBER.fullmatch(c) and _NUMBER.fullmatch(w) and float(w) > 0)
