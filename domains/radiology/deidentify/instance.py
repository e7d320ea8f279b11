"""One DICOM file without what identifies, as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from domains.formats.content import foreign
from domains.formats.dicom.header import PYDICOM
from domains.radiology.deidentify import profile
from domains.radiology.deidentify.attributes import Cleaner
from domains.radiology.deidentify.identifiers import Identifiers, identity
from domains.radiology.deidentify.pixels import BurnedIn, clean_pixels
from domains.radiology.deidentify.pseudonyms import Key, is_public
from fovea.errors import InputError, UnsupportedError

_CLOSED = (
    "Encapsulated", "Audio", "Video", "Raw Data", "Media Storage Directory", "Hanging Protocol", "Protocol Approval",
)  # fmt: skip
"""Words in the names of classes whose content is a document, a voice, a film, or what only its maker can read."""


def deidentify_instance(
    path: Path, secret: str, options: Sequence[str], burned_in: BurnedIn
) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """The row of the ledger and the bytes of the de-identified copy of a file; `secret` is the key's, in hexadecimal.

    Its place is patient/study/series/instance.dcm, of pseudonyms. Raises UnsupportedError for a class of object that
    cannot be cleaned and for pixels that show text, InputError for a broken file.
    """
    key = Key(bytes.fromhex(secret))
    with foreign("a DICOM file", *PYDICOM):
        data = path.read_bytes()
        ds = dcmread(BytesIO(data), force=True)
        _check_class(ds)
        syntax = _syntax(ds)
        patient = identity(ds)
        cleaner = Cleaner(key, options, patient, Identifiers(ds))
        cleaned = cleaner.clean(ds)
        syntax, masked = clean_pixels(ds, cleaned, syntax, burned_in)
        looked = burned_in == "mask" and "PixelData" in ds
        if masked:
            cleaned.BurnedInAnnotation = "NO"
        _declare(cleaned, options, looked)
        cleaned.PatientID = cleaned.PatientName = key.patient(patient)
        written = _encoded(cleaned, syntax)
    row = {
        "file": _place(cleaned, key.patient(patient)),
        "sha256": hashlib.sha256(written).hexdigest(),
        "source": key.digest("source", hashlib.sha256(data).hexdigest()).hex(),
        "actions": dict(sorted(cleaner.counts.items())),
        "masked": masked,
        "faces": str(ds.get("Modality")) in ("CT", "MR", "PT"),
    }
    return row, np.frombuffer(written, np.uint8)


def _check_class(ds: Dataset) -> None:
    sop = UID(str(ds.get("SOPClassUID", "")))
    if "SOPInstanceUID" not in ds or not sop:
        raise InputError("DICOM without SOPClassUID and SOPInstanceUID", "both", "Fetch it again.")
    if not is_public(sop):
        raise UnsupportedError(
            "a class of object that the standard does not know", "one of the standard", "Leave it out."
        )
    if any(word in sop.name for word in _CLOSED):
        raise UnsupportedError("a document, voice, film or raw data", "images and measurements", "Leave it out.")


def _syntax(ds: FileDataset) -> UID:
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if syntax:
        return UID(syntax)
    implicit, little = ds.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _declare(ds: Dataset, options: Sequence[str], looked: bool) -> None:
    """What the profile asks to be said of the file (PS3.15 E.1.1)."""
    done = ["basic", *(["clean-pixel-data"] if looked else []), *sorted(options)]
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = [f"DICOM PS3.15 {profile.EDITION} Annex E", "Fovea"]
    ds.DeidentificationMethodCodeSequence = []
    for name in done:
        item = Dataset()
        item.CodeValue, item.CodeMeaning = profile.METHODS[name]
        item.CodingSchemeDesignator = "DCM"
        ds.DeidentificationMethodCodeSequence.append(item)
    ds.LongitudinalTemporalInformationModified = "MODIFIED" if "modified-dates" in options else "REMOVED"


def _encoded(ds: Dataset, syntax: UID) -> bytes:
    """The bytes of a file whose preamble is empty and whose file meta is ours."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.ImplementationVersionName = "FOVEA"
    buffer = BytesIO()
    file = FileDataset(buffer, ds, preamble=b"\0" * 128, file_meta=meta)
    dcmwrite(
        buffer, file, enforce_file_format=True, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
    )
    return buffer.getvalue()


def _place(ds: Dataset, patient: str) -> str:
    study, series = (str(ds.get(f"{level}InstanceUID") or "none") for level in ("Study", "Series"))
    return "/".join((patient, study, series, f"{ds.SOPInstanceUID}.dcm"))
