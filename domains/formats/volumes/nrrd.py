"""NRRD volumes, attached (.nrrd) and detached (.nhdr). Source: https://teem.sourceforge.net/nrrd/format.html"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_HEADER = 2**20
"""The most bytes that a header may have."""
_TO_LPS = {
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "left-posterior-superior": (1, 1, 1),
}
_SHORT_NAMES = {"ras": "right-anterior-superior", "las": "left-anterior-superior", "lps": "left-posterior-superior"}
_MILLIMETRES = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "micron": 0.001}
_COMPRESSIONS = {"raw": "", "gz": "zlib", "gzip": "zlib", "bz2": "bz2", "bzip2": "bz2"}
_TEXT = ("ascii", "text", "txt")
_COLORS = ("RGB-color", "RGBA-color")
_PLAIN = ("", "???", "domain", "space", "time", "list", "vector", "point", "scalar", "stub", "none", *_COLORS)


def is_nrrd(path: Path) -> bool:
    """Whether a file starts with the magic of NRRD."""
    with foreign("a file"), path.open("rb") as file:
        return file.read(6) == b"NRRD00"


def read(path: Path) -> Content:
    """The volume, or every one along the axes that have no place in space; channel "intensity", or red, green, blue.

    Space units count as mm where the header names none. Where it does not say how the axes lie in the patient the grid
    is one of pixels, and `meta["geometry"]` says so; "modality" is CT where the samples are in Hounsfield units. Raises
    UnsupportedError for tensors, complex numbers and blocks, GeometryError for other units or a singular affine,
    LimitError and InputError before and at decoding.
    """
    from nrrd.errors import NRRDError  # type: ignore[import-untyped]

    with foreign("an NRRD header", NRRDError):
        header, start = _header(path)
        data, meta = _file(path, header), {}
        sizes = [int(size) for size in header["sizes"]]
        if len(sizes) != header["dimension"]:
            raise InputError("NRRD whose sizes do not fit its dimension", "one size an axis", "Export it again.")
        check_size(*sizes)
        spatial = _spatial(header, len(sizes))
        color = _color(header)
        affine = _affine(header, spatial)
        if affine is None:
            meta["geometry"] = "axes without a place in the patient"
        axes = _Axes(tuple(sizes), tuple(spatial), color)
        if str(header.get("sample units", "")).strip('" ').lower() in ("hu", "hounsfield", "hounsfield unit"):
            meta["modality"] = "CT"
        values = _Values(data, 0 if data != path else start, header, axes)
        shape = [sizes[axis] for axis in spatial] + [1] * (3 - len(spatial))
        stored = Stored(
            (shape[0], shape[1], shape[2]), affine, values.volume, axes.count, GRAY if color is None else COLOR
        )
        images = orientation.images(stored)
        hashes = tuple(file_hash(file) for file in dict.fromkeys((path, data)))
    return Content(images, meta, hashes)


@dataclass(frozen=True)
class _Axes:
    """Which of the axes, the fastest first, are of space, and which one is of colour."""

    sizes: tuple[int, ...]
    spatial: tuple[int, ...]
    color: int | None

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(a for a in range(len(self.sizes)) if a not in self.spatial and a != self.color)

    @property
    def count(self) -> int:
        """How many volumes there are."""
        return int(np.prod([self.sizes[axis] for axis in self.others], dtype=np.int64))


@dataclass(frozen=True)
class _Values:
    path: Path
    start: int
    header: Mapping[str, Any]
    axes: _Axes

    @cached_property
    def all(self) -> NDArray[Any]:
        """(i, j, k, volume) or (i, j, k, volume, channel), as stored."""
        axes, space = self.axes, self.axes.spatial
        values = _decode(self.path, self.start, self.header, axes.sizes)
        order = (*space, *axes.others, *(() if axes.color is None else (axes.color,)))
        values = values.transpose(order)
        shape = [axes.sizes[axis] for axis in space] + [1] * (3 - len(space))
        return values.reshape(*shape, axes.count, *(() if axes.color is None else (axes.sizes[axes.color],)), order="F")

    def volume(self, number: int) -> NDArray[Any]:
        values = self.all[:, :, :, number]
        if self.axes.color is None:
            return values
        return values[..., :3] / np.float32(np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The parsed fields and the byte after the header."""
    from nrrd import read_header  # type: ignore[import-untyped]

    lines, size = [], 0
    with path.open("rb") as file:
        while size < _HEADER:
            line = file.readline(_HEADER)
            size += len(line)
            lines.append(line)
            if not line.strip():
                break
        else:
            raise InputError("NRRD with an endless header", "at most 1 MiB of header", "Export it again.")
    if not lines[-1]:
        lines[-1] = b"\n"
    return dict(read_header(lines)), size


def _field(header: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """Names may be written with or without spaces."""
    return header.get(name, header.get(name.replace(" ", ""), default))


def _file(path: Path, header: Mapping[str, Any]) -> Path:
    name = _field(header, "data file")
    if name is None:
        return path
    if name.startswith("LIST") or "%" in name:
        raise UnsupportedError("NRRD in one file a slice", "one file of pixels", "Convert it to one file.")
    return beside(path, name.removeprefix("./"))


def _spatial(header: Mapping[str, Any], dimension: int) -> list[int]:
    """The two or three axes of space: those with a direction, else those that are not named otherwise."""
    directions = _field(header, "space directions")
    kinds = _kinds(header, dimension)
    if directions is not None and len(directions) != dimension:
        raise GeometryError("NRRD with a direction missing", "one an axis", "Export it again.")
    odd = [kind for kind in kinds if kind not in _PLAIN]
    if odd:
        raise UnsupportedError(
            "NRRD of tensors, complex numbers or other than grey and colour values", "numbers", "Convert it."
        )
    if directions is not None:
        found = [axis for axis in range(dimension) if directions[axis] is not None and np.isfinite(directions[axis][0])]
    elif any(kind in ("domain", "space") for kind in kinds):
        found = [axis for axis in range(dimension) if kinds[axis] in ("domain", "space")][:3]
    else:
        found = [axis for axis in range(dimension) if kinds[axis] not in _COLORS][:3]
    if not 2 <= len(found) <= 3:
        raise UnsupportedError(f"NRRD with {len(found)} axes of space", "two or three", "Convert it.")
    return found


def _kinds(header: Mapping[str, Any], dimension: int) -> Sequence[str]:
    kinds = _field(header, "kinds", [])
    return [*kinds, *[""] * dimension][:dimension]


def _color(header: Mapping[str, Any]) -> int | None:
    kinds = _kinds(header, header["dimension"])
    return next((axis for axis, kind in enumerate(kinds) if kind in _COLORS), None)


def _affine(header: Mapping[str, Any], spatial: Sequence[int]) -> Matrix | None:
    """Index to LPS in mm; None without a space of the patient, its origin and three directions."""
    name = str(_field(header, "space", "")).lower().removesuffix("-time")
    signs = _TO_LPS.get(_SHORT_NAMES.get(name.removesuffix("t"), name))
    origin, directions = _field(header, "space origin"), _field(header, "space directions")
    if signs is None or origin is None or directions is None or len(spatial) != 3:
        return None
    units = {str(unit).strip('" ').lower() for unit in _field(header, "space units", [])[:3]} or {""}
    if len(units) != 1 or not units <= set(_MILLIMETRES):
        raise GeometryError("NRRD with space units of no length known", "mm", "Export it again.")
    affine = np.eye(4)
    affine[:3, :3] = np.stack([np.asarray(directions[axis], float)[:3] for axis in spatial], 1)
    affine[:3, 3] = np.asarray(origin, float)[:3]
    scale = _MILLIMETRES[units.pop()]
    turned: Matrix = np.diag([*(sign * scale for sign in signs), 1.0]) @ affine
    return turned


def _decode(path: Path, start: int, header: Mapping[str, Any], sizes: Sequence[int]) -> NDArray[Any]:
    """The numbers of the file, the fastest axis first."""
    from nrrd.errors import NRRDError
    from nrrd.reader import _TYPEMAP_NRRD2NUMPY as types  # type: ignore[import-untyped]  # noqa: N811

    with foreign("NRRD pixels", NRRDError):
        if header["type"] not in types:
            raise UnsupportedError("NRRD of blocks", "numbers", "Convert it.")
        kind = np.dtype(types[header["type"]])
        count, encoding = int(np.prod(sizes, dtype=np.int64)), str(header["encoding"]).lower()
        lines, skip = int(_field(header, "line skip", 0)), int(_field(header, "byte skip", 0))
        if lines > 0:
            with path.open("rb") as file:
                file.seek(start)
                start += sum(len(file.readline(_HEADER)) for _ in range(min(lines, _HEADER)))
        if encoding in _TEXT:
            text = path.read_bytes()[start:][: 32 * count].split(maxsplit=count)
            values = np.array(text[:count], kind if kind.kind == "f" else np.int64).astype(kind)
        else:
            if kind.itemsize > 1:
                kind = kind.newbyteorder({"little": "<", "big": ">"}[str(header["endian"])])
            compression = _COMPRESSIONS.get(encoding, encoding)
            if skip == -1 and not compression:
                start, skip = path.stat().st_size - count * kind.itemsize, 0
            if skip < 0 or start < 0:
                raise InputError("NRRD that ends before its pixels", "a whole file", "Fetch it again.")
            values = np.frombuffer(read_bytes(path, start, skip, count * kind.itemsize, compression), kind)
        return values.reshape(sizes, order="F")
