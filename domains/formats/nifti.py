"""NIfTI-1 and -2 volumes with nibabel, turned to the axes of a patient: columns left, rows back, slices up."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import Nifti1Image, Nifti2Image, orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, ImageDataError
from nibabel.wrapstruct import WrapStructError

from domains.formats.content import Content, check_size, file_hash, foreign
from fovea.errors import GeometryError, UnsupportedError
from fovea.image import Matrix
from fovea.types import LPS, Channel, Grid, Image, Pixels, Window

_TURNS: Any = orientations  # untyped
_NIBABEL = (HeaderDataError, ImageDataError, ImageFileError, WrapStructError)
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


def is_nifti(path: Path) -> bool:
    """Whether a file is a NIfTI with its data inside (.nii, .nii.gz), by its magic."""
    return _version(path) > 0


def read(path: Path) -> Content:
    """Every volume of a file as an image, channel "intensity", scaled as the header says; values that are not finite
    are invalid and 0. The axes are permuted and flipped to the nearest of LPS; nothing is interpolated.

    Raises UnsupportedError for more than 4 dimensions and for colour or complex values, GeometryError without sform and
    qform, LimitError before decoding, InputError for broken files. Decoded when asked for.
    """
    with foreign("a NIfTI file", *_NIBABEL):
        file = _open(path)
        header: Any = file.header
        shape = file.shape
        if not 3 <= len(shape) <= 4 or header.get_data_dtype().kind not in "iuf":
            raise UnsupportedError(f"NIfTI of {len(shape)} dimensions or no real numbers", "3 or 4, of real numbers")
        if not header["sform_code"] and not header["qform_code"]:
            raise GeometryError("NIfTI without sform and qform", "one of them", "Convert from the source again.")
        check_size(*shape)
        scale = _MILLIMETRES[header.get_xyzt_units()[0]]
        affine = np.diag((-scale, -scale, scale, 1)) @ file.affine
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
            raise GeometryError("NIfTI with a singular affine", "one that can be inverted")
        turn = _TURNS.io_orientation(affine)
        sizes = tuple(shape[int(np.flatnonzero(turn[:, 0] == axis)[0])] for axis in range(3))
        grid = Grid(affine @ _TURNS.inv_ornt_aff(turn, shape[:3]), LPS, (sizes[2], sizes[1], sizes[0]))
    count = shape[3] if len(shape) == 4 else 1
    images = tuple(_image(path, grid, turn, index if len(shape) == 4 else None) for index in range(count))
    return Content(images, {}, (file_hash(path),))


def _image(path: Path, grid: Grid, turn: Matrix, volume: int | None) -> Image:
    channels = (Channel("intensity"),)

    def load(window: Window | None, shape: tuple[int, int] | None) -> Pixels:
        with foreign("NIfTI values", *_NIBABEL):
            data = _open(path).dataobj
            values = np.asarray(data[...] if volume is None else data[..., volume], np.float32)
            values = np.ascontiguousarray(_TURNS.apply_orientation(values, turn).T)
        valid = np.isfinite(values)
        return Image.from_array(channels, grid, np.where(valid, values, 0)[None], valid).read(window, shape)

    return Image(channels, grid, load)


def _open(path: Path) -> Nifti1Image:
    version = _version(path)
    if not version:
        raise UnsupportedError("a file that is no NIfTI", ".nii or .nii.gz with the data inside", "Convert it.")
    return (Nifti1Image if version == 1 else Nifti2Image).from_filename(path)


def _version(path: Path) -> int:
    with foreign("a file"), path.open("rb") as file:
        head = file.read(348)
        if head[:2] == b"\x1f\x8b":
            file.seek(0)
            try:
                head = gzip.GzipFile(fileobj=file).read(348)
            except (EOFError, gzip.BadGzipFile, OSError):
                return 0
    return 1 if head[344:348] == b"n+1\0" else 2 if head[4:8] == b"n+2\0" else 0
