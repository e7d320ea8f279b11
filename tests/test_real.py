"""Real files: what the importer makes of them, and the baselines that models are measured against."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image as Pillow

from curriculum.data.corpus import Item, divide
from curriculum.data.manifest import read_manifest
from curriculum.evaluation.baselines import Majority, Probe, Taught
from curriculum.evaluation.grading import grade
from curriculum.recipe import DataConfig, Recipe
from fovea import registry
from fovea.config import load
from fovea.errors import ConfigError
from fovea.types import Question, Reply, Sample, Study
from fovea.verbal import NONE

DOMAINS = ("radiology", "remote_sensing")
FRONTAL = ("PA", "AP", "AP Supine")


@cache
def read(repository: Path, data: Path, domain: str) -> tuple[Recipe, list[Sample]]:
    recipe = load(Recipe, repository / "configs" / "real" / f"{domain}.yaml", [f"data.path={data}"])
    return recipe, read_manifest(recipe.data, registry.domain(domain))


@pytest.fixture(scope="module")
def real(repository, data_dir):
    """A domain to its real recipe and the samples that the importer makes for it."""
    return lambda domain: read(repository, data_dir, domain)


@pytest.fixture(scope="module")
def rows(data_dir) -> list[dict]:
    return [json.loads(line) for line in (data_dir / "manifest.jsonl").read_text().splitlines()]


def pixels(path: str) -> np.ndarray:
    with Pillow.open(path) as picture:
        return np.asarray(picture.convert("L")).astype(float)


def test_every_frontal_radiograph_with_a_diagnosis_is_read_once(real, rows):
    _, samples = real("radiology")
    usable = [
        Path(row["path"]).stem
        for row in rows
        if row["path"].startswith("med/cxr_") and row["kind"] == "xray"
        if row["label"]["view"] in FRONTAL and row["label"]["finding"]
    ]
    assert sorted(Path(sample.path).stem for sample in samples) == sorted(set(usable))
    masked = sum(row["path"].startswith("med/cxr_seg/") for row in rows)
    assert sum("/cxr_seg/" in sample.path for sample in samples) == masked


def test_every_aerial_picture_is_read(real, rows):
    _, samples = real("remote_sensing")
    wanted = [Path(row["path"]).name for row in rows if row["path"].startswith("rs/dubai_")]
    assert sorted(Path(sample.path).name for sample in samples) == sorted(wanted)


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_group_is_in_two_splits(real, domain):
    recipe, samples = real(domain)
    nothing = Study(domain, (), None, {})
    items = [Item(nothing, s.path, s.group, "train", "", s.facts, (), None, Path()) for s in samples]
    groups = {
        split: {i.group for i in divide(items, recipe) if i.split == split} for split in ("train", "validation", "test")
    }
    assert all(groups.values())
    assert sum(map(len, groups.values())) == len({sample.group for sample in samples})
    assert len(groups["test"]) > 1, "an interval over groups needs two"


def test_no_radiograph_is_in_two_groups(real):
    _, samples = real("radiology")
    small = []
    for sample in samples:
        with Pillow.open(sample.path) as picture:
            thumb = np.asarray(picture.convert("L").resize((32, 32))).astype(float).ravel()
        small.append((thumb - thumb.mean()) / thumb.std())
    alike = np.stack(small) @ np.stack(small).T / 1024 > 0.98
    assert alike.sum() > len(samples), "one patient's radiographs were published twice"
    assert all(samples[a].group == samples[b].group for a, b in np.argwhere(alike))


def test_a_part_of_a_scene_is_in_the_group_of_the_scene(real):
    _, samples = real("remote_sensing")
    scenes = {Path(s.path).stem: s for s in samples if "image_part" in s.path}
    chips = [sample for sample in samples if "image_part" not in sample.path]
    for chip in chips:
        tile, part, _, _ = Path(chip.path).stem.split("_")
        assert chip.group == scenes[f"{tile}_image_part_{part}"].group
    for chip in Random(0).sample(chips, 12):  # the part is where its name says
        tile, part, top, left = Path(chip.path).stem.split("_")
        whole = pixels(scenes[f"{tile}_image_part_{part}"].path)[int(top) :, int(left) :][:144, :144]
        assert abs(whole - pixels(chip.path)).mean() < 5


@pytest.mark.parametrize("domain", DOMAINS)
def test_masks_fit_their_picture(real, domain):
    _, samples = real(domain)
    drawn = 0
    for sample in samples:
        masks = {f.label: f.region.data for f in sample.facts.findings if f.region}
        with Pillow.open(sample.path) as picture:
            assert all(mask.shape == (1, *reversed(picture.size)) and mask.any() for mask in masks.values())
        drawn += bool(masks)
        if {"left_lung", "right_lung"} <= set(masks):  # the patient's left is at the picture's right
            assert np.argwhere(masks["left_lung"])[:, 2].mean() > np.argwhere(masks["right_lung"])[:, 2].mean()
    assert drawn == (36 if domain == "radiology" else len(samples))


def test_shares_of_land_cover_are_those_of_the_manifest(real, rows):
    _, samples = real("remote_sensing")
    told = {Path(row["path"]).stem: row["label"]["fractions"] for row in rows if row["path"].startswith("rs/dubai_")}
    for sample in samples:
        fractions = told[Path(sample.path).stem]
        for name, label in {"water": "water", "land": "bare_soil", "road": "road"}.items():
            found = sample.facts.finding(label)
            share = found.measure("fraction").value if found else 0.0
            assert share == pytest.approx(fractions[name], abs=0.0011 if found else 0.0101)


def test_a_diagnosis_is_what_the_manifest_says(real, rows):
    _, samples = real("radiology")
    told = {Path(row["path"]).stem: row["label"]["finding"] for row in rows if row["path"].startswith("med/cxr_")}
    words = {
        "covid_19": "COVID-19",
        "acute_respiratory_distress_syndrome": "ARDS",
        "pneumocystis_pneumonia": "Pneumocystis",
    }
    for sample in samples:
        diagnosis = told[Path(sample.path).stem]
        for label, word in words.items():
            assert (sample.facts.finding(label) is not None) == (word in diagnosis)
            assert label in sample.facts.assessed or diagnosis in ("Pneumonia", "Bacterial")


def manifest(folder: Path, *rows: dict) -> DataConfig:
    """A folder with grey pictures of 40 x 30 pixels and what a manifest says of them."""
    for row in rows:
        (folder / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)).save(folder / row["path"])
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return DataConfig(source="manifest", path=folder, folders=("med/cxr_findings", "med/cxr_seg"))


def radiograph(name: str, **label: object) -> dict:
    known = {"finding": "COVID-19", "view": "PA", "sex": "F", "age": "971", **label}
    return {
        "path": f"med/cxr_findings/{name}.png",
        "kind": "xray",
        "label": known,
        "group": name,
        "text": "zebra fever",
    }


def test_what_is_of_no_use_is_left_out(tmp_path):
    config = manifest(
        tmp_path,
        radiograph("good"),
        radiograph("side", view="L"),
        radiograph("unknown", finding=None),
        radiograph("slice") | {"kind": "ct_slice"},
    )
    assert [Path(s.path).stem for s in read_manifest(config, registry.domain("radiology"))] == ["good"]


def test_notes_never_become_text(tmp_path):
    domain = registry.domain("radiology")
    (sample,) = read_manifest(manifest(tmp_path, radiograph("good")), domain)
    study, rng = domain.load(Path(sample.path)), Random(0)
    said = [domain.describe(study)]
    for _ in range(30):
        questions = domain.questions(study, sample.facts, rng)
        said += [domain.caption(study, sample.facts, rng), *(q.text for q in questions)]
        said += [domain.answer(q, sample.facts).text for q in questions]
    assert "COVID-19" in " ".join(said)
    assert not [text for text in said if "zebra" in text or "fever" in text or "971" in text]


def test_a_picture_in_two_folders_is_one_study_with_the_facts_of_both(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[5:25, 3:18] = 255
    both = radiograph("one") | {"path": "med/cxr_seg/one.png"}
    both["label"] = {**both["label"], "finding": "ARDS", "masks": {"right_lung": "one__r.png", "tubings": "one__t.png"}}
    config = manifest(tmp_path, radiograph("one"), both)
    for letter in "rt":
        Pillow.fromarray(mask).save(tmp_path / "med" / "cxr_seg" / f"one__{letter}.png")
    (sample,) = read_manifest(config, registry.domain("radiology"))
    assert sample.path.endswith("cxr_seg/one.png")
    present = {finding.label for finding in sample.facts.findings}
    assert present == {"right_lung", "support_device", "acute_respiratory_distress_syndrome", "pneumonia"}
    assert sample.facts.assessed >= {"covid_19", "consolidation"}
    assert "left_lung" not in sample.facts.assessed, "an organ without a mask was not drawn"


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_real_recipe_asks_for_its_folder(repository, domain):
    recipe = load(Recipe, repository / "configs" / "real" / f"{domain}.yaml")
    with pytest.raises(ConfigError, match=r"data\.path=FOLDER"):
        read_manifest(recipe.data, registry.domain(domain))


WATER = Question("presence", "Is there water?", "water")
SHARE = Question("area", "What share is water?", "water", "fraction")


def yes_or_no(value: bool) -> Reply:
    return Reply("Yes, there is water." if value else "No, there is no water.", value)


def test_majority_gives_the_most_frequent_answer_and_the_median_number():
    taught = [Taught(str(n), WATER, yes_or_no(n < 3)) for n in range(8)]
    taught += [Taught(str(n), SHARE, Reply(f"Water covers {n} %.", float(n), "%")) for n in (1, 2, 90)]
    taught += [Taught("none", SHARE, Reply("There is no water.", NONE))]
    taught += [Taught("r", Question("report", "Report."), Reply("No water.", frozenset()))]
    majority = Majority(taught)
    assert majority.answer(WATER) == "No, there is no water."
    assert majority.answer(SHARE) == "Water covers 2 %."
    assert majority.answer(Question("report", "Describe it.")) == "No water."
    assert majority.answer(Question("presence", "Is there a road?", "road")) == "No, there is no water."
    assert majority.answer(Question("side", "Where is it?", "water")) == ""


def test_a_probe_reads_what_the_features_tell():
    rng = np.random.default_rng(0)
    features = {str(n): rng.normal(size=24).astype(np.float32) for n in range(240)}
    truth = {name: yes_or_no(bool(vector[3] > 0.2)) for name, vector in features.items()}
    numbers = {name: float(np.exp(3 + vector[5])) for name, vector in features.items()}
    train, test = list(features)[:160], list(features)[160:]
    taught = [Taught(name, WATER, truth[name]) for name in train]
    taught += [Taught(name, SHARE, Reply(f"Water covers {numbers[name]} %.", numbers[name], "%")) for name in train]
    probe, majority = Probe(taught, features), Majority(taught)
    vocabulary = registry.domain("remote_sensing").vocabulary

    def right(question: Question, answers: dict[str, Reply], text) -> float:
        return float(np.mean([grade(question, answers[name], text(name), vocabulary, 0.2) for name in test]))

    shares = {name: Reply("", value, "%") for name, value in numbers.items()}
    assert right(WATER, truth, lambda name: probe.answer(name, WATER)) > 0.9
    assert right(WATER, truth, lambda _: majority.answer(WATER)) < 0.7
    assert right(SHARE, shares, lambda name: probe.answer(name, SHARE)) > 0.9
    assert right(SHARE, shares, lambda _: majority.answer(SHARE)) < 0.4


def test_a_probe_is_silent_where_it_learned_nothing():
    features = {str(n): np.ones(4, np.float32) for n in range(12)}
    taught = [Taught(name, WATER, yes_or_no(True)) for name in features]
    taught += [Taught(name, Question("report", "Report."), Reply("No water.", frozenset())) for name in features]
    probe = Probe(taught, features)
    assert probe.answer("0", WATER) == ""
    assert probe.answer("0", Question("report", "Report.")) == ""
    assert probe.answer("0", SHARE) == ""
