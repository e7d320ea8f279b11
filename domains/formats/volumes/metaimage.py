"""MetaImage volumes of ITK, attached (.mha) and detached (.mhd).

Source: https://itk.org/Wiki/ITK/MetaIO/Documentation. As in ITK the space is LPS, and its unit mm unless the header
names another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.formats.content import Content, check_size, file_hash, foreign
from domains.formats.volumes import orientation
from domains.formats.volumes.orientation import COLOR, GRAY, Stored
from domains.formats.volumes.payload import beside, read_bytes
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.image import Matrix

_LINES, _LONGEST = 256, 2**16
"""The most lines and the longest line of a header."""
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_MILLIMETRES = {"": 1.0, "?": 1.0, "mm": 1.0, "cm": 10.0, "um": 0.001}
_MODALITIES = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR", "MET_MOD_NM": "NM", "MET_MOD_US": "US"}
_SAME_NAMES = {
    "Origin": "Offset", "Position": "Offset", "Rotation": "TransformMatrix", "Orientation": "TransformMatrix",
    "BinaryDataByteOrderMSB": "ElementByteOrderMSB",
}  # fmt: skip


def is_metaimage(path: Path) -> bool:
    """Whether a file starts with the header of a MetaImage."""
    try:
        return "ElementDataFile" in _header(path)[0]
    except InputError:
        return False


def read(path: Path) -> Content:
    """The volume, or every one along the fourth axis; channel "intensity", or red, green, blue of three 8-bit channels.

    `meta` has "modality" where the header names it. Without offset, spacing and directions in the header the grid is
    one of pixels, and `meta["geometry"]` says so. Raises UnsupportedError for pixels in one file a slice or as text,
    GeometryError for a contradictory geometry, LimitError and InputError before and at decoding.
    """
    with foreign("a MetaImage header"):
        header, start = _header(path)
        sizes = [int(size) for size in header["DimSize"].split()]
        if len(sizes) != int(header["NDims"]) or not 2 <= len(sizes) <= 4:
            raise UnsupportedError(f"MetaImage of {len(sizes)} sizes", "two to four axes", "Convert it.")
        channels = int(header.get("ElementNumberOfChannels", 1))
        check_size(*sizes, channels)
        kind = _kind(header)
        name = header["ElementDataFile"]
        if name == "LIST" or "%" in name:
            raise UnsupportedError("MetaImage in one file a slice", "one file of pixels", "Convert it to one file.")
        data = path if name == "LOCAL" else beside(path, name)
        affine = _affine(header, len(sizes))
        shape, frames = [*sizes, 1][:3], sizes[3] if len(sizes) == 4 else 1
        values = _Values(data, _start(header, data, start if data == path else 0), header, kind, (*shape, frames))
        colored = channels in (3, 4) and kind == np.uint8
        stored = Stored(
            (shape[0], shape[1], shape[2]),
            affine,
            values.color if colored else values.gray,
            frames if colored else frames * channels,
            COLOR if colored else GRAY,
        )
        images = orientation.images(stored)
        hashes = tuple(file_hash(file) for file in dict.fromkeys((path, data)))
    meta = {
        "modality": _MODALITIES.get(header.get("Modality", ""), ""),
        "geometry": "" if affine is not None else "no offset, spacing or direction in the header",
    }
    return Content(images, {key: value for key, value in meta.items() if value}, hashes)


@dataclass(frozen=True)
class _Values:
    path: Path
    start: int
    header: Mapping[str, str]
    kind: np.dtype[Any]
    shape: tuple[int, ...]

    @cached_property
    def all(self) -> NDArray[Any]:
        """(channel, i, j, k, volume), as stored."""
        channels = int(self.header.get("ElementNumberOfChannels", 1))
        count = int(np.prod(self.shape, dtype=np.int64)) * channels
        compression = "zlib" if _true(self.header, "CompressedData") else ""
        with foreign("MetaImage pixels"):
            raw = read_bytes(self.path, self.start, 0, count * self.kind.itemsize, compression)
            return np.frombuffer(raw, self.kind).reshape(channels, *self.shape, order="F")

    def gray(self, number: int) -> NDArray[Any]:
        channel, frame = number % len(self.all), number // len(self.all)
        return self.all[channel, ..., frame]

    def color(self, number: int) -> NDArray[Any]:
        return np.moveaxis(self.all[:3, ..., number], 0, -1) / np.float32(255)


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The fields up to ElementDataFile, which is the last, and the byte after them."""
    fields: dict[str, str] = {}
    with foreign("a file"), path.open("rb") as file:
        for _ in range(_LINES):
            name, equals, value = file.readline(_LONGEST).partition(b"=")
            key = name.strip().decode("ascii", "replace")
            if not equals or not key.isidentifier() or len(key) > 64:
                break
            fields[_SAME_NAMES.get(key, key)] = value.strip().decode("utf-8", "replace")
            if key == "ElementDataFile":
                return fields, file.tell()
    raise InputError("a MetaImage header without an end", "ElementDataFile as its last field", "Export it again.")


def _true(header: Mapping[str, str], name: str) -> bool:
    return header.get(name, "False").lower() in ("true", "1", "yes")


def _kind(header: Mapping[str, str]) -> np.dtype[Any]:
    found = _TYPES.get(header["ElementType"].removesuffix("_ARRAY"))
    if found is None or not _true({"BinaryData": "True", **header}, "BinaryData"):
        raise UnsupportedError("MetaImage whose pixels are text or no numbers", "binary numbers", "Convert it.")
    scaling = (header.get("ElementToIntensityFunctionSlope", "1"), header.get("ElementToIntensityFunctionOffset", "0"))
    if tuple(map(float, scaling)) != (1, 0):
        raise UnsupportedError("MetaImage with a function from values to intensity", "none", "Apply it, and convert.")
    return np.dtype(found).newbyteorder(">" if _true(header, "ElementByteOrderMSB") else "<")


def _start(header: Mapping[str, str], data: Path, start: int) -> int:
    """Where the pixels begin; HeaderSize -1 means at the end of the file."""
    size = int(header.get("HeaderSize", 0))
    if size >= 0:
        return start + size
    values = np.prod([int(n) for n in header["DimSize"].split()], dtype=object)
    values *= int(header.get("ElementNumberOfChannels", 1)) * _kind(header).itemsize
    return max(0, data.stat().st_size - int(values))


def _affine(header: Mapping[str, str], dimension: int) -> Matrix | None:
    """Index to LPS in mm; None where offset, spacing or directions are not given, or the image is flat."""
    if dimension == 2 or not {"Offset", "ElementSpacing", "TransformMatrix"} <= set(header):
        return None
    offset, spacing, turn = (
        np.array(header[name].split(), float) for name in ("Offset", "ElementSpacing", "TransformMatrix")
    )
    if len(offset) != dimension or len(spacing) != dimension or len(turn) != dimension**2:
        raise GeometryError("MetaImage with a geometry of another dimension", "one value an axis", "Export it again.")
    unit = header.get("DistanceUnits", "")
    if unit not in _MILLIMETRES:
        raise GeometryError("MetaImage in a unit of no length known", "mm", "Export it again.")
    affine = np.eye(4)
    affine[:3, :3] = turn.reshape(dimension, dimension)[:3, :3].T * spacing[:3]
    affine[:3, 3] = offset[:3]
    scaled: Matrix = np.diag([_MILLIMETRES[unit]] * 3 + [1]) @ affine
    return scaled
