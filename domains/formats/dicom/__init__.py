"""DICOM images with pydicom: series as volumes by position, radiographs as they are displayed, no identifiers.

Values: CT in Hounsfield units; PET as SUV by body weight where the file says all that takes; dose, parametric maps, MR
and nuclear medicine as rescaled or mapped to the real world; other grey images as displayed, in [0, 1]; colour as red,
green and blue in [0, 1]. Grid: LPS where the file gives a plane for each slice; the detector plane for a radiograph
with a pixel size; the slide for tiles of microscopy; otherwise pixels, the frames of a film being its slices.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydicom import dcmread

from domains.formats.cache import PixelCache
from domains.formats.content import Content, FileHashes, check_size, foreign, parallel
from domains.formats.dicom import geometry as dicom_geometry
from domains.formats.dicom.header import PYDICOM, Header, read_header
from domains.formats.dicom.overlays import CHANNEL, marks
from domains.formats.dicom.pixels import decode, fill_plain, lay
from domains.formats.dicom.scan import Bounded
from domains.formats.dicom.series import group as group
from domains.formats.dicom.slide import pyramid
from fovea.errors import GeometryError, InputError
from fovea.types import DETECTOR, Grid, Image, Pixels, Window

_DICOMDIR = b"1.2.840.10008.1.3.10"
_SIGNS = ("SOPClassUID", "Modality", "Rows")
"""One of these stands in every file that a picture can come from."""
_TOGETHER = 16
_Frames = Sequence[tuple[Header, int]]
_cache = PixelCache()


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM does: with the preamble, or, as older files, at once with group 2 or 8.

    A DICOMDIR, which only lists other files, does not count.
    """
    with foreign("a file", warns=False), path.open("rb") as file:
        head = file.read(512)
    if head[128:132] == b"DICM":
        return _DICOMDIR not in head
    if not _may_start(head):
        return False
    try:
        with foreign("a DICOM file", *PYDICOM), Bounded(path) as file:
            found = dcmread(file, stop_before_pixels=True, force=True, specific_tags=[*_SIGNS])
            return any(name in found for name in _SIGNS)
    except InputError:
        return False


def _may_start(head: bytes) -> bool:
    """Whether the first element is one of group 2 or 8 that a file without preamble starts with, in either order."""
    little, big = head[:2] in (b"\x02\x00", b"\x08\x00"), head[:2] in (b"\x00\x02", b"\x00\x08")
    element = head[2:4] if little else head[3:1:-1]
    return (little or big) and element in (b"\x00\x00", b"\x01\x00", b"\x10\x00", b"\x05\x00", b"\x08\x00", b"\x16\x00")


def read(paths: Sequence[Path], *, single_slices: bool = False, overlays: bool = False) -> Content:
    """One study: the slices of one series as a volume, and every multi-frame file or radiograph as images of its own.

    The order of the paths does not matter to a volume, and mosaics come in that of their instance numbers. With
    `single_slices` each slice is an image by itself, so that what makes no volume can be read all the same; frames
    whose geometry cannot be read are pictures then, and `meta["geometry"]` says so. With `overlays` an image with
    overlay planes is followed by one on the same grid, channel "overlay", 1 where any of them is set. Raises
    UnsupportedError for what is no picture, GeometryError when slices do not make a volume, LimitError before decoding,
    InputError for broken files. Pixels are decoded when they are asked for, and may then raise InputError.
    """
    headers = parallel(partial(read_header, pictures=single_slices), paths)
    if len({header.modality for header in headers}) != 1:
        raise InputError("files of several modalities, or none", "the files of one study")
    parts: list[tuple[_Frames, Grid]] = []
    images, order = [], []
    slices = [header for header in headers if len(header.planes) == 1 and not single_slices]
    if slices:
        frames, grid = _volume([(header, 0) for header in slices])
        parts.append((frames, grid))
        order += [header for header, _ in frames]
    levels = sorted((h for h in headers if h.tiles), key=lambda h: -h.tiles.grid.shape[1] if h.tiles else 0)
    if levels:
        images.append(_slide(levels))
        order += levels
    for header in sorted(headers, key=lambda header: header.number if header.across else 0):
        if header not in order:
            parts += _alone(header, single_slices)
            order.append(header)
    for frames, grid in parts:
        images += [_image(frames, grid), *(_marked(frames, grid) if overlays else ())]
    said = order[len(slices) // 2]  # a stack is what its middle slice says, whatever file was named first
    return Content(tuple(images), said.meta, FileHashes(header.path for header in order))


def _volume(frames: _Frames) -> tuple[_Frames, Grid]:
    header = frames[0][0]
    if len({(h.rows, h.columns, h.kind, h.channels) for h, _ in frames}) > 1:
        raise GeometryError("slices of several sizes or units", "one for all slices", "Load them apart.")
    check_size(len(frames), header.rows, header.columns)
    order, grid = dicom_geometry.stack([h.planes[frame] for h, frame in frames], header.rows, header.columns)
    return [frames[index] for index in order], grid


def _slide(levels: Sequence[Header]) -> Image:
    if len({level.channels for level in levels}) > 1:
        raise InputError("levels of one slide in grey and in colour", "one of both", "Load them apart.")
    tiles = [level.tiles for level in levels if level.tiles]
    return pyramid(levels[0].channels, tiles, lambda number, frames: _decoded(levels[number], frames))


def _alone(header: Header, single_slices: bool) -> list[tuple[_Frames, Grid]]:
    frames = [(header, index) for index in range(header.frames)]
    if header.planes:
        parts = [[i] for i in range(header.frames)] if single_slices else dicom_geometry.volumes(header.planes)
        return [_volume([frames[i] for i in part]) for part in parts]
    if "geometry" in header.meta:
        return [([frame], Grid.plain(header.rows, header.columns)) for frame in frames]
    turned = header.orientation[0] in ("H", "F") and header.orientation[1] in ("L", "R")
    rows, columns = (header.columns, header.rows) if turned else (header.rows, header.columns)
    if header.pixel_size is None:
        return [(frames, Grid.plain(rows, columns, header.frames))]
    height, width = header.pixel_size[::-1] if turned else header.pixel_size
    return [(frames, Grid(np.diag((width, height, 1, 1)), DETECTOR, (1, rows, columns)))]


def _marked(frames: _Frames, grid: Grid) -> list[Image]:
    """What the overlays of some frames mark, as an image on their grid, or nothing where there is no overlay."""
    files = list({header.path: header for header, _ in frames}.values())
    marked = dict(zip(files, parallel(lambda header: marks(header.path), files), strict=True))
    if not any(marked.values()):
        return []
    pixels = np.zeros((1, *grid.shape), np.float32)
    for place, (header, frame) in enumerate(frames):
        if frame in marked[header]:
            pixels[0, place] = lay(marked[header][frame], header.orientation)
    return [Image.from_array((CHANNEL,), grid, pixels)]


def _image(frames: _Frames, grid: Grid) -> Image:
    channels = frames[0][0].channels

    def read(window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        part = grid.crop(window) if window else grid
        wanted = frames[slice(*window.slices)] if window and window.slices else frames
        rows, columns = (slice(*window.rows), slice(*window.columns)) if window else (slice(None), slice(None))
        pixels = np.empty((len(channels), *part.shape), np.float32)
        valid = np.empty(part.shape, bool)

        def fill(run: tuple[int, Header, list[int]]) -> None:
            first, header, numbers = run
            last = first + len(numbers)
            if header.native and fill_plain(header, header.native, rows, columns, pixels[0, first], valid[first]):
                return
            values, good = _decoded(header, numbers)
            pixels[:, first:last] = values[..., rows, columns]
            valid[first:last] = good[..., rows, columns]

        parallel(fill, _runs(wanted))
        return Image.from_array(channels, part, pixels, valid).read(None, shape)

    return Image(channels, grid, read)


def _runs(frames: _Frames) -> list[tuple[int, Header, list[int]]]:
    """Frames of one file that follow each other, with the place of the first: in few parts, as each reads the file."""
    together = max(_TOGETHER, -(-len(frames) // (2 * (os.cpu_count() or 1))))
    runs: list[tuple[int, Header, list[int]]] = []
    for place, (header, frame) in enumerate(frames):
        if runs and runs[-1][1] is header and (header.across or len(runs[-1][2]) < together):
            runs[-1][2].append(frame)
        else:
            runs.append((place, header, [frame]))
    return runs


def _decoded(header: Header, frames: Sequence[int]) -> Pixels:
    """Frames from the file, or, of compressed ones, from what was decoded lately."""
    if not header.compressed:
        return decode(header, frames)
    return _cache.get((header, tuple(frames)), lambda: decode(header, frames))
