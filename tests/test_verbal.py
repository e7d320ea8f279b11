"""What is put into words is read back: findings, calls, cards, and the same shortened to a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea import verbal
from fovea.errors import InputError
from fovea.types import Box, Call, Code, ExpertCard, Finding, Instance, Measure, Origin, Term

VOCABULARY = tuple(
    Term(label, Code("T", label, label))
    for label in ("pleural_effusion", "nodule", "liver-lesion_2", "right upper lobe", "segment 4")
)
KNOWN = [term.label for term in VOCABULARY]
BY = Origin("toy", "1")

label_names = st.one_of(
    st.sampled_from(KNOWN),
    st.from_regex(r"[a-z][a-z0-9]{0,6}(_[a-z0-9]{1,5}){0,2}", fullmatch=True).filter(
        lambda name: name not in ("yes", "no") and not name.endswith("_failed")
    ),
)
measures = st.builds(
    Measure,
    st.one_of(
        st.sampled_from(["count", "longest_diameter", "longest_diameter_3d", "volume", "percentile_95", "bearing"]),
        st.from_regex(r"[a-z]{1,6}(_[a-z0-9]{1,4}){0,2}", fullmatch=True).filter(lambda name: name != "fraction"),
    ),
    st.floats(-1e7, 1e7),
    st.sampled_from(["mm", "cm2", "mL", "m2", "ha", "deg", "1", "[hnsf'U]", "%", "km/h"]),
    st.none() | st.floats(0, 10),
)
fractions = st.builds(lambda value: Measure("fraction", value, "1"), st.floats(0, 1))
measured = st.lists(measures | fractions, max_size=4).map(tuple)
places = st.sampled_from(["", *verbal.LOCATIONS, "right upper lobe", "segment 4", "left_lung", "upper third"])
scores = st.floats(0, 1)
instances = st.builds(Instance, st.just(Box((0, 0, 0), (1, 2, 3))), scores, measured, places)
findings = st.builds(
    Finding,
    label_names, st.just(Code("T", "1", "thing")), st.booleans(), scores, st.just(BY), places, measured,
    instances=st.lists(instances, max_size=12).map(tuple),
)  # fmt: skip


@given(findings)
def test_a_finding_is_read_back_as_it_was_written(finding):
    text = verbal.describe_finding(finding)
    read = verbal.read_finding(text, VOCABULARY)
    assert read == verbal.stated(finding)
    assert "\n" not in text
    again = replace(
        finding,
        score=read.score,
        location=read.location,
        measures=read.measures,
        instances=tuple(
            Instance(Box((0, 0, 0), (1, 2, 3)), item.score, item.measures, item.location) for item in read.instances
        ),
    )
    if not read.more:
        assert verbal.describe_finding(again) == text
        assert verbal.stated(again) == read


@given(findings)
def test_rounding_first_changes_no_text(finding):
    parts = [f"{verbal.words(m.name)} {verbal.figure(m)}" for m in finding.measures]
    head = f"{verbal.words(finding.label)}: {'yes' if finding.present else 'no'} {finding.score:.2f}"
    plain = "; ".join(part for part in (head, finding.location, *parts) if part) if finding.present else head
    assert verbal.describe_finding(replace(finding, instances=())) == plain


@given(findings)
def test_what_is_stated_differs_from_the_finding_by_rounding_alone(finding):
    read = verbal.stated(finding)
    assert read.score == pytest.approx(finding.score, abs=0.005001)
    for said, true in zip(read.measures, finding.measures if finding.present else (), strict=True):
        assert (said.name, said.unit) == (true.name, true.unit)
        assert said.value == pytest.approx(true.value, rel=0.00501, abs=1e-4)


@given(st.lists(findings, max_size=4), st.text("abc:;\n ", min_size=1, max_size=20))
def test_calls_are_read_back(found, reason):
    calls = [Call("a.b-c", "all", tuple(found)), Call("other", "all", failure=reason), Call("third", "all")]
    read = verbal.read_findings("\n".join(map(verbal.describe_call, calls)), VOCABULARY)
    assert read.statements == tuple(map(verbal.stated, found))
    assert read.failures == (("other", " ".join(reason.split())),)
    assert read.left_out == 0


@given(st.lists(findings, max_size=12), st.integers(20, 1500))
def test_a_short_text_fits_and_says_what_it_leaves_out(found, budget):
    text = verbal.describe_findings(found, budget)
    assert len(text) <= budget
    read = verbal.read_findings(text, VOCABULARY)
    assert len(read.statements) + read.left_out == len(found)
    whole = {}
    for finding in found:
        whole.setdefault((finding.label, finding.present), []).append(verbal.stated(finding, len(finding.instances)))
    for said in read.statements:
        said_of = whole[said.label, said.present]
        assert any(
            (said.location, said.measures) == (full.location, full.measures)
            and said.score in (full.score, None)
            and said.instances == full.instances[: len(said.instances)]
            and len(said.instances) + said.more == len(full.instances)
            for full in said_of
        )


def test_shortening_takes_the_least_first():
    lesion = Finding(
        "nodule", VOCABULARY[1].code, True, 0.93, BY, "left", (Measure("count", 5, "1"),),
        instances=tuple(Instance(Box((0, 0, 0), (1, 1, 1)), 0.9, (Measure("length", 8, "mm"),)) for _ in range(5)),
    )  # fmt: skip
    absent = [Finding(f"absent_{i}", VOCABULARY[0].code, False, 0.02, BY) for i in range(4)]
    found = [lesion, *absent]

    def of(budget: int) -> list[str]:
        return verbal.describe_findings(found, budget).splitlines()

    assert of(1000) == [verbal.describe_finding(finding) for finding in found]
    assert of(205)[1] == "no: absent 0 0.02, absent 1 0.02, absent 2 0.02, absent 3 0.02"
    assert of(190)[0].endswith("#3 0.90, length 8 mm; and 2 more")
    assert of(100) == ["nodule: yes 0.93; left; count 5; and 5 more", "no: absent 0, absent 1, absent 2, absent 3"]
    assert of(83) == ["nodule: yes 0.93; left; count 5; and 5 more", "no: absent 0", "and 3 more findings"]
    assert of(63) == ["nodule: yes 0.93; left; count 5; and 5 more", "and 4 more findings"]
    assert of(20) == of(0) == ["and 5 more findings"]
    assert verbal.describe_findings([lesion], 20) == "and 1 more finding"


def test_texts_without_instances_are_as_they_always_were():
    found = Finding(
        "pleural_effusion", VOCABULARY[0].code, True, 0.934, BY, "left",
        (Measure("count", 2, "1"), Measure("longest_diameter", 12.44, "mm", 0.3), Measure("fraction", 0.3471, "1")),
    )  # fmt: skip
    assert verbal.describe_finding(found) == (
        "pleural effusion: yes 0.93; left; count 2; longest diameter 12.4 mm; fraction 34.7 %"
    )
    with_one = replace(found, measures=(), instances=(Instance(Box((0, 0, 0), (1, 1, 1)), 0.71, (), "right"),) * 9)
    assert verbal.describe_finding(with_one, 2) == (
        "pleural effusion: yes 0.93; left; #1 0.71, right; #2 0.71, right; and 7 more"
    )
    assert verbal.describe_finding(replace(with_one, present=False)) == "pleural effusion: no 0.93"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nodule",
        "nodule: perhaps",
        "nodule: yes 0.93; left; large",
        "nodule: yes 0.9; #1 big",
        "a: yes 0.93; #1 left",
    ],
)
def test_other_lines_are_refused(line):
    with pytest.raises(InputError):
        verbal.read_finding(line, VOCABULARY)


names = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)


@given(names, st.lists(names, min_size=1, max_size=4, unique=True), st.text("abc (|):", max_size=30))
def test_cards_are_read_back(name, arguments, task):
    card = ExpertCard(name, "1", task, "", ("CT",), dict.fromkeys(arguments, ()))
    assert verbal.read_card(verbal.describe_card(card)) == (name, tuple(arguments), " ".join(task.split()))
    with pytest.raises(InputError):
        verbal.read_card("no card")
