"""DICOM segmentations: binary, fractional and label maps (PS3.3 A.51, C.8.20), as annotations with their planes."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import ExplicitVRBigEndian

from domains.formats.content import check_size, foreign
from domains.formats.dicom import own
from domains.formats.dicom.annotation import Annotation, Annotations, Patch, affine
from domains.formats.dicom.codes import concept, first, side
from domains.formats.dicom.planes import planes
from domains.formats.isolation import isolated
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.image import Matrix
from fovea.types import Code

CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes: Segmentation, and Label Map Segmentation."""
PYDICOM = (BytesLengthException, InvalidDicomError)
_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
_RLE = "1.2.840.10008.1.2.5"
_BACKGROUND = "125040"
_ALGORITHMS = {"AUTOMATIC": "automatic", "SEMIAUTOMATIC": "semiautomatic", "MANUAL": "manual"}


def read(path: Path) -> Annotations:
    """One annotation a segment; of fractions, what reaches half of the maximum counts.

    The file is parsed and decoded in a process of its own. Raises UnsupportedError for whole-slide images and encodings
    that are not read, GeometryError where planes are missing or contradict the file, LimitError before decoding, and
    InputError.
    """
    facts, frames = isolated(parse, path)
    known = [np.array(plane, float) for plane in facts["planes"]]
    lie: list[Matrix | None] = [*known] or [None] * len(frames)
    items = []
    for segment in facts["segments"]:
        number = segment["number"]
        patches = tuple(
            Patch(frame == number if facts["labels"] else frame >= facts["half"], plane)
            for frame, plane, of in zip(frames, lie, facts["of"], strict=True)
            if facts["labels"] or of == number
        )
        filled = tuple(patch for patch in patches if patch.mask.any())
        items.append(
            Annotation(
                _code(segment["kind"]),
                segment["by"],
                _code(segment["site"]),
                segment["side"],
                patches=filled,
                found=bool(filled),
                number=number,
                tracking=segment["tracking"],
            )
        )
    return Annotations(
        "seg", tuple(items), facts["frame"], frozenset(facts["names"]), facts["spacing"], facts["instance"]
    )


def parse(path: Path) -> tuple[dict[str, Any], NDArray[Any]]:
    """What the header says, as JSON has it, and the stored frames (frame, row, column); for a child process."""
    with foreign("a segmentation in DICOM", *PYDICOM):
        ds = dcmread(path)
        _check(ds)
        count, rows, columns = int(ds.get("NumberOfFrames") or 1), int(ds.Rows), int(ds.Columns)
        check_size(count, rows, columns)
        groups = ds.get("PerFrameFunctionalGroupsSequence") or ()
        if len(groups) != count:
            raise GeometryError(f"{count} frames with {len(groups)} functional groups", "one a frame")
        labels, shared = ds.SegmentationType == "LABELMAP", first(ds, "SharedFunctionalGroupsSequence")
        segments = [_segment(item, own.made(ds)) for item in ds.SegmentSequence]
        numbers = [segment["number"] for segment in segments]
        of = [0 if labels else _of(group, shared) for group in groups]
        if len(set(numbers)) != len(numbers) or not set(of) <= {*numbers, 0}:
            raise InputError("a segmentation whose frames and segments do not fit", "a declared segment for each frame")
        facts = {
            "labels": labels,
            "half": int(ds.MaximumFractionalValue) / 2 if ds.SegmentationType == "FRACTIONAL" else 1,
            "segments": [segment for segment in segments if segment["kind"][:2] != ["DCM", _BACKGROUND]],
            "of": of,
            "planes": [affine(plane).tolist() for plane in planes(ds, count, required=False)],
            "frame": str(ds.get("FrameOfReferenceUID") or ""),
            "names": _names(ds),
            "spacing": _spacing(groups, shared),
            "instance": str(ds.SOPInstanceUID),
        }
        return facts, _frames(ds, count, rows, columns)


def _check(ds: Dataset) -> None:
    if ds.get("SOPClassUID") not in CLASSES:
        raise UnsupportedError("DICOM that is no segmentation", "Segmentation or Label Map Segmentation Storage")
    if ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        raise UnsupportedError("a segmentation in the retired Explicit VR Big Endian", "Little Endian", "Convert it.")
    if "TotalPixelMatrixRows" in ds or "SLIDE" in str(ds.get("ImageType")):
        raise UnsupportedError("a segmentation of a whole-slide image in tiles", "one of radiological images")
    if ds.get("SegmentationType") == "FRACTIONAL" and not 0 < int(ds.MaximumFractionalValue) < 256:
        raise InputError("fractions without a maximum", "MaximumFractionalValue from 1 to 255")
    if ds.get("SegmentationType") not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise InputError("a segmentation of unknown type", "BINARY, FRACTIONAL or LABELMAP")


def _segment(item: Dataset, ours: bool) -> dict[str, Any]:
    kind, site = first(item, "SegmentedPropertyTypeCodeSequence"), first(item, "AnatomicRegionSequence")
    modifiers = [
        *(kind.get("SegmentedPropertyTypeModifierCodeSequence") or () if kind else ()),
        *(site.get("AnatomicRegionModifierSequence") or () if site else ()),
    ]
    return {
        "number": int(item.SegmentNumber),
        "kind": _plain(concept(kind, ours)),
        "site": _plain(concept(site)),
        "side": side(*modifiers),
        "by": _ALGORITHMS.get(item.get("SegmentAlgorithmType"), "unknown"),
        "tracking": str(item.get("TrackingUID") or "") if ours else "",
    }


def _plain(code: Code | None) -> list[str]:
    return [code.scheme, code.value, code.meaning] if code else []


def _code(parts: list[str]) -> Code | None:
    return Code(*parts) if parts else None


def _group(group: Dataset, shared: Dataset | None, sequence: str) -> Dataset | None:
    found: Dataset | None = first(group, sequence) or first(shared, sequence)
    return found


def _of(group: Dataset, shared: Dataset | None) -> int:
    item = _group(group, shared, "SegmentIdentificationSequence")
    if item is None:
        raise InputError("a segmentation with a frame of no segment", "SegmentIdentificationSequence for each frame")
    return int(item.ReferencedSegmentNumber)


def _spacing(groups: Any, shared: Dataset | None) -> float | None:
    measures = _group(groups[0], shared, "PixelMeasuresSequence")
    declared = measures.get("SpacingBetweenSlices") if measures is not None else None
    return float(declared) if declared else None


def _names(ds: Dataset) -> list[str]:
    """The UIDs of the series and images that were segmented."""
    series = ds.get("ReferencedSeriesSequence") or ()
    images = [*(ds.get("SourceImageSequence") or ())]
    images += [image for item in series for image in item.get("ReferencedInstanceSequence") or ()]
    uids = {str(item.get("SeriesInstanceUID", "")) for item in series}
    uids |= {str(item.get("ReferencedSOPInstanceUID", "")) for item in images}
    return sorted(uids - {""})


def _frames(ds: Dataset, count: int, rows: int, columns: int) -> NDArray[Any]:
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax == _DEFLATED_FRAMES:
        return _deflated(ds, count, rows, columns)
    if syntax == _RLE and ds.BitsAllocated == 1:
        raise UnsupportedError("a segmentation of single bits in RLE", "another encoding", "Convert it.")
    from highdicom.seg import Segmentation

    for group in (*ds.SharedFunctionalGroupsSequence, *ds.PerFrameFunctionalGroupsSequence):
        for measures in group.get("PixelMeasuresSequence") or ():
            measures.setdefault("SliceThickness", 1)  # highdicom asks for it; planes have been read before
    seg = Segmentation.from_dataset(ds, copy=False)
    return np.stack([seg.get_stored_frame(number) for number in range(1, count + 1)])


def _deflated(ds: Dataset, count: int, rows: int, columns: int) -> NDArray[np.uint8]:
    """Deflated Image Frame Compression (PS3.5 A.4.14): each frame a raw deflate stream of its native bytes."""
    if ds.BitsAllocated not in (1, 8):
        raise UnsupportedError("deflated frames of more than 8 bits", "1 or 8 bits", "Convert it.")
    size = rows * columns * ds.BitsAllocated
    frames = []
    for packed in generate_frames(ds.PixelData, number_of_frames=count):
        data = np.frombuffer(zlib.decompressobj(-15).decompress(packed, -(-size // 8) + 1), np.uint8)
        frames.append(np.unpackbits(data, bitorder="little") if ds.BitsAllocated == 1 else data)
    return np.stack([frame[: rows * columns].reshape(rows, columns) for frame in frames])
