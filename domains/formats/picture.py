"""PNG, JPEG, TIFF, BMP, GIF, WebP and JPEG 2000 by Pillow: grey or RGB in [0, 1], no physical size, no metadata.

Headers are read here, pixels are decoded in a process that may die. Colour of 16 bits a channel is decoded by GDAL,
since Pillow keeps its upper 8 bits only. CMYK becomes RGB without a colour profile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from domains.formats.content import Content, check_size, file_hash, foreign
from domains.formats.isolation import isolated
from fovea.errors import InputError, LimitError, UnsupportedError
from fovea.types import Channel, Grid, Image, Pixels, Window

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_GRAY = ("1", "L", "LA", "La", *_DEEP)
_COLOR = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr")
_MIXED = ("LA", "RGB", "RGBA", "RGBX", "RGBa")
"""What Pillow makes of several channels, of whatever depth."""
_UNBOUNDED = ("I", "F")
"""Signed, 32-bit and floating values: their range says nothing of black and white, so they are left to rasters."""
_GEOREFERENCE = (33550, 33922, 34264, 34735)
"""The tags ModelPixelScale, ModelTiepoint, ModelTransformation and GeoKeyDirectory of GeoTIFF."""
_JP2, _LOCATED = b"\0\0\0\x0cjP  ", (bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"), b"gml.data")
"""How JPEG 2000 starts, and what in front of its pixels gives it a place: the box of GeoJP2, or GML (OGC 05-047r3)."""
_GDAL = {"PNG": "PNG", "TIFF": "GTiff"}
_COMPRESSION, _UNKNOWN = 259, (34887, 50000, 50001)
"""Compressions of TIFF that GDAL knows alone: LERC, Zstandard and WebP."""
_SUBFILE, _OVERVIEWS = 254, 32
"""The tag NewSubfileType, and the most pages that are looked through for overviews."""
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _ORIENTATION = 258, 262, 339, 274
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)
"""Weights of red, green and blue in grey: ITU-R BT.601."""


def is_picture(path: Path) -> bool:
    """Whether a file is of one of the formats, in a compression that Pillow knows, with up to 16 unsigned bits a
    channel, and carries no georeference."""
    try:
        with _opened(path) as picture:
            exif = _exif(picture)
            tags = getattr(picture, "tag_v2", {})
            left = _is_unbounded(picture) or tags.get(_COMPRESSION) in _UNKNOWN
            return not left and not any(tag in exif for tag in _GEOREFERENCE) and not _is_located(path)
    except LimitError:
        return True
    except InputError:
        return False


def _is_located(path: Path) -> bool:
    """Whether a JPEG 2000 file says where on Earth it lies."""
    with path.open("rb") as file:
        head = file.read(2**16)
    return head.startswith(_JP2) and any(sign in head.partition(b"jp2c")[0] for sign in _LOCATED)


def is_gray(path: Path) -> bool:
    """Whether a picture is grey to the eye, with more than two levels: no colour photograph and no mask.

    Colours count where they are wide apart (mean distance between channels above 4 % over a 64-pixel copy). Raises
    InputError for broken files.
    """
    with _opened(path) as picture:
        if picture.mode in _DEEP:
            return True
    return bool(isolated(_looks_gray, path))


def levels(path: Path) -> int:
    """How many values, or colours, the pixels of a picture have; 256 stands for that many and more.

    Raises InputError for broken files.
    """
    with _opened(path):
        return int(isolated(_levels, path))


def read(path: Path, *, gray: bool | None = None) -> Content:
    """One picture; `gray` True makes one channel "intensity" of any, None keeps what the file has.

    Channels are "intensity", or "red", "green" and "blue"; up to 16 bits are scaled to [0, 1], an EXIF rotation is
    applied, transparency is dropped. Raises UnsupportedError for other depths and colour spaces and for several pages,
    LimitError before decoding, InputError for broken files. Decoded when asked for.
    """
    with _opened(path) as picture:
        if picture.mode not in (*_GRAY, *_COLOR) or _is_unbounded(picture):
            given = "signed values" if picture.mode in (*_GRAY, *_COLOR) else f"mode {picture.mode}"
            raise UnsupportedError(f"a picture of {given}", "grey, RGB, CMYK or a palette", "Convert it.")
        pages = _pages(picture)
        if pages > 1:
            raise UnsupportedError(f"a file of {pages} pictures", "one picture a file", "Split it.")
        one = picture.mode in _GRAY if gray is None else gray
        turned = _orientation(picture) >= 5
        columns, rows = reversed(picture.size) if turned else picture.size
    channels = (Channel("intensity"),) if one else (Channel("red"), Channel("green"), Channel("blue"))
    grid = Grid.plain(rows, columns)

    def load(window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        stored, top = isolated(_decode, path, one)
        values = np.moveaxis(stored.astype(np.float32) / np.float32(top), -1, 0)
        values = np.tensordot(_LUMA, values, 1)[None] if one and len(values) == 3 else values
        return Image.from_array(channels, grid, np.ascontiguousarray(values)[:, None]).read(window, shape)

    return Content((Image(channels, grid, load),), {}, (file_hash(path),))


@contextmanager
def _opened(path: Path) -> Iterator[Pillow.Image]:
    """Open by the allowed formats alone and check the declared size; nothing is decoded yet."""
    with foreign("a picture"), path.open("rb") as file:
        try:
            picture = Pillow.open(file, formats=_FORMATS)
        except Pillow.DecompressionBombError:
            raise LimitError("a picture of more pixels than are safe", "fewer", "Shrink it.") from None
        check_size(*picture.size, len(picture.getbands()))
        yield picture


def _is_unbounded(picture: Pillow.Image) -> bool:
    signed = 2 in tuple(getattr(picture, "tag_v2", {}).get(_SAMPLE_FORMAT, ()))
    return picture.mode in _UNBOUNDED or signed


def _pages(picture: Pillow.Image) -> int:
    """How many pictures a file holds: overviews, which TIFF marks as reduced, are none of their own."""
    count = getattr(picture, "n_frames", 1)
    if picture.format != "TIFF" or not 1 < count <= _OVERVIEWS:
        return count
    reduced = 0
    for page in range(1, count):
        picture.seek(page)
        reduced += picture.tag_v2.get(_SUBFILE, 0) & 1  # type: ignore[attr-defined]
    picture.seek(0)
    return count - reduced


def _looks_gray(path: Path) -> bool:
    with _opened(path) as picture:
        picture.draft("RGB", (128, 128))
        counts = picture.convert("L").histogram()
        small = np.asarray(picture.convert("RGB").resize((64, 64), Pillow.Resampling.BOX), np.float32)
        return sum(count > 0 for count in counts) > 2 and float((small.max(-1) - small.min(-1)).mean()) < 0.04 * 255


def _levels(path: Path) -> int:
    with _opened(path) as picture:
        found = picture.convert("RGB") if picture.mode in ("P", "PA", "RGBA", "CMYK", "YCbCr") else picture
        colors = found.getcolors(255) if found.mode not in _DEEP else None
        return len(colors) if colors else min(256, len(np.unique(np.asarray(found)))) if found.mode in _DEEP else 256


def _exif(picture: Pillow.Image) -> Mapping[int, Any]:
    """The tags before the pixels; of a PNG without them Pillow would decode it to look behind."""
    there = picture.format != "PNG" or "exif" in picture.info
    return picture.getexif() if there else {}


def _orientation(picture: Pillow.Image) -> int:
    """1 to 8 as in EXIF; 1 for TIFF, which Pillow turns when it opens it."""
    return 1 if picture.format == "TIFF" else int(_exif(picture).get(_ORIENTATION, 1))


def _decode(path: Path, gray: bool) -> tuple[NDArray[Any], int]:
    """The stored integers (row, column, channel), upright, and the value that is white."""
    with _opened(path) as picture:
        if picture.mode in _MIXED and picture.format in _GDAL and ";16" in _raw_mode(picture):
            return _turned(_deep_color(path, _GDAL[str(picture.format)]), _exif(picture).get(_ORIENTATION, 1)), 65535
        orientation, tags = _orientation(picture), getattr(picture, "tag_v2", {})
        if picture.mode not in _DEEP:
            values = np.asarray(picture.convert("L" if gray else "RGB"))
            return _turned(values.reshape(*values.shape[:2], -1), orientation), 255
        top = 2 ** int(tags.get(_BITS, (16,))[0]) - 1
        values = np.minimum(np.asarray(picture), top)[..., None]
        return _turned(top - values if tags.get(_PHOTOMETRIC) == 0 else values, orientation), top


def _raw_mode(picture: Pillow.Image) -> str:
    """How the file stores its channels, in Pillow's words, such as "RGB;16B"."""
    arguments = [tile[3] for tile in getattr(picture, "tile", ())][:1]
    return str(arguments[0] if arguments else "")


def _deep_color(path: Path, driver: str) -> NDArray[Any]:
    """Grey or colour of 16 bits a channel (row, column, 1 or 3), without its alpha."""
    import rasterio
    from rasterio.errors import RasterioError

    with (
        foreign("a picture of 16 bits a channel", RasterioError),
        rasterio.open(path.resolve(), driver=driver) as file,
    ):
        found: NDArray[Any] = file.read([1, 2, 3] if file.count >= 3 else [1])
        return np.moveaxis(found, 0, -1)


def _turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Upright pixels by the orientation of TIFF 6.0 and EXIF, 1 to 8."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values[::-1] if orientation in (3, 4, 7, 8) else values
