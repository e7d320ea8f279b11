"""What was found in a study as files for the systems of its trade: a PACS, a patient's record, a research folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fovea.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from domains.radiology.outputs.originals import Originals
    from domains.radiology.outputs.seg import Segments
    from fovea.types import Report

_MODULES = {
    "dicom-seg": "seg", "dicom-sr": "sr", "dicom-sc": "secondary_capture", "dicom-gsps": "gsps", "dicom-pdf": "pdf",
    "fhir": "fhir", "nifti": "nifti",
}  # fmt: skip
OUTPUTS = tuple(_MODULES)
"""Segmentations, measurement report, key pictures, presentation states, a page; FHIR resources; label volumes."""


def write(report: Report, source: Path | Sequence[Path], folder: Path, outputs: Sequence[str] = ()) -> tuple[Path, ...]:
    """The files of the named outputs, or of all that the findings and the study allow: see `fovea.contracts.Writer`.

    A measurement report refers to segments, so the segmentations come with it. All is made before the first file takes
    its place: what raises leaves no file behind. Raises UnsupportedError where a named output is not there or
    does not suit the study, or where none of all does, and other leaves of InputError.
    """
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown:
        raise UnsupportedError(f"output {unknown[0]!r}", f"one of {', '.join(OUTPUTS)}")
    paths = _files(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
            made = _made(_Writer(report, paths, Path(partial)), outputs)
            return tuple(path.replace(folder / path.name) for path in made)
    except OSError as error:
        raise InputError(f"a folder that cannot be written ({type(error).__name__})", "a writable one") from None


def _made(writer: _Writer, outputs: Sequence[str]) -> tuple[Path, ...]:
    made: list[Path] = []
    refused: list[UnsupportedError] = []
    for name in outputs or OUTPUTS:
        try:
            made += writer.write(name)
        except UnsupportedError as error:
            if outputs:
                raise
            refused.append(error)
    if refused and not made:
        raise refused[0]
    return tuple(dict.fromkeys(made))


class _Writer:
    """One report into one folder of its own: its files are matched, and its masks encoded, once."""

    def __init__(self, report: Report, paths: tuple[Path, ...], folder: Path) -> None:
        self.report, self.paths, self.folder = report, paths, folder

    @cached_property
    def images(self) -> Originals:
        from domains.radiology.outputs.originals import originals

        return originals(self.report, self.paths)

    @cached_property
    def segments(self) -> tuple[Segments, ...]:
        from domains.radiology.outputs.seg import segmentations

        return segmentations(self.report, self.images)

    def write(self, name: str) -> tuple[Path, ...]:
        module = import_module(f"{__name__}.{_MODULES[name]}")
        if not name.startswith("dicom-"):
            written: tuple[Path, ...] = module.write(self.report, self.paths, self.folder)
            return written
        from domains.formats.content import foreign
        from domains.radiology.outputs.common import check_state, save

        check_state(self.report)
        refers = name in ("dicom-seg", "dicom-sr")
        with foreign(f"images for which no {name} can be made"):
            made = module.make(self.report, self.images, self.segments if refers else ())
        with_it = self.write("dicom-seg") if name == "dicom-sr" and self.segments else ()
        return (*with_it, *save(made, self.folder, self.images, name))


def _files(source: Path | Sequence[Path]) -> tuple[Path, ...]:
    """The files of the one study that is named by itself, by its folder or by its DICOMDIR."""
    from domains.radiology.reader import studies

    if not isinstance(source, Path):
        return tuple(source)
    found = studies(source)
    if len(found) != 1:
        raise InputError(f"{len(found)} studies as the source of a report", "one study", "Name its files.")
    return found[0]
