"""The image files that DICOM objects refer to: whether it is these, and where the pixels of one of them lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError

from domains.formats.content import foreign
from domains.formats.dicom.annotation import Annotation, Annotations, Outline, Patch, affine
from domains.formats.dicom.planes import Plane, planes, texts
from domains.formats.isolation import isolated
from fovea.errors import GeometryError, InputError
from fovea.image import LPS, Grid, Matrix

_PROJECTION = ("DX", "CR", "MG", "RF", "XA", "RG", "IO", "PX")
"""The modalities whose images are laid as a person stands: rows to the feet, columns to the left."""


@dataclass(frozen=True, eq=False)
class Sources:
    """The UIDs of images, their series and frames of reference, and by instance and frame how their pixels lie: an
    affine to LPS mm, or the PatientOrientation where there is no plane; `instances` has the UID of each file. Nothing
    of it leaves the readers."""

    names: frozenset[str] = field(default=frozenset(), repr=False)
    frames: frozenset[str] = field(default=frozenset(), repr=False)
    planes: Mapping[tuple[str, int], Matrix] = field(default_factory=dict, repr=False)
    orientations: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    instances: tuple[str, ...] = field(default=(), repr=False)


def sources(paths: Sequence[Path]) -> Sources:
    """Read the headers of image files, in a process of its own; raises leaves of InputError."""
    names, frames, lie, turns = set[str](), set[str](), dict[tuple[str, int], Matrix](), dict[str, tuple[str, str]]()
    told = isolated(parse, list(paths)) if paths else []
    for facts in told:
        names |= {facts["instance"], facts["series"]}
        frames.add(facts["frame"])
        lie |= {(facts["instance"], k): np.array(matrix, float) for k, matrix in enumerate(facts["planes"])}
        turns[facts["instance"]] = (facts["orientation"][0], facts["orientation"][1])
    instances = tuple(facts["instance"] for facts in told)
    return Sources(frozenset(names - {""}), frozenset(frames - {""}), lie, turns, instances)


def parse(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What the headers say, as JSON has it; for a child process."""
    found = []
    for path in paths:
        with foreign("a DICOM file", BytesLengthException, InvalidDicomError):
            ds = dcmread(path, stop_before_pixels=True, force=True)
            lie: tuple[Plane, ...] = planes(ds, int(ds.get("NumberOfFrames") or 1), required=False)
            turn = [text[:1].upper() for text in texts(ds, "PatientOrientation")]
            upright = ds.get("Modality") in _PROJECTION and len(turn) == 2
            found.append(
                {
                    "instance": str(ds.get("SOPInstanceUID") or ""),
                    "series": str(ds.get("SeriesInstanceUID") or ""),
                    "frame": str(ds.get("FrameOfReferenceUID") or ""),
                    "planes": [affine(plane).tolist() for plane in lie],
                    "orientation": turn if upright else ["", ""],
                }
            )
    return found


def check(told: Annotations, known: Sources) -> None:
    """Raise InputError where an object refers to other images than these; objects that refer to none pass."""
    refers = bool(told.names) or bool(told.frame)
    if known.names and refers and not (told.names & known.names or told.frame in known.frames):
        raise InputError("an object about other images", "one that refers to this study", "Give the study it is about.")


def located(told: Annotations, known: Sources, grid: Grid) -> tuple[Annotation, ...]:
    """The annotations with every patch and outline in the frame of a grid.

    What is given in the pixels of an image is moved by where that image lies, and dropped where its file is not among
    the sources and the image is a slice of a volume. Raises GeometryError for a patch that cannot be located.
    """
    return tuple(_located(item, told, known, grid) for item in told.items)


def _located(item: Annotation, told: Annotations, known: Sources, grid: Grid) -> Annotation:
    patches = tuple(
        patch if patch.affine is not None else replace(patch, affine=_lone(patch, told, known, grid))
        for patch in item.patches
    )
    outlines = []
    for outline in item.outlines:
        if not outline.instance:
            outlines.append(outline)
            continue
        plane = known.planes.get((outline.instance, outline.frame))
        if grid.frame != LPS and outline.instance in known.orientations:  # a plane of unknown thickness has no grid
            plane = _upright(known.orientations[outline.instance], outline.frame, grid)
        if plane is not None:
            points = np.column_stack([outline.points, np.ones(len(outline.points))]) @ plane.T
            outlines.append(Outline(points[:, :3]))
    return replace(item, patches=patches, outlines=tuple(outlines))


def _lone(patch: Patch, told: Annotations, known: Sources, grid: Grid) -> Matrix:
    """Where the pixels of a lone image without a plane lie: as its file is laid, the frames as slices."""
    turns = {turn for name, turn in known.orientations.items() if name in told.names}
    alone = grid.shape[0] == 1 if patch.frame is None else patch.frame < grid.shape[0]
    if not alone or grid.frame == LPS or len(turns) != 1:
        raise GeometryError(
            "a segmentation without positions", "the file of the one image that it was drawn on", "Name that file."
        )
    turn = turns.pop()
    size = (grid.shape[2], grid.shape[1]) if _crossed(turn) else grid.shape[1:]
    if tuple(patch.mask.shape) != tuple(size):
        raise GeometryError("a segmentation of another size than its image", "the image's own size")
    return _upright(turn, patch.frame or 0, grid)


def _crossed(turn: tuple[str, str]) -> bool:
    return turn[0] in ("H", "F") and turn[1] in ("L", "R")


def _upright(turn: tuple[str, str], frame: int, grid: Grid) -> Matrix:
    """From the stored (column, row, 0, 1) of a frame to where it is laid: to the feet, to the patient's left."""
    found = np.eye(4)
    across, down = turn
    if _crossed(turn):
        found[:2, :2] = (0, 1), (1, 0)
        across, down = down, across
    if across == "R":
        found[0] = -found[0] + (0, 0, 0, grid.shape[2] - 1)
    if down == "H":
        found[1] = -found[1] + (0, 0, 0, grid.shape[1] - 1)
    found[2, 3] = frame if grid.shape[0] > 1 else 0
    return np.asarray(grid.affine @ found)
