"""DICOM segmentations (PS3.3 A.51): the masks of a report, binary, a segment a finding and one an instance."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DSfloat

from domains.formats.content import check_size
from domains.radiology.outputs.coding import coded, schemes
from domains.radiology.outputs.common import Item, identity, items, mask_of, settle, tracking
from domains.radiology.outputs.originals import Frame, Originals
from fovea.errors import GeometryError, UnsupportedError
from fovea.image import LPS, Grid
from fovea.types import Origin, Report

NAME = "dicom-seg"
_FRAMED = ("CT", "MR", "PT", "NM")
"""Modalities whose images always have a frame of reference, so that a segmentation has to name it."""
_STRAIGHT = 1e-3
_BITS = 16
"""How many times the size of an image its masks may have: they are bits where an image has floats."""


@dataclass(frozen=True, eq=False)
class Segments:
    """One segmentation, the image (by number) on which it lies, and the items that are its segments, in order."""

    ds: Segmentation = field(repr=False)
    image: int
    items: tuple[Item, ...]

    def number(self, item: Item) -> int:
        """The number of the segment of an item, or 0."""
        return next((n for n, one in enumerate(self.items, 1) if _alike(one, item)), 0)


def _alike(one: Item, other: Item) -> bool:
    return one.finding is other.finding and one.number == other.number


def segmentations(report: Report, images: Originals) -> tuple[Segments, ...]:
    """One object for each image with masks; none where the report has no masks."""
    found: list[Segments] = []
    for number, image in enumerate(report.study.images):
        drawn = [
            (item, mask_of(item.region, image.grid.shape)) for item in items(report) if item.finding.image == number
        ]
        masks = [(item, mask) for item, mask in drawn if mask is not None and mask.any()]
        if masks:
            check_size(-(-len(masks) // _BITS), *image.grid.shape)
            made = _segmentation(report, images, number, masks, len(found) + 1)
            found.append(Segments(made, number, tuple(item for item, _ in masks)))
    return tuple(found)


def make(_report: Report, _images: Originals, segments: Sequence[Segments]) -> list[Dataset]:
    """The segmentations; raises UnsupportedError where the report has no masks."""
    if not segments:
        raise UnsupportedError("a report without masks", "findings with masks", "Name another output.")
    return [one.ds for one in segments]


def _segmentation(
    report: Report, images: Originals, image: int, masks: Sequence[tuple[Item, Any]], number: int
) -> Segmentation:
    grid, frames = report.study.images[image].grid, images.images[image]
    filled = np.flatnonzero(np.any([mask.any(axis=(1, 2)) for _, mask in masks], axis=0))
    first, last = int(filled[0]), int(filled[-1]) + 1
    used = frames[first:last]
    if {frame.shape for frame in used} != {used[0].shape}:
        raise GeometryError("frames of several sizes in one image", "one")
    pixels = np.zeros((last - first, *used[0].shape, len(masks)), np.uint8)
    for place, (_, mask) in enumerate(masks):
        for index, frame in enumerate(used):
            pixels[index, ..., place] = frame.stored(mask[first + index])
    sources, further = _sources(used, grid), _sources((*frames[:first], *frames[last:]), grid)
    alone = used[0].number is not None
    made = Segmentation(
        sources,
        pixels,
        SegmentationTypeValues.BINARY,
        [_description(images, item, n) for n, (item, _) in enumerate(masks, 1)],
        **identity(report, images, NAME, number),
        content_label="SEGMENTATION",
        content_description=f"Findings of a report, state: {report.state}",
        coding_schemes=schemes(),
        further_source_images=None if alone else further or None,
    )
    if alone:
        _name_frames(made, used)
    if grid.frame == LPS:
        _tell_spacing(made, grid)
    else:
        made.PatientOrientation = used[0].header.get("PatientOrientation") or ""
    settle(made, report, images)
    return made


def _description(images: Originals, item: Item, number: int) -> SegmentDescription:
    said = coded(item.finding, item.location)
    made = SegmentDescription(
        number,
        item.name[:64],
        said.category,
        said.kind,
        algorithm_type(item.finding.by),
        AlgorithmIdentificationSequence(
            item.finding.by.name[:64], codes.DCM.ArtificialIntelligence, item.finding.by.version[:64] or "unknown"
        ),
        tracking_uid=tracking(images, item),
        tracking_id=item.name,
        anatomic_regions=[said.site] if said.site is not None else None,
        display_color=CIELabColor.from_rgb(*item.color),
    )
    if said.side is not None and said.site is not None:
        made.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [said.side]
    elif said.side is not None:
        made.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [said.side]
    return made


def algorithm_type(by: Origin) -> str:
    """How a finding came about: what was read from a file says it in its name ("dicom-seg/manual")."""
    kind = by.name.rpartition("/")[2].upper()
    return kind if kind in ("MANUAL", "SEMIAUTOMATIC") else "AUTOMATIC"


def _sources(frames: Sequence[Frame], grid: Grid) -> list[Dataset]:
    """The headers as highdicom wants them: a file a slice, or one file that has the frames as its only ones."""
    if not frames:
        return []
    first = frames[0].header
    located = grid.frame == LPS
    if (located or first.get("Modality") in _FRAMED) and "FrameOfReferenceUID" not in first:
        raise UnsupportedError("slices without a FrameOfReferenceUID", "one", "Export the series again.")
    if not located and grid.shape[0] > 1:
        raise UnsupportedError(
            "masks on a film, whose frames have no positions", "images with positions, or single ones",
            "Name another output, such as nifti.",
        )  # fmt: skip
    if not located:
        return [_unlocated(first)]
    flat = [_planar(frame, grid, frames[0]) for frame in frames]
    if frames[0].number is None:
        return flat
    if len({frame.header.SOPInstanceUID for frame in frames}) > 1:
        raise UnsupportedError("masks over several files of many frames", "one file", "Name another output.")
    made = deepcopy(first)
    made.NumberOfFrames = len(frames)
    shared, groups = Dataset(), [Dataset() for _ in frames]
    shared.PlaneOrientationSequence = [_part(flat[0], "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [_part(flat[0], "PixelSpacing", "SliceThickness")]
    for group, plane in zip(groups, flat, strict=True):
        group.PlanePositionSequence = [_part(plane, "ImagePositionPatient")]
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], groups
    return [made]


def _unlocated(header: Dataset) -> Dataset:
    """The header of a lone image, without what only some of a geometry would say."""
    made = deepcopy(header)
    for keyword in ("NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient"):
        made.pop(keyword, None)
    framed = "FrameOfReferenceUID" in made  # then the standard wants a thickness beside the spacing
    if min(made.get("PixelSpacing") or [0]) <= 0 or (framed and not made.get("SliceThickness")):
        made.pop("PixelSpacing", None)
    if "NumberOfFrames" in header:
        shared = Dataset()
        shared.PixelMeasuresSequence = (
            [_part(made, "PixelSpacing", *(("SliceThickness",) if framed else ()))] if "PixelSpacing" in made else []
        )
        made.SharedFunctionalGroupsSequence = [shared]
    return made


def _tell_spacing(made: Segmentation, grid: Grid) -> None:
    """The distance of slices, which highdicom guesses from those that have marks; none where slices shift sideways."""
    measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.pop("SpacingBetweenSlices", None)
    across = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    if grid.shape[0] > 1 and abs(across[:, 2] @ across[:, :2]).max() < _STRAIGHT:
        measures.SpacingBetweenSlices = _decimal(grid.spacing[0])[0]


def _part(ds: Dataset, *keywords: str) -> Dataset:
    made = Dataset()
    for keyword in keywords:
        setattr(made, keyword, ds[keyword].value)
    return made


def _planar(frame: Frame, grid: Grid, first: Frame) -> Dataset:
    """The header with the plane of a frame in full; all planes are as parallel as the first."""
    made = deepcopy(frame.header)
    turn = (grid.affine @ first.lain)[:3, :2]
    size = np.linalg.norm(turn, axis=0)
    made.ImagePositionPatient = _decimal((grid.affine @ frame.lain)[:3, 3])
    made.ImageOrientationPatient = _decimal((turn / size).T)
    made.PixelSpacing = _decimal(size[::-1])
    if not made.get("SliceThickness") or made.SliceThickness <= 0:
        made.SliceThickness = _decimal(grid.spacing[0])[0]
    made.pop("NumberOfFrames", None)
    return made


def _decimal(values: Any) -> list[DSfloat]:
    """As decimal strings of at most 16 characters."""
    return [DSfloat(float(value), auto_format=True) for value in np.ravel(values) + 0.0]


def _name_frames(made: Segmentation, frames: Sequence[Frame]) -> None:
    """Refer to frames by their number in the file, not among those that were given.

    highdicom lets the segments of a frame share what names it.
    """
    sources = {
        id(source): source
        for group in made.PerFrameFunctionalGroupsSequence
        for derivation in group.get("DerivationImageSequence") or ()
        for source in derivation.SourceImageSequence
    }
    for source in sources.values():
        source.ReferencedFrameNumber = frames[int(source.get("ReferencedFrameNumber") or 1) - 1].number
