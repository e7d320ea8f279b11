"""What all DICOM outputs share: the findings to tell, UIDs and dates from the content, and how files are written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from domains.formats.dicom import own
from domains.radiology.outputs.originals import Originals
from domains.radiology.vocabulary import TERMS
from fovea import __version__
from fovea.errors import InputError, UnsupportedError
from fovea.types import Bools, Finding, Mask, Measure, Patch, Region, Report
from fovea.verbal import words

_UNDATED = "19000101", "000000"
"""Stands where neither report nor source tells a date and the standard wants one; a clock would change the bytes."""
_VERIFIED = ("preliminary", "final", "amended")
_SERIES = {"dicom-seg": 9001, "dicom-sr": 9002, "dicom-sc": 9003, "dicom-gsps": 9004, "dicom-pdf": 9005}
_CLOCKED = ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime")


@dataclass(frozen=True, eq=False)
class Item:
    """A present finding as a whole (`number` 0), or one of its instances, counted from 1."""

    finding: Finding
    number: int
    region: Region | Patch | None
    score: float
    measures: tuple[Measure, ...]
    location: str

    @property
    def name(self) -> str:
        """Such as "nodule", "nodule 2": what people see, and the tracking identifier."""
        return words(self.finding.label) + (f" {self.number}" if self.number else "")

    @property
    def color(self) -> tuple[int, int, int]:
        """That of the vocabulary, or yellow."""
        term = TERMS.get(self.finding.label)
        return term.color if term else (255, 255, 0)


def findings(report: Report) -> tuple[Finding, ...]:
    """Every claim once: the last of each expert about a label and an image, in the order of first mention."""
    found: dict[tuple[object, ...], Finding] = {}
    for answer in report.answers:
        for one in answer.findings:
            found[one.by.name, one.by.version, one.label, one.image] = one
    return tuple(found.values())


def items(report: Report) -> tuple[Item, ...]:
    """The present findings, each followed by its instances where there are several; a lone one is the finding."""
    return tuple(item for finding in findings(report) if finding.present for item in _items(finding))


def _items(finding: Finding) -> Iterator[Item]:
    parts, measures = finding.instances, finding.measures
    region: Region | Patch | None = finding.region
    if len(parts) == 1:
        region = region or parts[0].region
        told = {measure.name for measure in measures}
        measures = (*measures, *(measure for measure in parts[0].measures if measure.name not in told))
    yield Item(finding, 0, region, finding.score, measures, finding.location)
    for number, part in enumerate(parts if len(parts) > 1 else (), 1):
        yield Item(finding, number, part.region, part.score, part.measures, part.location)


def mask_of(region: Region | Patch | None, shape: tuple[int, int, int]) -> Bools | None:
    """bool (slice, row, column), or None for a region that is no mask; raises InputError for another size."""
    if isinstance(region, Mask):
        if region.data.shape != shape:
            raise InputError(f"a mask {region.data.shape} on an image {shape}", "the image's own grid")
        return region.data
    if not isinstance(region, Patch):
        return None
    stop = np.add(region.start, region.data.shape)
    if min(region.start) < 0 or (stop > shape).any():
        raise InputError("a patch that leaves its image", "one inside")
    found = np.zeros(shape, bool)
    found[tuple(slice(a, b) for a, b in zip(region.start, stop, strict=True))] = region.data
    return found


def check_state(report: Report) -> None:
    """Raise UnsupportedError for a report that was entered in error: it is withdrawn, not sent."""
    if report.state == "entered in error":
        raise UnsupportedError("a report entered in error", "one that stands", "Withdraw what was sent at the archive.")


def verified(report: Report) -> bool:
    """Whether a named person answers for what the report says."""
    return report.state in _VERIFIED


def notice(report: Report) -> str:
    """What a reader has to know of the state, in one line."""
    if verified(report):
        return f"{report.state.capitalize()}, verified by {report.reviewer}."
    state = "Draft, not reviewed" if report.state == "draft" else report.state.capitalize()
    return f"NOT VERIFIED. {state}. Not for clinical use."


def tracking(images: Originals, item: Item) -> str:
    """The UID under which an object is the same in all outputs of a report."""
    by = item.finding.by
    whole = own.uid(images.digest, "tracking", by.name, by.version, item.finding.label, item.finding.image)
    return own.part(whole, item.number) if item.number else whole


def identity(report: Report, images: Originals, output: str, number: int) -> dict[str, Any]:
    """Series, instance and device of the `number`-th object (from 1) of an output, as arguments of highdicom."""
    return {
        "series_instance_uid": own.uid(images.digest, output, "series"),
        "series_number": _SERIES[output],
        "sop_instance_uid": own.uid(images.digest, output, number),
        "instance_number": number,
        "manufacturer": own.MAKER,
        "specific_character_set": images.header.SpecificCharacterSet,
        "series_description": f"{own.MAKER} {output}: {report.state}",
        "manufacturer_model_name": own.MAKER,
        "software_versions": __version__,
        "device_serial_number": "1",
    }


def moment(report: Report, images: Originals) -> tuple[str, str]:
    """Date (DA) and time (TM) of the content: the report's own "date" and "time", else those of the study."""
    for date, time in (
        (report.provenance.get("date", "").replace("-", ""), report.provenance.get("time", "").replace(":", "")),
        (str(images.header.StudyDate), str(images.header.StudyTime)),
    ):
        if re.fullmatch(r"\d{8}", date):
            return date, time if re.fullmatch(r"\d{6}(\.\d{1,6})?", time) else _UNDATED[1]
    return _UNDATED


def settle(ds: Dataset, report: Report, images: Originals) -> Dataset:
    """Replace what depends on the clock or on chance: dates, times, and the UID of the dimensions."""
    date, time = moment(report, images)
    for keyword in _CLOCKED:
        if keyword in ds:
            delattr(ds, keyword)
    for keyword in ("Content", "PresentationCreation"):
        if f"{keyword}Date" in ds:
            setattr(ds, f"{keyword}Date", date)
            setattr(ds, f"{keyword}Time", time)
    for item in ds.get("ContributingEquipmentSequence") or ():
        item.pop("ContributionDateTime", None)
    for item in ds.get("VerifyingObserverSequence") or ():
        item.VerificationDateTime = date + time
    for item in (*ds.get("DimensionOrganizationSequence", ()), *ds.get("DimensionIndexSequence", ())):
        item.DimensionOrganizationUID = own.uid(ds.SOPInstanceUID, "dimensions")
    return ds


def save(datasets: Sequence[Dataset], folder: Path, images: Originals, output: str) -> tuple[Path, ...]:
    """Write each object under a name of the report's digest."""
    paths = tuple(folder / f"{images.digest[:12]}-{output}-{n}.dcm" for n in range(1, len(datasets) + 1))
    for ds, path in zip(datasets, paths, strict=True):
        ds.save_as(path, enforce_file_format=True)
    return paths
