"""A report as FHIR R4 resources: a DiagnosticReport, an Observation for each finding and object, their Devices.

Choices:

- What a model wrote is `partial` until a named person moves it on: R4's `preliminary` means results that were verified
  early. Observations are `preliminary` until the report is final: there it means that they may be unverified.
- Patient, order and study are named by their identifiers in the source files, with no further word about the patient;
  without source files the resources name nobody. A Patient or ImagingStudy resource is left to the server.
- `valueBoolean` says whether a finding is there; its probability and its measures are components, with UCUM units and,
  where known, the standard uncertainty (the extension iso21090-uncertainty).
- Ids derive from the content, and there is no time of writing: the same report gives the same bytes.
- Every resource is checked against the models of fhir.resources for R4B, whose DiagnosticReport, Observation, Device
  and Bundle are those of R4. Bindings to value sets and profiles are not checked.

Source: https://hl7.org/fhir/R4/diagnosticreport.html
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from domains.formats import dicom
from domains.formats.content import FileHashes, foreign
from domains.formats.dicom.header import PYDICOM
from domains.radiology.export import export
from domains.radiology.outputs.coding import coded, measure_name, unit
from fovea.errors import InputError
from fovea.files import whole
from fovea.types import Code, Finding, Instance, Measure, Report
from fovea.verbal import words

Resource = dict[str, Any]
_REPORT = {
    "draft": "partial", "in review": "partial", "preliminary": "preliminary", "final": "final", "amended": "amended",
    "entered in error": "entered-in-error",
}  # fmt: skip
_UNVERIFIED = "DRAFT, not verified by a person."
_SYSTEMS = {
    "SCT": "http://snomed.info/sct", "LN": "http://loinc.org", "RADLEX": "http://radlex.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
}  # fmt: skip
"""Of coding schemes in DICOM; codes of others are given as text."""
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_UCUM = "http://unitsofmeasure.org"
_HL7 = "http://terminology.hl7.org/CodeSystem"
_UNCERTAINTY = "http://hl7.org/fhir/StructureDefinition/iso21090-uncertainty"
_IDENTITY = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "AccessionNumber", "StudyDate")


def write(report: Report, source: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """`report.fhir.json`, a Bundle of type collection.

    Without source files, or with such that are not DICOM, the report is nobody's. Raises InputError for files that are
    not those of the study, or of several patients or studies.
    """
    text = json.dumps(bundle(report, source), indent=1, ensure_ascii=False) + "\n"
    path = folder / "report.fhir.json"
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return (path,)


def bundle(report: Report, source: Sequence[Path] = ()) -> Resource:
    """The resources that `write` writes, checked; raises InputError where a text or number is none of FHIR."""
    from fhir.resources.R4B.bundle import Bundle
    from pydantic import ValidationError

    about = _about(report, source)
    found = {(f.label, f.image, f.by): f for answer in report.answers for f in answer.findings}
    devices = {str(f.by): _identified(_device(f)) for f in found.values()}
    observations: list[Resource] = []
    results: list[Resource] = []
    for finding in found.values():
        base = _observed(report, about, _reference(devices[str(finding.by)])) | {"code": _concept(finding.code)}
        members = [
            _identified(base | _object(finding, item, number)) for number, item in enumerate(finding.instances, 1)
        ]
        whole = base | _finding(finding)
        if members:
            whole["hasMember"] = [_reference(member) for member in members]
        results.append(_identified(whole))
        observations += [results[-1], *members]
    first = _identified(_diagnostic(report, about, [_reference(result) for result in results]))
    entries = [
        {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource}
        for resource in {item["id"]: item for item in (first, *observations, *devices.values())}.values()
    ]
    whole = _identified({"resourceType": "Bundle", "type": "collection", "entry": entries})
    try:
        Bundle.model_validate(whole)
    except ValidationError as error:
        raise InputError(
            f"a report that FHIR does not hold ({error.error_count()} errors)", "texts and finite numbers"
        ) from None
    return whole


def _about(report: Report, source: Sequence[Path]) -> Resource:
    """Elements that all resources share: whose they are, of which study, and of which day."""
    found = _identity(report, source)
    about: Resource = {}
    if found.get("PatientID"):
        issuer = {"assigner": {"display": found["IssuerOfPatientID"]}} if found.get("IssuerOfPatientID") else {}
        about["subject"] = {"type": "Patient", "identifier": {"value": found["PatientID"]} | issuer}
    if found.get("AccessionNumber"):
        kind = {"coding": [{"system": f"{_HL7}/v2-0203", "code": "ACSN"}]}
        identifier = {"type": kind, "value": found["AccessionNumber"]}
        about["basedOn"] = [{"type": "ServiceRequest", "identifier": identifier}]
    if _OID.fullmatch(found.get("StudyInstanceUID", "")):
        identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{found['StudyInstanceUID']}"}
        about["study"] = [{"type": "ImagingStudy", "identifier": identifier}]
    with suppress(ValueError):  # where the source tells no day, none is made up
        about["effectiveDateTime"] = date.fromisoformat(found.get("StudyDate", "")).isoformat()
    return about


def _identity(report: Report, source: Sequence[Path]) -> Mapping[str, str]:
    """The identifiers in the source files, which have to agree."""
    from pydicom import dcmread

    paths = [path for path in source if dicom.is_dicom(path)]
    if not paths:
        return {}
    if set(FileHashes(paths)) != set(report.study.source.hashes):
        raise InputError("source files that are not those of the study", "the files that it was loaded from")
    found: set[tuple[str, ...]] = set()
    for path in paths:
        with foreign("a DICOM file", *PYDICOM):
            header = dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_IDENTITY))
            found.add(tuple(_printable(header.get(name)) for name in _IDENTITY))
    if len({values[:3] for values in found}) > 1:
        raise InputError("files of several patients or studies", "the files of one study", "Report on each by itself")
    return dict(zip(_IDENTITY, min(found), strict=True))


def _printable(value: object) -> str:
    return "".join(c for c in str(value or "") if c.isprintable()).strip()


def _diagnostic(report: Report, about: Resource, results: list[Resource]) -> Resource:
    state = _REPORT[report.state]
    texts = [answer.text for answer in report.answers if answer.text.strip()]
    conclusion = "\n".join([_UNVERIFIED, *texts] if state == "partial" else texts)
    found: Resource = {
        "resourceType": "DiagnosticReport", "status": state, "category": [_coding(f"{_HL7}/v2-0074", "RAD")],
        "code": _coding("http://loinc.org", "18748-4", "Diagnostic imaging study"),
        **{key: value for key, value in about.items() if key != "study"},
    }  # fmt: skip
    if report.reviewer:
        found["resultsInterpreter"] = [{"type": "Practitioner", "display": report.reviewer}]
    if results:
        found["result"] = results
    if "study" in about:
        found["imagingStudy"] = about["study"]
    if conclusion:
        found["conclusion"] = conclusion
    text = b64encode(export(report, "text")).decode()
    return found | {"presentedForm": [{"contentType": "text/plain; charset=utf-8", "data": text}]}


def _observed(report: Report, about: Resource, device: Resource) -> Resource:
    """What all observations share."""
    status = _REPORT[report.state]
    found: Resource = {
        "resourceType": "Observation", "status": "preliminary" if status == "partial" else status,
        "category": [_coding(f"{_HL7}/observation-category", "imaging")],
        **{key: value for key, value in about.items() if key in ("subject", "effectiveDateTime", "basedOn")},
        "device": device,
    }  # fmt: skip
    return found | ({"derivedFrom": about["study"]} if "study" in about else {})


def _finding(finding: Finding) -> Resource:
    sign = ("POS", "Positive") if finding.present else ("NEG", "Negative")
    return {
        "valueBoolean": finding.present,
        "interpretation": [_coding(f"{_HL7}/v3-ObservationInterpretation", *sign)],
        **_place(finding, finding.location),
        "component": _components(finding, finding.location, finding.score, finding.measures),
    }


def _object(finding: Finding, item: Instance, number: int) -> Resource:
    """One of several objects, told apart by its number."""
    return {
        "identifier": [{"value": str(number)}],
        "valueBoolean": True,
        **_place(finding, item.location),
        "component": _components(finding, item.location, item.score, item.measures),
    }


def _place(finding: Finding, location: str) -> Resource:
    site = coded(finding, location).site
    return {"bodySite": _concept(Code(site.scheme_designator, site.value, site.meaning))} if site else {}


def _components(finding: Finding, location: str, score: float, measures: Sequence[Measure]) -> list[Resource]:
    found: list[Resource] = [
        {"code": {"text": "probability"}, "valueQuantity": {"value": score, "system": _UCUM, "code": "1"}}
    ]
    side = coded(finding, location).side
    if side is not None:
        value = _concept(Code(side.scheme_designator, side.value, side.meaning))
        laterality = _coding(_SYSTEMS["SCT"], "272741003", "Laterality")
        found.append({"code": laterality, "valueCodeableConcept": value})
    for measure in measures:
        name, scale = measure_name(measure), unit(measure.unit)
        quantity: Resource = {"value": measure.value, "system": _UCUM, "code": scale.value}
        if measure.unit != "1":
            quantity["unit"] = measure.unit
        if measure.uncertainty is not None:
            quantity["extension"] = [{"url": _UNCERTAINTY, "valueDecimal": measure.uncertainty}]
        code = _concept(Code(name.scheme_designator, name.value, name.meaning)) | {"text": words(measure.name)}
        found.append({"code": code, "valueQuantity": quantity})
    return found


def _device(finding: Finding) -> Resource:
    return {
        "resourceType": "Device",
        "deviceName": [{"name": finding.by.name, "type": "model-name"}],
        "version": [{"value": finding.by.version}],
        "type": {"text": "software that measures images"},
    }


def _concept(code: Code) -> Resource:
    """A coded concept; one of our own table is text, for no system is registered for it."""
    system = _SYSTEMS.get(code.scheme)
    return _coding(system, code.value, code.meaning) if system else {"text": code.meaning or code.value}


def _coding(system: str, code: str, display: str = "") -> Resource:
    return {"coding": [{"system": system, "code": code} | ({"display": display} if display else {})]}


def _identified(resource: Resource) -> Resource:
    """The resource with an id that derives from its content."""
    kind = {"resourceType": resource["resourceType"]}
    content = json.dumps(resource, sort_keys=True)
    return kind | {"id": str(uuid5(NAMESPACE_OID, content))} | resource


def _reference(resource: Resource) -> Resource:
    return {"reference": f"urn:uuid:{resource['id']}"}
