"""Presentation states (PS3.3 A.33.1): outlines and names of what was found, to be drawn over the images themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from highdicom.color import CIELabColor
from highdicom.content import ModalityLUTTransformation, PresentationLUTTransformation
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from pydicom import Dataset

from domains.radiology.outputs.common import Item, identity, notice, settle, tracking
from domains.radiology.outputs.originals import Frame, Originals
from domains.radiology.outputs.shapes import Rings, drawn
from fovea.errors import UnsupportedError
from fovea.image import Matrix
from fovea.types import Report

NAME = "dicom-gsps"
_POINTS = 8000
"""The points of one line: its coordinates have to fit into 64 KiB."""
_SOFT_TISSUE = (40.0, 400.0)


def make(report: Report, images: Originals, _segments: object) -> list[Dataset]:
    """One state for each grey image with something to draw; raises UnsupportedError where there is none."""
    found: list[Dataset] = []
    for number, frames in enumerate(images.images):
        lines = drawn(report, number) if frames else []
        if lines and frames[0].header.get("SamplesPerPixel", 1) == 1:
            found.append(_state(report, images, frames, lines, len(found) + 1))
    if not found:
        raise UnsupportedError("no region on a grey image", "findings with masks or boxes", "Name another output.")
    return found


def _state(
    report: Report, images: Originals, frames: Sequence[Frame], lines: Sequence[tuple[Item, Rings]], number: int
) -> Dataset:
    layers = [
        GraphicLayer(f"FINDING {n}", n, item.name[:64], CIELabColor.from_rgb(*item.color))
        for n, (item, _) in enumerate(lines, 1)
    ]
    annotations = [
        _annotation(images, item, frames[place], rings[place], layer)
        for (item, rings), layer in zip(lines, layers, strict=True)
        for place in sorted(rings)
    ]
    shown = {place for _, rings in lines for place in rings}
    headers = _full(
        {str(frames[place].header.SOPInstanceUID): frames[place].header for place in sorted(shown)}.values()
    )
    state = GraphicLayer("STATE", len(lines) + 1, "State of the report")
    text = TextObject(notice(report)[:1024], "DISPLAY", bounding_box=(0.0, 0.95, 1.0, 1.0))
    annotations.append(GraphicAnnotation(headers, state, text_objects=[text]))
    made = GrayscaleSoftcopyPresentationState(
        headers,
        **identity(report, images, NAME, number),
        content_label="FINDINGS",
        content_description=f"Findings of a report, state: {report.state}",
        graphic_annotations=annotations,
        graphic_layers=[*layers, state],
        **_looks(headers),
    )
    made.Laterality = ""  # wanted of paired organs; each finding says its own side
    return settle(made, report, images)


def _annotation(
    images: Originals, item: Item, frame: Frame, rings: Sequence[Matrix], layer: GraphicLayer
) -> GraphicAnnotation:
    closed = [np.vstack([points, points[:1]]) for points in map(frame.points, rings)]
    pieces = [line[start : start + _POINTS] for line in closed for start in range(0, len(line) - 1, _POINTS - 1)]
    name, uid = item.name[:64], tracking(images, item)
    corner = np.vstack(closed)
    anchor = float(corner[:, 0].max()), float(corner[:, 1].min())
    return GraphicAnnotation(
        [frame.header],
        layer,
        referenced_frame_number=frame.number,
        graphic_objects=[GraphicObject("POLYLINE", piece, "PIXEL", False, name, uid) for piece in pieces],
        text_objects=[TextObject(item.name, "PIXEL", anchor_point=anchor, anchor_point_visible=False)],
    )


def _full(headers: Iterable[Dataset]) -> list[Dataset]:
    """Headers with the functional groups that highdicom looks into, empty: what they say of looks is in the header."""
    found = [deepcopy(header) for header in headers]
    for header in found:
        if "NumberOfFrames" in header:
            header.SharedFunctionalGroupsSequence = [Dataset()]
            header.PerFrameFunctionalGroupsSequence = [Dataset() for _ in range(header.NumberOfFrames)]
    return found


def _looks(headers: Sequence[Dataset]) -> dict[str, Any]:
    """The rescale and the window of the images, where all have the same; of CT a window for soft tissue where none."""
    scales = {(h.get("RescaleSlope"), h.get("RescaleIntercept"), h.get("RescaleType") or "US") for h in headers}
    slope, intercept, kind = scales.pop()
    if scales:
        raise UnsupportedError("slices that each have a scale of their own", "one scale", "Name another output.")
    inverse = headers[0].get("PhotometricInterpretation") == "MONOCHROME1"
    found: dict[str, Any] = {
        "presentation_lut_transformation": PresentationLUTTransformation("INVERSE" if inverse else "IDENTITY")
    }
    if slope is not None and intercept is not None:
        found["modality_lut_transformation"] = ModalityLUTTransformation(float(intercept), float(slope), str(kind))
    centers, widths = (
        np.atleast_1d(headers[0].get(name, ())).astype(float) for name in ("WindowCenter", "WindowWidth")
    )
    window = (float(centers[0]), float(widths[0])) if len(centers) and len(widths) and widths[0] >= 1 else None
    if window is None and headers[0].get("Modality") == "CT":
        window = _SOFT_TISSUE
    if window is not None:
        found["voi_lut_transformations"] = [SoftcopyVOILUTTransformation(*window)]
    return found
