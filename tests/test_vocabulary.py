"""Labels that experts without a training tell are words of their domain: same code, told in a report, read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.remote_sensing.plugin import RemoteSensing
from domains.remote_sensing.vocabulary import TERMS, VOCABULARY
from experts import index
from fovea.types import Code, Facts, Finding, Measure, Origin, Question
from fovea.verbal import named, read_value, words

LABELS = tuple(index.BURN_SEVERITY.labels)


def test_the_code_is_that_of_the_expert():
    assert {label: TERMS[label].code for label in LABELS} == {
        label: Code("99FOVEA", label, words(label)) for label in index.IndexExpert(index.BURN_SEVERITY).card.labels
    }


@given(present=st.sets(st.sampled_from(LABELS)))
def test_a_report_tells_all_and_is_read_back(present):
    area = (Measure("area_ha", 12.0, "ha"), Measure("fraction", 0.2, "1"))
    findings = [Finding(label, TERMS[label].code, True, 0.9, Origin("toy", "1"), "north", area) for label in present]
    question = Question("report", "")
    reply = RemoteSensing().answer(question, Facts(tuple(findings), frozenset(LABELS)))
    assert read_value(question, reply.text, VOCABULARY) == reply.value == present
    assert all(words(label) in reply.text.lower() for label in LABELS)


@pytest.mark.parametrize("label", LABELS)
def test_the_longer_of_two_names_is_meant(label):
    for name in (words(label), *TERMS[label].synonyms):
        assert [found for found, _ in named(f"there is {name} in the north.", VOCABULARY)] == [label]
