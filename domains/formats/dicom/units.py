"""What the pixels of a DICOM file measure, and the factor that brings them to that unit."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from pydicom import Dataset

from domains.formats.dicom.planes import first_item, numbers, texts
from fovea.errors import InputError
from fovea.types import Channel

_MEASURED = {
    "[hnsf'U]": "HU", "1": "", "mm2/s": "mm2/s", "um2/s": "um2/s", "10-6.mm2/s": "10-6.mm2/s", "ms": "ms", "s": "s",
    "/s": "/s", "Hz": "Hz", "Bq/ml": "Bq/mL", "g/ml{SUVbw}": "g/mL", "ml/ml": "mL/mL", "Gy": "Gy", "%": "%", "mm": "mm",
}  # fmt: skip
"""UCUM codes of real-world values, and the units that they are called here; another code gives no unit."""


def real_world(ds: Any, frame: int) -> Dataset | None:
    """The only real-world value mapping of a frame, or None where there is none or a choice."""
    group = first_item(ds, "RealWorldValueMappingSequence", frame=frame)
    items: Any = ds.get("RealWorldValueMappingSequence") or []
    return group or (items[0] if len(items) == 1 else None)


def measured(ds: Any, modality: str) -> tuple[Channel, float]:
    """Name and unit of values that a scanner measured, and the factor to it after the rescale of the file.

    PET in Bq/mL becomes SUV by body weight where all that this takes is there, RT dose is in gray or relative.
    """
    if modality == "PT":
        return _uptake(ds)
    if modality == "RTDOSE":
        scaling = numbers(ds, "DoseGridScaling", 1)
        if not scaling:
            raise InputError("a dose without DoseGridScaling", "the factor to its unit", "Export it again.")
        return Channel("dose", "Gy" if ds.get("DoseUnits") == "GY" else ""), scaling[0]
    mapping = real_world(ds, 0)
    code = None if mapping is None else mapping.get("MeasurementUnitsCodeSequence")
    unit = _MEASURED.get(str(code[0].get("CodeValue", "")), "") if code else ""
    return Channel("intensity" if modality in ("MR", "NM") and mapping is None else "value", unit), 1.0


def _uptake(ds: Any) -> tuple[Channel, float]:
    """Source: SUV by body weight as the Quantitative Imaging Biomarkers Alliance computes it from the vendor-neutral
    elements; the scan starts at SeriesDate and SeriesTime unless a later series was derived from it."""
    units = str(ds.get("Units", ""))
    if units == "GML":
        return Channel("SUV", "g/mL"), 1.0
    if units != "BQML":
        return Channel("activity", "counts" if units in ("CNTS", "CPS") else ""), 1.0
    factor = _per_dose(ds)
    return (Channel("SUV", "g/mL"), factor) if factor else (Channel("activity", "Bq/mL"), 1.0)


def _per_dose(ds: Any) -> float | None:
    """Body weight in grams over the activity in Bq at the time to which the scanner corrected its decay."""
    drugs: Any = ds.get("RadiopharmaceuticalInformationSequence") or []
    weight = numbers(ds, "PatientWeight", 1)
    if len(drugs) != 1 or not weight or "DECY" not in texts(ds, "CorrectedImage"):
        return None
    dose, half_life = numbers(drugs[0], "RadionuclideTotalDose", 1), numbers(drugs[0], "RadionuclideHalfLife", 1)
    if not dose or not half_life or min(dose[0], half_life[0], weight[0]) <= 0:
        return None
    if ds.get("DecayCorrection") == "ADMIN":
        return 1000 * weight[0] / dose[0]
    given, scanned = _injected(drugs[0], ds), _moment(ds.get("SeriesDate"), ds.get("SeriesTime"))
    taken = _moment(ds.get("AcquisitionDate"), ds.get("AcquisitionTime"))
    if ds.get("DecayCorrection") != "START" or not given or not scanned or not taken or scanned > taken:
        return None
    waited = (scanned - given).total_seconds()
    if not 0 <= waited < 86400:
        return None
    return float(1000 * weight[0] / (dose[0] * 2 ** (-waited / half_life[0])))


def _injected(drug: Any, ds: Any) -> datetime | None:
    whole = str(drug.get("RadiopharmaceuticalStartDateTime") or "")
    if whole:
        return _moment(whole[:8], whole[8:])
    return _moment(ds.get("SeriesDate"), drug.get("RadiopharmaceuticalStartTime"))


def _moment(date: Any, time: Any) -> datetime | None:
    found = re.match(r"(\d{8})(\d{6})(\.\d{1,6})?", f"{date or ''}{time or ''}")
    if not found:
        return None
    try:
        return datetime.strptime(found[1] + found[2] + (found[3] or ".0"), "%Y%m%d%H%M%S.%f")  # one clock
    except ValueError:
        return None
