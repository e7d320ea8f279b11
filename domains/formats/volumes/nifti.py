"""NIfTI-1 and -2 volumes with nibabel, in one file (.nii, .nii.gz) or as a pair (.hdr and .img).

Source: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import Nifti1Image, Nifti1Pair, Nifti2Image, Nifti2Pair
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, ImageDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from domains.formats.content import Content, check_size, file_hash, foreign
from domains.formats.volumes import orientation
from domains.formats.volumes.orientation import COLOR, GRAY, Stored
from domains.formats.volumes.payload import beside, check_length
from fovea.errors import GeometryError, UnsupportedError

NIBABEL = (HeaderDataError, ImageDataError, ImageFileError, WrapStructError)
"""What nibabel raises beside the errors of Python."""
_CLASSES: Mapping[str, Any] = {"n+1": Nifti1Image, "n+2": Nifti2Image, "ni1": Nifti1Pair, "ni2": Nifti2Pair}
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_CIFTI = range(3000, 3100)
"""The intents of connectivity and of surfaces, whose first axes are none of space."""
_LABEL = 1002


def is_nifti(path: Path) -> bool:
    """Whether a file is a NIfTI with its data inside, or the header of a pair, by its magic."""
    return bool(_magic(path))


def read(path: Path) -> Content:
    """Every volume of a file, along all axes behind the third, scaled as the header says; grey, or RGB in [0, 1].

    `meta` has "content" "label map" where the intent says so. Raises UnsupportedError for complex values and for what
    is no volume (CIFTI), GeometryError without sform and qform, LimitError before decoding, InputError for broken
    files. Decoded when asked for.
    """
    with foreign("a NIfTI file", *NIBABEL):
        file, files = _open(path)
        header = file.header
        kind = header.get_data_dtype()
        color = kind.names is not None and kind.names[:3] == ("R", "G", "B")
        if int(header["intent_code"]) in _CIFTI:
            raise UnsupportedError("CIFTI, a table of connections or surfaces in a NIfTI", "a volume")
        if kind.kind not in "iuf" and not color:
            raise UnsupportedError("NIfTI of complex or other than real numbers", "real numbers or RGB", "Convert it.")
        shape = [*map(int, file.shape), 1, 1][: max(3, len(file.shape))]
        check_size(*shape)
        if not header["sform_code"] and not header["qform_code"]:
            raise GeometryError("NIfTI without sform and qform", "one of them", "Convert from the source again.")
        check_length(files[-1], int(file.dataobj.offset) + int(np.prod(shape, dtype=object)) * kind.itemsize)
        scale = _MILLIMETRES[header.get_xyzt_units()[0]]
        stored = Stored(
            (shape[0], shape[1], shape[2]),
            np.diag((-scale, -scale, scale, 1)) @ file.affine,
            _Values(path, color),
            int(np.prod(shape[3:], dtype=np.int64)),
            COLOR if color else GRAY,
        )
        images = orientation.images(stored)
        meta = {"content": "label map"} if int(header["intent_code"]) == _LABEL else {}
        return Content(images, meta, tuple(file_hash(file) for file in files))


class _Values:
    """Reads single volumes, opening the file for each."""

    def __init__(self, path: Path, color: bool) -> None:
        self.path, self.color = path, color

    def __call__(self, number: int) -> NDArray[Any]:
        with foreign("NIfTI values", *NIBABEL):
            data = _open(self.path)[0].dataobj
            further = np.unravel_index(number, data.shape[3:], order="F") if len(data.shape) > 3 else ()
            values = np.asarray(data[(..., *map(int, further))] if further else data)
            if self.color:
                values = np.stack([values[name] for name in "RGB"], -1) / np.float32(255)
            return values.reshape([*values.shape[:3], 1, 1][:3] + ([3] if self.color else []))


def _open(path: Path) -> tuple[Any, tuple[Path, ...]]:
    """The image, unread, and its files, of which the last holds the values."""
    magic = _magic(path)
    if not magic:
        raise UnsupportedError("a file that is no NIfTI", ".nii, .nii.gz, or .hdr with .img", "Convert it.")
    if magic.startswith("n+"):
        return _CLASSES[magic].from_filename(path), (path,)
    data = partner(path, ".hdr", ".img")
    maps = _CLASSES[magic].make_file_map({"header": str(path), "image": str(data)})
    return _CLASSES[magic].from_file_map(maps), (path, data)


def partner(path: Path, ending: str, other: str) -> Path:
    """The file beside `path` whose name ends with `other` instead, in the same case, compressed or not.

    Raises InputError where it is missing.
    """
    stem = path.name.removesuffix(".gz").removesuffix(".GZ")
    cased = other.upper() if stem.endswith(ending.upper()) else other
    names = [stem[: -len(ending)] + cased + compressed for compressed in ("", ".gz")]
    return beside(path, next((name for name in names if path.with_name(name).is_file()), names[0]))


def _magic(path: Path) -> str:
    with foreign("a file"), path.open("rb") as file:
        head = file.read(348)
        if head[:2] == b"\x1f\x8b":
            file.seek(0)
            try:
                head = gzip.GzipFile(fileobj=file).read(348)
            except (EOFError, gzip.BadGzipFile, OSError):
                return ""
    for found, end in ((head[344:348], b"\0"), (head[4:8], b"\0")):
        if found.endswith(end) and found[:3].decode("ascii", "replace") in _CLASSES:
            return found[:3].decode()
    return ""
