"""Images of a set as files: whether they can be read, what they hold, and which of them look the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domains.formats.content import check_size, file_hash, foreign
from fovea.errors import LimitError
from fovea.types import Floats

SIDE = 64
"""Rows and columns of the grey copy that images are compared by."""
DISTANCE = 15
"""The most of 256 bits in which the hashes of two copies of one picture may differ."""
ALIKE = 0.985
"""The least correlation of the grey copies of two pictures that count as one."""
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"}
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
_RASTERS = {".tif", ".tiff", ".jp2"}
_FLAT = 2.0
_CROWD = 4000


@dataclass(frozen=True, eq=False)
class Look:
    """What one reading of a file tells: its SHA-256, its bytes, and of a picture its rows, columns and hash.

    `shape` is (0, 0) for files that are no pictures: they are hashed and not opened, but for the head of NIfTI files.
    `code` are the 256 bits of the difference hash as four uint64, None for files that are no pictures, and flat ones.
    """

    digest: str
    size: int
    shape: tuple[int, int] = (0, 0)
    code: NDArray[np.uint64] | None = None


def look(path: Path) -> Look:
    """Read one file whole. Raises InputError when it cannot be decoded."""
    digest, size = file_hash(path), path.stat().st_size
    if path.name.lower().endswith((".nii", ".nii.gz")):
        from domains.formats.volumes.nifti import read

        read(path)
    if not is_picture(path):
        return Look(digest, size)
    small, shape = gray_copy(path)
    return Look(digest, size, shape, difference_hash(small))


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture or raster; others are hashed alone."""
    return path.suffix.lower() in _PICTURES | _RASTERS


def gray_copy(path: Path) -> tuple[Floats, tuple[int, int]]:
    """A picture or raster as grey float32 (SIDE, SIDE) in 0 to 255, and its own rows and columns.

    Rasters, and pictures of more than 8 bits, are stretched from their least to their greatest value. JPEGs are
    decoded at a fraction of their size. Raises InputError when it cannot be decoded, LimitError for pictures of more
    pixels than are safe.
    """
    if path.suffix.lower() in _RASTERS:
        from domains.formats.rasters.geotiff import read

        image = read(path).images[0]
        return _stretched(image.window(shape=(SIDE, SIDE)).pixels[:, 0].mean(0)), image.grid.shape[1:]
    from PIL import Image

    with foreign("a picture"):
        try:
            picture = Image.open(path, formats=_FORMATS)
        except Image.DecompressionBombError:
            raise LimitError("a picture of more pixels than are safe", "fewer", "Shrink it.") from None
        with picture:
            columns, rows = picture.size
            check_size(rows, columns, len(picture.getbands()))
            picture.draft("L", (4 * SIDE, 4 * SIDE))
            deep = picture.mode.startswith(("I", "F"))
            gray = picture.convert("F" if deep else "L").resize((SIDE, SIDE), Image.Resampling.BOX)
            small = np.asarray(gray, np.float32)
    return _stretched(small) if deep else small, (rows, columns)


def _stretched(values: Floats) -> Floats:
    low, high = float(values.min()), float(values.max())
    return (values - low) * (255 / ((high - low) or 1))


def difference_hash(small: Floats) -> NDArray[np.uint64] | None:
    """256 bits of a grey copy: whether each of 16 × 16 fields is brighter than the one to its left; None if flat.

    After "dHash" (N. Krawetz, 2013), of 16 rows in place of 8. Steady under scaling, recompression and a change of
    brightness; not under cropping, turning or mirroring.
    """
    if float(small.std()) < _FLAT:
        return None
    rows = small.reshape(16, SIDE // 16, SIDE).mean(1)
    edges = np.linspace(0, SIDE, 18).round().astype(int)
    fields = np.add.reduceat(rows, edges[:-1], axis=1) / np.diff(edges)
    bits: NDArray[np.uint64] = np.packbits(fields[:, 1:] > fields[:, :-1]).view(np.uint64)
    return bits


def near(codes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Pairs of rows of `codes` (n, 4) that differ in at most DISTANCE bits, each once, the smaller index first.

    Two codes that differ in d bits agree in one of d + 1 parts of them, so only codes that share a part are compared.
    In crowds of more than 4,000 that share one, each is compared with the first alone.
    """
    bits = np.unpackbits(codes.view(np.uint8), axis=1)
    parts = DISTANCE + 1
    spread = np.random.default_rng(0).permutation(
        256
    )  # neighbours are alike in many pictures; drawn apart, they are not
    keys = np.packbits(bits[:, spread], axis=1).reshape(len(codes), parts, -1)
    seen: set[tuple[int, int]] = set()
    for part in range(parts):
        _, places = np.unique(keys[:, part], axis=0, return_inverse=True)
        order = np.argsort(places.ravel(), kind="stable")
        bounds = np.flatnonzero(np.diff(places.ravel()[order])) + 1
        for group in np.split(order, bounds):
            if len(group) > 1:
                for pair in _close(group, codes):
                    if pair not in seen:
                        seen.add(pair)
                        yield pair


def _close(group: NDArray[np.intp], codes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    for place, first in enumerate(group[:1] if len(group) > _CROWD else group[:-1]):
        rest = group[place + 1 :]
        distance = np.bitwise_count(codes[rest] ^ codes[first]).sum(1)
        yield from ((int(first), int(other)) for other in rest[distance <= DISTANCE])


def alike(a: Path, b: Path) -> bool:
    """Whether two pictures are one, scaled, recompressed or brightened: by the correlation of their grey copies."""
    first, second = (gray_copy(path)[0].ravel() for path in (a, b))
    return float(np.corrcoef(first, second)[0, 1]) >= ALIKE


def clusters(n: int, pairs: Iterable[tuple[int, int]], same: Callable[[int, int], bool]) -> list[list[int]]:
    """The sets of two and more out of 0 to n - 1 that those pairs join of which `same` is true, sorted.

    `same` is not asked of two that are joined already.
    """
    parent = list(range(n))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        if low != high and same(a, b):
            parent[high] = low
    joined: dict[int, list[int]] = {}
    for index in range(n):
        joined.setdefault(root(index), []).append(index)
    return [found for found in joined.values() if len(found) > 1]
