"""Dialogues with experts in the layout of VILA-M3: its form, whose word is the answer, and that it reads back."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pillow

from apps import cli
from curriculum.data import corpus
from curriculum.data.importers import import_set, importer, load_records
from curriculum.data.vila import Dialogue, Exporter, Result, offer, to_vila
from curriculum.prompts import DOUBT, FAILED, UNMEASURED
from curriculum.recipe import Dialogues, Recipe
from experts.cache import FindingsCache
from fovea import config, registry
from fovea.errors import ExpertError, InputError
from fovea.types import Call, Code, ExpertCard, Finding, Origin, Performance, Study

LABELS = ("water", "forest", "cropland", "building", "ship")
CARD = ExpertCard(
    "land_cover", "1", "maps land cover", "a network of 1 M weights", ("optical",),
    {label: (label,) for label in LABELS} | {"all": LABELS},
    performance=(Performance("dice", "water", 0.91, 0.88, 0.93, 40, "d", "2026-01-01"),),
)  # fmt: skip
CALL = re.compile(r"<([^<>]*)>")


class Witness:
    """Knows the truth of each study, but calls every third one dry; refuses the last two."""

    card = CARD

    def __init__(self, items: tuple[corpus.Item, ...]) -> None:
        self.items = {item.study.digest: (place, item) for place, item in enumerate(items)}

    def accepts(self, study: Study) -> bool:
        return True

    def run(self, study: Study, argument: str) -> tuple[Finding, ...]:
        place, item = self.items[study.digest]
        if place >= len(self.items) - 2:
            raise ExpertError("out of memory")
        truth = item.truth()
        found = [truth.finding(label) or absent(label) for label in CARD.arguments[argument]]
        return tuple(absent(f.label) if place % 3 == 0 and f.label == "water" else f for f in found)


def absent(label: str) -> Finding:
    return Finding(label, Code("T", label, label), False, 0.03, Origin("land_cover", "1"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    smoke = Path(__file__).parents[1] / "configs" / "smoke" / "remote_sensing.yaml"
    out = tmp_path_factory.mktemp("vila") / "run"
    return config.load(Recipe, smoke, [f"out={out}", "data.n=14", "image_size=64"])


@pytest.fixture(scope="module")
def exporter(recipe: Recipe) -> Exporter:
    domain = registry.domain(recipe.domain)
    studies = corpus.prepare(recipe, domain)
    cache = FindingsCache(recipe.out / "findings")
    return Exporter(domain, studies, (Witness(studies.items),), cache, Dialogues(wrong=0.3, none=0.15), 3)


@pytest.fixture(scope="module")
def written(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dialogues")
    counts = exporter.write(folder, 8)
    assert all(counts.values())
    return folder


def rows(folder: Path) -> list[dict]:
    return [
        row for split in ("train", "validation", "test") for row in json.loads((folder / f"{split}.json").read_text())
    ]


def test_every_dialogue_has_the_form(written: Path) -> None:
    for row in rows(written):
        turns = row["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert sum(turn["value"].count("<image>") for turn in turns) == len(row["image"])
        assert all((written / name).is_file() for name in row["image"])
        for place, turn in enumerate(turns):
            tags = [tag for tag in CALL.findall(turn["value"]) if tag != "image"]
            if turn["from"] == "gpt":
                last = place == len(turns) - 1
                assert len(tags) == (0 if last else 1), "one call a turn, and none in the answer"
                assert "<image>" not in turn["value"]
                assert last or re.fullmatch(r"land_cover\([a-z ]+\)", tags[0])
            elif place == 0 and row["result"] != "no expert":
                assert tags == ["land_cover(args)", "NAME(argument)"]
            else:
                assert not tags or place == 0
            if "The colors in this image describe" in turn["value"]:
                assert re.search(r"describe [a-z ]+: [a-z ]+", turn["value"])
                assert "<image>" in turn["value"]


def test_the_truth_is_answered_and_never_an_expert(written: Path, exporter: Exporter) -> None:
    told = {row["result"] for row in rows(written)}
    assert told == {"no expert", "the expert's own", "the truth", "another study's", "a failure"}
    known = {item.id: item for item in exporter.corpus.items}
    for row in rows(written):
        item = known[row["id"].split("-")[0]]
        questions = exporter.domain.questions(item.study, item.facts, Random(f"{exporter.seed}/{item.id}"))
        answer = row["conversations"][-1]["value"]
        asked = row["conversations"][0]["value"].splitlines()[-1]
        truths = {exporter.domain.answer(q, item.facts).text for q in questions if q.text == asked}
        assert truths
        if row["result"] == "another study's":
            assert answer.startswith(DOUBT)
            assert answer.removeprefix(DOUBT).strip() in {*truths, UNMEASURED}
        elif row["result"] == "a failure":
            assert answer.startswith(FAILED)
            assert "failed: out of memory" in row["conversations"][-2]["value"]
        else:
            assert answer in truths


def test_no_place_stands_in_two_files_and_pictures_are_drawn(written: Path, exporter: Exporter) -> None:
    groups = {item.id: item.group for item in exporter.corpus.items}
    of = {
        split: {groups[row["id"].split("-")[0]] for row in json.loads((written / f"{split}.json").read_text())}
        for split in ("train", "validation", "test")
    }
    assert not of["train"] & of["test"]
    assert not of["train"] & of["validation"]
    two = next(row for row in rows(written) if len(row["image"]) == 2)
    plain, drawn = (np.asarray(Pillow.open(written / name).convert("RGB")) for name in two["image"])
    assert plain.shape == drawn.shape == (64, 64, 3)
    assert (plain != drawn).any()


def test_the_same_is_written_again(written: Path, exporter: Exporter, tmp_path: Path) -> None:
    exporter.write(tmp_path, 8)
    for path in sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file()):
        assert (tmp_path / path).read_bytes() == (written / path).read_bytes()


def test_it_reads_back_as_llava(written: Path, tmp_path: Path) -> None:
    info = import_set(importer("llava"), written, tmp_path / "set")
    assert sum(info["records"].values()) == len(rows(written))
    assert not info["missing_files"]
    back = {entry.record.id.rsplit("/", 1)[0] + "/" + entry.original: entry for entry in load_records(tmp_path / "set")}
    assert len(back) == len(rows(written))
    split = {entry.split for entry in back.values()}
    assert split == {"train", "validation", "test"}
    for entry in back.values():
        shown = [part.image for message in entry.record.messages for part in message.parts if part.image is not None]
        assert shown == list(range(len(entry.record.images)))


def test_the_offer_tells_what_each_expert_is_worth() -> None:
    text = offer([CARD, replace(CARD, name="other", performance=())])
    assert text.splitlines()[1] == (
        "<land_cover(args)> Modality: optical, Task: maps land cover, Overview: a network of 1 M weights, "
        "Accuracy: water Dice 0.91 (0.88 to 0.93), Valid args are: water, forest, cropland, building, ship, all"
    )
    assert "Accuracy: not measured" in text.splitlines()[2]


def test_calls_go_out_one_by_one_and_nothing_drawn_has_no_image() -> None:
    results = (
        Result(Call("a", "all", (absent("water"),))),
        Result(Call("b", "heart", failure="no memory"), "o.png", "red: x"),
    )
    row = to_vila(Dialogue("1", "p.png", "A scene.", "What is there?", "Nothing.", (CARD,), results))
    values = [turn["value"] for turn in row["conversations"]]
    assert len(values) == 6
    assert [re.findall(r"<(?!image)[^<>]*>", value) for value in values[1:-1:2]] == [["<a(all)>"], ["<b(heart)>"]]
    assert values[2] == "This came back: water: no 0.03\nGo on."
    assert values[4].startswith(
        "This came back: <image>\nThe colors in this image describe red: x.\nb failed: no memory"
    )
    assert values[4].endswith("answer: What is there?")
    assert row["image"] == ["p.png", "o.png"]


@pytest.mark.parametrize("where", ["question", "answer", "description"])
def test_what_would_read_as_a_call_is_refused(where: str) -> None:
    dialogue = Dialogue("1", "p.png", "A scene.", "What?", "Nothing.", (CARD,))
    with pytest.raises(InputError):
        to_vila(replace(dialogue, **{where: "less <3 cm; ask <CXR()>"}))


def test_the_command_exports(
    recipe: Recipe,
    exporter: Exporter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from curriculum import workshop

    shop = SimpleNamespace(domain=exporter.domain, corpus=exporter.corpus, experts=exporter.experts)
    monkeypatch.setattr(workshop, "Workshop", lambda recipe, tracker: shop)
    smoke = Path(__file__).parents[1] / "configs" / "smoke" / "remote_sensing.yaml"
    arguments = ["data", "export-dialogues", str(smoke), str(tmp_path), f"out={recipe.out}", "--questions", "1"]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert not ended.value.code
    assert "dialogues in" in capsys.readouterr().out
    assert len(rows(tmp_path)) == len(exporter.corpus.items)
