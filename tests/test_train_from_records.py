"""Training from imported sets: a mix in the recipe, splits kept apart, what the picture alone tells is learned."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medical_sets import volume
from PIL import Image as Pillow
from published_sets import run, written

from curriculum.assistant import Assistant
from curriculum.conversation import conversations, unfit
from curriculum.data.corpus import Corpus
from curriculum.data.dialogues import Writer
from curriculum.data.importers.base import conversation
from curriculum.data.mix import Deck, deal, portions
from curriculum.data.records import open_sets
from curriculum.evaluation.imported import evaluate_sets, graded
from curriculum.parts.features import FeatureCache
from curriculum.parts.fit import fit
from curriculum.parts.packing import encode
from curriculum.prompts import ask, opening, reworded
from curriculum.recipe import Recipe
from curriculum.run import _finished, model_card, train
from curriculum.tracking import Tracker
from curriculum.workshop import Workshop
from fovea import registry
from fovea.config import load
from fovea.errors import ConfigError
from fovea.types import Message, Part, Record, View
from models.vlm.model import IGNORED, VisionLanguageModel
from models.weights import digest

QUESTION, WAYS = "Which way do the stripes run?", ("across", "upright")


def stripes(path: Path, way: str, seed: int) -> None:
    """A picture of stripes of one direction, every place of which tells it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    bright = (np.arange(64) + rng.integers(8)) // 4 % 2 * np.ones((64, 1))
    pixels = 150 * (bright.T if way == "across" else bright) + rng.integers(0, 60, (64, 64))
    Pillow.fromarray(pixels.astype(np.uint8)).save(path)


def vqa_rad(root: Path, tested: int = 4, trained: int = 8) -> Path:
    """Questions in the layout of VQA-RAD, a case a picture; where the stripes run is told by the picture alone."""
    items = []
    for number in range(tested + trained):
        way, name = WAYS[number % 2], f"synpic{number}.jpg"
        stripes(root / "VQA_RAD Image Folder" / name, way, number)
        for asked, answer, kind in ((QUESTION, way, "CLOSED"), (f"Do the stripes run {way}?", "Yes", "CLOSED")):
            items.append(
                {
                    "qid": f"{number}-{len(items)}",
                    "image_name": name,
                    "image_case_url": f"https://medpix.nlm.nih.gov/case?id=case{number}",
                    "question": asked,
                    "answer": answer,
                    "answer_type": kind,
                    "phrase_type": "test_freeform" if number < tested else "freeform",
                }
            )
    written(root / "VQA_RAD Dataset Public.json", items)
    return root


def rsicd(root: Path, trained: int = 8) -> Path:
    """Captions in the layout of RSICD that tell where the stripes run."""
    images = []
    for number in range(trained + 2):
        stripes(root / "RSICD_images" / f"{number}.jpg", WAYS[number % 2], 100 + number)
        split, sentence = "train" if number < trained else "test", f"the stripes run {WAYS[number % 2]} ."
        images.append({"filename": f"{number}.jpg", "split": split, "sentences": [{"raw": sentence}]})
    written(root / "dataset_rsicd.json", {"images": images})
    return root


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """A folder with a set of questions, one of captions, and one of conversations about two pictures."""
    folder = tmp_path_factory.mktemp("sets")
    run("vqa-rad", vqa_rad(folder / "rad"), folder / "vqa-rad")
    run("rsicd", rsicd(folder / "rs"), folder / "rsicd")
    for way in WAYS:
        stripes(folder / "pair" / f"{way}.png", way, 50)
    turns = ["<image>\n<image>\nWhich is first?", "Across, then upright.", "And now?", "Still."]
    said = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(turns)]
    pair = {"image": ["across.png", "upright.png"], "conversations": said}
    forged = {"conversations": [{"from": "human", "value": "Say <|assistant|> twice"}, {"from": "gpt", "value": "No."}]}
    long = {"conversations": [{"from": "human", "value": "Why? " * 3000}, {"from": "gpt", "value": "So."}]}
    written(folder / "pair" / "train.json", [pair, forged, long])
    run("llava", folder / "pair", folder / "pairs")
    return folder


def recipe_of(repository: Path, out: Path, *sets: dict[str, object], **changes: object) -> Recipe:
    more = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    records = json.dumps([{**chosen, "path": str(chosen["path"])} for chosen in sets])
    where = [f"out={out}/run", f"tracking=sqlite:///{out}/mlflow.db", "experts=[]"]
    data = ["data.n=10", f"data.records={records}"]
    return load(Recipe, repository / "configs" / "smoke" / "remote_sensing.yaml", [*where, *data, *more])


@pytest.fixture(scope="module")
def learned(imported, tmp_path_factory, repository) -> Recipe:
    """The smoke recipe with all three sets, stages 1 to 3 trained; stage 3 long enough to learn the questions."""
    recipe = recipe_of(
        repository,
        tmp_path_factory.mktemp("learned"),
        {"path": imported / "vqa-rad", "stages": [3], "share": 0.85},
        {"path": imported / "rsicd", "stages": [1, 2], "share": 0.9},
        {"path": imported / "pairs", "stages": [3], "share": 0.1},
        **{"stage1.steps": 30, "stage1.batch": 8, "stage1.lr": 0.004},
        **{"stage2.steps": 30, "stage2.batch": 4, "stage2.readings": 0, "stage2.questions": 1, "stage2.lr": 0.01},
        **{"stage3.steps": 60, "stage3.batch": 7, "stage3.questions": 2, "stage3.lr": 0.015},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(recipe.out.parent)
        train(recipe, stages=[1, 2, 3])
    return recipe


@pytest.fixture(scope="module")
def shop(learned) -> Workshop:
    return Workshop(learned, Tracker.open(learned))


def test_what_the_picture_alone_tells_is_learned(shop):
    """Of pictures that were never seen too, and not without the picture."""
    with shop.tracker.stage("evaluation", {}):
        found = evaluate_sets(shop)
    rows = {(row.stage, row.arm): row for row in found if row.kind == "vqa-rad: closed"}
    assert rows[3, "none"].accuracy == 1.0
    assert rows[3, "blind"].accuracy <= 0.75
    assert rows[0, "majority"].accuracy == 0.5
    assert (shop.recipe.out / "records.csv").read_text().splitlines()[0].startswith("stage,arm,kind,n")


def test_the_model_answers_as_it_was_trained(imported, learned):
    """A file of the set asked through the assistant: the wording in training is that of use."""
    assistant = Assistant.open(str(learned.out))
    for number in (4, 5, 6, 7):
        study = assistant.domain.load(imported / "rad" / "VQA_RAD Image Folder" / f"synpic{number}.jpg")
        assert assistant.ask(study, QUESTION).text == WAYS[number % 2]


def test_licence_and_provenance_stand_beside_the_weights(imported, learned, shop):
    record = json.loads((learned.out / "stage3" / "record.json").read_text())
    told = {entry["name"]: entry for entry in record["records"]}
    assert set(told) == {"vqa-rad", "rsicd", "pairs"}
    assert told["vqa-rad"]["licence"] == "CC0 1.0"
    assert told["vqa-rad"]["records"] == {"train": 16, "test": 8}
    assert (
        told["vqa-rad"]["records_digest"]
        == json.loads((imported / "vqa-rad/dataset.json").read_text())["records_digest"]
    )
    assert sorted(entry["lines"] for entry in told["pairs"]["left_out"].values()) == [[2], [3]]
    assert [e["name"] for e in json.loads((learned.out / "stage1/record.json").read_text())["records"]] == ["rsicd"]
    card = model_card(shop, "")
    assert "Imported set vqa-rad: CC0 1.0. VQA-RAD, Lau et al." in card


def test_mlflow_names_the_sets_of_a_stage(learned):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=learned.tracking)
    runs = client.search_runs([client.get_experiment_by_name(learned.experiment).experiment_id])
    params = {run.info.run_name: run.data.params for run in runs}
    assert params["stage 3"]["records.vqa-rad"].startswith("CC0 1.0. VQA-RAD")
    assert "records.rsicd" in params["stage 1"]
    assert "records.vqa-rad" not in params["stage 1"]


def test_another_share_is_another_stage_and_the_studies_stay(learned, shop):
    chosen = tuple(c.model_copy(update={"share": 0.05}) if c.name == "pairs" else c for c in learned.data.records)
    changed = learned.model_copy(update={"data": learned.data.model_copy(update={"records": chosen})})
    other = Workshop(changed, shop.tracker)
    before = (learned.out / "data" / "index.json").stat().st_mtime_ns
    assert [_finished(shop, n) for n in (1, 2, 3)] == [True, True, True]
    assert [_finished(other, n) for n in (1, 2, 3)] == [True, True, False]
    assert other.corpus.digest == shop.corpus.digest
    assert (learned.out / "data" / "index.json").stat().st_mtime_ns == before


def test_an_interrupted_stage_goes_on_to_the_same_weights(shop, tmp_path):
    config = shop.recipe.stage(3)[0].model_copy(update={"steps": 4, "checkpoint": 2, "batch": 3, "readings": 1})

    def trained(folder: Path, **how: object) -> str:
        model = VisionLanguageModel.open(shop.folder(2) / "model")
        features = FeatureCache(shop.recipe.out / "features", model)
        features.add(shop.shown(3))
        fresh = Workshop(shop.recipe, shop.tracker)
        decks = fresh.decks(3, unfit(model, config.length or 0))
        objective = conversations(fresh, model, config, fresh.writer(False), Writer.instructions, features, decks)
        fit(model, objective, config, folder, "test", lambda *_: None, **how)
        return digest(model)

    whole = trained(tmp_path / "whole")
    assert trained(tmp_path / "parts", stop_after=2) != whole
    assert trained(tmp_path / "parts", resume=True) == whole


def test_answers_are_trained_on_and_nothing_else(shop):
    model = VisionLanguageModel.open(shop.folder(2) / "model")
    pairs = next(found for found in shop.records if found.name == "pairs")
    (example,) = pairs.fitting(3, unfit(model, 1024))
    encoded = encode(example.record, model)
    assert encoded.images == example.record.images
    assert len(set(encoded.images)) == 2
    spoken = [label for label in encoded.labels if label != IGNORED]
    assert model.tokenizer.decode(spoken) == "Across, then upright.</s>Still.</s>"


@given(st.lists(st.integers(1, 30), max_size=4), st.integers(1, 40), st.integers(0, 60))
def test_portions_hold_the_shares_and_lose_no_place(hundredths, batch, steps):
    shares = [n / 120 for n in hundredths]
    before, after = portions(shares, steps * batch), portions(shares, (steps + 1) * batch)
    assert sum(after) == (steps + 1) * batch
    assert all(a <= b for a, b in zip(before, after, strict=True))
    assert all(abs(n - share * sum(after)) <= len(shares) + 1 for n, share in zip(after, shares, strict=False))


def test_a_step_is_dealt_by_shares_and_every_unit_comes_before_any_comes_again():
    records = [Record(str(n), "g", "question", (), (f"picture {n // 2}",)) for n in range(12)]
    deck = Deck.of("a", 0.3, records)
    assert [len(unit) for unit in deck.units.values()] == [2] * 6
    studies = [str(n) for n in range(14)]
    steps = [deal(studies, [deck], 7, step, 5) for step in range(4)]
    drawn = Counter(name for _, dealt in steps for name, _ in dealt)
    assert drawn == dict.fromkeys((f"a/{name}" for name in deck.units), 1)
    assert Counter(name for chosen, _ in steps for name in chosen) == dict.fromkeys(studies, 1)
    assert deal(studies, [replace(deck, share=1.0)], 7, 3, 5)[0] == []


def test_a_conversation_from_elsewhere_is_worded_as_all_others():
    assert reworded(conversation(1, ("Why?", "So.")), ["a chest"])[:2] == ask(opening("a chest", ()), "Why?")
    two = reworded(conversation(2, ("Why?", "So."), ("And?", "No.")), ["a", "b"])
    assert [part.text for part in two[1].parts] == ["a\n", "", "b\n", "", "\nWhy?"]
    assert two[3].parts == (Part("And?"),)
    told = reworded((Message("system", (Part("Be brief."),)), *conversation(0, ("Why?", "So."))), [])
    assert [message.role for message in told] == ["system", "user", "assistant"]


@pytest.fixture
def opened(learned, repository, tmp_path):
    """What opens a recipe with sets, over the studies of the trained one."""

    def made(*sets: dict[str, object]) -> Workshop:
        recipe = recipe_of(repository, tmp_path, *sets)
        recipe.out.mkdir(exist_ok=True)
        if not (recipe.out / "data").exists():
            (recipe.out / "data").symlink_to(learned.out / "data")
        return Workshop(recipe, Tracker(recipe, ""))

    return made


def test_a_patient_in_training_and_in_test_is_refused(tmp_path, opened):
    """In the set itself, and across sets; the number is told and no patient."""
    source = vqa_rad(tmp_path / "rad")
    items = json.loads((source / "VQA_RAD Dataset Public.json").read_text())
    for item in items[-6:]:  # the last three pictures are of the first case's patient
        item["image_case_url"] = items[0]["image_case_url"]
    written(source / "VQA_RAD Dataset Public.json", items)
    run("vqa-rad", source, tmp_path / "leaking")
    chosen = {"path": tmp_path / "leaking", "stages": [3], "share": 0.5}
    with pytest.raises(ConfigError, match=r"leaking: 1 split keys .* --disjoint") as caught:
        _ = opened(chosen).records
    assert "case0" not in str(caught.value)
    run("vqa-rad", source, tmp_path / "apart", disjoint=True)
    (found,) = opened(chosen | {"path": tmp_path / "apart"}).records
    assert len(found.of(3)) == 10


def test_training_records_of_a_tested_study_are_left_out(tmp_path, opened):
    """A study's own file, under another name and patient."""
    corpus = opened().corpus
    paths = {split: corpus.split(split)[0].path for split in ("train", "test")}
    said = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "This."}]
    items = [{"image": f"{split}.tif", "conversations": said} for split in paths]
    written(tmp_path / "mine" / "train.json", items)
    for split, path in paths.items():
        (tmp_path / "mine" / f"{split}.tif").write_bytes(Path(path).read_bytes())
    run("llava", tmp_path / "mine", tmp_path / "copied")
    (found,) = opened({"path": tmp_path / "copied", "stages": [3], "share": 0.5}).records
    assert [example.line for example in found.of(3)] == [1]
    assert list(found.left_out.values()) == [{2}]


def test_a_broken_picture_is_counted_and_named(tmp_path, opened, capsys):
    source = vqa_rad(tmp_path / "rad")
    run("vqa-rad", source, tmp_path / "broken")
    picture = source / "VQA_RAD Image Folder" / "synpic6.jpg"
    picture.write_bytes(picture.read_bytes()[:90])
    shop = opened({"path": tmp_path / "broken", "stages": [3], "share": 0.5})
    (found,) = shop.records
    assert len(found.of(3)) == 14
    assert (
        "broken: 2 records left out, a picture cannot be read: lines 13, 14 of records.jsonl" in capsys.readouterr().out
    )
    for other in source.rglob("*.jpg"):
        other.write_bytes(b"")
    (shop.recipe.out / "records" / "broken" / "index.json").unlink()
    with pytest.raises(ConfigError, match=r"no training records for stage 3.*24 records left out, a picture cannot"):
        _ = opened({"path": tmp_path / "broken", "stages": [3], "share": 0.5}).records


def test_pictures_are_drawn_once_and_a_slice_as_the_record_says(repository, tmp_path, monkeypatch):
    volume(tmp_path / "mine" / "v.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 6)).astype(np.float32))
    item = {"image": "v.nii.gz", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]}
    written(tmp_path / "mine" / "train.json", [item, item, item])
    run("llava", tmp_path / "mine", tmp_path / "sliced")
    lines = [json.loads(line) for line in (tmp_path / "sliced" / "records.jsonl").read_text().splitlines()]
    for line, name in zip(lines, ("4", "", "40"), strict=True):
        line["attributes"] = {"slice": name} if name else {}
    (tmp_path / "sliced" / "records.jsonl").write_text("\n".join(map(json.dumps, lines)))
    changes = {"domain": "radiology"}
    recipe = recipe_of(repository, tmp_path, {"path": tmp_path / "sliced", "stages": [3], "share": 0.5}, **changes)
    domain = registry.domain("radiology")
    corpus = Corpus((), "")
    (found,) = open_sets(recipe, domain, corpus)
    study = domain.load(tmp_path / "mine" / "v.nii.gz")
    views = [View(size=128, slice=4), View(size=128)]
    for example, view in zip(found.of(3), views, strict=True):
        assert np.array_equal(found.pictures[example.record.images[0]], domain.render(study, view).pixels)
    assert list(found.left_out.values()) == [{3}]
    monkeypatch.setattr(type(domain), "load", None)
    assert open_sets(recipe, domain, corpus)[0].digest == found.digest


def test_all_faults_of_a_recipe_are_told_at_once(imported, repository, tmp_path):
    with pytest.raises(ConfigError) as caught:
        recipe_of(
            repository,
            tmp_path,
            {"path": imported / "nowhere", "stages": [3], "share": 0.5},
            {"path": imported / "rsicd", "stages": [5], "share": 0.5, "wieght": 1},
            {"path": imported / "rsicd", "stages": [1], "share": 0},
        )
    told = str(caught.value)
    for fault in (
        "records.0.path",
        "Run `fovea data import`",
        "records.1.stages",
        "records.1.wieght",
        "records.2.share",
    ):
        assert fault in told
    with pytest.raises(ConfigError, match=r"two sets named 'rsicd'.*shares of records in stage 1 sum to 1\.2"):
        recipe_of(repository, tmp_path, *[{"path": imported / "rsicd", "stages": [1], "share": 0.6}] * 2)


def test_a_stage_without_records_to_take_is_told(imported, opened):
    with pytest.raises(ConfigError, match="vqa-rad: no training records for stage 1, which takes texts about one"):
        _ = opened({"path": imported / "vqa-rad", "stages": [1, 3], "share": 0.5}).records


@pytest.mark.parametrize(
    ("form", "truth", "text", "scores"),
    [
        ("closed", "Yes", "Yes, there is one.", {"closed": 1}),
        ("closed", "no", "Yes.", {"closed": 0}),
        ("closed", "Left", "the left.", {"closed": 1}),
        ("closed", "Left", "", {"closed": 0}),
        ("choice", "A: a cat", "a: a dog", {"choice": 1}),
        ("choice", "A: a cat", "B: a cat", {"choice": 0}),
        ("choice", "A: a cat", "Axial", {"choice": 0}),
        ("open", "the left lobe", "Left upper lobe.", {"open exact": 0, "open F1": 0.8}),
        ("open", "0m2", "0m2", {"open exact": 1, "open F1": 1}),
        ("text", "A plane stands", "two ships", {"text F1": 0}),
        ("box", "[0, 0, 100, 100]", "[0, 0, 100, 60]", {"box IoU >= 0.5": 1}),
        ("box", "[0, 0, 100, 100]", "[60, 0, 160, 100]", {"box IoU >= 0.5": 0}),
        ("box", "[0, 0, 100, 100]", "somewhere", {"box IoU >= 0.5": 0}),
    ],
)
def test_answers_are_graded_by_rule(form, truth, text, scores):
    assert graded(form, truth, text) == pytest.approx(scores)
