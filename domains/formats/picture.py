"""PNG, JPEG, TIFF, BMP, GIF, WebP and JPEG 2000 by Pillow: grey or RGB in [0, 1], no physical size, no metadata.

Headers are read here, pixels are decoded in a process that may die. Colour of 16 bits a channel is decoded by GDAL,
since Pillow keeps its upper 8 bits only. CMYK becomes RGB without a colour profile, LAB becomes sRGB.

The pages of a TIFF are images of one study: nothing says that they lie above each other. The frames of an animation
build on each other, so that none can be decoded alone: animations are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from domains.formats import tiff_pages
from domains.formats.content import Content, FileHashes, check_size, foreign
from domains.formats.isolation import isolated
from fovea.errors import InputError, LimitError, UnsupportedError
from fovea.types import Channel, Grid, Image, Pixels, Window

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_GRAY = ("1", "L", "LA", "La", *_DEEP)
_COLOR = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB")
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
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _ORIENTATION = 258, 262, 339, 274
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)
"""Weights of red, green and blue in grey: ITU-R BT.601."""


def is_picture(path: Path) -> bool:
    """Whether a file is of one of the formats, in a compression that Pillow knows, with up to 16 unsigned bits a
    channel, and carries no georeference."""
    try:
        with _opened(path) as picture:
            tags = getattr(picture, "tag_v2", {})
            return not (_is_unbounded(picture) or tags.get(_COMPRESSION) in _UNKNOWN or _is_located(path))
    except LimitError:
        return not _is_located(path)
    except InputError:
        return False


def _is_located(path: Path) -> bool:
    """Whether a TIFF or JPEG 2000 file says where on Earth it lies, whatever its size; False for a broken file."""
    try:
        with foreign("a picture", warns=False), path.open("rb") as file:
            head = file.read(2**16)
        boxes = head.partition(b"jp2c")[0] if head.startswith(_JP2) else b""
        return any(sign in boxes for sign in _LOCATED) or not tiff_pages.tags(path).isdisjoint(_GEOREFERENCE)
    except InputError:
        return False


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
    """How many values, or colours, the pixels of a picture have, of several pages the most; 256 stands for more, too.

    Raises InputError for broken files.
    """
    return int(isolated(_levels, path, _offsets(path)))


def read(path: Path, *, gray: bool | None = None) -> Content:
    """One picture, or the pages of a TIFF; `gray` True makes one channel "intensity" of any, None keeps what it has.

    Channels are "intensity", or "red", "green" and "blue"; up to 16 bits are scaled to [0, 1], an EXIF rotation is
    applied, transparency is dropped. Raises UnsupportedError for other depths and colour spaces and for animations,
    LimitError before decoding and for too many pages, InputError for broken files. The header of every page is read
    here, a page is decoded when asked for.
    """
    offsets = _offsets(path)
    headers = _headers(path, offsets) if len(offsets) == 1 else isolated(_headers, path, offsets)
    images = (
        _page(path, offset, one if gray is None else gray, rows, columns)
        for offset, (one, rows, columns) in zip(offsets, headers, strict=True)
    )
    return Content(tuple(images), {}, FileHashes((path,)))


def is_beyond_rasters(path: Path) -> bool:
    """Whether a picture has what rasters lack: several pages, or LAB, whose white is another to GDAL.

    False of more pixels than are safe here; raises InputError for broken files.
    """
    try:
        with _opened(path) as picture:
            lab = picture.mode == "LAB"
    except LimitError:
        return False
    return lab or len(_offsets(path)) > 1


def _page(path: Path, offset: int, one: bool, rows: int, columns: int) -> Image:
    channels = (Channel("intensity"),) if one else (Channel("red"), Channel("green"), Channel("blue"))
    grid = Grid.plain(rows, columns)

    def load(window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        stored, top = isolated(_decode, path, offset, one)
        values = np.moveaxis(stored.astype(np.float32) / np.float32(top), -1, 0)
        values = np.tensordot(_LUMA, values, 1)[None] if one and len(values) == 3 else values
        return Image.from_array(channels, grid, np.ascontiguousarray(values)[:, None]).read(window, shape)

    return Image(channels, grid, load)


def _headers(path: Path, offsets: Sequence[int]) -> list[tuple[bool, int, int]]:
    """Whether each page is grey, its rows and its columns; raises UnsupportedError for the first that is none of ours.

    All pages are opened: of many, in a process with a limit on its time.
    """
    found = []
    for number, offset in enumerate(offsets, 1):
        with _opened(path, offset) as picture:
            if picture.mode not in (*_GRAY, *_COLOR) or _is_unbounded(picture):
                what = "a picture" if len(offsets) == 1 else f"page {number} of {len(offsets)}"
                given = "signed values" if picture.mode in (*_GRAY, *_COLOR) else f"mode {picture.mode}"
                raise UnsupportedError(f"{what} of {given}", "grey, RGB, CMYK, LAB or a palette", "Convert it.")
            turned = _orientation(picture) >= 5
            columns, rows = reversed(picture.size) if turned else picture.size
            found.append((picture.mode in _GRAY, rows, columns))
    return found


def _offsets(path: Path) -> list[int]:
    """Where the pages of a TIFF begin that are pictures of their own, the first always; [0] of another format.

    Raises UnsupportedError for an animation, LimitError for too many pages.
    """
    with _opened(path) as picture:
        if picture.format == "TIFF":
            return tiff_pages.offsets(path)
        frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise UnsupportedError(
            f"an animation of {frames} frames", "one picture, or a TIFF of pages", "Save the frames as pages of a TIFF."
        )
    return [0]


@contextmanager
def _opened(path: Path, offset: int = 0) -> Iterator[Pillow.Image]:
    """Open by the allowed formats alone and check the declared size; nothing is decoded yet.

    `offset` is that of a page of a TIFF, 0 the start of any file.
    """
    with foreign("a picture"), tiff_pages.opened(path, offset) if offset else path.open("rb") as file:
        try:
            picture = Pillow.open(file, formats=_FORMATS)
        except Pillow.DecompressionBombError:
            raise LimitError("a picture of more pixels than are safe", "fewer", "Shrink it.") from None
        check_size(*picture.size, len(picture.getbands()))
        yield picture


def _is_unbounded(picture: Pillow.Image) -> bool:
    signed = 2 in tuple(getattr(picture, "tag_v2", {}).get(_SAMPLE_FORMAT, ()))
    return picture.mode in _UNBOUNDED or signed


def _looks_gray(path: Path) -> bool:
    with _opened(path) as picture:
        picture.draft("RGB", (128, 128))
        shown = _displayed(picture)
        counts = shown.convert("L").histogram()
        small = np.asarray(shown.convert("RGB").resize((64, 64), Pillow.Resampling.BOX), np.float32)
        return sum(count > 0 for count in counts) > 2 and float((small.max(-1) - small.min(-1)).mean()) < 0.04 * 255


def _levels(path: Path, offsets: Sequence[int]) -> int:
    most = 0
    for offset in offsets:
        most = max(most, _page_levels(path, offset))
        if most == 256:
            break
    return most


def _page_levels(path: Path, offset: int) -> int:
    with _opened(path, offset) as picture:
        shown = _displayed(picture)
        found = shown.convert("RGB") if shown.mode in ("P", "PA", "RGBA", "CMYK", "YCbCr") else shown
        colors = found.getcolors(255) if found.mode not in _DEEP else None
        return len(colors) if colors else min(256, len(np.unique(np.asarray(found)))) if found.mode in _DEEP else 256


def _displayed(picture: Pillow.Image) -> Pillow.Image:
    """LAB as sRGB, by the white that TIFF 6.0 gives it (D50); any other picture itself."""
    if picture.mode != "LAB":
        return picture
    from PIL import ImageCms

    with foreign("a picture in LAB", ImageCms.PyCMSError):
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        intent, exact = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.NOOPTIMIZE  # no table of few colours
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB", intent, exact).apply(picture)


def _exif(picture: Pillow.Image) -> Mapping[int, Any]:
    """The tags before the pixels; of a PNG without them Pillow would decode it to look behind."""
    there = picture.format != "PNG" or "exif" in picture.info
    return picture.getexif() if there else {}


def _orientation(picture: Pillow.Image) -> int:
    """1 to 8 as in EXIF; 1 for TIFF, which Pillow turns when it opens it."""
    return 1 if picture.format == "TIFF" else int(_exif(picture).get(_ORIENTATION, 1))


def _decode(path: Path, offset: int, gray: bool) -> tuple[NDArray[Any], int]:
    """The stored integers (row, column, channel), upright, and the value that is white."""
    with _opened(path, offset) as picture:
        if picture.mode in _MIXED and picture.format in _GDAL and ";16" in _raw_mode(picture):
            deep = _deep_color(path, offset, _GDAL[str(picture.format)])
            return _turned(deep, _exif(picture).get(_ORIENTATION, 1)), 65535
        orientation, tags = _orientation(picture), getattr(picture, "tag_v2", {})
        if picture.mode not in _DEEP:
            values = np.asarray(_displayed(picture).convert("L" if gray else "RGB"))
            return _turned(values.reshape(*values.shape[:2], -1), orientation), 255
        top = 2 ** int(tags.get(_BITS, (16,))[0]) - 1
        values = np.minimum(np.asarray(picture), top)[..., None]
        return _turned(top - values if tags.get(_PHOTOMETRIC) == 0 else values, orientation), top


def _raw_mode(picture: Pillow.Image) -> str:
    """How the file stores its channels, in Pillow's words, such as "RGB;16B"."""
    arguments = [tile[3] for tile in getattr(picture, "tile", ())][:1]
    return str(arguments[0] if arguments else "")


def _deep_color(path: Path, offset: int, driver: str) -> NDArray[Any]:
    """Grey or colour of 16 bits a channel (row, column, 1 or 3), without its alpha."""
    import rasterio
    from rasterio.errors import RasterioError

    name = f"GTIFF_DIR:off:{offset}:{path.resolve()}" if offset else str(path.resolve())
    with foreign("a picture of 16 bits a channel", RasterioError), rasterio.open(name, driver=driver) as file:
        found: NDArray[Any] = file.read([1, 2, 3] if file.count >= 3 else [1])
        return np.moveaxis(found, 0, -1)


def _turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Upright pixels by the orientation of TIFF 6.0 and EXIF, 1 to 8."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values[::-1] if orientation in (3, 4, 7, 8) else values
