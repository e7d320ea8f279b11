"""The curriculum end to end on the smoke recipe, and its data."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from random import Random

import pytest

from curriculum.assistant import Assistant
from curriculum.conversation import conversations
from curriculum.data.dialogues import Writer, contradicts, draw, oracle
from curriculum.data.findings import claimed
from curriculum.data.mix import pick
from curriculum.parts.features import FeatureCache
from curriculum.prompts import DOUBT, FAILED, UNMEASURED, route
from curriculum.recipe import Recipe
from curriculum.run import train
from curriculum.tracking import Tracker
from curriculum.workshop import Workshop
from fovea.config import load
from fovea.errors import ConfigError, ModelError
from fovea.types import ExpertCard, Question
from fovea.verbal import read_calls
from models.vlm.model import VisionLanguageModel

ARMS = {(0, "majority"), (1, "linear_probe"), (3, "none"), (3, "blind")} | {
    (4, arm) for arm in ("none", "expert", "shuffled", "oracle", "expert_alone", "blind")
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, repository) -> Recipe:
    folder = tmp_path_factory.mktemp("run")
    return load(
        Recipe,
        repository / "configs" / "smoke" / "remote_sensing.yaml",
        [f"out={folder}/rs", f"tracking=sqlite:///{folder}/mlflow.db"],
    )


@pytest.fixture(scope="module")
def run(recipe, monkeypatch_module) -> Path:
    monkeypatch_module.chdir(recipe.out.parent)
    return train(recipe)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def shop(recipe, run) -> Workshop:
    return Workshop(recipe, Tracker.open(recipe))


def test_the_table_holds_every_arm(run):
    with (run / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["stage", "arm", "kind", "n", "accuracy", "low", "high"]
    assert {(int(row["stage"]), row["arm"]) for row in rows} == ARMS
    assert {"measuring", "other", "all"} <= {row["kind"] for row in rows}
    assert all(0 <= float(r["low"]) <= float(r["accuracy"]) <= float(r["high"]) <= 1 for r in rows)


def test_every_arm_gets_the_same_questions(run):
    scores = json.loads((run / "answers.json").read_text())
    asked = {arm: sorted(s["key"] for s in scores if (s["stage"], s["arm"]) == arm) for arm in ARMS}
    assert len({tuple(keys) for keys in asked.values()}) == 1


def test_mlflow_shows_parent_children_and_model(recipe, run):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=recipe.tracking, registry_uri=recipe.tracking)
    experiment = client.get_experiment_by_name(recipe.experiment).experiment_id
    runs = client.search_runs([experiment])
    parent = json.loads((run / "tracking.json").read_text())["run"]
    children = {r.info.run_name: r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent}
    stages = [children[f"stage {n}"] for n in (1, 2, 3, 4)]
    assert all("loss" in stage.data.metrics and "data_digest" in stage.data.tags for stage in stages)
    assert client.get_model_version_by_alias("fovea-remote_sensing", "current").aliases == ["current"]


def test_the_registered_model_answers_as_the_folder_does(recipe, run, shop):
    item = shop.corpus.split("test")[0]
    study = shop.domain.load(Path(item.path))
    question = "How many ships are there?"
    one, other = Assistant.open(str(run)), Assistant.open("models:/fovea-remote_sensing@current")
    assert one.provenance == other.provenance
    assert one.ask(study, question).text == other.ask(study, question).text
    report = one.report(study)
    assert report.state == "draft"
    assert report.provenance["model"]


def test_a_finished_run_is_not_done_again(recipe, run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    train(recipe)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before


def test_a_stage_without_the_one_before_it_is_refused(recipe, tmp_path):
    with pytest.raises(ConfigError, match="stage 2"):
        train(recipe.model_copy(update={"out": tmp_path, "experts": ()}), stages=[3])


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="holds no model"):
        Assistant.open(str(tmp_path))


def test_no_place_is_in_two_splits(shop):
    places = {name: {item.group for item in shop.corpus.split(name)} for name in ("train", "validation", "test")}
    assert all(places.values())
    assert not places["train"] & places["test"]
    assert not places["train"] & places["validation"]
    assert not places["validation"] & places["test"]


def test_stage_4_shows_every_outcome_of_a_call(shop):
    writer = shop.writer(True)
    seen = set()
    for n in range(60):
        item = shop.corpus.split("train")[n % len(shop.corpus.split("train"))]
        for record in writer.consultations(item, Random(n), 4):
            roles = [message.role for message in record.messages]
            last = record.messages[-1].parts[0].text
            calls = [c for m in record.messages if m.role == "assistant" for c in read_calls(m.parts[0].text)]
            assert roles[-1] == "assistant"
            assert ("tool" in roles) == (bool(calls) or record.kind == "reading")
            seen |= {mark for mark in (DOUBT, FAILED, UNMEASURED) if mark in last}
            seen.add("expert" if calls else "alone")
            if len(record.images) > 1:
                seen.add(record.images[1].partition("/")[0])
    assert seen >= {DOUBT, FAILED, UNMEASURED, "expert", "alone", "overlay", "truth"}


def test_an_oracle_never_contradicts_the_truth(shop):
    for item in shop.corpus.items[:12]:
        for question in shop.domain.questions(item.study, item.facts, Random(0)):
            calls = route(question, shop.cards, item.modality)
            if calls and question.kind != "report":
                facts = claimed([oracle(item.facts, call, shop.cards) for call in calls])
                assert not contradicts(shop.domain, question, facts, item.facts), question


def test_what_is_answered_without_doubt_is_true_and_is_what_was_shown(shop):
    writer, undoubted = shop.writer(True), 0
    for turn, item in enumerate(shop.corpus.items[:12]):
        for question in shop.domain.questions(item.study, item.facts, Random(turn)):
            calls = route(question, shop.cards, item.modality)
            if not calls or question.kind == "report":
                continue
            done, answer, _ = writer._outcome(item, question, calls, Random(turn))
            if DOUBT not in answer and FAILED not in answer:
                assert not contradicts(shop.domain, question, claimed(done), item.facts), question
                undoubted += 1
    assert undoubted > 20


def test_a_report_asks_every_expert_that_adds_a_label():
    def card(name, *labels, modalities=("DX",)):
        arguments = {label: (label,) for label in labels} | {"all": labels}
        return ExpertCard(name, "1", "", "", modalities, arguments)

    cards = [
        card("one", "lung", "heart"),
        card("ct", "liver", modalities=("CT",)),
        card("two", "heart"),
        card("three", "heart", "nodule"),
    ]
    assert route(Question("report", ""), cards, "DX") == [("one", "all"), ("three", "all")]
    assert route(Question("presence", "", "heart"), cards, "DX") == [("three", "heart")]
    assert route(Question("size", "", "heart"), cards, "DX") == [("one", "heart")]
    assert route(Question("size", "", "liver"), cards, "DX") == []


def test_studies_without_questions_are_passed_over(shop, monkeypatch):
    writer = shop.writer(False)
    assert len(writer.readings(Random(0), 9)) == 9
    model = VisionLanguageModel.open(shop.folder(3) / "model")
    features = FeatureCache(shop.recipe.out / "features", model)
    features.add(shop.pictures)
    config, _ = shop.recipe.stage(3)
    silent = writer.studies[pick(list(writer.studies), shop.recipe.seed, 0, config.batch)[0]]
    ask = Writer._questions
    monkeypatch.setattr(
        Writer, "_questions", lambda self, item, rng, n: [] if item is silent else ask(self, item, rng, n)
    )
    objective = conversations(shop, model, config, writer, Writer.instructions, features)
    assert objective(model, 0)["loss"].isfinite()
    monkeypatch.setattr(Writer, "_questions", lambda *_: [])
    assert writer.readings(Random(0), 9) == []


def test_every_study_is_used_once_before_any_comes_again():
    names = [str(n) for n in range(10)]
    drawn = [name for step in range(5) for name in pick(names, 0, 4 * step, 4)]
    assert sorted(drawn[:10]) == sorted(names)
    assert sorted(drawn[10:]) == sorted(names)
    assert drawn[:10] != drawn[10:]


def test_draw_takes_the_kinds_in_turn(shop):
    item = shop.corpus.items[0]
    pool = shop.domain.questions(item.study, item.facts, Random(1))
    kinds = {question.kind for question in pool}
    assert {question.kind for question in draw(pool, Random(2), len(kinds))} == kinds
