"""Studies that tests make in memory."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from experts import untrained
from fovea.types import LPS, Channel, ExpertCard, Finding, Grid, Image, Mask, Source, Study

UTM = "EPSG:32636"


def scene_grid(rows, columns, pixel=10.0, crs=UTM, x=500_000.0, y=4_500_000.0):
    """A north-up grid on the central meridian of a UTM zone."""
    return Grid.from_gdal((pixel, 0, x, 0, -pixel, y), crs, rows, columns)


def optical(bands, grid, valid=None, unit="reflectance"):
    """An image of named bands (row, column)."""
    channels = tuple(Channel(name, "class" if name == "quality" else unit) for name in bands)
    return Image.from_array(channels, grid, np.stack(list(bands.values()))[:, None], valid)


def volume(pixels, spacing=(1.0, 1.0, 1.0)):
    """A CT in HU with spacing along (slice, row, column) in mm."""
    grid = Grid(np.diag([*spacing[::-1], 1.0]), LPS, pixels.shape)
    return Image.from_array((Channel("HU", "HU"),), grid, pixels[None])


def study(*images, modality="optical", domain="remote_sensing", **meta):
    """A study whose digest is that of its pixels."""
    hashes = tuple(sha256(image.pixels.tobytes() + image.valid.tobytes()).hexdigest() for image in images)
    return Study(domain, images, Source(hashes, "memory/1"), {"modality": modality, **meta})


class Bright(untrained.UntrainedExpert):
    """A rule: what lies above a value is a lesion, with a score that the test gives."""

    def __init__(self, above=50.0, score=0.99):
        self.above, self.score = above, score
        self.card = ExpertCard("bright", "1", "finds", "a rule", ("CT",), untrained.arguments(("lesion",)))

    def refusal(self, study):
        return "" if study.modality == "CT" else "no CT"

    def answer(self, study, labels, by):
        mask = study.images[0].pixels[0] > self.above
        there = bool(mask.any())
        region = Mask(mask) if there else None
        score = self.score if there else 1 - self.score
        return tuple(Finding(label, untrained.own(label), there, score, by, region=region) for label in labels)
