"""Every file under some paths as a row: what it is and what it holds, or why it is refused; it stops at none."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np

from apps.geometry import scale
from fovea.contracts import Domain
from fovea.errors import FoveaError, InputError, UnsupportedError
from fovea.image import Image
from fovea.types import Study
from fovea.verbal import number

Status = Literal["read", "picture", "companion", "refused"]
_SAMPLE = 512
"""Pixels are decoded whole where the format has to, and kept at most at this many rows and columns."""
_FEW = 16
"""A picture or volume with a label's name has at most this many values to be a label map."""
_LABEL = re.compile(r"(^|[._-])(seg|segmentation|mask|masks|label|labels|labelmap)([._\-\d]|$)", re.IGNORECASE)
_DATA = {".img": (".hdr",), ".rec": (".par",), ".brik": (".head",), ".raw": (".mhd", ".nhdr"), ".zraw": (".mhd",)}
"""Endings of files that hold the values of a header beside them."""
_BESIDE = {".ovr": "overviews of the raster beside it", ".msk": "the mask of the raster beside it"}


@dataclass(frozen=True)
class Row:
    """One file. `status` is "read" (a domain's by what the file says), "picture" (pixels that say nothing of their
    domain; `domains` would take it by its looks), "companion" (no image by itself, or labels of one) or "refused".

    `modality_from` is "values" where the modality is a guess; `shape` is (slice, row, column) of the first of `images`,
    `pixel` its size, `unit` that of its values.
    """

    path: str
    format: str
    status: Status
    domains: tuple[str, ...] = ()
    modality: str = ""
    modality_from: str = ""
    images: int = 0
    shape: tuple[int, ...] = ()
    pixel: str = ""
    unit: str = ""
    reason: str = ""


def inventory(paths: Sequence[Path], domains: Mapping[str, Domain]) -> Iterator[Row]:
    """A row for every file that is not hidden, in order of name; paths are relative to the folder that was given.

    Raises InputError for a path that does not exist.
    """
    if missing := sum(not path.exists() for path in paths):
        raise InputError(f"{missing} of {len(paths)} paths do not exist", "files or folders", "Check the spelling.")
    wanted = [(file, root) for root in paths for file in _files(root)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(lambda item: _row(item[0], item[1], domains), wanted)


def summary(rows: Iterable[Row]) -> str:
    """How many files there are of each status."""
    counts = Counter(row.status for row in rows)
    words: dict[Status, str] = {"read": "read", "picture": "pictures", "companion": "companions", "refused": "refused"}
    return f"{sum(counts.values())} files: " + ", ".join(f"{counts[key]} {word}" for key, word in words.items())


def as_json(rows: Iterable[Row]) -> str:
    """One object a line."""
    return "".join(json.dumps(asdict(row)) + "\n" for row in rows)


def as_csv(rows: Iterable[Row]) -> str:
    """One line a row below the names of the columns; several values of one field are joined by spaces."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(field.name for field in fields(Row))
    for row in rows:
        values = asdict(row).values()
        table.writerow(" ".join(map(str, value)) if isinstance(value, (tuple, list)) else value for value in values)
    return text.getvalue()


def as_text(rows: Iterable[Row]) -> str:
    """One line a row, for a person: never wrapped, columns below each other."""
    lines = [("file", "format", "read by", "what it holds, or why not"), *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "".join("  ".join(map(str.ljust, line, (*widths, 0))).rstrip() + "\n" for line in lines)


def cells(row: Row) -> tuple[str, ...]:
    """A row for a person: path, format, what came of it, and the facts or the reason."""
    who = ", ".join(row.domains)
    status = {"read": who, "picture": f"picture ({who})" if who else "picture"}.get(row.status, row.status)
    shape = " × ".join(map(str, row.shape)) + (f" ({row.images} images)" if row.images > 1 else "")
    modality = f"{row.modality} by its values" if row.modality_from == "values" else row.modality
    facts = ", ".join(part for part in (modality, shape, row.pixel, row.unit) if part)
    return row.path, row.format, status, row.reason or facts


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _row(file: Path, root: Path, domains: Mapping[str, Domain]) -> Row:
    from domains.formats.content import foreign
    from domains.formats.naming import PICTURES, format_name, is_companion

    row = Row(str(file.relative_to(root)) if root.is_dir() else file.name, "unknown", "refused")
    try:
        with foreign("a file"):
            row = replace(row, format=format_name(file))
            companion = _companion(file, row.format)
            if companion:
                return replace(row, status="companion", reason=companion)
            takers = tuple(domain for domain in domains.values() if domain.sniff(file))
            if takers:
                return _studied(row, file, takers)
            if row.format in PICTURES:
                return _pictured(row, file)
    except UnsupportedError as error:
        labels = row.format == "DICOM" and is_companion(file)
        return replace(row, status="companion" if labels else "refused", reason=" ".join(str(error).split()))
    except FoveaError as error:
        return replace(row, reason=" ".join(str(error).split()))
    return replace(row, reason="no domain recognises it by its content")


def _companion(file: Path, format_: str) -> str:
    """Why a file is no image by itself, or ""."""
    if format_ == "DICOMDIR":
        return "a list of other files"
    if format_ in ("text", "GIFTI surface", "TrackVis streamlines"):
        return format_
    name = file.name.lower().removesuffix(".gz")
    ending = Path(name).suffix
    stem = name.removesuffix(ending)
    siblings = {stem + header for header in _DATA.get(ending, ())}
    if siblings and any(path.name.lower() in siblings for path in file.parent.iterdir()):
        return "the values of the header beside it"
    whole = file.with_name(file.name[: -len(ending)]) if ending in _BESIDE else None
    return _BESIDE[ending] if whole and whole.is_file() else ""


def _studied(row: Row, file: Path, takers: Sequence[Domain]) -> Row:
    """The facts of a file by the first domain that reads it; the error of the first where none does."""
    from domains.formats.naming import PICTURES

    row = replace(row, domains=tuple(domain.name for domain in takers))
    refusals: list[FoveaError] = []
    for domain in takers:
        try:
            study = domain.load(file)
            few = [_seen(image) for image in study.images]
        except FoveaError as error:
            refusals.append(error)
            continue
        image = study.images[0]
        row = _filled(row, study, image)
        levels = max(few)
        if row.format != "DICOM" and levels and (_LABEL.search(file.stem) or study.meta.get("content")):
            return replace(row, status="companion", reason=f"a label map, values: {levels}")
        if row.format in PICTURES and not image.grid.physical:
            return replace(row, status="picture", modality="", modality_from="")
        return replace(row, status="read")
    raise refusals[0]


def _filled(row: Row, study: Study, image: Image) -> Row:
    size = scale(image.grid)
    slices = image.grid.shape[0]
    between = f", {number(image.grid.spacing[0])} mm between slices" if slices > 1 and image.grid.physical else ""
    units = tuple(dict.fromkeys(channel.unit for channel in image.channels if channel.unit))
    return replace(
        row,
        modality=study.modality,
        modality_from=study.meta.get("modality_from", ""),
        images=len(study.images),
        shape=image.grid.shape,
        pixel=f"{size}{between}" if size else "",
        unit=", ".join(units),
    )


def _seen(image: Image) -> int:
    """Read an image; the number of its values where they are few whole numbers, else 0."""
    rows, columns = image.grid.shape[1:]
    small = image.window(shape=(min(rows, _SAMPLE), min(columns, _SAMPLE)))
    found = np.unique(small.pixels[:, :: max(1, len(small.pixels[0]) // 64)])
    return len(found) if len(found) <= _FEW else 0


def _pictured(row: Row, file: Path) -> Row:
    """A picture that no domain takes: a mask by its few values, else what it holds."""
    from domains.formats import picture

    levels = picture.levels(file)
    if levels <= 2 or (levels <= _FEW and _LABEL.search(file.stem)):
        return replace(row, status="companion", reason=f"a mask or drawing, values: {levels}")
    images = picture.read(file).images
    for image in images:
        _seen(image)
    return replace(row, status="picture", images=len(images), shape=images[0].grid.shape)
