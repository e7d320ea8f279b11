"""Similar studies: exact search, calibrated votes, and what a collection keeps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import scenes
import torch

from experts import retrieval
from fovea.errors import ConfigError, ExpertError, ModelError
from fovea.testing import ExpertContract
from fovea.types import Code, Facts, Finding, Origin

CODE = Code("99FOVEA", "striped", "striped")
CONFIG = retrieval.RetrievalConfig(modalities=("optical",), k=5)
NAME = "doe_jane_19700101"


def picture(striped, seed, side=64):
    """Stripes or discs on noise, with random phase, brightness and colour."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    if striped:
        pattern = np.sin(2 * np.pi * (rows / rng.uniform(7, 10) + rng.random()))
    else:
        pattern = np.zeros((side, side))
        for y, x in rng.uniform(5, side - 5, (6, 2)):
            pattern[np.hypot(rows - y, columns - x) < 6] = 1
    base = pattern * rng.uniform(0.5, 1) + 0.1 * rng.normal(size=(side, side))
    bands = {name: (base * rng.uniform(0.8, 1.2) + 1).astype(np.float32) for name in ("red", "green", "blue")}
    return scenes.study(scenes.optical(bands, scenes.scene_grid(side, side)), sensor="S2", place=NAME)


def facts(striped):
    found = (Finding("striped", CODE, True, 1.0, Origin("truth", "1")),) if striped else ()
    return Facts(found, frozenset({"striped"}))


def items(n=40, first=0):
    return [(picture(i % 2 == 0, first + i), facts(i % 2 == 0), f"{NAME}-{i}") for i in range(n)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("collection")
    retrieval.build(CONFIG, items(), made)
    return made


class TestRetrieval(ExpertContract):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls, folder):
        return retrieval.open(folder)

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        return picture(True, 1000)


def test_unseen_studies_get_the_label_of_their_like(folder):
    expert = retrieval.open(folder)
    for seed in range(500, 510):
        for striped in (True, False):
            finding = expert.run(picture(striped, seed), "striped")[0]
            assert finding.present == striped
            assert finding.code == CODE
            assert finding.measure("neighbours").value == CONFIG.k
            assert finding.measure("neighbours_showing").value == pytest.approx(CONFIG.k * striped, abs=1)
    rows = {row.metric: row.value for row in expert.card.performance}
    assert rows["auroc"] > 0.95
    assert rows["ece"] < 0.2  # few studies: Platt is cautious


def test_the_search_is_exact_and_in_order(folder):
    expert, study = retrieval.open(folder), picture(True, 77)
    near = expert.neighbours(study)
    vectors = {item.id: retrieval.describe(item) for item, _, _ in items()}
    mean = np.mean(list(vectors.values()), 0)
    unit = lambda v: (v - mean) / np.linalg.norm(v - mean)  # noqa: E731
    cosines = {key: float(unit(v) @ unit(retrieval.describe(study))) for key, v in vectors.items()}
    wanted = sorted(cosines, key=lambda key: -cosines[key])[: CONFIG.k]
    assert [other.id for other in near] == wanted
    assert [other.cosine for other in near] == pytest.approx([cosines[key] for key in wanted], abs=1e-5)


def test_a_study_never_votes_on_itself(folder):
    expert, own = retrieval.open(folder), picture(True, 0)
    assert own.id in {other.id for other in expert.collection.studies}
    assert own.id not in {other.id for other in expert.neighbours(own)}


def test_studies_of_a_patient_do_not_vote_on_each_other(tmp_path):
    """Labels that only copies share cannot be told from others: what looks perfect by copies is chance."""
    rng = np.random.default_rng(0)
    pairs, truth = [], rng.random(20) < 0.5
    for i in range(20):
        for copy in range(2):
            study = picture(True, i)
            pixels = study.images[0].pixels + np.float32(1e-4 * copy)
            bands = dict(zip(("red", "green", "blue"), pixels[:, 0], strict=True))
            again = scenes.study(scenes.optical(bands, study.images[0].grid))
            pairs.append((again, facts(bool(truth[i])), f"patient-{i}"))
    config = CONFIG.model_copy(update={"k": 1})
    grouped = retrieval.build(config, pairs, tmp_path / "a")
    apart = retrieval.build(config, [(s, f, str(n)) for n, (s, f, _) in enumerate(pairs)], tmp_path / "b")
    auroc = [next(r.value for r in card.performance if r.metric == "auroc") for card in (grouped, apart)]
    assert auroc[1] == 1
    assert auroc[0] < 0.9


def test_brightness_and_contrast_do_not_matter():
    study = picture(True, 3)
    image = study.images[0]
    bands = dict(zip(("red", "green", "blue"), 40 * image.pixels[:, 0] + 7, strict=True))
    other = scenes.study(scenes.optical(bands, image.grid))
    np.testing.assert_allclose(retrieval.describe(other), retrieval.describe(study), atol=1e-3)
    assert retrieval.describe(study).shape == (424,)
    volume = scenes.study(scenes.volume(np.random.default_rng(0).normal(size=(5, 40, 30)).astype(np.float32)))
    assert retrieval.describe(volume).shape == (424,)
    with pytest.raises(ExpertError, match="without data"):
        retrieval.describe(scenes.study(replace(image, read=lambda w, s: (image.pixels, ~image.valid))))


def test_labels_that_were_not_looked_for_do_not_vote():
    known = retrieval.Neighbour("a", 0.9, ("striped",), ("striped",))
    silent = retrieval.Neighbour("b", 0.99, (), ())
    assert retrieval.vote("striped", [silent, known], 0.5, 0.1) == retrieval.vote("striped", [known], 0.5, 0.1)
    assert retrieval.vote("striped", [silent], 0.5, 0.1) == pytest.approx(0)
    near, far = (retrieval.vote("striped", [replace(known, cosine=c)], 0.5, 0.1) for c in (0.95, 0.5))
    assert near > far > 0


def test_a_collection_keeps_no_names(folder):
    for path in folder.iterdir():
        assert NAME.encode() not in path.read_bytes()
    line = json.loads((folder / "studies.jsonl").read_text().splitlines()[0])
    assert line["facts"] == {"modality": "optical", "sensor": "S2"}
    assert not list(folder.glob(".partial-*"))


def test_a_tower_may_be_given(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
    ).eval()

    def tower(study):
        with torch.inference_mode():
            return network(torch.from_numpy(study.images[0].pixels[:, 0])[None]).flatten().numpy()

    config = CONFIG.model_copy(update={"tower": "random convolutions"})
    retrieval.build(config, items(10), tmp_path, tower)
    assert retrieval.open(tmp_path, tower).run(picture(True, 50), "all")
    with pytest.raises(ModelError, match="random convolutions"):
        retrieval.open(tmp_path)
    wrong = retrieval.open(tmp_path, lambda study: tower(study)[:3])
    with pytest.raises(ExpertError, match="8, as in"):
        wrong.run(picture(True, 50), "all")
    with pytest.raises(ExpertError, match="finite"):
        retrieval.embed(lambda _: np.array([np.nan]), picture(True, 0))
    with pytest.raises(ConfigError, match="tower"):
        retrieval.build(CONFIG, items(4), tmp_path / "other", tower)


def test_the_version_is_that_of_the_files(folder, tmp_path):
    same = retrieval.build(CONFIG, items(), tmp_path / "same")
    other = retrieval.build(CONFIG, items(8), tmp_path / "other")
    assert same.version == retrieval.open(folder).card.version != other.version


@pytest.mark.parametrize(
    "name", ["studies.jsonl", "embeddings.safetensors", "calibration.json", "card.json", "config.json"]
)
def test_damaged_collections_are_model_errors(folder, tmp_path, name):
    for number, content in enumerate((b"", b"{", b"[1]\n", None)):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        if content is None:
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(content)
        with pytest.raises(ModelError) as error:
            retrieval.open(copy)
        assert tmp_path.name not in str(error.value)
    with pytest.raises(ModelError):
        retrieval.open(None)


def test_too_little_is_no_collection(tmp_path):
    with pytest.raises(ConfigError, match="two studies"):
        retrieval.build(CONFIG, items(1), tmp_path)
    with pytest.raises(ConfigError):
        retrieval.build(CONFIG, [items(1)[0]] * 5, tmp_path)  # five times the same
    assert not list(tmp_path.iterdir())
