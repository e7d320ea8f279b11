"""Recipes, errors, and the text in which findings, calls and answers are written and read."""

from __future__ import annotations

import pickle
import re
import string
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, PositiveInt

from fovea import config, errors, verbal
from fovea.progress import track
from fovea.types import Call, Code, ExpertCard, Finding, Measure, Origin, Question, Term


class Part(config.Config):
    steps: PositiveInt = 10
    learning_rate: float = 1e-3


class Recipe(config.Config):
    name: str
    stage1: Part = Part()
    experts: Mapping[str, Part] = Field(default_factory=dict)
    mixes: list[Part] = Field(default_factory=list)
    stage2: Part | None = None


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: small\nstage1: {steps: 5}\n")
    return path


def fault(path, *overrides):
    with pytest.raises(errors.ConfigError) as error:
        config.load(Recipe, path, overrides)
    return str(error.value)


def test_overrides_reach_into_groups_and_keep_their_type(recipe):
    loaded = config.load(Recipe, recipe, ["stage1.learning_rate=0.5", "stage2.steps=3", "name=other"])
    assert loaded == Recipe(name="other", stage1=Part(steps=5, learning_rate=0.5), stage2=Part(steps=3))


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("nmae=x", "name"),
        ("stage1.step=3", "steps"),
        ("stage2.learning_rat=3", "learning_rate"),
        ("experts.chest.setps=3", "steps"),
        ("mixes=[{stpes: 3}]", "steps"),
    ],
)
def test_a_typo_names_the_nearest_key(recipe, override, near):
    assert f"did you mean '{near}'?" in fault(recipe, override)


def test_all_faults_are_told_at_once(recipe):
    text = fault(recipe, "stage1.steps=-1", "stage1.learning_rate=fast", "colour=red")
    assert all(key in text for key in ("stage1.steps", "stage1.learning_rate", "colour"))


@pytest.mark.parametrize("override", ["steps", "=3", "name.first=x"])
def test_an_override_that_is_none_is_refused(recipe, override):
    assert override in fault(recipe, override)


@pytest.mark.parametrize("content", [None, "- a\n- b\n", "a: [\n", ""])
def test_what_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_text(content)
    assert "recipe.yaml" in fault(path)


def test_recipes_are_frozen(recipe):
    with pytest.raises(ValueError, match="frozen"):
        config.load(Recipe, recipe).name = "other"


LEAVES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FoveaError)]


@pytest.mark.parametrize("leaf", LEAVES)
def test_an_error_says_what_was_given_expected_and_to_do_and_survives_a_process(leaf):
    error = leaf("a brick", "a window", "Take another.")
    assert str(error) == "a brick. expected a window. Take another."
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.remedy) == (leaf, str(error), "Take another.")


def test_progress_passes_everything_on(capsys):
    assert list(track(range(3), "counting")) == [0, 1, 2]
    assert "counting" in capsys.readouterr().err


CODE = Code("99TEST", "1", "x")
VOCABULARY = (
    Term("nodule", CODE, synonyms=("lung nodule", "coin lesion")),
    Term("pleural_effusion", CODE, synonyms=("effusion",)),
    Term("liver", CODE),
    Term("liver_lesion", CODE),
)
below_a_power_of_ten = st.builds(lambda power, gap: 10.0**power * (1 - gap), st.integers(-3, 6), st.floats(1e-6, 1e-3))
figures = st.one_of(st.floats(-1e7, 1e7).filter(lambda x: abs(x) >= 1e-4), below_a_power_of_ten)


@given(figures)
def test_numbers_have_three_digits_and_no_exponent(value):
    text = verbal.number(value)
    assert re.fullmatch(r"-?\d+(\.\d+)?", text)
    assert len(text.strip("-").replace(".", "").lstrip("0").rstrip("0")) <= 3
    assert float(text) == pytest.approx(value, rel=0.00501)
    assert verbal.number(float(text)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1e-9, "0"), (999.6, "1000"), (12345.6, "12300"), (0.0412, "0.0412"), (27.5, "27.5")]
)
def test_numbers_as_written(value, text):
    assert verbal.number(value) == text


@given(figures, st.sampled_from(["mm", "cm2", "ha", "mL"]))
def test_a_measured_answer_reads_back(value, unit):
    written = verbal.number(value)
    read = verbal.read_value(Question("size", ""), f"The nodule is {written} {unit} long.", VOCABULARY)
    assert read == float(written)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("presence", "Yes, there is a nodule.", True),
        ("presence", "No, there is no nodule.", False),
        ("presence", "Perhaps.", None),
        ("side", "It is on the right side.", "right"),
        ("side", "In the north-west, not the west.", "north-west"),
        ("side", "There is no nodule.", verbal.NONE),
        ("side", "Bright and leftover.", None),
        ("count", "There are 12 ships.", 12),
        ("count", "There are no ships.", 0),
        ("count", "Many.", None),
        ("size", "12.5 mm.", 12.5),
        ("size", "No nodule is seen.", verbal.NONE),
        ("area", "About 0.04 ha.", 0.04),
        ("class", "Mostly liver lesion, some liver.", "liver_lesion"),
        ("class", "Nothing known.", None),
        ("report", "There is a left pleural effusion of 3 cm2. No nodule.", frozenset({"pleural_effusion"})),
        ("report", "Two lung nodules. The liver is 1500 mL.", frozenset({"nodule", "liver"})),
        ("report", "No nodule. No liver lesion.", frozenset()),
    ],
)
def test_answers_in_words_have_a_value(kind, text, value):
    assert verbal.read_value(Question(kind, ""), text, VOCABULARY) == value


names = st.text(string.ascii_lowercase + string.digits + "_-.", min_size=1, max_size=12)
CARD = ExpertCard("chest_segmentation", "1", "segments the chest", "…", ("DX",), {"all": ("a",), "heart": ("a",)})


@given(st.lists(st.tuples(names, names), max_size=4), st.text("abc <>()/", max_size=20))
def test_calls_are_found_in_any_text(calls, between):
    text = between.join(["", *(verbal.call_text(*call) for call in calls), ""])
    assert [call for call in verbal.read_calls(text) if call in calls] == calls


def test_every_card_offers_its_calls():
    assert verbal.all_calls([CARD]) == [
        "<call>chest_segmentation(all)</call>",
        "<call>chest_segmentation(heart)</call>",
    ]
    assert verbal.describe_card(CARD) == "chest_segmentation(all | heart): segments the chest"


def test_findings_and_failures_as_the_model_reads_them():
    by = Origin("chest_segmentation", "1")
    found = Finding(
        "lung_nodule", CODE, True, 0.934, by, "left", (Measure("count", 2, "1"), Measure("long_axis", 12.44, "mm"))
    )
    absent = Finding("effusion", CODE, False, 0.04, by)
    call = Call("chest_segmentation", "all", (found, absent))
    assert verbal.describe_call(call) == ("lung nodule: yes 0.93; left; count 2; long axis 12.4 mm\neffusion: no 0.04")
    assert verbal.describe_call(Call("x", "all", failure="no memory")) == "x failed: no memory"
    assert verbal.describe_call(Call("x", "all")) == "x: nothing"
