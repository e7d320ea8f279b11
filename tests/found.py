"""Reports of scenes with masks and objects, as experts make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from domains.remote_sensing.vocabulary import TERMS
from fovea.types import (
    Answer,
    Bools,
    Call,
    Channel,
    Finding,
    Grid,
    Image,
    Instance,
    Mask,
    Measure,
    Origin,
    Patch,
    Region,
    Report,
    Source,
    Study,
)

BY = Origin("land_cover", "1.2")
FRAMES = {
    "north up": ("EPSG:32633", (10, 0, 399960, 0, -10, 5500020)),
    "south up": ("EPSG:32633", (10, 0, 399960, 0, 10, 5500020)),
    "rotated": ("EPSG:32633", (8.1, 5, 399960.3, 7, -9, 5500020.7)),
    "degrees": ("EPSG:4326", (1e-4, 0, 24.9, 0, -1e-4, 60.2)),
    "equal area": ("EPSG:6933", (30, 0, 1_000_000, 0, -30, 6_000_000)),
}


def grid(frame: str = "north up", rows: int = 60, columns: int = 80) -> Grid:
    crs, transform = FRAMES[frame]
    return Grid.from_gdal(transform, crs, rows, columns)


def study(place: Grid, valid: Bools | None = None, **meta: str) -> Study:
    names = ("blue", "green", "red", "nir")
    pixels = np.random.default_rng(0).random((4, *place.shape)).astype(np.float32)
    image = Image.from_array(tuple(Channel(name, "reflectance") for name in names), place, pixels, valid)
    return Study("remote_sensing", (image,), Source(("0" * 64, "ab" * 32), "test"), {"modality": "optical", **meta})


def finding(
    label: str,
    region: Region | None = None,
    score: float = 0.9,
    objects: Sequence[Instance] = (),
    measures: Sequence[Measure] = (),
) -> Finding:
    return Finding(
        label, TERMS[label].code, True, score, BY, "north", tuple(measures), region, instances=tuple(objects)
    )


def report(scene: Study, *findings: Finding, provenance: Mapping[str, str] | None = None) -> Report:
    call = Call("land_cover", "all", findings)
    return Report(scene, (Answer("What is there?", "Things.", 0.8, (), (call,)),), provenance or {"model": "m"})


def blobs(rows: int, columns: int, seed: int = 0, share: float = 0.45) -> Bools:
    """A mask with holes, islands, and corners that touch: (1, row, column)."""
    coarse = np.random.default_rng(seed).random((1, -(-rows // 4), -(-columns // 4))) < share
    return coarse.repeat(4, 1).repeat(4, 2)[:, :rows, :columns]


def ships(place: Grid) -> Finding:
    """Two ships with masks of their own, and the mask of both."""
    whole = np.zeros(place.shape, bool)
    whole[0, 10:14, 20:29] = whole[0, 40:43, 50:58] = True
    objects = [Instance(Patch((0, r, c), np.ones((1, h, w), bool)), s) for r, c, h, w, s in (
        (10, 20, 4, 9, 0.95), (40, 50, 3, 8, 0.7),
    )]  # fmt: skip
    return finding("ship", Mask(whole), 0.9, objects, [Measure("count", 2, "1")])
