"""What is told beside a volume of what it shows: in a JSON sidecar, or in a name after BIDS or BraTS.

Source: https://bids-specification.readthedocs.io; Baid et al., arXiv 2107.02314 (BraTS 2021)
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from domains.formats.content import foreign
from fovea.errors import InputError

MODALITIES = ("CT", "MR", "NM", "PT", "US", "XA")
"""What a volume may show, in the terms of DICOM PS3.3 C.7.3.1.1.1."""
_LARGEST = 2**20
"""A larger JSON file is no sidecar."""
_MR = (
    "FLAIR FLASH IRT1 M0map MEGRE MESE MP2RAGE MPM MTR MTS PD PDT2 PDmap PDw R1map R2map R2starmap T1map T1w T2map "
    "T2star T2starmap T2starw T2w UNIT1 VFA angio asl bold cbv dwi epi fieldmap inplaneT1 inplaneT2 m0scan magnitude "
    "magnitude1 magnitude2 phase1 phase2 phasediff sbref"
)
_SUFFIXES = {**dict.fromkeys(_MR.split(), "MR"), "pet": "PT", "ct": "CT"}
"""The suffixes of BIDS, and that of its proposal 24 for CT."""

SEQUENCES = ("T1", "T1c", "T2", "FLAIR", "PD")
"""What MR images of one head are weighted by; T1c is T1 after contrast."""
MAP = "segmentation"
"""A map of labels that lies beside them."""
_ENDINGS = {
    "T1": "t1 t1n t1w", "T1c": "t1c t1ce t1gd", "T2": "t2 t2w", "FLAIR": "flair t2f", "PD": "pd pdw", MAP: "seg",
}  # fmt: skip
_SHOWN = {ending: sequence for sequence, endings in _ENDINGS.items() for ending in endings.split()}


def modality(path: Path) -> tuple[str, str]:
    """The modality of a volume, and "sidecar" or "file name" for where it is told; two empty texts where it is not.

    The sidecar is the JSON file with the name of the volume, and of it only "Modality" is read; a name counts where it
    starts with "sub-". Raises InputError for a sidecar that is no JSON, or that names another modality.
    """
    stem = _stem(path)
    if told := _sidecar(path.with_name(f"{stem}.json")):
        return told, "sidecar"
    suffix = stem.rpartition("_")[2] if stem.startswith("sub-") else ""
    return (_SUFFIXES[suffix], "file name") if suffix in _SUFFIXES else ("", "")


def sequence(path: Path) -> tuple[str, str]:
    """Whose volume it is, and which of SEQUENCES it shows, or MAP: by a name that ends with it; two empty texts else.

    `case_t1ce`, `case-t1c` (BraTS) and `sub-01_ce-gd_T1w` (BIDS) are T1c of `case` and `sub-01`.
    """
    stem = _stem(path)
    case, name = re.sub(r"_ce-[A-Za-z0-9]+", "", stem), ""
    if found := re.fullmatch(r"(.+)[_-]([A-Za-z0-9]+)", case):
        case, name = found[1], _SHOWN.get(found[2].lower(), "")
    contrast = name == "T1" and "_ce-" in stem
    return (case, "T1c" if contrast else name) if name else ("", "")


def known(modality: str) -> str:
    """A modality of volumes as it is given; raises InputError for another word."""
    if modality not in MODALITIES:
        raise InputError("a modality that no volume has", ", ".join(MODALITIES), "Write it as DICOM does.")
    return modality


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).stem


def _sidecar(path: Path) -> str:
    """The modality in a sidecar, or "" where there is none."""
    with foreign("a JSON sidecar"):
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return ""
        facts = json.loads(path.read_bytes())
    return known(str(facts["Modality"])) if isinstance(facts, dict) and "Modality" in facts else ""
