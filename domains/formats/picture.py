"""PNG, JPEG, TIFF, BMP, WebP and JPEG 2000 by Pillow: grey or RGB in [0, 1], no physical size, no metadata."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from domains.formats.content import Content, check_size, file_hash, foreign
from fovea.errors import InputError, LimitError, UnsupportedError
from fovea.types import Channel, Floats, Grid, Image, Pixels, Window

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "JPEG2000")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_GRAY = ("1", "L", "LA", "La", *_DEEP)
_COLOR = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr")
_GEOREFERENCE = (33550, 33922, 34264, 34735)
"""The tags ModelPixelScale, ModelTiepoint, ModelTransformation and GeoKeyDirectory of GeoTIFF."""


def is_picture(path: Path) -> bool:
    """Whether a file is of one of the formats and carries no georeference."""
    try:
        with _opened(path) as picture:
            return not any(tag in picture.getexif() for tag in _GEOREFERENCE)
    except LimitError:
        return True
    except InputError:
        return False


def is_gray(path: Path) -> bool:
    """Whether a picture is grey to the eye, with more than two levels: no colour photograph and no mask.

    Colours count where they are wide apart (mean distance between channels above 4 % over a 64-pixel copy).
    """
    with _opened(path) as picture:
        if picture.mode in _DEEP:
            return True
        picture.draft("RGB", (128, 128))
        levels = picture.convert("L").histogram()
        small = np.asarray(picture.convert("RGB").resize((64, 64), Pillow.Resampling.BOX), np.float32)
        return sum(count > 0 for count in levels) > 2 and float((small.max(-1) - small.min(-1)).mean()) < 0.04 * 255


def read(path: Path, *, gray: bool | None = None) -> Content:
    """One picture; `gray` True makes one channel "intensity" of any, None keeps what the file has.

    Channels are "intensity", or "red", "green" and "blue"; 8 and 16 bits are scaled to [0, 1], an EXIF rotation is
    applied, transparency is dropped. Raises UnsupportedError for other depths and for several pages, LimitError before
    decoding, InputError for broken files. Decoded when asked for.
    """
    with _opened(path) as picture:
        if picture.mode not in (*_GRAY, *_COLOR):
            raise UnsupportedError(f"a picture of mode {picture.mode}", "8 or 16 bits a channel", "Convert it.")
        if getattr(picture, "n_frames", 1) > 1:
            raise UnsupportedError("a file of several pictures", "one picture a file", "Split it.")
        one = picture.mode in _GRAY if gray is None else gray
        turned = picture.getexif().get(0x0112, 1) >= 5
        columns, rows = reversed(picture.size) if turned else picture.size
    channels = (Channel("intensity"),) if one else (Channel("red"), Channel("green"), Channel("blue"))
    grid = Grid.plain(rows, columns)

    def load(window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        return Image.from_array(channels, grid, _decode(path, one)).read(window, shape)

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


def _decode(path: Path, gray: bool) -> Floats:
    with _opened(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode in _DEEP:
            values = np.asarray(upright, np.float32)[..., None] / 65535
        else:
            values = (
                np.asarray(upright.convert("L" if gray else "RGB"), np.float32).reshape(*upright.size[::-1], -1) / 255
            )
        return np.ascontiguousarray(np.moveaxis(values, -1, 0)[:, None])
