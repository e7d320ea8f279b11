"""Finding and reading radiological studies: DICOM series, NIfTI volumes, and grey pictures as radiographs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from domains.formats import dicom, nifti, picture
from domains.formats.content import Content, foreign
from fovea.errors import InputError, UnsupportedError
from fovea.types import Channel, Image, Source, Study, Window

_AIR, _METAL = -200.0, 10_000.0
"""A volume that reaches below the one and not above the other is taken to be in Hounsfield units."""


def sniff(path: Path) -> bool:
    """Whether a file is DICOM, NIfTI, NRRD or a grey picture; of a folder, whether a file in it is."""
    if path.is_dir():
        return any(sniff(file) for file in _files(path))
    return _ours(path) is not None


def studies(path: Path) -> list[tuple[Path, ...]]:
    """The studies in a file or folder, in the order of their first file: a DICOM series, or one file of another kind.

    Files that no reader knows are left out; broken or refused ones are kept, so that `load` can say why.
    """
    if not path.is_dir():
        return [(path,)] if sniff(path) else []
    alone: list[tuple[Path, ...]] = []
    slices: list[Path] = []
    for file in _files(path):
        found = _ours(file)
        if found == "dicom":
            slices.append(file)
        elif found:
            alone.append((file,))
    return sorted((*alone, *dicom.group(slices)), key=lambda study: study[0])


def load(path: Path | Sequence[Path], window: Window | None = None, *, modality: str = "") -> Study:
    """Read one study: a file, the files of one series, or a folder that holds one study.

    `modality` says what a picture or NIfTI shows, where it is known; otherwise a picture counts as a radiograph (made
    grey if it is not) and a volume as CT or MR by its values. Raises leaves of InputError; pixels are read when asked
    for, under the same family.
    """
    paths = _one_study(path) if isinstance(path, Path) else tuple(path)
    if not paths:
        raise InputError("no files", "the files of one study")
    kinds = {_format(file) for file in paths}
    if kinds == {"dicom"}:
        content, name = dicom.read(paths), "radiology-dicom/1"
    elif len(paths) > 1:
        raise InputError("several files that are not all DICOM", "one file, or the DICOM files of one series")
    elif kinds == {"nifti"}:
        content, name = _volume(nifti.read(paths[0]), modality), "radiology-nifti/1"
    elif kinds == {"picture"}:
        read = picture.read(paths[0], gray=True)
        content, name = read._replace(meta={"modality": modality or "DX"}), "radiology-picture/1"
    elif kinds == {"nrrd"}:
        raise UnsupportedError("NRRD", "NIfTI or DICOM", "Convert it to NIfTI.")
    else:
        raise UnsupportedError("a file of no known kind", "DICOM, NIfTI, or a grey PNG, JPEG or TIFF", "Convert it.")
    images = tuple(image.window(window) for image in content.images) if window else content.images
    return Study("radiology", images, Source(content.hashes, name), content.meta)


def _one_study(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        return (path,)
    found = studies(path)
    if len(found) != 1:
        raise InputError(f"a folder of {len(found)} studies", "one study", "Load the studies one by one.")
    return found[0]


def _volume(content: Content, modality: str) -> Content:
    """Name what a NIfTI holds: CT where told or where the values look like Hounsfield units, otherwise MR."""
    images = content.images
    first = images[0].pixels
    modality = modality or ("CT" if first.min() < _AIR and first.max() < _METAL else "MR")
    if modality == "CT":
        images = tuple(Image.from_array((Channel("HU", "HU"),), i.grid, i.pixels, i.valid) for i in images)
    return content._replace(images=images, meta={"modality": modality})


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in order of name; links to folders are not followed."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root, name) for name in sorted(names))


def _format(path: Path) -> str | None:
    checks: dict[str, Callable[[Path], bool]] = {
        "nrrd": _is_nrrd,
        "dicom": dicom.is_dicom,
        "nifti": nifti.is_nifti,
        "picture": picture.is_picture,
    }
    return next((name for name, check in checks.items() if check(path)), None)


def _ours(path: Path) -> str | None:
    """The format of a file that is radiological by its looks: of pictures, only grey ones."""
    try:
        found = _format(path)
        return found if found != "picture" or picture.is_gray(path) else None
    except InputError:
        return None


def _is_nrrd(path: Path) -> bool:
    with foreign("a file"), path.open("rb") as file:
        return file.read(5) == b"NRRD0"
