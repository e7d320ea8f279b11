"""A recipe from beginning to end: studies, experts, four stages, evaluation, registered model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import overload

from curriculum import stage1_vision, stage2_alignment, stage3_instruction, stage4_expert
from curriculum.assistant import save_assistant
from curriculum.data.corpus import Item, open_study
from curriculum.evaluation import evaluate
from curriculum.parts.memory import release
from curriculum.recipe import Recipe
from curriculum.reliability import draw_reliability
from curriculum.tracking import Tracker
from curriculum.workshop import Workshop
from fovea import __version__, registry
from fovea.contracts import Domain
from fovea.errors import ConfigError
from fovea.types import ExpertCard, Facts, Study
from models.weights import write_json

_METRIC = re.compile(r"[^\w./ -]+")
"""What MLflow does not take in the name of a metric."""

STAGES: dict[int, Callable[[Workshop, bool], Path]] = {
    1: stage1_vision.train,
    2: stage2_alignment.train,
    3: stage3_instruction.train,
    4: stage4_expert.train,
}


def synth(recipe: Recipe) -> None:
    """Make or import the studies of a recipe."""
    _ = Workshop(recipe, Tracker(recipe, "")).corpus


def train_experts(recipe: Recipe) -> None:
    """Train the experts that are not trained yet, on the training split, calibrated on the validation split."""
    shop = Workshop(recipe, Tracker.open(recipe))
    for config in recipe.experts:
        folder = recipe.out / "experts" / config.name
        wanted = f"{config.model_dump_json()} {recipe.seed} {shop.corpus.digest}"
        note = folder / "recipe.txt"
        if note.exists() and note.read_text() == wanted:
            continue
        kind = registry.expert_kind(config.kind)
        teach = getattr(kind, "train", None)
        if teach is None:
            raise ConfigError(f"expert kind {config.kind!r} cannot be trained", "a kind with `train`")
        with shop.tracker.stage(f"expert {config.name}", {"config": config.model_dump_json()}):
            shop.tracker.dataset(shop.corpus.digest, {})
            coded = config.coded(shop.domain.vocabulary)
            known = [i for i in shop.corpus.items if not i.facts.assessed.isdisjoint(config.labels)]
            chosen = [i for i in known if i.modality in config.modalities]
            pairs = [
                Pairs(shop.domain, tuple(item for item in chosen if item.split == split))
                for split in ("train", "validation")
            ]
            card = teach(
                coded, *pairs, folder, recipe.seed, log=lambda name, value, step: shop.tracker.log({name: value}, step)
            )
            _log_expert(shop.tracker, card, folder)
        note.write_text(wanted)
        release()


def _log_expert(tracker: Tracker, card: ExpertCard, folder: Path) -> None:
    """How good an expert is, with its files, beside the open stage: card, calibration, and reliability diagram."""
    figures = {f"{row.label}/{row.metric}": row.value for row in card.performance}
    tracker.log({_METRIC.sub("_", name): value for name, value in figures.items()})
    tracker.artifact(folder / "card.json")
    tracker.artifact(folder / "calibration.json")
    if (folder / "reliability.json").exists():
        tracker.artifact(draw_reliability(folder))


def train(recipe: Recipe, stages: Sequence[int] | None = None, resume: bool = False) -> Path:
    """Run the recipe. Without `stages` everything that is not done yet, up to the evaluation and the registered model.

    A finished stage is done again when its settings or the stage before it changed; with `resume` an unfinished one
    goes on from its checkpoint.
    """
    shop = Workshop(recipe, Tracker.open(recipe))
    _ = shop.records  # what is wrong with an imported set is told before anything is trained
    train_experts(recipe)
    for number in stages or STAGES:
        if number not in STAGES:
            raise ConfigError(f"stage {number}", "1, 2, 3 or 4")
        if stages is None and _finished(shop, number):
            continue
        _stage(shop, number, resume)
    if stages is None and not (recipe.out / "evaluation.csv").exists():
        evaluate(recipe)
        _register(shop)
    return recipe.out


def _stage(shop: Workshop, number: int, resume: bool) -> None:
    recipe, folder = shop.recipe, shop.folder(number)
    config, _ = recipe.stage(number)
    if number > 1 and not (shop.folder(number - 1) / "record.json").exists():
        raise ConfigError(
            f"stage {number} without stage {number - 1}", "the stage before it", f"Train stage {number - 1} first."
        )
    print(shop.inherited(number), flush=True)
    settings = {**config.model_dump(), "recipe": recipe.model_dump_json()}
    mixed = {f"records.{found.name}": found.cited for found in shop.mixed(number)}
    with shop.tracker.stage(f"stage {number}", settings | mixed):
        shop.tracker.dataset(
            shop.corpus.digest, {s: len(shop.corpus.split(s)) for s in ("train", "validation", "test")}
        )
        STAGES[number](shop, resume)
        (recipe.out / "evaluation.csv").unlink(missing_ok=True)
        write_json(folder / "record.json", _record(shop, number))
        shop.tracker.artifact(folder / "record.json")
        if number >= 3:
            experts = shop.expert_folders if number == 4 else {}
            save_assistant(folder / "assistant", recipe.domain, folder / "model", experts, recipe.dialogues.overlay)
    release()


def _record(shop: Workshop, number: int) -> dict[str, object]:
    """What stands beside a checkpoint, so that it cannot be mistaken for another."""
    config, inherited = shop.recipe.stage(number)
    before = shop.folder(number - 1) / "record.json"
    return {
        "stage": number,
        "config": config.model_dump(mode="json"),
        "inherited": sorted(inherited),
        "recipe": shop.recipe.model_dump(mode="json"),
        "data_digest": shop.corpus.digest,
        "records": [found.provenance() for found in shop.records if min(found.config.stages) <= number],
        "parent": json.loads(before.read_text())["id"] if number > 1 else None,
        "id": _id(shop, number),
        "licence": shop.recipe.licence,
        "fovea": __version__,
        "date": date.today().isoformat(),
    }


def _id(shop: Workshop, number: int) -> str:
    """What decides a stage's outcome: data, seed, and the settings of it and of all before it."""
    recipe = shop.recipe
    own = [recipe.stage(n)[0].model_dump_json() for n in range(1, number + 1)]
    model = [str(recipe.clip), str(recipe.decoder), str(recipe.tower), recipe.factor, recipe.seed, recipe.vocabulary]
    ready = {expert.name for expert in recipe.ready_experts} if number == 4 else set()
    versions = [f"{card.name}@{card.version}" for card in (shop.cards if ready else ()) if card.name in ready]
    trained = [expert.model_dump_json() for expert in recipe.experts]
    last = [recipe.dialogues.model_dump_json(), *trained, *versions] if number == 4 else []
    decided = [shop.corpus.digest, own, model, last]
    for found in shop.records:
        stages = sorted(n for n in found.config.stages if n <= number)
        if stages or not recipe.tokenizer:  # a tokenizer of our own has read them all
            decided.append([found.digest, stages, found.config.share if stages else 0])
    return sha256(json.dumps(decided, default=str).encode()).hexdigest()


def _finished(shop: Workshop, number: int) -> bool:
    record = shop.folder(number) / "record.json"
    return record.exists() and json.loads(record.read_text())["id"] == _id(shop, number)


def _register(shop: Workshop) -> None:
    folder = shop.folder(4)
    table = (shop.recipe.out / "evaluation.csv").read_text()
    card = model_card(shop, table)
    (folder / "model_card.md").write_text(card)
    with shop.tracker.stage("registration", {"folder": folder.name}):
        print(f"registered as {shop.tracker.register(folder / 'assistant', card)}", flush=True)


def model_card(shop: Workshop, table: str) -> str:
    """What the model is, what it was made from, and how well it does."""
    experts = "\n".join(f"- {card.name}@{card.version}: {card.task}" for card in shop.cards)
    sizes = ", ".join(f"{len(shop.corpus.split(s))} {s}" for s in ("train", "validation", "test"))
    records = "".join(f"- Imported set {found.name}: {found.cited}\n" for found in shop.records)
    return (
        f"# fovea-{shop.recipe.domain}\n\nA draft-writing model for {shop.recipe.domain.replace('_', ' ')}. "
        "Research use; not a medical device.\n\n"
        f"- Data: {shop.recipe.data.source}, {sizes} studies, split by patient or place, "
        f"digest {shop.corpus.digest[:16]}\n"
        f"- Licence: {shop.recipe.licence}\n{records}\n## Experts\n\n{experts}\n\n"
        f"## Evaluation on held-out studies\n\n```\n{table}```\n"
    )


@dataclass(frozen=True, eq=False)
class Pairs(Sequence[tuple[Study, Facts]]):
    """Studies with their true regions, read one by one as they are asked for."""

    domain: Domain
    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, at: int) -> tuple[Study, Facts]: ...
    @overload
    def __getitem__(self, at: slice) -> Pairs: ...
    def __getitem__(self, at: int | slice) -> tuple[Study, Facts] | Pairs:
        if isinstance(at, slice):
            return Pairs(self.domain, self.items[at])
        return open_study(self.domain, self.items[at]), self.items[at].truth()
