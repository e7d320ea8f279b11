"""Finding and reading radiological studies: DICOM series, other volumes, and grey pictures as radiographs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from domains.formats import archives, dicom, picture
from domains.formats.content import Content, parallel
from domains.formats.dicom import dicomdir
from domains.formats.volumes import bids, sequences, volume
from fovea.errors import InputError, UnsupportedError
from fovea.types import Channel, Image, Source, Study, Window

_AIR, _METAL = -200.0, 10_000.0
"""A volume that reaches below the one and not above the other is taken to be in Hounsfield units."""


def sniff(path: Path) -> bool:
    """Whether a file is DICOM, a volume or a grey picture; of a folder, whether a file in it is."""
    if path.is_dir():
        return any(sniff(file) for file in _files(path))
    return _ours(path) is not None


def studies(path: Path) -> list[tuple[Path, ...]]:
    """The studies in a file or folder, in the order of their first file: a DICOM series, or one file of another kind.

    MR volumes of one folder whose names tell their sequences apart, and which lie on one grid, are one study; a map of
    labels among them is left out.
    A picture does not tell what it shows: in a folder grey ones are taken, named by itself any is. Files that no reader
    knows are left out; broken or refused ones are kept, so that `load` can say why. The DICOMDIR of a medium stands for
    the files that it lists, an archive with DICOM in it for the study that it has to hold.
    """
    return [files for _, files in _studies(path)]


def _studies(path: Path) -> list[tuple[str, tuple[Path, ...]]]:
    """The studies with the format of their files."""
    if not path.is_dir():
        kind = _ours(path) or _named(path)
        return _of_medium(path) if kind == "medium" else [(kind, (path,))] if kind else []
    files = list(_files(path))
    kinds = dict(zip(files, parallel(_ours, files), strict=True))
    found: list[tuple[str, tuple[Path, ...]]] = [
        (kind, (file,)) for file, kind in kinds.items() if kind in ("picture", "archive")
    ]
    volumes = [file for file, kind in kinds.items() if kind == "volume"]
    found += [("volume", group) for group in sequences.group(volumes)]
    found += [study for file, kind in kinds.items() if kind == "medium" for study in _of_medium(file)]
    listed = {file for _, study in found for file in study}
    slices = [file for file, kind in kinds.items() if kind == "dicom" and file not in listed]
    return sorted((*found, *(("dicom", stack) for stack in dicom.group(slices))), key=lambda study: study[1][0])


def _of_medium(path: Path) -> list[tuple[str, tuple[Path, ...]]]:
    """The studies that a DICOMDIR lists; a series with missing files has the DICOMDIR in front, and is refused."""
    try:
        series = dicomdir.read(path)
    except InputError:
        return [("medium", (path,))]
    whole = [file for part in series if not part.missing for file in part.paths]
    lacking = [("medium", (path, *part.paths)) for part in series if part.missing]
    return [*(("dicom", stack) for stack in dicom.group(whole)), *lacking]


def load(
    path: Path | Sequence[Path],
    window: Window | None = None,
    *,
    modality: str = "",
    single_slices: bool = False,
    overlays: bool = False,
) -> Study:
    """Read one study: a file, the files of one series, MR volumes on one grid, or a folder that holds one study.

    `modality` says what a picture or volume shows where it is known and the file does not tell. Else a picture counts
    as a radiograph (made grey if it is not), and a volume as what its JSON sidecar or its name after BIDS says, or as
    CT or MR by its values: `meta["modality_from"]` is "caller", "sidecar", "file name" or, for that guess, "values".
    With `single_slices` each slice of a DICOM series is an image by itself, the series need not make a volume, and
    frames whose geometry cannot be read are pictures. With `overlays` a DICOM image that has overlay planes, which may
    show names, is followed by an image "overlay" of them. Raises leaves of InputError; pixels are read when asked for,
    under the same family.
    """
    if isinstance(path, Path) and (path.is_dir() or dicomdir.is_dicomdir(path)):
        kind, paths = _one_study(path)
        kinds: set[str | None] = {kind}
    else:
        paths = (path,) if isinstance(path, Path) else tuple(path)
        kinds = {_format(file) for file in paths}
    if not paths:
        raise InputError("no files", "the files of one study")
    if "medium" in kinds:
        raise dicomdir.lacking(paths)
    if kinds == {"archive"} and len(paths) == 1:
        return _unpacked(paths[0], window, modality=modality, single_slices=single_slices, overlays=overlays)
    if kinds == {"dicom"}:
        content, name = dicom.read(paths, single_slices=single_slices, overlays=overlays), "radiology-dicom/2"
    elif kinds == {"volume"} and len(paths) > 1:
        content, name = sequences.read(paths, modality)
    elif len(paths) > 1:
        raise InputError("several files of several kinds", "one file, the DICOM files of one series, or MR volumes")
    elif kinds == {"volume"}:
        content, name = _volume(volume.read(paths[0]), paths[0], modality)
    elif kinds == {"picture"}:
        read = picture.read(paths[0], gray=True)
        content, name = read._replace(meta={"modality": modality or "DX"}), "radiology-picture/1"
    else:
        raise UnsupportedError("a file of no known kind", "DICOM, a volume, or a grey PNG, JPEG or TIFF", "Convert it.")
    images = tuple(image.window(window) for image in content.images) if window else content.images
    return Study("radiology", images, Source(content.hashes, name), content.meta)


def _unpacked(path: Path, window: Window | None, **options: Any) -> Study:
    """The one study in an archive, its pixels in memory; archives inside it are not opened."""
    with archives.unpacked(path) as folder:
        found = [files for kind, files in _studies(folder) if kind != "archive"]
        if len(found) != 1:
            raise InputError(f"an archive of {len(found)} studies", "one study", "Unpack it and load them one by one.")
        study = load(found[0], window, **options)
        images = tuple(Image.from_array(i.channels, i.grid, i.pixels, i.valid) for i in study.images)
        hashes = tuple(study.source.hashes)
    return replace(study, images=images, source=replace(study.source, hashes=hashes))


def _one_study(path: Path) -> tuple[str, tuple[Path, ...]]:
    found = _studies(path)
    if len(found) != 1:
        raise InputError(f"a folder of {len(found)} studies", "one study", "Load the studies one by one.")
    return found[0]


def _volume(content: Content, path: Path, given: str) -> tuple[Content, str]:
    """Name what a volume holds; the reader's name tells the modality too where it is none of the file's."""
    modality, told = _modality(content, path, given)
    images = content.images
    if told == "values":  # they are read already
        first = images[0]
        images = (Image.from_array(first.channels, first.grid, first.pixels, first.valid), *images[1:])
    if modality == "CT" and len(images[0].channels) == 1:
        images = tuple(replace(image, channels=(Channel("HU", "HU"),)) for image in images)
    meta = {**content.meta, "modality": modality, **({"modality_from": told} if told else {})}
    name = "radiology-volume/2" + (f" as {modality}" if told not in ("", "values") else "")
    return content._replace(images=images, meta=meta), name


def _modality(content: Content, path: Path, given: str) -> tuple[str, str]:
    """The modality, and who tells it where the file does not; "values" is a guess: CT where they look like HU."""
    if "modality" in content.meta:
        return content.meta["modality"], ""
    if given:
        return bids.known(given), "caller"
    found = bids.modality(path)
    if found[0]:
        return found
    first = content.images[0].pixels
    return "CT" if len(first) == 1 and first.min() < _AIR and first.max() < _METAL else "MR", "values"


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in order of name; links to folders are not followed."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root, name) for name in sorted(names))


def _format(path: Path) -> str | None:
    checks: dict[str, Callable[[Path], bool]] = {
        "dicom": dicom.is_dicom,
        "medium": dicomdir.is_dicomdir,
        "volume": lambda file: bool(volume.kind(file)),
        "picture": picture.is_picture,
        "archive": _holds_dicom,
    }
    return next((name for name, check in checks.items() if check(path)), None)


def _holds_dicom(path: Path) -> bool:
    """Whether DICOM is among the first files of an archive; other archives are for others to open."""
    return archives.is_archive(path) and any(head[128:132] == b"DICM" for head in archives.heads(path, 16))


def _ours(path: Path) -> str | None:
    """The format of a file that is radiological by its looks: of pictures, only grey ones."""
    try:
        found = _format(path)
        return found if found != "picture" or picture.is_gray(path) else None
    except InputError:
        return None


def _named(path: Path) -> str | None:
    """The format of a picture that can be read, whatever its colours."""
    try:
        return "picture" if picture.is_picture(path) and picture.read(path).images else None
    except InputError:
        return None
