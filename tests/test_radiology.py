"""The radiology domain: drawing, words and reports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from random import Random

import numpy as np
import pytest
from pydicom.sr.codedict import codes

from domains.radiology.plugin import Radiology
from domains.radiology.text import a, name
from domains.radiology.vocabulary import ORGANS, TERMS, VOCABULARY
from fovea.errors import InputError, UnsupportedError
from fovea.jsonable import from_json
from fovea.testing import DomainContract
from fovea.types import (
    LPS,
    MEASURING,
    Answer,
    Call,
    Channel,
    Facts,
    Finding,
    Grid,
    Image,
    Measure,
    Origin,
    Question,
    Report,
    Sentence,
    Source,
    Study,
    View,
)
from fovea.verbal import NONE, read_value

DOMAIN = Radiology()
BY = Origin("truth", "1")
rng = np.random.default_rng(0)


class TestContract(DomainContract):
    name = "radiology"


# drawing


def study(pixels, modality="DX", spacing=(1.0, 1.0, 1.0), unit="", valid=None):
    grid = Grid(np.diag((spacing[2], spacing[1], spacing[0], 1)), LPS, pixels.shape)
    channel = Channel("HU", "HU") if unit else Channel("intensity")
    image = Image.from_array((channel,), grid, pixels[None].astype(np.float32), valid)
    return Study("radiology", (image,), Source(("0",), "test/1"), {"modality": modality})


def test_ct_windows_are_linear_between_their_ends():
    values = np.linspace(-1500, 1500, 64 * 64).reshape(1, 64, 64)
    for preset, (center, width) in {"default": (40, 400), "lung": (-600, 1500), "bone": (300, 1500)}.items():
        drawn = DOMAIN.render(study(values, "CT", unit="HU"), View(preset, 64)).pixels[..., 0]
        expected = ((values[0] - center) / width + 0.5).clip(0, 1) * 255
        assert abs(drawn - expected).max() <= 1


def test_inverted_is_the_complement_where_there_is_data():
    valid = np.ones((1, 40, 64), bool)
    valid[0, :, :9] = False
    subject = study(rng.random((1, 40, 64)), valid=valid)
    plain, inverted = (
        DOMAIN.render(subject, View(preset, 64)).pixels.astype(int) for preset in ("default", "inverted")
    )
    np.testing.assert_array_equal((plain + inverted)[12:52, 9:], 255)
    assert not plain[:12].any()
    assert not inverted[:12].any()
    assert not inverted[:, :9].any()


def test_aspect_is_in_mm():
    drawn = DOMAIN.render(study(np.ones((1, 50, 50)), spacing=(1, 2.0, 1.0)), View(size=100))
    (panel,) = drawn.panels
    assert (panel.rows, panel.columns) == ((0, 100), (25, 75))
    assert drawn.pixels[:, 25:75].all()
    assert not drawn.pixels[:, :25].any()


def test_shrinking_averages():
    checkers = np.indices((1, 512, 512)).sum(0) % 2
    drawn = DOMAIN.render(study(checkers.astype(float)), View(size=128)).pixels
    assert abs(drawn.astype(int) - 127).max() <= 2


def test_overview_shows_four_slices_head_first_and_one_slice_alone():
    volume = np.broadcast_to((np.arange(40) / 40)[:, None, None], (40, 8, 8))
    overview = DOMAIN.render(study(volume), View(size=64))
    shown = [panel.slice for panel in overview.panels]
    assert shown == [35, 25, 15, 5]
    for panel in overview.panels:
        part = overview.pixels[slice(*panel.rows), slice(*panel.columns)]
        assert abs(part.astype(int) - panel.slice / 40 * 255).max() <= 1
    (panel,) = DOMAIN.render(study(volume), View(size=64, slice=7)).panels
    assert (panel.slice, panel.rows, panel.columns) == (7, (0, 64), (0, 64))
    assert len(DOMAIN.render(study(volume[:3]), View(size=64)).panels) == 3
    for view in (View("sepia"), View(slice=40), View(image=1)):
        with pytest.raises(InputError):
            DOMAIN.render(study(volume), view)


def test_mr_is_stretched_to_what_it_holds():
    values = rng.normal(1000, 100, (3, 50, 50))
    drawn = DOMAIN.render(study(values, "MR"), View(size=50, slice=1)).pixels
    assert drawn.min() == 0
    assert drawn.max() == 255
    again = DOMAIN.render(study(values * 7 + 300, "MR"), View(size=50, slice=1)).pixels
    assert abs(drawn.astype(int) - again).max() <= 1


def test_drawing_is_quick():
    subject = study(rng.normal(0, 300, (64, 512, 512)).astype(np.float32), "CT", unit="HU")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        DOMAIN.render(subject, View(size=128))
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1


# words


def verhoeff(digits):
    """The check digit that every SNOMED CT identifier ends with: True if it is right."""
    product_ = [[(i + j) % 5 if i < 5 and j < 5 else 0 for j in range(10)] for i in range(10)]
    for i, j in product(range(10), repeat=2):  # the dihedral group of order 10
        turn = (i % 5 + (j % 5 if i < 5 else -(j % 5))) % 5
        product_[i][j] = turn + 5 * ((i >= 5) != (j >= 5))
    step, power, check = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4), list(range(10)), 0
    for digit in reversed(digits):
        check = product_[check][power[int(digit)]]
        power = [step[p] for p in power]
    return check == 0


def test_codes_have_the_right_check_digit_and_agree_with_dicoms_dictionary():
    assert all(verhoeff(term.code.value) for term in VOCABULARY if term.code.scheme == "SCT")
    assert not verhoeff("60046009")
    known = {
        "pleural_effusion": codes.SCT.PleuralEffusion, "pneumothorax": codes.SCT.Pneumothorax, "heart": codes.SCT.Heart,
        "liver": codes.SCT.Liver, "spleen": codes.SCT.Spleen, "ground_glass_opacity": codes.DCM.GroundGlassOpacity,
    }  # fmt: skip
    for label, code in known.items():
        assert (TERMS[label].code.value, TERMS[label].code.scheme) == (code.value, code.scheme_designator)


def test_colours_are_distinct_and_descriptors_name_nothing_else():
    colors = np.array([term.color for term in VOCABULARY])
    apart = np.abs(colors[:, None] - colors[None]).sum(-1) + 999 * np.eye(len(colors), dtype=int)
    assert apart.min() >= 40
    for term in VOCABULARY:
        for text in term.descriptors:
            assert read_value(Question("report", ""), f"It shows {text}.", VOCABULARY) <= {term.label}


def finding(label, location="", count=None, **measures):
    units = {"area": "cm2", "longest_diameter": "mm", "volume": "mL", "cardiothoracic_ratio": "1"}
    found = [Measure(key, value, units[key]) for key, value in measures.items()]
    found += [Measure("count", count, "1")] if count else []
    return Finding(label, TERMS[label].code, True, 1.0, BY, location, tuple(found))


CHEST = frozenset({"left_lung", "right_lung", "heart", "cardiomegaly", "pleural_effusion", "pneumothorax", "nodule"})
TORSO = frozenset({"liver", "spleen", "left_kidney", "right_kidney", "liver_lesion", "kidney_lesion"})
CASES = {
    "healthy": Facts((finding("heart", cardiothoracic_ratio=0.4412), finding("left_lung")), CHEST, {"view": "PA"}),
    "ill": Facts(
        (
            finding("heart", cardiothoracic_ratio=0.617),
            finding("cardiomegaly"),
            finding("pleural_effusion", "left", area=23.14),
            finding("pneumothorax", "both", area=105.2),
            finding("nodule", "right", 1, longest_diameter=12.449),
            finding("support_device"),
        ),
        CHEST | {"support_device"},
        {"view": "AP"},
    ),
    "nodules": Facts((finding("nodule", "both", 3, longest_diameter=22.0),), frozenset({"nodule", "pneumothorax"})),
    "torso": Facts(
        (
            finding("liver", volume=1523.7),
            finding("spleen", volume=203.4),
            finding("left_kidney", volume=151.0),
            finding("right_kidney", volume=160.0),
            finding("liver_lesion", count=2, longest_diameter=31.26, volume=14.2),
            finding("kidney_lesion", "both", 2, longest_diameter=14.0),
        ),
        TORSO,
    ),
    "infection": Facts((finding("covid_19"), finding("ground_glass_opacity")), frozenset({"covid_19", "pneumonia"})),
    "normal": Facts((finding("no_finding"),), frozenset({"covid_19", "pneumonia", "no_finding"})),
    "rest": Facts(
        tuple(finding(t.label) for t in VOCABULARY if t.label not in ("no_finding", *ORGANS)), frozenset(TERMS)
    ),
}
BLANK = study(np.zeros((1, 8, 8)))


@pytest.mark.parametrize("case", CASES)
def test_every_answer_is_read_back(case):
    facts = CASES[case]
    for seed in range(40):
        for question in DOMAIN.questions(BLANK, facts, Random(seed)):
            for known in (facts, Facts((), facts.assessed), replace(facts, findings=())):
                reply = DOMAIN.answer(question, known)
                assert read_value(question, reply.text, VOCABULARY) == reply.value, (question, reply)
                assert (
                    reply.text.count(".") == 1 + reply.text.count("0.")
                    or question.kind == "report"
                    or "." in reply.text
                )


def test_the_report_says_every_label_once():
    reply = DOMAIN.answer(Question("report", "Report."), CASES["ill"])
    assert reply.text == (
        "The heart has a cardiothoracic ratio of 0.617. There is cardiomegaly. "
        "There is a pleural effusion on the left, 23.1 cm2. There is a pneumothorax on both sides, 105 cm2. "
        "There is 1 nodule on the right, the largest 12.4 mm. There is a support device."
    )
    assert reply.value == {f.label for f in CASES["ill"].findings}
    torso = DOMAIN.answer(Question("report", "Report."), CASES["torso"])
    assert torso.value == TORSO
    assert "There are 2 kidney lesions on both sides, the largest 14 mm." in torso.text
    healthy = DOMAIN.answer(Question("report", "Report."), CASES["healthy"])
    assert healthy.value == {"heart"}
    assert "No pneumothorax." in healthy.text


def test_answers_agree_in_number_and_say_what_is_missing():
    def said(case, kind, label, measure=""):
        return DOMAIN.answer(Question(kind, "", label, measure), CASES[case]).text

    assert said("ill", "count", "nodule") == "There is 1 nodule."
    assert said("nodules", "count", "nodule") == "There are 3 nodules."
    assert said("healthy", "count", "nodule") == "There are no nodules."
    assert said("ill", "side", "nodule") == "The nodule is on the right."
    assert said("nodules", "side", "nodule") == "The nodules are on both sides."
    assert said("ill", "size", "heart", "cardiothoracic_ratio") == "The cardiothoracic ratio is 0.617."
    assert said("torso", "size", "liver", "volume") == "The volume of the liver is 1520 mL."
    assert said("healthy", "area", "pneumothorax", "area") == "There is no pneumothorax."
    unsized = DOMAIN.answer(Question("size", "", "liver", "volume"), Facts((finding("liver"),), TORSO))
    assert (unsized.text, unsized.value) == ("No volume is known for the liver.", NONE)
    assert said("ill", "presence", "cardiomegaly") == "Yes, there is cardiomegaly."
    assert said("infection", "presence", "covid_19") == "Yes, there is COVID-19."
    assert said("normal", "presence", "no_finding") == "Yes, it is normal."


def test_one_measuring_question_in_seven_is_about_what_is_absent():
    asked, absent = 0, 0
    half = Facts(CASES["ill"].findings[:4], CASES["ill"].assessed)
    for seed in range(600):
        for question in DOMAIN.questions(BLANK, half, Random(seed)):
            if question.kind in MEASURING:
                asked += 1
                absent += not half.finding(question.label)
    assert 0.11 < absent / asked < 0.18


def test_questions_and_captions_vary_widely():
    texts = {q.text for seed in range(200) for q in DOMAIN.questions(BLANK, CASES["ill"], Random(seed))}
    assert len(texts) > 150
    for facts in CASES.values():
        captions = [DOMAIN.caption(BLANK, facts, Random(seed)) for seed in range(200)]
        assert len(set(captions)) > 60
        starts = {caption[:12] for caption in captions}
        assert len(starts) > 5


@pytest.mark.parametrize("case", CASES)
def test_captions_are_true_sentences(case):
    facts = CASES[case]
    present = {f.label for f in facts.findings}
    denied = set()
    for seed in range(300):
        caption = DOMAIN.caption(BLANK, facts, Random(seed))
        assert read_value(Question("report", ""), caption, VOCABULARY) <= present, caption
        assert not re.search(r"\d", caption.replace("COVID-19", "").replace("covid 19", "")), caption
        assert caption[0].isupper()
        assert caption.endswith(".")
        assert not re.search(r"\ba [aeiou]|\ban [^aeiouXM]| {2}| [.,]|\{|\}", caption), caption
        for sentence in re.split(r"(?<=\.)\s+", caption):
            assert sentence[0].isupper(), caption
            if re.match("(no|there is no) ", sentence.lower()):
                denied |= read_value(Question("report", ""), f"It: {sentence}", VOCABULARY)
    assert not denied & present
    assert denied or not facts.assessed - present - {*ORGANS, "no_finding"}


def test_captions_are_silent_on_what_is_too_small_to_see():
    tiny = Facts((finding("heart"), finding("nodule", "left", 1, longest_diameter=6.0)), CHEST)
    for seed in range(100):
        assert not re.search("nodule|coin|spot|round", DOMAIN.caption(BLANK, tiny, Random(seed)).lower())


def test_articles():
    assert a("enlarged heart") == "an enlarged heart"
    assert a("X-ray") == "an X-ray"
    assert a("nodule") == "a nodule"
    assert a(name("covid_19")) == "COVID-19"


# reports


def test_reports_hold_all_findings_and_their_support():
    found = CASES["ill"].findings
    call = Call("chest_segmentation", "all", found)
    sentences = (Sentence("There is cardiomegaly.", "expert", (1,)), Sentence("All is well.", "contradicted"))
    answer = Answer(
        "Report.", "There is cardiomegaly. All is well.", 0.8, sentences, (call, Call("x", "y", failure="slow"))
    )
    report = Report(BLANK, (answer,), {"model": "m@1"})
    data = json.loads(DOMAIN.export(report, "json"))
    assert data["state"] == "draft"
    assert data["study"]["id"] == BLANK.id
    read = from_json(Answer, data["answers"][0])
    assert [f.label for f in read.findings] == [f.label for f in found]
    text = DOMAIN.export(report, "text").decode()
    for part in (
        "draft, not reviewed",
        "All is well. [contradicts the expert]",
        "x(y) failed: slow",
        "area 23.1 cm2",
        "m@1",
    ):
        assert part in text
    with pytest.raises(UnsupportedError, match="one of json, text"):
        DOMAIN.export(report, "fax")


def test_the_plugin_is_cheap_to_import():
    heavy = ("pydicom", "PIL", "nibabel", "scipy")
    code = f"import sys, domains.radiology.plugin; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
