"""DICOM images with pydicom: series as volumes by position, radiographs as they are displayed, no identifiers.

Values: CT in Hounsfield units; MR, PET and nuclear medicine as rescaled; other grey images as displayed, in [0, 1];
colour as red, green and blue in [0, 1]. Grid: LPS where the file gives a plane for each slice; the detector plane for a
radiograph with a pixel size; otherwise pixels, the frames of a film being its slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from pydicom import dcmread

from domains.formats import dicom_geometry
from domains.formats.content import Content, check_size, file_hash, foreign
from domains.formats.dicom_header import PYDICOM, Header, Kind, read_header
from domains.formats.dicom_pixels import decode
from fovea.errors import GeometryError, InputError
from fovea.types import DETECTOR, Channel, Grid, Image, Pixels, Window

_CHANNELS: dict[Kind, tuple[Channel, ...]] = {
    "HU": (Channel("HU", "HU"),),
    "value": (Channel("intensity"),),
    "display": (Channel("intensity"),),
    "color": (Channel("red"), Channel("green"), Channel("blue")),
}
_DICOMDIR = b"1.2.840.10008.1.3.10"
_Frames = Sequence[tuple[Header, int]]


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM does: with the preamble, or, as older files, at once with group 2 or 8.

    A DICOMDIR, which only lists other files, does not count.
    """
    with foreign("a file"), path.open("rb") as file:
        head = file.read(512)
    if head[128:132] == b"DICM":
        return _DICOMDIR not in head
    if not _may_start(head):
        return False
    try:
        with foreign("a DICOM file", *PYDICOM):
            found = dcmread(path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID", "Modality"])
            return "SOPClassUID" in found or "Modality" in found
    except InputError:
        return False


def _may_start(head: bytes) -> bool:
    """Whether the first element is one of group 2 or 8 that a file without preamble starts with, in either order."""
    little, big = head[:2] in (b"\x02\x00", b"\x08\x00"), head[:2] in (b"\x00\x02", b"\x00\x08")
    element = head[2:4] if little else head[3:1:-1]
    return (little or big) and element in (b"\x00\x00", b"\x01\x00", b"\x05\x00", b"\x08\x00", b"\x16\x00")


def group(paths: Iterable[Path]) -> list[tuple[Path, ...]]:
    """The files as studies: slices of one series together, every other file alone, in the order of first mention."""
    studies: dict[tuple[str, ...], list[Path]] = {}
    for path in paths:
        try:
            header = read_header(path)
        except InputError:
            key: tuple[str, ...] = (str(path),)
        else:
            key = header.series if len(header.planes) == 1 else (str(path),)
        studies.setdefault(key, []).append(path)
    return [tuple(found) for found in studies.values()]


def read(paths: Sequence[Path]) -> Content:
    """One study: the slices of one series as a volume, and every multi-frame file or radiograph as images of its own.

    The order of the paths does not matter to a volume. Raises UnsupportedError for what is no picture, GeometryError
    when slices do not make a volume, LimitError before decoding, InputError for broken files. Pixels are decoded when
    they are asked for, and may then raise InputError.
    """
    headers = [read_header(path) for path in paths]
    if len({header.modality for header in headers}) != 1:
        raise InputError("files of several modalities, or none", "the files of one study")
    slices = [header for header in headers if len(header.planes) == 1]
    images, order = [], []
    if slices:
        frames, grid = _volume([(header, 0) for header in slices])
        images.append(_image(frames, grid))
        order += [header for header, _ in frames]
    for header in headers:
        if len(header.planes) != 1:
            images += _alone(header)
            order.append(header)
    return Content(tuple(images), headers[0].meta, tuple(file_hash(header.path) for header in order))


def _volume(frames: _Frames) -> tuple[_Frames, Grid]:
    header = frames[0][0]
    if len({(h.rows, h.columns, h.kind) for h, _ in frames}) > 1:
        raise GeometryError("slices of several sizes", "one size for all slices", "Load them apart.")
    check_size(len(frames), header.rows, header.columns)
    order, grid = dicom_geometry.stack([h.planes[frame] for h, frame in frames], header.rows, header.columns)
    return [frames[index] for index in order], grid


def _alone(header: Header) -> list[Image]:
    frames = [(header, index) for index in range(header.frames)]
    if header.planes:
        return [_image(*_volume([frames[i] for i in part])) for part in dicom_geometry.volumes(header.planes)]
    turned = header.orientation[0] in ("H", "F") and header.orientation[1] in ("L", "R")
    rows, columns = (header.columns, header.rows) if turned else (header.rows, header.columns)
    if header.pixel_size is None:
        return [_image(frames, Grid.plain(rows, columns, header.frames))]
    height, width = header.pixel_size[::-1] if turned else header.pixel_size
    return [_image(frames, Grid(np.diag((width, height, 1, 1)), DETECTOR, (1, rows, columns)))]


def _image(frames: _Frames, grid: Grid) -> Image:
    kind, channels = frames[0][0].kind, _CHANNELS[frames[0][0].kind]

    def read(window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        part = grid.crop(window) if window else grid
        wanted = frames[slice(*window.slices)] if window and window.slices else frames
        blocks = [
            decode(header.path, kind, [frame for _, frame in run], header.orientation)
            for header, run in groupby(wanted, key=lambda frame: frame[0])
        ]
        pixels, valid = np.concatenate([p for p, _ in blocks], 1), np.concatenate([v for _, v in blocks])
        if window:
            inside = (..., slice(*window.rows), slice(*window.columns))
            pixels, valid = pixels[inside], valid[inside]
        return Image.from_array(channels, part, pixels, valid).read(None, shape)

    return Image(channels, grid, read)
