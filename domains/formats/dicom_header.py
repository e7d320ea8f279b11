"""DICOM headers without identifiers: what the pixels mean, where they lie, and which files belong together."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError

from domains.formats.content import check_size, foreign
from fovea.errors import GeometryError, InputError, UnsupportedError

Vector = tuple[float, ...]
Kind = Literal["HU", "value", "display", "color"]
"""HU: Hounsfield units; value: what the scanner measured; display: grey for the eye in [0, 1]; color: RGB in [0, 1]."""

PYDICOM = (BytesLengthException, InvalidDicomError)
"""The errors of pydicom that derive from Exception alone."""

PROJECTION = ("DX", "CR", "MG", "RF", "XA", "RG", "IO", "PX")
_SLICED = ("CT", "MR", "PT")
_MODALITIES = (*PROJECTION, *_SLICED, "US", "NM", "ES", "XC", "OP", "OT")
_CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2",
)  # fmt: skip
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_REFUSED = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a radiotherapy dose",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.77.1.6": "a whole-slide image in tiles",
}
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


@dataclass(frozen=True)
class Plane:
    """Where one frame lies: centre of its first pixel and directions of growing column and row index in LPS mm,
    distances (between rows, between columns) in mm, and how thick it is, if known."""

    position: Vector
    along_row: Vector
    along_column: Vector
    spacing: Vector
    thickness: float | None


@dataclass(frozen=True, eq=False)
class Header:
    """What one file says; `planes` holds a plane a frame, or nothing. `series` and `path` stay inside the readers."""

    path: Path = field(repr=False)
    series: tuple[str, ...] = field(repr=False)
    modality: str
    kind: Kind
    frames: int
    rows: int
    columns: int
    planes: tuple[Plane, ...]
    pixel_size: Vector | None
    orientation: tuple[str, str]
    meta: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read all but the pixels; raises UnsupportedError for what is no picture, and other leaves of InputError."""
    with foreign("a DICOM file", *PYDICOM), path.open("rb") as file:
        _check_inflated(file)
        ds = dcmread(file, stop_before_pixels=True, force=True)
        kind = _check_kind(ds)
        frames = int(ds.get("NumberOfFrames") or 1)
        rows, columns = int(ds.Rows), int(ds.Columns)
        check_size(frames, rows, columns, int(ds.get("SamplesPerPixel", 1)))
        modality = _modality(ds)
        planes = _planes(ds, frames, required=modality in _SLICED)
        orientation = [str(value)[:1].upper() for value in ds.get("PatientOrientation") or ()]
        upright = (orientation[0], orientation[1]) if len(orientation) == 2 and modality in PROJECTION else ("", "")
        return Header(
            path=path,
            series=_series(ds, modality, planes),
            modality=modality,
            kind=kind,
            frames=frames,
            rows=rows,
            columns=columns,
            planes=planes,
            pixel_size=_pixel_size(ds) if modality in PROJECTION and frames == 1 else None,
            orientation=upright,
            meta=_meta(ds, modality),
        )


def first_item(ds: Dataset, sequence: str, *, frame: int | None = None) -> Dataset | None:
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


def _check_inflated(file: BinaryIO) -> None:
    """Raise LimitError when a deflated file would grow past the limit; leaves the file at its start."""
    head = file.read(144)
    if head[128:138] == b"DICM\x02\x00\x00\x00UL" and _DEFLATED in file.read(int.from_bytes(head[140:144], "little")):
        inflater, size = zlib.decompressobj(-15), 0
        while part := inflater.decompress(inflater.unconsumed_tail or file.read(2**16), 2**20):
            size += len(part)
            check_size(size)
    file.seek(0)


def _check_kind(ds: Dataset) -> Kind:
    sop = ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID", "")
    if sop in _REFUSED:
        raise UnsupportedError(f"{_REFUSED[sop]} in DICOM", "an image", "Give the images that it refers to.")
    if not ds.get("Rows") or not ds.get("Columns"):
        name = sop.name if sop and sop.name != sop else "no image type that is known"
        if "Image Storage" in name:
            raise InputError(f"{name} without Rows and Columns", "a whole file", "Fetch it again.")
        raise UnsupportedError(f"DICOM without a picture ({name})", "an image", "Give the images that it refers to.")
    if ds.get("BurnedInAnnotation") == "YES":
        raise UnsupportedError("a picture with identifiers burned in", "none", "Mask the text in the picture first.")
    if ds.get("SamplesPerPixel", 1) > 1 or ds.get("PhotometricInterpretation") == "PALETTE COLOR":
        return "color"
    if sop in _CT_CLASSES or (not sop and ds.get("Modality") == "CT"):
        rescaled = "RescaleSlope" in ds or "ModalityLUTSequence" in ds
        if not rescaled and not first_item(ds, "PixelValueTransformationSequence", frame=0):
            raise InputError("CT without RescaleSlope and RescaleIntercept", "both", "Export the series again.")
        return "HU"
    return "value" if ds.get("Modality") in ("MR", "PT", "NM") and not sop.startswith(_CAPTURE) else "display"


def _modality(ds: Dataset) -> str:
    modality = str(ds.get("Modality"))
    capture = str(ds.get("SOPClassUID", "")).startswith(_CAPTURE)
    return modality if modality in _MODALITIES and not (capture and modality in _SLICED) else "OT"


def _planes(ds: Dataset, frames: int, *, required: bool) -> tuple[Plane, ...]:
    if "PerFrameFunctionalGroupsSequence" in ds:
        if len(ds.PerFrameFunctionalGroupsSequence) != frames:
            raise GeometryError(
                f"{frames} frames with {len(ds.PerFrameFunctionalGroupsSequence)} functional groups", "one a frame"
            )
        parts = [
            [
                first_item(ds, name, frame=frame)
                for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
            ]
            for frame in range(frames)
        ]
        planes = [_plane(*part) for part in parts]
    else:
        planes = [_plane(ds, ds, ds)] if frames == 1 else [None]
    found = tuple(plane for plane in planes if plane)
    if len(found) == frames:
        return found
    if found or required:
        missing = [number for number, plane in enumerate(planes, 1) if not plane]
        raise GeometryError(
            f"no full geometry in frame {_listed(missing)}",
            "ImagePositionPatient, ImageOrientationPatient and PixelSpacing",
            "Export the series again with its geometry.",
        )
    return ()


def _plane(position: Dataset | None, orientation: Dataset | None, measures: Dataset | None) -> Plane | None:
    if position is None or orientation is None or measures is None:
        return None
    corner, turn = _numbers(position, "ImagePositionPatient", 3), _numbers(orientation, "ImageOrientationPatient", 6)
    spacing = _numbers(measures, "PixelSpacing", 2)
    if not corner or not turn or not spacing or min(spacing) <= 0:
        return None
    thickness = _numbers(measures, "SliceThickness", 1) or _numbers(measures, "SpacingBetweenSlices", 1) or (0.0,)
    return Plane(corner, turn[:3], turn[3:], spacing, thickness[0] if thickness[0] > 0 else None)


def _numbers(ds: Dataset, name: str, count: int) -> Vector | None:
    value: Any = ds.get(name)
    if value is None or value == "":
        return None
    numbers = tuple(float(item) for item in ([value] if count == 1 else value))
    if len(numbers) != count or not all(map(isfinite, numbers)):
        raise GeometryError(f"{name} with {len(numbers)} values or values without end", f"{count} finite numbers")
    return numbers


def _pixel_size(ds: Dataset) -> Vector | None:
    """The distances (between rows, between columns) of a projection; one that is given as 0 counts as unknown."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        size = _numbers(ds, name, 2)
        if size and min(size) > 0:
            return size
    return None


def _series(ds: Dataset, modality: str, planes: tuple[Plane, ...]) -> tuple[str, ...]:
    """Equal for the files of one stack: series, shape, orientation, spacing and what tells acquisitions apart."""
    turn = [f"{value + 0.0:.2f}" for plane in planes[:1] for value in (*plane.along_row, *plane.along_column)]
    size = [f"{value:.3f}" for plane in planes[:1] for value in plane.spacing]
    image_type = ds.get("ImageType") or ()
    apart = [str(ds.get(name, "")) for name in _APART]
    shape = [str(ds.get(name, "")) for name in ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation")]
    return (str(ds.get("SeriesInstanceUID", "")), modality, *shape, *map(str, image_type[2:3]), *apart, *turn, *size)


def _meta(ds: Dataset, modality: str) -> dict[str, str]:
    """Only words of closed lists: nothing that a person typed gets through."""
    view = _VIEWS.get(str(ds.get("ViewPosition", "")).upper())
    part = str(ds.get("BodyPartExamined", "")).upper()
    side = str(ds.get("ImageLaterality") or ds.get("Laterality") or "")
    found = {
        "modality": modality,
        "view": view,
        "body_part": part.lower() if part in _BODY_PARTS else None,
        "laterality": {"L": "left", "R": "right", "B": "both"}.get(side),
    }
    return {key: value for key, value in found.items() if value}


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (" …" if len(numbers) > 8 else "")
