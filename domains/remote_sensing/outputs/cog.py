"""Class maps as Cloud Optimized GeoTIFFs: which class each pixel has, and how sure that is.

Choices:

- `classes.tif` (uint8): 0 is none of the labels, n the n-th label, 255 no data; with a colour table and overviews by
  mode. The names of the classes are in the file's tags, and in `classes.tif.aux.xml`, where GDAL and GIS look for them.
- `confidence.tif` (uint8, scale 0.01): the probability of that class in steps of one percent, 255 where there is no
  data or none is known; with overviews by mean.
- Coordinate reference system and affine are those of the grid, in full precision. A scene without one gives maps
  without one.
- Strips lie uncompressed in a folder of their own until the map is whole. A line of the journal follows the bytes that
  it stands for, both synced, so that a map goes on where it was killed and ends in the same bytes.

Source: https://docs.ogc.org/is/21-026/21-026.html
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from domains.remote_sensing.outputs.polygons import Area, burned
from domains.remote_sensing.vocabulary import TERMS, VOCABULARY
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.types import PIXEL, Bytes, Finding, Grid, Image, Report, Strip, Term, Window

_WORK = ".canvas"
_JOURNAL = "journal.txt"
_NODATA = Strip.NODATA
_STRIP = 512
"""Rows of the strips in which findings are drawn."""
_CACHE = 2**26
"""Bytes of GDAL's cache while a map is written."""
_CONTROL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold."""


class Canvas:
    """Takes the strips of a class map in any order, and makes two COGs of them; memory does not grow with the map.

    `terms` are the classes 1, 2, … in order; `about` becomes tags of both files (model, version, hash of the input),
    and a clock has no place there. A canvas in a folder where one was left unfinished goes on with it. Raises
    GeometryError for the grid of a patient, InputError for another map's unfinished folder and more than 254 classes.
    """

    def __init__(self, folder: Path, grid: Grid, terms: Sequence[Term], about: Mapping[str, str]) -> None:
        if not (grid.georeferenced or grid.frame == PIXEL) or grid.shape[0] != 1:
            raise GeometryError("a grid that is no scene's", "one slice in a coordinate reference system, or in pixels")
        if len(terms) >= _NODATA:
            raise InputError(f"{len(terms)} classes", f"at most {_NODATA - 1}")
        self.folder, self.grid, self.terms, self.about = folder, grid, tuple(terms), dict(about)
        self._work = folder / _WORK
        self._journal = self._work / _JOURNAL
        self._spans = self._opened()
        self._size = self._journal.stat().st_size

    @property
    def done(self) -> int:
        """The number of strips that are on disk: of a producer with a fixed order, those that can be left out."""
        return len(self._spans)

    def write(self, strip: Strip) -> None:
        """Put a strip on disk, synced; raises InputError where it does not fit the map."""
        (top, bottom), (left, right) = strip.rows, strip.columns
        classes, confidence = self._checked(strip)
        if self._journal.stat().st_size != self._size:
            raise InputError("a class map that another process writes too", "one writer", "Let the other finish")
        for name, values in (("classes", classes), ("confidence", confidence)):
            descriptor = os.open(self._work / f"{name}.raw", os.O_WRONLY)
            try:
                for row, line in enumerate(np.ascontiguousarray(values), top):
                    _put(descriptor, line.tobytes(), row * self.grid.shape[2] + left)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        line = f"{top} {bottom} {left} {right}\n".encode()
        _append(self._journal, line)
        self._size += len(line)
        self._spans.append((top, bottom, left, right))

    def finish(self) -> tuple[Path, ...]:
        """Make `classes.tif` with its sidecar and `confidence.tif`; raises InputError where pixels lack or are doubled.

        Killed in the middle, it can be called again by another canvas in the same folder.
        """
        self._check_whole()
        ready: list[Path] = []
        for name, scale, resampling in (("classes", 1.0, "MODE"), ("confidence", 0.01, "AVERAGE")):
            source, target = self._work / f"{name}.vrt", self._work / f"{name}.tif"
            for path in self._work.glob(f"{name}.tif*"):
                path.unlink()  # left by a process that was killed
            source.write_bytes(self._described(name, scale))
            _convert(source, target, resampling)
            ready += [path for path in (target.with_name(f"{name}.tif.aux.xml"), target) if path.is_file()]
        for path in ready:
            _sync(path)
        for path in ready:
            path.replace(self.folder / path.name)
        self._journal.unlink()  # first, so that what is left is not taken for strips
        shutil.rmtree(self._work)
        _sync(self.folder)
        return tuple(self.folder / path.name for path in ready)

    def _opened(self) -> list[tuple[int, int, int, int]]:
        """The strips of an unfinished map of the same kind, or a new folder for one."""
        head = sha256(
            json.dumps(
                [
                    [value.hex() for value in self.grid.affine.ravel().tolist()], self.grid.frame, self.grid.shape,
                    [(term.label, term.color) for term in self.terms], sorted(self.about.items()),
                ]
            ).encode()
        ).hexdigest()  # fmt: skip
        if self._journal.is_file():
            whole = self._journal.read_bytes().rpartition(b"\n")[0].splitlines()
            if whole and whole[0].decode("ascii", "replace") != head:
                raise InputError(
                    "a folder with another unfinished map", "one of the same", "Remove it, or name another"
                )
            if whole:
                os.truncate(self._journal, sum(len(line) + 1 for line in whole))
                return [(int(a), int(b), int(c), int(d)) for a, b, c, d in (line.split() for line in whole[1:])]
        if self._work.is_dir():
            shutil.rmtree(self._work)
        self._work.mkdir(parents=True)
        for name in ("classes", "confidence"):
            (self._work / f"{name}.raw").touch()
            os.truncate(self._work / f"{name}.raw", self.grid.shape[1] * self.grid.shape[2])
        _append(self._journal, f"{head}\n".encode())
        _sync(self._work)
        return []

    def _checked(self, strip: Strip) -> tuple[Bytes, Bytes]:
        """The classes, and the confidence in percent, 255 where it is not known."""
        size = strip.rows[1] - strip.rows[0], strip.columns[1] - strip.columns[0]
        inside = 0 <= strip.rows[0] < strip.rows[1] <= self.grid.shape[1]
        inside &= 0 <= strip.columns[0] < strip.columns[1] <= self.grid.shape[2]
        if not inside or strip.classes.shape != size or strip.confidence.shape != size:
            raise InputError(
                f"a strip of rows {strip.rows} and columns {strip.columns} with classes {strip.classes.shape} and "
                f"confidence {strip.confidence.shape}",
                f"one inside {self.grid.shape[1:]}, with as many of both",
            )
        empty = strip.classes == _NODATA
        unknown = empty | np.isnan(strip.confidence)
        confidence = np.where(unknown, 0, strip.confidence)
        if strip.classes.dtype != np.uint8 or (strip.classes[~empty] > len(self.terms)).any():
            raise InputError("a strip with classes that have no label", f"uint8: 0 to {len(self.terms)}, or {_NODATA}")
        if not ((confidence >= 0) & (confidence <= 1)).all():
            raise InputError("a strip with a confidence that is no probability", "0 to 1, or NaN where none is known")
        return strip.classes, np.where(unknown, _NODATA, np.rint(confidence * 100)).astype(np.uint8)

    def _check_whole(self) -> None:
        """Raise InputError unless each pixel was written once, counted on the grid of all edges of strips."""
        spans = np.array(self._spans, np.int64).reshape(-1, 4)
        rows = np.unique([0, self.grid.shape[1], *spans[:, :2].ravel()])
        columns = np.unique([0, self.grid.shape[2], *spans[:, 2:].ravel()])
        count = np.zeros((len(rows), len(columns)), np.int64)
        for down, sign in ((0, 1), (1, -1)):
            for across, other in ((2, 1), (3, -1)):
                where = np.searchsorted(rows, spans[:, down]), np.searchsorted(columns, spans[:, across])
                np.add.at(count, where, sign * other)
        count = count.cumsum(0).cumsum(1)[:-1, :-1]
        if (count != 1).any():
            what = "lacks pixels" if (count < 1).any() else "has pixels that were written twice"
            raise InputError(f"a class map that {what}", "each pixel once", "Remove the unfinished map and start again")

    def _described(self, name: str, scale: float) -> bytes:
        """A virtual raster over the raw file, with all that the GeoTIFF shall tell."""
        _, rows, columns = self.grid.shape
        root = Element("VRTDataset", rasterXSize=str(columns), rasterYSize=str(rows))
        if self.grid.georeferenced:
            SubElement(root, "SRS", dataAxisToSRSAxisMapping="1,2").text = self.grid.frame
            a, b, c, d, e, f = self.grid.to_gdal()
            SubElement(root, "GeoTransform").text = ", ".join(map(repr, (c, a, b, f, d, e)))
        _tags(root, self.about | {"AREA_OR_POINT": "Area"})
        band = SubElement(root, "VRTRasterBand", dataType="Byte", band="1", subClass="VRTRawRasterBand")
        parts = {
            "Description": "class" if name == "classes" else name, "NoDataValue": _NODATA, "Scale": scale,
            "ColorInterp": "Palette" if name == "classes" else "Gray", "ImageOffset": 0, "PixelOffset": 1,
            "LineOffset": columns,
        }  # fmt: skip
        for key, value in parts.items():
            SubElement(band, key).text = str(value)
        SubElement(band, "SourceFilename", relativeToVRT="1").text = f"{name}.raw"
        if name == "classes":
            names = ["none", *(term.label for term in self.terms)]
            _tags(band, {f"class_{number}": label for number, label in enumerate(names)})
            categories, table = SubElement(band, "CategoryNames"), SubElement(band, "ColorTable")
            for label in names:
                SubElement(categories, "Category").text = label
            for color in ((0, 0, 0), *(term.color for term in self.terms)):
                SubElement(table, "Entry", {f"c{n}": str(value) for n, value in enumerate((*color, 255), 1)})
        return tostring(root)


def write(report: Report, folder: Path) -> tuple[Path, ...]:
    """The regions of a report's findings as class maps, of further images in folders "image-2", "image-3", ….

    Class n is the n-th label of the vocabulary. Where findings overlap, the surest stands on top; its confidence is the
    score of the whole finding, and there is none where nothing was found. Raises UnsupportedError without a region.
    """
    found: dict[tuple[int, str], Finding] = {}
    for finding in (f for answer in report.answers for f in answer.findings if f.present and areas(f)):
        best = found.setdefault((finding.image, finding.label), finding)
        if finding.score > best.score:
            found[finding.image, finding.label] = finding
    if not found:
        raise UnsupportedError("a class map of findings without a region", "findings of an expert that draws")
    more = {f.label: Term(f.label, f.code) for f in found.values() if f.label not in TERMS}
    terms = (*VOCABULARY, *(more[label] for label in sorted(more)))
    paths: list[Path] = []
    for index, image in enumerate(report.study.images):
        chosen = [found[key] for key in found if key[0] == index]
        if chosen:
            place = folder / f"image-{index + 1}" if index else folder
            paths += _draw(Canvas(place, image.grid, terms, _about(report, chosen)), image, chosen)
    return tuple(paths)


def areas(finding: Finding) -> tuple[Area, ...]:
    """What a finding covers: its region, or those of its objects where it has none itself."""
    return (finding.region,) if finding.region else tuple(item.region for item in finding.instances)


def _about(report: Report, findings: Sequence[Finding]) -> dict[str, str]:
    experts = ", ".join(sorted({str(finding.by) for finding in findings}))
    about = {"study": report.study.digest, "state": report.state, "experts": experts}
    return about | {key: report.provenance[key] for key in ("model", "fovea") if key in report.provenance}


def _draw(canvas: Canvas, image: Image, findings: Sequence[Finding]) -> tuple[Path, ...]:
    """Paint the findings, the surest last, in strips that go on where they stopped."""
    numbers = {term.label: number for number, term in enumerate(canvas.terms, 1)}
    _, rows, columns = image.grid.shape
    classes, confidence = np.zeros((rows, columns), np.uint8), np.full((rows, columns), np.nan, np.float32)
    for finding in sorted(findings, key=lambda f: (f.score, -numbers[f.label])):
        covered = burned(areas(finding), image.grid)
        classes[covered], confidence[covered] = numbers[finding.label], finding.score
    for top in range(canvas.done * _STRIP, rows, _STRIP):
        span = top, min(top + _STRIP, rows)
        valid = image.window(Window(span, (0, columns))).valid[0]
        part = np.where(valid, classes[slice(*span)], Strip.NODATA).astype(np.uint8)
        canvas.write(Strip(span, (0, columns), part, confidence[slice(*span)]))
    return canvas.finish()


def _convert(source: Path, target: Path, resampling: str) -> None:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.shutil import copy

    with rasterio.Env(GDAL_CACHEMAX=_CACHE), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        copy(
            source, target, driver="COG", compress="DEFLATE", blocksize=512, bigtiff="IF_SAFER",
            overviews="IGNORE_EXISTING", overview_resampling=resampling, num_threads="1",
        )  # fmt: skip


def _tags(parent: Element, tags: Mapping[str, str]) -> None:
    metadata = SubElement(parent, "Metadata")
    for key, value in sorted(tags.items()):
        SubElement(metadata, "MDI", key=_CONTROL.sub(" ", key)).text = _CONTROL.sub(" ", value)


def _put(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
