"""MINC volumes: what nibabel says of both versions, and MINC 2, which is HDF5 and opened in a child process only.

Source: https://en.wikibooks.org/wiki/MINC/Reference/MINC2.0_File_Format_Reference
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.formats.content import check_size, foreign
from domains.formats.isolation import SECONDS, isolated
from domains.formats.volumes.payload import RATIO, SHORT
from fovea.errors import GeometryError, InputError, LimitError, UnsupportedError

_MODALITIES = {
    "MRI__": "MR", "MRA__": "MR", "MRS__": "MR", "CT___": "CT", "PET__": "PT", "SPECT": "NM", "GAMMA": "NM",
    "DSA__": "XA",
}  # fmt: skip
_LABEL = "label"
_FILTERS = {1, 2, 3}
"""DEFLATE, shuffle and Fletcher-32: what MINC is written with; others would be loaded from a folder of plugins."""
_CHUNK = 2**28
"""The most bytes of a chunk, and of the cache that holds decoded ones."""
_ATTRIBUTE = 2**16
"""The most bytes of an attribute."""
_SLAB = 2**22
"""About how many values are scaled at once: nibabel does it as float64."""
_RATE = 2**22
"""The values that are decoded in a second, at the least."""


def facts(file: Any, modality: Any) -> dict[str, Any]:
    """What a file holds, of nibabel's `Minc1File` or `Minc2File` and the attribute "modality" of its study.

    "affine" maps the three axes of space, the last ones, to RAS in mm; "placed" is whether each has a step and a
    start. Raises UnsupportedError where other axes are last.
    """
    names = file._dim_names
    if len(names) < 3 or not all(name.endswith("space") for name in names[-3:]) or len(file._spatial_dims) != 3:
        raise UnsupportedError("MINC whose last three axes are none of space", "those of space last", "Convert it.")
    told = modality.decode("ascii", "replace") if isinstance(modality, bytes) else str(modality)
    return {
        "shape": [int(size) for size in file.get_data_shape()],
        "numbers": np.dtype(file.get_data_dtype()).str,
        "affine": np.asarray(file.get_affine(), float),
        "placed": all(hasattr(axis, "step") and hasattr(axis, "start") for axis in file._dims[-3:]),
        "modality": _MODALITIES.get(told, ""),
        "content": "label map" if told == _LABEL else "",
    }


class Values:
    """The scaled values of a MINC 2 file, read a volume at a time."""

    def __init__(self, path: Path, shape: Sequence[int]) -> None:
        self.path, self.shape = path, tuple(shape)

    def __getitem__(self, place: tuple[Any, ...]) -> NDArray[np.float32]:
        """The volume at an index of all axes before those of space; a further ellipsis is that of the volume."""
        numbers = [int(number) for number in place if number is not Ellipsis]
        return isolated(read_volume, self.path, numbers, seconds=SECONDS + prod(self.shape[-3:]) / _RATE)


def read_header(path: Path) -> dict[str, Any]:
    """The facts of a MINC 2 file; to be called in a child process."""
    with _opened(path) as (file, study):
        return facts(file, study)


def read_volume(path: Path, place: Sequence[int]) -> NDArray[np.float32]:
    """One volume, along the axes of space as they are stored; to be called in a child process."""
    with _opened(path) as (file, _):
        shape = file.get_data_shape()[len(place) :]
        check_size(*shape)
        values = np.empty(shape, np.float32)
        step = max(1, _SLAB // prod(shape[1:]))
        for start in range(0, shape[0], step):
            part = slice(start, start + step)
            values[part] = file.get_scaled_data((*place, part))
        return values


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """nibabel's file, once all that it will read is checked, and the attribute "modality" of the study."""
    import h5py  # type: ignore[import-untyped]
    from nibabel import minc2

    tools: Any = minc2  # untyped
    with foreign("a MINC 2 file", tools.MincError), h5py.File(path, "r", locking=False, rdcc_nbytes=_CHUNK) as root:
        minc = _member(root, "minc-2.0")
        image = _member(minc, "image", "0", "image")
        scales = [_member(minc, "image", "0", name) for name in ("image-min", "image-max")]
        for dataset in (image, *scales):
            _check_dataset(dataset)
        if image.size * image.dtype.itemsize > RATIO * image.id.get_storage_size():
            raise InputError(SHORT, "a whole file", "Fetch it again.")
        for name in image.attrs["dimorder"].decode().split(",")[: image.ndim]:
            axis = _member(minc, "dimensions", name)
            _check_attributes(axis)
            if "irregular" in str(axis.attrs.get("spacing", "")):
                raise GeometryError("MINC 2 with irregular steps", "regular ones", "Resample it.")
        file = tools.Minc2File(root)
        for scale in scales:
            if scale.shape != image.shape[: scale.ndim] or len(file._get_dimensions(scale)) != scale.ndim:
                raise InputError("MINC 2 whose scale has other axes than its image", "the first ones", "Convert it.")
        yield file, _modality(minc)


def _member(group: Any, *names: str) -> Any:
    """What lies at a path of hard links: soft and external ones may lead to other files."""
    for name in names:
        if not _holds(group, name):
            raise UnsupportedError(
                "MINC 2 whose parts lack or are links", "all parts in one file", "Copy it with h5copy."
            )
        group = group[name]
    return group


def _holds(group: Any, name: str) -> bool:
    from h5py import HardLink

    return "/" not in name and isinstance(group.get(name, getlink=True), HardLink)


def _check_dataset(dataset: Any) -> None:
    """Raise where a dataset is more than plain numbers in this file, packed as MINC packs, or too large to decode."""
    layout = dataset.id.get_create_plist()
    filters = {layout.get_filter(number)[0] for number in range(layout.get_nfilters())}
    if dataset.is_virtual or dataset.external or not filters <= _FILTERS or dataset.dtype.kind not in "iuf":
        raise UnsupportedError(
            "MINC 2 with values in other files, of an unusual compression or no numbers",
            "numbers in one file, plain or with DEFLATE",
            "Convert it with mincconvert.",
        )
    check_size(*dataset.shape)
    if dataset.chunks and prod(dataset.chunks) * dataset.dtype.itemsize > _CHUNK:
        raise LimitError("MINC 2 with chunks of more than 256 MiB", "smaller ones", "Write it with smaller chunks.")
    _check_attributes(dataset)


def _check_attributes(node: Any) -> None:
    """Raise LimitError for a large attribute, before one is read."""
    if any(node.attrs.get_id(name).get_storage_size() > _ATTRIBUTE for name in node.attrs):
        raise LimitError("MINC 2 with an attribute of more than 64 KiB", "short ones", "Convert it with mincconvert.")


def _modality(minc: Any) -> Any:
    """The attribute "modality" of the study, or "" where there is none."""
    if not _holds(minc, "info") or not _holds(minc["info"], "study"):
        return ""
    study = minc["info"]["study"]
    _check_attributes(study)
    return study.attrs.get("modality", "")
