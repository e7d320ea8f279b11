"""Findings from DICOM about a study: segmentations, measurement reports, RT structure sets, overlays of its images."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info

from domains.formats.content import check_size, file_hash, foreign
from domains.formats.dicom import overlays as dicom_overlays
from domains.formats.dicom import own
from domains.formats.dicom import rtstruct as dicom_rtstruct
from domains.formats.dicom import seg as dicom_seg
from domains.formats.dicom import source as dicom_source
from domains.formats.dicom import sr as dicom_sr
from domains.formats.dicom.annotation import Annotation, Annotations, paint
from domains.radiology.vocabulary import TERMS, VOCABULARY
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.types import DETECTOR, LPS, Bools, Code, Finding, Grid, Instance, Mask, Measure, Origin, Patch, Study

_READERS: Mapping[str, Callable[[Path], Annotations]] = {
    **dict.fromkeys(dicom_seg.CLASSES, dicom_seg.read),
    **dict.fromkeys(dicom_sr.CLASSES, dicom_sr.read),
    **dict.fromkeys(dicom_rtstruct.CLASSES, dicom_rtstruct.read),
}
UNCODED = "uncoded"
"""The label of what has no code of a public scheme."""
_LABELS = {(term.code.scheme, term.code.value): term.label for term in VOCABULARY if term.code.scheme != "FOVEA"} | {
    ("FOVEA", own.value(term.code.value)): term.label for term in VOCABULARY if term.code.scheme == "FOVEA"
}
"""Labels by scheme and value; values of our own table as DICOM objects have them."""
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
    "uncoded". No text of a file passes. `score` is the probability that the object tells, else 1 where it claims
    something, and 0 for an empty segment and for what it calls absent; `by` names the format and the kind of its author
    ("dicom-seg/automatic") at a hash of the file. In files of our making the objects of a finding are its instances,
    where their pixels are known.

    `source` are the files of the study. They are needed where an object gives positions in the pixels of an image
    (radiographs, SCOORD), and where they are given an object about other images is refused. A report measures the
    segments of the segmentations among `paths`.

    Raises GeometryError where an object does not lie on an image, UnsupportedError for other objects, and InputError.
    """
    files = (paths,) if isinstance(paths, Path) else tuple(paths)
    if source and {file_hash(path) for path in source}.isdisjoint(study.source.hashes):
        raise InputError("source files that are not those of the study", "the files that it was loaded from")
    known = dicom_source.sources(source)
    homes = _homes(source, known, study)
    told = [(path, _read(path)) for path in files]
    masks: dict[tuple[str, int] | None, tuple[Bools, int]] = {}
    found: list[Finding] = []
    for path, object_ in sorted(told, key=lambda item: item[1].format != "seg"):
        dicom_source.check(object_, known)
        overlay, digest = object_.format == "overlay", file_hash(path)
        places = _places(digest, study) if overlay else range(len(study.images))
        drawn = (
            _drawn(object_, study, places, dicom_source.sources([path]), {})
            if overlay
            else _drawn(object_, study, places, known, homes)
        )
        origin = Origin(f"dicom-{object_.format}", digest[:12], study.digest)
        laid = [one if one.mask.any() else _Laid(one.item, *masks.get(one.item.refers, one[1:])) for one in drawn]
        masks |= {(object_.instance, one.item.number): one[1:] for one in laid if one.item.number}
        found += _told(laid, study, origin)
    return tuple(found)


class _Laid(NamedTuple):
    """An annotation with its mask on an image, by number."""

    item: Annotation
    mask: Bools
    image: int


def _told(laid: Sequence[_Laid], study: Study, origin: Origin) -> list[Finding]:
    """The findings of one object, those that are parts of others as their instances."""
    parts = _parts(laid)
    apart = {id(part) for some in parts.values() for part in some}
    return [
        _finding(one, study.images[one.image].grid, origin, parts.get(id(one), ()))
        for one in laid
        if id(one) not in apart
    ]


def _parts(laid: Sequence[_Laid]) -> dict[int, list[_Laid]]:
    """By the identity of a whole its parts in order, as their tracking UIDs tell."""
    named = {one.item.tracking: one for one in laid if one.item.tracking}
    found: dict[int, list[_Laid]] = {}
    for uid, whole in named.items():
        while (part := named.get(own.part(uid, len(found.get(id(whole), ())) + 1))) is not None:
            before = found.get(id(whole)) or [whole if whole.mask.any() else part]
            if part.image != before[0].image or not part.mask.any():
                break
            found.setdefault(id(whole), []).append(part)
    return found


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


def _homes(source: Sequence[Path], known: dicom_source.Sources, study: Study) -> Mapping[str, int]:
    """Of images that have a file each and no place in the patient, the image by its SOP instance UID."""
    found: dict[str, int] = {}
    for path, instance in zip(source, known.instances, strict=True) if len(study.images) > 1 else ():
        digest = file_hash(path)
        places = _places(digest, study) if digest in study.source.hashes else ()
        if len(places) == 1 and study.images[places[0]].grid.frame != LPS:
            found[instance] = places[0]
    return found


def _drawn(
    told: Annotations, study: Study, places: Sequence[int], known: dicom_source.Sources, homes: Mapping[str, int]
) -> list[_Laid]:
    """The annotations of an object with their masks: those in the pixels of one image on that, the others together."""
    at = [_home(item, told, homes) for item in told.items]
    found: dict[int, _Laid] = {}
    for home in dict.fromkeys(at):
        items = [place for place, other in enumerate(at) if other == home]
        part = replace(told, items=tuple(told.items[place] for place in items))
        found |= zip(items, _together(part, study, places if home is None else (home,), known), strict=True)
    return [found[place] for place in range(len(at))]


def _home(item: Annotation, told: Annotations, homes: Mapping[str, int]) -> int | None:
    """The image whose pixels an annotation names, where it is told and one."""
    named = {outline.instance for outline in item.outlines}
    if any(patch.affine is None for patch in item.patches):
        named |= told.names
    found = {homes[name] for name in named if name in homes}
    return found.pop() if len(found) == 1 else None


def _together(told: Annotations, study: Study, places: Sequence[int], known: dicom_source.Sources) -> list[_Laid]:
    """All annotations of an object with their masks, on the first of some images on which they lie."""
    reason: InputError = InputError("a study without images", "one with an image")
    for index in places:
        image = study.images[index]
        check_size(-(-len(told.items) // _MASKS), *image.grid.shape)
        try:
            _check_spacing(told, image.grid)
            items = dicom_source.located(told, known, image.grid)
            return [_Laid(item, paint(item, image.grid), index) for item in items]
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


def _finding(one: _Laid, grid: Grid, origin: Origin, parts: Sequence[_Laid]) -> Finding:
    item, label = one.item, _label(one.item)
    code = Code("FOVEA", UNCODED, "A concept without public code")
    if label in TERMS:
        code = TERMS[label].code
    elif label != UNCODED and item.kind is not None:
        code = item.kind
    filled = np.flatnonzero(one.mask.any(axis=(1, 2)))
    return Finding(
        label,
        code,
        item.found,
        _score(item),
        replace(origin, name=f"{origin.name}/{item.by}"),
        "" if label.startswith(("left_", "right_")) else item.side,
        _measures(one, grid),
        Mask(one.mask) if len(filled) else None,
        parts[0].image if parts else one.image,
        (int(filled[0]), int(filled[-1]) + 1) if len(filled) else None,
        tuple(Instance(_cut(part.mask), _score(part.item), _measures(part, grid), part.item.side) for part in parts),
    )


def _score(item: Annotation) -> float:
    return float(item.found) if item.score is None else item.score


def _measures(one: _Laid, grid: Grid) -> tuple[Measure, ...]:
    """What is told, or the size of the mask where nothing is."""
    return one.item.measures or (_size(one.mask, grid) if one.mask.any() else ())


def _cut(mask: Bools) -> Patch:
    """A mask that marks something, cut to its extent."""
    filled = [np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    where = tuple(slice(int(line[0]), int(line[-1]) + 1) for line in filled)
    return Patch((where[0].start, where[1].start, where[2].start), mask[where].copy())


def _label(item: Annotation) -> str:
    """The label of the vocabulary, by code, place and side, or by name where there is no code."""
    if item.kind is None:
        return _named(item.name)
    scheme, value = item.kind.scheme, item.kind.value if item.kind.scheme == "SCT" else ""
    site = item.site.value if item.site is not None and item.site.scheme == "SCT" else ""
    if value in _FOCAL and site in _LESIONS:
        return _LESIONS[site]
    if value == _NODULE and site in _LUNGS:
        return "nodule"
    if value in _PAIRED and item.side in ("left", "right"):
        return _PAIRED[value][item.side == "right"]
    public = UNCODED if scheme == "FOVEA" else f"{scheme}:{item.kind.value}"
    return _LABELS.get((scheme, item.kind.value), public)


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
