"""Reports over synthetic studies, for tests of what is written for a PACS, and checks by outside programs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from dicom_files import save
from pydicom import Dataset
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation

from domains.radiology.plugin import Radiology
from domains.radiology.vocabulary import TERMS
from fovea.types import Answer, Call, Code, Finding, Instance, Mask, Measure, Origin, Report, Sentence, Study

RADIOLOGY = Radiology()
DICOM = RADIOLOGY.outputs[:5]
BY = Origin("toy", "1.2")
PATIENT = {"PatientName": "Müller^Änne", "PatientID": "ID 77", "PatientBirthDate": "19600230", "PatientSex": "F"}


def header(modality: str, sop: str, **more: object) -> Dataset:
    """What every file needs; the birth date is one that does not exist."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.Modality = sop, modality
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20240229", "101112", "A1", "1"
    for name, value in {**PATIENT, **more}.items():
        if name == "PatientBirthDate":
            ds.add_new(0x00100030, "LO", value)
        else:
            setattr(ds, name, value)
    return ds


def pixels(ds: Dataset, values: np.ndarray) -> Dataset:
    """Grey pixels uint16 (row, column)."""
    ds.Rows, ds.Columns = values.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.BitsAllocated, ds.BitsStored, ds.HighBit = (
        1, "MONOCHROME2", 16, 16, 15,
    )  # fmt: skip
    ds.PixelRepresentation, ds.PixelData = 0, values.tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def series(folder: Path, axes: np.ndarray, shift: float = 0.0, count: int = 5, reverse: bool = False) -> list[Path]:
    """A CT series of 5 slices 20 × 24 along any axes (rows: along a row, along a column, normal)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        place = count - 1 - index if reverse else index
        ds = header("CT", CTImageStorage, RescaleSlope=1, RescaleIntercept=-1024, FrameOfReferenceUID="1.2.3.9")
        ds.SOPInstanceUID, ds.InstanceNumber = f"1.2.3.4.5.{index + 1}", index + 1
        ds.ImagePositionPatient = [
            f"{v:.10g}" for v in np.array([-20, -30, 40]) + place * (2.5 * axes[2] + shift * axes[1])
        ]
        ds.ImageOrientationPatient = [f"{v:.10g}" for v in (*axes[0], *axes[1])]
        ds.PixelSpacing, ds.SliceThickness = [0.7, 0.9], 2
        values = np.random.default_rng(index).integers(900, 1200, (20, 24)).astype(np.uint16)
        paths.append(save(pixels(ds, values), folder / f"{index}.dcm"))
    return paths


def radiograph(path: Path, orientation: Sequence[str]) -> Path:
    """A radiograph 20 × 24 as a detector may store it."""
    more = {"PatientOrientation": list(orientation), "ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.2, 0.2]}
    ds = header("DX", DigitalXRayImageStorageForPresentation, **more)
    ds.SOPInstanceUID = "1.2.3.4.5.7"
    return save(pixels(ds, np.random.default_rng(1).integers(0, 4096, (20, 24)).astype(np.uint16)), path)


def finding(label: str, **more: object) -> Finding:
    """A present finding unless said otherwise."""
    code = TERMS[label].code if label in TERMS else Code("SCT", "41216001", "Prostate")
    return Finding(**{"label": label, "code": code, "present": True, "score": 0.875, "by": BY, **more})  # type: ignore[arg-type]


def report(study: Study, *found: Finding, **more: object) -> Report:
    answer = Answer(
        "What is there?", "A thing.", 0.9, (Sentence("A thing.", "expert", (0,)),), (Call("toy", "all", found),)
    )
    return Report(study, (answer,), {"fovea": "0.1.0", "model": "abcd"}, **more)  # type: ignore[arg-type]


def blob(shape: tuple[int, int, int], seed: int) -> Mask:
    """A mask that no flip or turn leaves as it is."""
    mask = np.random.default_rng(seed).random(shape) > 0.7
    mask[:, :3] = mask[..., :4] = False
    return Mask(mask)


def boxes(shape: tuple[int, int, int]) -> tuple[Instance, ...]:
    from fovea.types import Patch

    middle = shape[0] // 2
    return tuple(
        Instance(
            Patch((middle, row, 5), np.ones((1, 3, 4), bool)), 0.6, (Measure("area", 0.1 * row, "cm2", 0.01),), "left"
        )
        for row in (2, 9)
    )


def complaints(paths: Iterable[Path]) -> list[str]:
    """The errors that dciodvfy finds, or that there is no such program."""
    program = shutil.which("dciodvfy")
    found = []
    for path in paths:
        if program is None:
            continue
        done = subprocess.run(
            [program, "-new", str(path)], capture_output=True, text=True, errors="replace", check=False
        )
        found += [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
    return found


def checked(tables: Path, *paths: Path) -> list[list[str]]:
    """What dicom-validator finds in each file, in its words."""
    command = [
        sys.executable,
        "-m",
        "dicom_validator.validate_iods",
        "--standard-path",
        str(tables),
        "--edition",
        "local",
    ]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    told = done.stdout.split("Validating DICOM file")[1:]
    lines = [[line.strip() for line in one.splitlines() if "Tag (" in line] for one in told]
    assert (len(told), done.stdout.count("SOP class is")) == (len(paths), len(paths)), done.stdout + done.stderr
    assert sum(map(len, lines)) == done.returncode
    return lines
