"""MR volumes of one head as one study: an image for each sequence, whose channel has the sequence's name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from domains.formats.content import Content
from domains.formats.volumes import bids, volume
from fovea.errors import GeometryError, InputError
from fovea.types import Channel


def group(paths: Iterable[Path]) -> list[tuple[Path, ...]]:
    """Volumes, together those that `read` takes: of one folder and one name but for the sequence.

    A map of labels beside them is left out. What cannot be read together stays alone.
    """
    cases: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        case, _ = bids.sequence(path)
        cases.setdefault((path.parent, case or path.name), []).append(path)
    found: list[tuple[Path, ...]] = []
    for files in cases.values():
        images = tuple(path for path in files if bids.sequence(path)[1] != bids.MAP)
        whole = len(images) > 1 and _fit(images)
        found += [images] if whole else [(path,) for path in files]
    return found


def read(paths: Sequence[Path], modality: str = "") -> tuple[Content, str]:
    """The images of volumes in the order of `bids.SEQUENCES`, and the reader's name; pixels are read when asked for.

    Raises InputError where the names do not tell the sequences apart or the modality given is not MR, GeometryError
    where the volumes do not lie on one grid, and what reading one raises.
    """
    shown = {bids.sequence(path)[1]: path for path in paths}
    if len(shown) < len(paths) or not shown.keys() <= set(bids.SEQUENCES) or modality not in ("", "MR"):
        raise InputError(
            "several volumes that are not MR sequences by their names",
            f"one of each of {', '.join(bids.SEQUENCES)}, named such as case_t1.nii.gz",
            "Load them one by one.",
        )
    order = [sequence for sequence in bids.SEQUENCES if sequence in shown]
    parts = [volume.read(shown[sequence]) for sequence in order]
    told = {part.meta.get("modality") or bids.modality(shown[name])[0] for name, part in zip(order, parts, strict=True)}
    if not told <= {"", "MR"}:
        raise InputError(f"a volume of {' and '.join(sorted(told - {'', 'MR'}))} among MR sequences", "MR alone")
    if any(len(part.images) != 1 or len(part.images[0].channels) != 1 for part in parts):
        raise InputError("several volumes in one file", "one volume a sequence", "Load them one by one.")
    first = parts[0].images[0].grid
    if not all(first.same(part.images[0].grid) for part in parts):
        raise GeometryError("volumes that do not lie on one grid", "one grid", "Register them, or load each.")
    images = (replace(part.images[0], channels=(Channel(name),)) for name, part in zip(order, parts, strict=True))
    meta = {"modality": "MR", "modality_from": "caller" if modality else "file name"}
    hashes = [digest for part in parts for digest in part.hashes]
    return Content(tuple(images), meta, hashes), f"radiology-sequences/1 of {', '.join(order)}"


def _fit(paths: Sequence[Path]) -> bool:
    try:
        read(paths)
    except InputError:
        return False
    return True
