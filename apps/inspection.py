"""What a file is, without any model: the facts that `fovea inspect` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from apps.geometry import frame_name, scale
from apps.service import find_studies
from fovea.contracts import Domain
from fovea.errors import UnsupportedError
from fovea.types import Image, Study
from fovea.verbal import number

_SAMPLE = 512
"""Value ranges are taken at most at this many rows and columns."""


def studies(path: Path, domains: Mapping[str, Domain]) -> list[tuple[Domain, tuple[Path, ...]]]:
    """The studies at `path`, each with the domain that takes it; a file may be read by several domains.

    Raises UnsupportedError where no domain recognises anything.
    """
    found = [
        (domain, item.files)
        for domain in domains.values()
        for item in find_studies([path], (domain,)).items
        if item.domain
    ]
    if not found:
        raise UnsupportedError(
            "nothing here that a domain recognises by its content",
            f"input of {', '.join(domains) or 'an installed domain'}",
            "Convert it, or install the domain that reads it; `fovea domains` lists them.",
        )
    return found


def facts(domain: Domain, study: Study, files: Sequence[Path] = ()) -> list[tuple[str, str]]:
    """Names and values for a person: what was read, its shape, scale, channels and safe header facts.

    Of `files` that do not tell their domain it says so.
    """
    from domains.formats.picture import is_picture

    note = ("note", f"read as one of {domain.name}: the file itself does not tell what it shows")
    rows = [
        ("domain", domain.name),
        *([note] if any(map(is_picture, files)) else ()),
        ("study", study.id),
        ("modality", study.modality),
        ("description", domain.describe(study)),
        ("files", f"{len(study.source.hashes)}, read by {study.source.reader}"),
        ("images", str(len(study.images))),
    ]
    for position, image in enumerate(study.images, start=1):
        prefix = f"image {position}: " if len(study.images) > 1 else ""
        rows += [(prefix + name, value) for name, value in _image_facts(image)]
    return rows + [(name, value) for name, value in sorted(study.meta.items()) if name != "modality"]


def _image_facts(image: Image) -> Iterable[tuple[str, str]]:
    slices, rows, columns = image.grid.shape
    yield "shape", f"{slices} × {rows} × {columns} (slice, row, column)"
    size = scale(image.grid)
    yield "pixel", str(size) if size else "size unknown"
    if slices > 1 and image.grid.physical:
        yield "between slices", f"{number(image.grid.spacing[0])} mm"
    yield "frame", frame_name(image.grid)
    yield "channels", ", ".join(_channels(image))
    small = image.window(shape=(min(rows, _SAMPLE), min(columns, _SAMPLE)))
    pixels, valid = small.pixels, small.valid
    known = pixels[:, valid]
    if not known.size:
        yield "values", "no valid pixel"
        return
    reduced = "" if max(rows, columns) <= _SAMPLE else f" (at {_SAMPLE} pixels)"
    for channel, values in zip(image.channels, known, strict=True):
        low, high = float(np.min(values)), float(np.max(values))
        yield f"values of {channel.name}{reduced}", f"{low:.4g} to {high:.4g} {channel.unit}".rstrip()
    if not valid.all():
        yield "no data", f"{100 * float(1 - valid.mean()):.1f} % of the pixels{reduced}"


def _channels(image: Image) -> Iterable[str]:
    for channel in image.channels:
        details = [channel.unit, f"{channel.wavelength:g} nm" if channel.wavelength else ""]
        extra = ", ".join(detail for detail in details if detail)
        yield f"{channel.name} ({extra})" if extra else channel.name
