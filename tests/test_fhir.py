"""Reports as FHIR R4: valid resources, honest states, nobody named but by the source files."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from dicom_files import make, save
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given
from hypothesis import strategies as st

from domains.radiology.export import export
from domains.radiology.outputs import fhir
from domains.radiology.plugin import Radiology
from domains.radiology.vocabulary import TERMS
from fovea.errors import InputError
from fovea.types import (
    Answer,
    Box,
    Call,
    Channel,
    Finding,
    Grid,
    Image,
    Instance,
    Measure,
    Origin,
    Report,
    Source,
    Study,
)

BY = Origin("chest", "2.1")
IMAGE = Image.from_array((Channel("CT", "HU"),), Grid.plain(4, 5), np.zeros((1, 1, 4, 5), np.float32))
STUDY = Study("radiology", (IMAGE,), Source(("0" * 64,), "test"), {"modality": "CT"})
UID = "1.2.826.0.1.3680043.8.498.7"
PATIENT = {"PatientID": "MRN-4711", "IssuerOfPatientID": "St. Elsewhere", "PatientName": "Doe^Jane"}
TAGS = {
    **PATIENT,
    "PatientBirthDate": "19700101",
    "StudyInstanceUID": UID,
    "StudyDate": "20240506",
    "AccessionNumber": "A77",
}


def finding(label: str, *measures: Measure, present: bool = True, **more: object) -> Finding:
    return Finding(label, TERMS[label].code, present, 0.93 if present else 0.04, BY, measures=measures, **more)


NODULES = finding(
    "nodule",
    Measure("count", 2, "1"),
    Measure("longest_diameter", 12.4, "mm", 0.6),
    location="left",
    instances=tuple(
        Instance(Box((0, 0, 0), (1, 1, 1)), score, (Measure("volume", ml, "mL"),), "left")
        for score, ml in ((0.9, 0.8), (0.6, 0.2))
    ),
)
FINDINGS = (NODULES, finding("pneumothorax", present=False), finding("kidney_lesion", location="right"))


def report(*findings: Finding, study: Study = STUDY, **more: object) -> Report:
    answer = Answer("Report.", "There is a nodule.", 0.7, (), (Call("chest", "all", findings),))
    return Report(study, (answer,), {"model": "m"}, **more)


def resources(given_report: Report, source: tuple = (), kind: str = "Observation") -> list[dict]:
    found = fhir.bundle(given_report, source)
    Bundle.model_validate(found)
    links = {entry["fullUrl"] for entry in found["entry"]}
    text = json.dumps(found)
    assert all(f'"{link}"' in text for link in links)
    assert {part.split('"')[0] for part in text.split('"reference": "')[1:]} <= links
    return [entry["resource"] for entry in found["entry"] if entry["resource"]["resourceType"] == kind]


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    """A study of three slices with names and numbers in it, and its files."""
    folder = tmp_path_factory.mktemp("ct")
    for z in range(3):
        plane = {
            "ImagePositionPatient": [0, 0, z],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1, 1],
        }
        save(make(np.full((8, 8), z, np.int16), **TAGS, **plane), folder / f"{z}.dcm")
    paths = tuple(sorted(folder.iterdir()))
    return Radiology().load(paths), paths


STATES = {
    "draft": ("partial", "preliminary"), "in review": ("partial", "preliminary"),
    "preliminary": ("preliminary", "preliminary"), "final": ("final", "final"), "amended": ("amended", "amended"),
    "entered in error": ("entered-in-error", "entered-in-error"),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_only_a_person_moves_a_report_past_partial(state):
    reviewer = "" if state == "draft" else "Dr. Roe"
    given_report = report(*FINDINGS, state=state, reviewer=reviewer)
    (found,) = resources(given_report, kind="DiagnosticReport")
    assert (found["status"], {o["status"] for o in resources(given_report)}) == (STATES[state][0], {STATES[state][1]})
    assert found["conclusion"].startswith("DRAFT, not verified") == (found["status"] == "partial")
    assert [person["display"] for person in found.get("resultsInterpreter", [])] == [reviewer] * bool(reviewer)


def test_a_finding_is_an_observation_with_its_measures_and_objects():
    nodule, *members, absent, lesion = resources(report(*FINDINGS))
    assert nodule["code"]["coding"] == [
        {"system": "http://snomed.info/sct", "code": "786838002", "display": "Nodule of lung"}
    ]
    assert (nodule["valueBoolean"], absent["valueBoolean"]) == (True, False)
    assert [o["interpretation"][0]["coding"][0]["code"] for o in (nodule, absent)] == ["POS", "NEG"]
    parts = {part["code"].get("text") or part["code"]["coding"][0]["display"]: part for part in nodule["component"]}
    assert parts["probability"]["valueQuantity"] == {"value": 0.93, "system": "http://unitsofmeasure.org", "code": "1"}
    diameter = parts["longest diameter"]["valueQuantity"]
    assert (diameter["value"], diameter["unit"], diameter["code"]) == (12.4, "mm", "mm")
    assert diameter["extension"][0]["valueDecimal"] == 0.6
    assert parts["longest diameter"]["code"]["coding"][0]["code"] == "103339001"
    assert parts["Laterality"]["valueCodeableConcept"]["coding"][0]["code"] == "7771000"
    assert nodule["bodySite"]["coding"][0]["code"] == "39607008"
    assert [reference["reference"] for reference in nodule["hasMember"]] == [f"urn:uuid:{m['id']}" for m in members]
    assert [m["component"][-1]["valueQuantity"]["value"] for m in members] == [0.8, 0.2]
    assert lesion["code"] == {"text": "Lesion of kidney"}  # of our own table: no system is registered for it
    (device,) = resources(report(*FINDINGS), kind="Device")
    assert (device["deviceName"][0]["name"], device["version"][0]["value"]) == ("chest", "2.1")


def test_without_source_files_the_report_is_nobodys(ct):
    text = json.dumps(fhir.bundle(report(*FINDINGS, study=ct[0])))
    assert all(word not in text for word in ("subject", "basedOn", "imagingStudy", "effective", *TAGS.values()))


def test_patient_and_study_come_from_the_source_by_identifier_alone(ct):
    study, paths = ct
    (found,) = resources(report(*FINDINGS, study=study), paths, "DiagnosticReport")
    assert found["subject"] == {
        "type": "Patient", "identifier": {"value": "MRN-4711", "assigner": {"display": "St. Elsewhere"}},
    }  # fmt: skip
    assert found["imagingStudy"][0]["identifier"] == {"system": "urn:dicom:uid", "value": f"urn:oid:{UID}"}
    assert found["basedOn"][0]["identifier"]["value"] == "A77"
    assert found["effectiveDateTime"] == "2024-05-06"
    for observation in resources(report(*FINDINGS, study=study), paths):
        assert observation["subject"] == found["subject"]
        assert observation["derivedFrom"] == found["imagingStudy"]
    text = json.dumps(fhir.bundle(report(*FINDINGS, study=study), paths))
    assert all(word not in text for word in ("Doe", "Jane", "1970"))


def test_files_of_others_are_refused(ct, tmp_path):
    study, paths = ct
    with pytest.raises(InputError, match="not those of the study"):
        fhir.bundle(report(study=STUDY), paths)
    tags = {**TAGS, "PatientID": "MRN-4712"}
    save(make(np.zeros((8, 8), np.int16), **tags), tmp_path / "other.dcm")
    both = (*paths, tmp_path / "other.dcm")
    mixed = replace(study, source=replace(study.source, hashes=(*study.source.hashes, *_hashes(both[-1:]))))
    with pytest.raises(InputError, match="several patients") as refusal:
        fhir.bundle(report(study=mixed), both)
    assert "4711" not in str(refusal.value)


def _hashes(paths):
    from domains.formats.content import file_hash

    return [file_hash(path) for path in paths]


def test_the_same_report_gives_the_same_file(ct, tmp_path):
    study, paths = ct
    given_report = report(*FINDINGS, study=study)
    (path,) = fhir.write(given_report, paths, tmp_path)
    before = path.read_bytes()
    assert fhir.write(given_report, paths, tmp_path) == (path,)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [before]
    found = json.loads(before)
    ids = [UUID(entry["resource"]["id"]) for entry in found["entry"]]
    assert len(set(ids)) == len(ids) == 7
    other = fhir.bundle(report(NODULES, study=study), paths)
    assert other["id"] != found["id"]
    attached = found["entry"][0]["resource"]["presentedForm"][0]
    assert b64decode(attached["data"]) == export(given_report, "text")


LABELS = st.lists(st.sampled_from(sorted(TERMS)), unique=True, max_size=5)
AMOUNTS = st.lists(
    st.tuples(
        st.sampled_from(["volume", "area", "angle"]), st.floats(1e-6, 1e6), st.sampled_from(["mL", "mm2", "deg", "HU"])
    ),
    max_size=3,
)


@given(labels=LABELS, amounts=AMOUNTS, text=st.text(max_size=40), side=st.sampled_from(["", "left", "right", "both"]))
def test_every_report_is_valid(labels, amounts, text, side):
    measures = [Measure(*amount) for amount in amounts]
    answer = Answer(
        "Report.",
        text,
        0.5,
        (),
        (Call("chest", "all", tuple(finding(label, *measures, location=side) for label in labels)),),
    )
    found = fhir.bundle(Report(STUDY, (answer,), {}))
    assert sum(entry["resource"]["resourceType"] == "Observation" for entry in found["entry"]) == len(labels)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_numbers_that_are_none_are_refused():
    with pytest.raises(InputError, match="FHIR"):
        fhir.bundle(report(replace(finding("nodule"), score=float("nan"))))
