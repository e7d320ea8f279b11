"""What ties a sentence to the findings behind it."""

import pytest

from curriculum.prompts import DOUBT, FAILED
from curriculum.strategy import _sentence
from domains.radiology.vocabulary import TERMS
from fovea.types import Finding, Measure, Origin


def finding(label, present=True, location="", *measures):
    return Finding(label, TERMS[label].code, present, 0.9, Origin("expert", "1"), location, measures)


FOUND = (
    finding("left_kidney", True, "", Measure("volume", 165.53, "mL")),
    finding("pleural_effusion", True, "left", Measure("area", 23.1, "cm2")),
    finding("nodule", False),
)


@pytest.mark.parametrize(
    ("text", "support", "evidence"),
    [
        ("The left kidney has a volume of 166 mL.", "expert", (0,)),
        ("The left kidney has a volume of 156 mL.", "contradicted", (0,)),
        ("There is a pleural effusion on the left side.", "expert", (1,)),
        ("There is a pleural effusion on the right side.", "contradicted", (1,)),
        ("No pleural effusion.", "contradicted", (1,)),
        ("No nodule.", "expert", (2,)),
        ("There is a nodule.", "contradicted", (2,)),
        ("All is well.", "model", ()),
        (DOUBT, "contradicted", (0, 1, 2)),
        (FAILED, "failed", ()),
    ],
)
def test_a_sentence_is_held_against_the_findings_of_the_labels_that_it_names(text, support, evidence):
    told = _sentence(text, FOUND, False, tuple(TERMS.values()))
    assert (told.support, told.evidence) == (support, evidence)
