"""What reports of others say to be absent is not read as something that was found."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from finding_files import SECRET, code, report
from highdicom import sr
from pydicom.sr.codedict import codes

from domains.radiology import reader, synth
from domains.radiology.findings import findings

LIVER, SPLEEN = ("10200004", SECRET), ("78961009", SECRET)
ABSENT, PRESENT, LARGE = ("272519000", SECRET), ("52101004", SECRET), ("255509001", SECRET)
PROPERTY = sr.RelationshipTypeValues.HAS_PROPERTIES
STATED, CERTAINTY = code(("121052", SECRET), "DCM"), code(("111012", SECRET), "DCM")


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    sample = synth.study(tmp_path_factory.mktemp("ct"), 3, 2)
    return sorted(Path(sample.path).iterdir()), reader.load(Path(sample.path))


def said(name, value, percent: float | None = None) -> sr.QualitativeEvaluation:
    made = sr.QualitativeEvaluation(name, code(value))
    if percent is not None:
        made[0].ContentSequence = sr.ContentSequence(
            [sr.NumContentItem(CERTAINTY, percent, codes.UCUM.Percent, relationship_type=PROPERTY)]
        )
    return made


def group(kind, *evaluations) -> sr.MeasurementsAndQualitativeEvaluations:
    return sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(identifier=SECRET), finding_type=code(kind), qualitative_evaluations=evaluations
    )


@pytest.mark.parametrize(
    ("value", "percent", "present", "score"),
    [(PRESENT, None, True, 1.0), (PRESENT, 62.5, True, 0.625), (ABSENT, None, False, 0.0), (ABSENT, 96.0, False, 0.04),
     (ABSENT, 130.0, False, 0.0), (LARGE, 96.0, True, 1.0)],
)  # fmt: skip
def test_a_group_says_whether_what_it_names_is_there(ct, tmp_path, value, percent, present, score):
    files, study = ct
    report(files, [group(LIVER, said(STATED, value, percent)), group(SPLEEN)], tmp_path / "sr.dcm")
    liver, spleen = findings(tmp_path / "sr.dcm", study, files)
    assert (liver.label, liver.present, liver.score) == ("liver", present, score)
    assert (spleen.label, spleen.present, spleen.score) == ("spleen", True, 1.0)


def test_evaluations_of_the_whole_are_findings_where_they_say_present_or_absent(ct, tmp_path):
    files, study = ct
    report(files, [group(LIVER)], tmp_path / "sr.dcm")
    ds = pydicom.dcmread(tmp_path / "sr.dcm")
    other, ours = code(("1", SECRET), "99DOE"), code(("kidney_lesion", SECRET), "99FOVEA")
    named = (
        (code(SPLEEN), ABSENT, 90.0), (code(LIVER), LARGE, None), (STATED, ABSENT, None), (other, PRESENT, None),
        (ours, ABSENT, None),
    )  # fmt: skip
    container = sr.ContainerContentItem(
        code(("C0034375", SECRET), "UMLS"), relationship_type=sr.RelationshipTypeValues.CONTAINS
    )
    container.ContentSequence = sr.ContentSequence([item for one in named for item in said(*one)])
    ds.ContentSequence.append(container)
    ds.save_as(tmp_path / "sr.dcm")
    told = findings(tmp_path / "sr.dcm", study, files)
    assert [(f.label, f.present, f.score) for f in told] == [
        ("liver", True, 1.0),
        ("spleen", False, 0.1),
        ("uncoded", True, 1.0),
        ("uncoded", False, 0.0),
    ]
    assert "DOE" not in repr(told)
