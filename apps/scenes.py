"""A scene of any size becomes a class map on disk, with what it counts: experts meet the writer of COGs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fovea import registry
from fovea.files import whole
from fovea.types import Grid, Strip, Study, Term

if TYPE_CHECKING:
    from experts.objects import Objects
    from experts.segmentation import SegmentationExpert

_ROWS = 256
"""Rows of a finished map that are read at once: half of the height of its tiles."""


@dataclass(frozen=True)
class ClassStatistics:
    """One class of a map; `fraction` and `area` (m2, on the ellipsoid) are of the valid pixels, `objects` those not
    smaller than the expert's recipe wants, `confidence` the mean over its pixels."""

    label: str
    pixels: int
    fraction: float
    area: float
    confidence: float
    objects: int


@dataclass(frozen=True, eq=False)
class MappedScene:
    """The files of a map, what it counts class by class ("none" first), the pixels without data, and all objects."""

    files: tuple[Path, ...]
    grid: Grid
    classes: tuple[ClassStatistics, ...]
    nodata: int
    objects: Objects


def map_scene(expert: SegmentationExpert, study: Study, folder: Path) -> MappedScene:
    """Write classes.tif and confidence.tif (COGs on the grid of the expert's spacing) and statistics.json.

    Memory does not grow with the scene; a bar on standard error shows how far it is. Killed at any moment and called
    again, it goes on where it was, and ends in the same bytes. Raises ExpertError for a study or an expert that does
    not suit, InputError for a folder with another unfinished map.
    """
    from domains.remote_sensing.outputs.cog import Canvas
    from experts.objects import find
    from experts.scenes import SceneMap

    scene, labels = SceneMap(expert, study), expert.config.drawn
    about = {"expert": expert.card.name, "version": expert.card.version, "input": study.digest}
    folder.mkdir(parents=True, exist_ok=True)
    canvas = Canvas(folder, scene.grid, _terms(study.domain, expert), about)
    for strip in _shown(scene.strips(canvas.done), scene.grid):
        canvas.write(strip)
    files = canvas.finish()
    # counted from the files: a map that was killed and went on counts the same
    totals = _Totals(scene.grid, len(labels) + 1)
    smallest = [expert.config.labels[label].smallest for label in labels]
    objects = find(totals.watch(_strips(folder)), scene.grid, smallest)
    classes = totals.statistics(("none", *labels), np.bincount(objects.label, minlength=len(labels) + 1))
    target = folder / "statistics.json"
    _write(target, about, classes, totals.nodata)
    return MappedScene((*files, target), scene.grid, classes, totals.nodata, objects)


def _terms(domain: str, expert: SegmentationExpert) -> list[Term]:
    """The vocabulary's terms of the expert's labels."""
    known = {term.label: term for term in registry.domain(domain).vocabulary}
    return [known.get(label, Term(label, expert.config.code(label))) for label in expert.config.drawn]


def _shown(strips: Iterator[Strip], grid: Grid) -> Iterator[Strip]:
    """The same strips, with a bar over the pixels that begins where a broken-off map goes on."""
    from tqdm import tqdm

    _, rows, columns = grid.shape
    step = 0.2 if sys.stderr.isatty() else 15
    with tqdm(desc="map", total=rows * columns, unit="px", unit_scale=True, mininterval=step, ncols=88) as bar:
        for strip in strips:
            (top, bottom), (left, right) = strip.rows, strip.columns
            done = left * rows + bottom * (right - left)
            bar.initial = bar.initial if bar.n else done - (bottom - top) * (right - left)
            yield strip
            bar.update(done - bar.n)


def _strips(folder: Path) -> Iterator[Strip]:
    """A finished map, in strips of its whole width."""
    import rasterio
    from rasterio.windows import Window

    with (
        rasterio.Env(GDAL_CACHEMAX=2**26),
        rasterio.open(folder / "classes.tif") as classes,
        rasterio.open(folder / "confidence.tif") as confidence,
    ):
        for top in range(0, classes.height, _ROWS):
            bottom = min(top + _ROWS, classes.height)
            window = Window(0, top, classes.width, bottom - top)
            sure = confidence.read(1, window=window).astype(np.float32) / 100
            yield Strip((top, bottom), (0, classes.width), classes.read(1, window=window), sure)


class _Totals:
    """Sums over the pixels of each class."""

    def __init__(self, grid: Grid, n: int) -> None:
        self.grid, self.n = grid, n
        self.sums = np.zeros((3, Strip.NODATA + 1))

    def watch(self, strips: Iterator[Strip]) -> Iterator[Strip]:
        """The same strips, counted on their way."""
        from experts.ground import areas

        for strip in strips:
            flat = strip.classes.ravel()
            for place, weight in enumerate((None, areas(self.grid, strip.rows, strip.columns), strip.confidence)):
                self.sums[place] += np.bincount(flat, None if weight is None else weight.ravel(), Strip.NODATA + 1)
            yield strip

    @property
    def nodata(self) -> int:
        return int(self.sums[0, Strip.NODATA])

    def statistics(
        self, labels: tuple[str, ...], objects: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> tuple[ClassStatistics, ...]:
        pixels, area, sure = self.sums[:, : self.n]
        whole = max(area.sum(), 1e-12)
        return tuple(
            ClassStatistics(label, int(n), float(a / whole), float(a), float(s / max(n, 1)), int(count))
            for label, n, a, s, count in zip(labels, pixels, area, sure, objects, strict=True)
        )


def _write(target: Path, about: Mapping[str, str], classes: tuple[ClassStatistics, ...], nodata: int) -> None:
    content = {**about, "nodata": nodata, "classes": [vars(item) for item in classes]}
    with whole(target) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
