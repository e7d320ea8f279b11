"""Findings from DICOM about a study: segmentations, measurement reports, RT structure sets, overlays of its images."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info

from domains.formats.content import check_size, file_hash, foreign
from domains.formats.dicom import overlays as dicom_overlays
from domains.formats.dicom import rtstruct as dicom_rtstruct
from domains.formats.dicom import seg as dicom_seg
from domains.formats.dicom import source as dicom_source
from domains.formats.dicom import sr as dicom_sr
from domains.formats.dicom.annotation import Annotation, Annotations, paint
from domains.radiology.vocabulary import TERMS, VOCABULARY
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.types import DETECTOR, LPS, Bools, Code, Finding, Grid, Mask, Measure, Origin, Study

_READERS: Mapping[str, Callable[[Path], Annotations]] = {
    **dict.fromkeys(dicom_seg.CLASSES, dicom_seg.read),
    **dict.fromkeys(dicom_sr.CLASSES, dicom_sr.read),
    **dict.fromkeys(dicom_rtstruct.CLASSES, dicom_rtstruct.read),
}
UNCODED = "uncoded"
"""The label of what has no code of a public scheme."""
_LABELS = {term.code.value: term.label for term in VOCABULARY if term.code.scheme == "SCT"}
_PAIRED = {"64033007": ("left_kidney", "right_kidney"), "39607008": ("left_lung", "right_lung")}
"""Organs of SNOMED CT that a side makes one of two labels."""
_FOCAL = ("52988006", "108369006", "4147007", "86049000", "14799000", "128462008", "27925004")
"""Lesion, tumour, mass, primary and secondary neoplasm, secondary malignancy, nodule."""
_NODULE = "27925004"
_LESIONS = {
    "10200004": "liver_lesion", "64033007": "kidney_lesion", "18639004": "kidney_lesion", "9846003": "kidney_lesion",
}  # fmt: skip
_LUNGS = ("39607008", "44029006", "3341006")
_MASKS = 16
"""How many times the size of one image the masks of an object may have: they are bits where an image has floats."""


def findings(paths: Path | Sequence[Path], study: Study, source: Sequence[Path] = ()) -> tuple[Finding, ...]:
    """What DICOM SEG, SR (TID 1500) and RTSTRUCT files say of a study: a finding for each segment, group or region.

    A path to an image of the study gives the regions of interest among its overlays, with the number of pixels, mean
    and standard deviation that they declare; overlays of graphics are no findings.

    Masks lie on an image of the study by position in the patient. A label is one of the vocabulary where the code, or
    of a region without a code its name, is one that the vocabulary knows; otherwise "SCHEME:value" of a public code, or
    "uncoded". No text of a file passes. `score` is 1 where the object claims something and 0 for an empty segment;
    `by` names the format and the kind of its author ("dicom-seg/automatic") at a hash of the file.

    `source` are the files of the study. They are needed where an object gives positions in the pixels of an image
    (radiographs, SCOORD), and where they are given an object about other images is refused. A report measures the
    segments of the segmentations among `paths`.

    Raises GeometryError where an object does not lie on an image, UnsupportedError for other objects, and InputError.
    """
    files = (paths,) if isinstance(paths, Path) else tuple(paths)
    if source and {file_hash(path) for path in source}.isdisjoint(study.source.hashes):
        raise InputError("source files that are not those of the study", "the files that it was loaded from")
    known = dicom_source.sources(source)
    told = [(path, _read(path)) for path in files]
    masks: dict[tuple[str, int], tuple[Bools, int]] = {}
    found: list[Finding] = []
    for path, object_ in sorted(told, key=lambda item: item[1].format != "seg"):
        dicom_source.check(object_, known)
        overlay, digest = object_.format == "overlay", file_hash(path)
        places = _places(digest, study) if overlay else range(len(study.images))
        index, drawn = _drawn(object_, study, places, dicom_source.sources([path]) if overlay else known)
        origin = Origin(f"dicom-{object_.format}", digest[:12], study.digest)
        for item, mask in drawn:
            image = index
            if item.refers in masks and not mask.any():
                mask, image = masks[item.refers]
            if item.number:
                masks[object_.instance, item.number] = mask, image
            by = replace(origin, name=f"{origin.name}/{item.by}")
            found.append(_finding(item, mask, image, study.images[image].grid, by))
    return tuple(found)


def _read(path: Path) -> Annotations:
    with foreign("a DICOM file", BytesLengthException, InvalidDicomError):
        try:
            kind = str(read_file_meta_info(path).get("MediaStorageSOPClassUID") or "")
        except InvalidDicomError:  # older files without preamble
            kind = str(dcmread(path, force=True, specific_tags=["SOPClassUID"]).get("SOPClassUID") or "")
    if kind not in _READERS:
        try:
            return dicom_overlays.read(path)
        except UnsupportedError as error:
            remedy = error.remedy or "Load images as a study instead."
            raise UnsupportedError(error.given, "DICOM SEG, SR or RTSTRUCT, or regions in overlays", remedy) from None
    return _READERS[kind](path)


def _places(digest: str, study: Study) -> Sequence[int]:
    """The images of a study that its file of that digest may show: of files that have an image each, the one."""
    images = [index for index, image in enumerate(study.images) if image.channels[0] != dicom_overlays.CHANNEL]
    hashes = list(study.source.hashes)
    if digest not in hashes:
        raise InputError("overlays of another image", "a file that the study was loaded from", "Load that image.")
    return [images[hashes.index(digest)]] if len(images) == len(hashes) else images


def _drawn(
    told: Annotations, study: Study, places: Sequence[int], known: dicom_source.Sources
) -> tuple[int, list[tuple[Annotation, Bools]]]:
    """The index of the first of some images on which all of an object lies, and its annotations with their masks."""
    reason: InputError = InputError("a study without images", "one with an image")
    for index in places:
        image = study.images[index]
        check_size(-(-len(told.items) // _MASKS), *image.grid.shape)
        try:
            _check_spacing(told, image.grid)
            items = dicom_source.located(told, known, image.grid)
            return index, [(item, paint(item, image.grid)) for item in items]
        except GeometryError as error:
            reason = error
    raise reason


def _check_spacing(told: Annotations, grid: Grid) -> None:
    drawn = any(item.patches for item in told.items)
    if told.spacing and drawn and grid.shape[0] > 1 and abs(told.spacing - grid.spacing[0]) > 0.01 * told.spacing:
        raise GeometryError(
            f"a segmentation every {told.spacing:.4g} mm of slices every {grid.spacing[0]:.4g} mm",
            "the image that it was drawn on",
            "Load that image.",
        )


def _finding(item: Annotation, mask: Bools, image: int, grid: Grid, by: Origin) -> Finding:
    label = _label(item)
    code = TERMS[label].code if label in TERMS else item.kind or Code("FOVEA", UNCODED, "A concept without public code")
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    region = Mask(mask) if len(filled) else None
    return Finding(
        label,
        code,
        item.found,
        float(item.found),
        by,
        "" if label.startswith(("left_", "right_")) else item.side,
        (*item.measures, *(_size(mask, grid) if region and not item.measures else ())),
        region,
        image,
        (int(filled[0]), int(filled[-1]) + 1) if len(filled) else None,
    )


def _label(item: Annotation) -> str:
    """The label of the vocabulary, by code, place and side, or by name where there is no code."""
    if item.kind is None:
        return _named(item.name)
    value = item.kind.value if item.kind.scheme == "SCT" else ""
    site = item.site.value if item.site is not None and item.site.scheme == "SCT" else ""
    if value in _FOCAL and site in _LESIONS:
        return _LESIONS[site]
    if value == _NODULE and site in _LUNGS:
        return "nodule"
    if value in _PAIRED and item.side in ("left", "right"):
        return _PAIRED[value][item.side == "right"]
    return _LABELS.get(value) or f"{item.kind.scheme}:{item.kind.value}"


def _named(name: str) -> str:
    """The label that a region's name is, as a whole, in our words or in those of AAPM TG-263 ("Kidney_L")."""
    words = re.sub(r"[\W_]+", " ", name).strip().lower().split()
    sides = {"l": "left", "lt": "left", "r": "right", "rt": "right"}
    words = [sides.get(word, word) for word in words]
    words.sort(key=lambda word: word not in ("left", "right"))
    return next(
        (
            term.label
            for term in VOCABULARY
            if " ".join(words) in (term.label.replace("_", " "), *(synonym.lower() for synonym in term.synonyms))
        ),
        UNCODED,
    )


def _size(mask: Bools, grid: Grid) -> tuple[Measure, ...]:
    """The volume of a mask in a patient, or its area on a detector."""
    count, (slice_, row, column) = int(np.count_nonzero(mask)), grid.spacing
    if grid.frame == LPS:
        return (Measure("volume", count * slice_ * row * column / 1000, "mL"),)
    return (Measure("area", count * row * column / 100, "cm2"),) if grid.frame == DETECTOR else ()
