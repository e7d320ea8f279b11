"""The DICOM images of a report's study, read again: what a new object refers to, and where its pixels go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from highdicom.utils import is_multiframe_image  # type: ignore[attr-defined]  # documented there, without __all__
from pydicom import Dataset, dcmread
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID
from pydicom.valuerep import DA, TM, validate_value

from domains.formats import dicom
from domains.formats.content import FileHashes, foreign
from domains.formats.dicom.annotation import Annotation, Annotations, Outline
from domains.formats.dicom.mosaic import is_mosaic
from domains.formats.dicom.overlays import CHANNEL
from domains.formats.dicom.planes import first_item, texts
from domains.formats.dicom.source import Sources, located, sources
from domains.radiology.export import export
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.image import LPS, Bools, Grid, Matrix
from fovea.types import Report

_CHARACTERS = ("ISO_IR 100", "ISO_IR 192")
"""Latin 1, which every system reads, where all texts fit; else UTF-8."""
_REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "StudyID", "ReferringPhysicianName",
)  # fmt: skip
"""Elements of type 2: there, and empty where the source has no valid value."""
_OPTIONAL = (
    "IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved", "StudyDescription",
    "FrameOfReferenceUID", "Modality", "PhotometricInterpretation", "SamplesPerPixel", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept", "RescaleType",
    "WindowCenter", "WindowWidth", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    "PatientOrientation",
)  # fmt: skip
_READ = (*_REQUIRED, *_EMPTY, *_OPTIONAL)
_LOOKS = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth"),
}
_CLOCKS = {"DA": DA, "TM": TM}
"""Their form alone lets the thirtieth of February pass."""
_RECONSTRUCTED = ("CT", "MR", "PT", "NM")
_SLACK = 0.1
"""How far from the middle of a slice a frame may lie, in slices."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One stored frame: the header of its file, its number (from 1) where the file has several, and `lain` float64
    (4, 4) from its stored (column, row, 0, 1) to (column, row, slice, 1) of the study's image."""

    header: Dataset = field(repr=False)
    number: int | None
    lain: Matrix

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.header.Rows), int(self.header.Columns)

    @property
    def numbers(self) -> list[int] | None:
        """The number as a reference has it."""
        return None if self.number is None else [self.number]

    def stored(self, mask: Bools) -> Bools:
        """A mask bool (row, column) of the slice, on the stored pixels."""
        if mask.shape == self.shape and np.allclose(self.lain[:2], np.eye(4)[:2], atol=0.01):
            return mask
        row, column = np.indices(self.shape).reshape(2, -1)
        points = self.lain[:2] @ np.stack([column, row, np.zeros(row.size), np.ones(row.size)])
        there = np.rint(points[::-1]).astype(int)
        known = ((there.T >= 0) & (np.array(mask.shape) > there.T)).all(1)
        found = np.zeros(row.size, bool)
        found[known] = mask[tuple(there[:, known])]
        return found.reshape(self.shape)

    def points(self, corners: Matrix) -> Matrix:
        """Index points (n, 2) in order (row, column) as stored (column, row), the first pixel's corner being (0, 0),
        kept inside the image."""
        across = np.linalg.inv(self.lain[:2, :2])
        moved = (np.asarray(corners, float)[:, ::-1] - self.lain[:2, 3]) @ across.T + 0.5
        inside: Matrix = np.clip(moved, 0, np.array(self.shape[::-1]))
        return inside


@dataclass(frozen=True, eq=False)
class Originals:
    """SHA-256 over what a report says and over the files of its study; and for each image of the study its frames in
    the order of the slices, or nothing for an image of overlays."""

    digest: str
    images: tuple[tuple[Frame, ...], ...] = field(repr=False)

    @property
    def clean(self) -> bool:
        """Whether no file may have the identity of the patient burned in."""
        return all(frame.header.get("BurnedInAnnotation") == "NO" for frames in self.images for frame in frames)

    @property
    def header(self) -> Dataset:
        """The header of the first frame: patient and study are those of all."""
        return next(frames[0].header for frames in self.images if frames)


def originals(report: Report, paths: Sequence[Path]) -> Originals:
    """Match files to the study of a report, which was loaded from them, by content and by position.

    Raises UnsupportedError for what is not DICOM, for mosaics, slides, classes that are not the standard's and files
    without valid UIDs; InputError for other files; GeometryError where a slice has no frame.
    """
    study = report.study
    if not study.source.reader.startswith("radiology-dicom") or not all(map(dicom.is_dicom, paths)):
        raise UnsupportedError(
            "a study that was not read from DICOM files", "DICOM images", "Name another output, such as nifti or fhir."
        )
    hashes = FileHashes(paths)
    if set(hashes) != set(study.source.hashes):
        raise InputError("source files that are not those of the study", "the files that it was loaded from")
    order = {digest: place for place, digest in enumerate(study.source.hashes)}
    ordered = [path for _, path in sorted(zip(hashes, paths, strict=True), key=lambda pair: order[pair[0]])]
    headers = [_header(path) for path in ordered]
    if len({header.StudyInstanceUID for header in headers}) > 1:
        raise InputError("files of several studies", "the files of one study")
    characters = _characters(report, headers[0])
    for header in headers:
        header.SpecificCharacterSet = characters
    known = sources(ordered)
    drawn = [image.channels[0] != CHANNEL for image in study.images]
    alone = drawn.count(True) == len(headers)
    images: list[tuple[Frame, ...]] = []
    for place, image in enumerate(study.images):
        number = drawn[:place].count(True)
        files = [headers[number]] if alone else headers
        twins = sum(image.grid.same(other.grid) for other in study.images[:place]) if not alone else 0
        images.append(_frames(files, known, image.grid, twins) if drawn[place] else ())
    whole = sha256(study.digest.encode() + export(report, "json")).hexdigest()
    return Originals(whole, tuple(images))


def _characters(report: Report, header: Dataset) -> str:
    texts = [str(element.value) for element in header]
    texts += [report.reviewer, *report.provenance.values()]
    texts += [str(one.by) + one.label for answer in report.answers for one in answer.findings]
    try:
        "".join(texts).encode("latin-1")
    except UnicodeEncodeError:
        return _CHARACTERS[1]
    return _CHARACTERS[0]


def _frames(headers: Sequence[Dataset], known: Sources, grid: Grid, turn: int) -> tuple[Frame, ...]:
    """The frames of one image; of several at the same place, as stacks of a film have them, those of a turn."""
    found: dict[int, list[Frame]] = {}
    for header in headers:
        count = int(header.get("NumberOfFrames") or 1)
        for frame in range(count):
            lain = _lain(header, frame, known, grid)
            place = int(np.rint(lain[2, 3]))
            level = abs(lain[2] - (0, 0, 0, place)) * (header.Columns, header.Rows, 0, 1)
            if level.max() <= _SLACK and 0 <= place < grid.shape[0]:
                number = frame + 1 if "NumberOfFrames" in header else None
                found.setdefault(place, []).append(Frame(header, number, lain))
    if any(len(found.get(place, ())) <= turn for place in range(grid.shape[0])):
        raise GeometryError("a slice of the study without a frame of its files", "the files that it was loaded from")
    return tuple(found[place][turn] for place in range(grid.shape[0]))


def _lain(header: Dataset, frame: int, known: Sources, grid: Grid) -> Matrix:
    """From the stored (column, row, 0, 1) of a frame to (column, row, slice, 1) of an image."""
    instance = str(header.SOPInstanceUID)
    planar = (instance, frame) not in known.planes or grid.frame != LPS
    sizes = sorted((header.Rows, header.Columns))
    if planar and (grid.frame == LPS or sorted(grid.shape[1:]) != sizes):
        raise UnsupportedError("a part of an image without positions", "the whole image", "Load it without a window.")
    lain = np.eye(4)
    if planar and (instance, frame) in known.planes:  # a lone slice of unknown thickness: pixels as they are stored
        return lain
    corners = np.array([(0.0, 0, 0), (1, 0, 0), (0, 1, 0)])
    mark = Annotation(None, "unknown", outlines=(Outline(corners, instance, frame),))
    (moved,) = located(Annotations("source", (mark,)), known, grid)
    index = grid.index(moved.outlines[0].points)[:, ::-1]
    lain[:3, 0], lain[:3, 1], lain[:3, 3] = index[1] - index[0], index[2] - index[0], index[0]
    if planar:
        lain[2, 3] = frame
    return lain


def _header(path: Path) -> Dataset:
    """What new objects take over from a file, each element in a valid form or not at all."""
    with foreign("a DICOM file", BytesLengthException, InvalidDicomError):
        ds = dcmread(path, stop_before_pixels=True, force=True)
        if is_mosaic(ds) or "TotalPixelMatrixRows" in ds:
            raise UnsupportedError(
                "a mosaic or a slide", "images that each hold one slice", "Name another output, such as nifti."
            )
        found = Dataset()
        for keyword in _READ:
            value = _valid(ds, keyword)
            if value is not None or keyword in _EMPTY:
                setattr(found, keyword, "" if value is None else value)
        if any(not UID(str(found.get(name) or "")).is_valid or not found.get(name) for name in _REQUIRED):
            raise UnsupportedError("DICOM without valid UIDs of study, series and image", "them", "Export it again.")
        kind = UID(found.SOPClassUID)
        if kind.type != "SOP Class" or kind.is_retired or kind.name.startswith(("DICOS", "Eddy")):
            raise UnsupportedError(
                "images of a class that is retired or private", "one of the standard", "Convert them."
            )
        if found.PatientSex not in ("M", "F", "O"):
            found.PatientSex = ""
        _tell_deidentified(found, ds)
        if _is_clean(ds):
            found.BurnedInAnnotation = "NO"
        found.Rows, found.Columns = int(ds.Rows), int(ds.Columns)
        if is_multiframe_image(found):
            found.NumberOfFrames = int(ds.get("NumberOfFrames") or 1)
            _tell_looks(found, ds)
        elif int(ds.get("NumberOfFrames") or 1) > 1:
            raise UnsupportedError("several frames in a class of single ones", "a multi-frame class", "Convert them.")
    return found


def _valid(ds: Dataset, keyword: str) -> Any:
    """The value of an element, or None where the standard does not allow it."""
    value: Any = ds.get(keyword)
    if value is None or value == "":
        return None
    kind = dictionary_VR(keyword)
    try:
        for item in value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]:
            if kind not in ("US", "FL", "FD"):
                validate_value(kind, str(item), RAISE)
            if kind in _CLOCKS:
                _CLOCKS[kind](str(item))
    except (ValueError, TypeError):
        return None
    return str(value) if kind == "PN" else value  # a name is written again in our character set


def _is_clean(ds: Dataset) -> bool:
    """Whether a file says that no identity is burned in, or says nothing and holds what a scanner reconstructed
    (PS3.3 C.7.6.1: without a word, there may be one)."""
    said = ds.get("BurnedInAnnotation")
    primary = texts(ds, "ImageType")[1:2] == ["PRIMARY"] and ds.get("Modality") in _RECONSTRUCTED
    return bool(said == "NO" or (not said and primary))


def _tell_looks(found: Dataset, ds: Dataset) -> None:
    """The scale and window of functional groups, where all frames have the same."""
    for sequence, keywords in _LOOKS.items():
        groups = [first_item(ds, sequence, frame=frame) for frame in range(int(ds.NumberOfFrames))]
        values = [[group and _valid(group, keyword) for keyword in keywords] for group in groups]
        if values[0][0] is not None and values.count(values[0]) == len(values):
            for keyword, value in zip(keywords, values[0], strict=True):
                if value is not None:
                    setattr(found, keyword, value)


def _tell_deidentified(found: Dataset, ds: Dataset) -> None:
    """The method goes with the statement that an identity was removed (PS3.3 C.7.1.1, type 1C)."""
    if found.get("PatientIdentityRemoved") == "YES":
        found.DeidentificationMethod = _valid(ds, "DeidentificationMethod") or "As stated by the source"
    elif "PatientIdentityRemoved" in found:
        del found.PatientIdentityRemoved
