"""What every stage needs in hand: recipe, domain, studies, tokenizer, experts' findings, tracking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from curriculum.data.corpus import Corpus, prepare
from curriculum.data.dialogues import Writer
from curriculum.data.findings import Findings, consult, true_overlays
from curriculum.data.mix import Deck
from curriculum.data.records import RecordSet, open_sets
from curriculum.prompts import ALONE, DESCRIBE, DOUBT, FAILED, UNMEASURED
from curriculum.recipe import Recipe
from curriculum.tracking import Tracker
from experts.cache import FindingsCache
from fovea import registry
from fovea.contracts import Domain, Expert
from fovea.errors import ConfigError
from fovea.types import Bytes, ExpertCard, Record
from fovea.verbal import describe_call, describe_card
from models.text.tokenizer import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXTS = 10_000
"""About how many records of a set the tokenizer is trained on."""


@dataclass(frozen=True, eq=False)
class Workshop:
    """Everything is made at its first use and kept on disk, so that a later stage or run finds it."""

    recipe: Recipe
    tracker: Tracker

    @cached_property
    def domain(self) -> Domain:
        return registry.domain(self.recipe.domain)

    @cached_property
    def corpus(self) -> Corpus:
        return prepare(self.recipe, self.domain)

    def folder(self, stage: int) -> Path:
        return self.recipe.out / f"stage{stage}"

    @property
    def expert_folders(self) -> dict[str, tuple[str, Path | None]]:
        """Kind and folder of each expert by name, those that are trained first."""
        trained = {
            config.name: (config.kind, self.recipe.out / "experts" / config.name) for config in self.recipe.experts
        }
        return trained | {ready.name: (ready.kind, ready.folder) for ready in self.recipe.ready_experts}

    @cached_property
    def experts(self) -> tuple[Expert, ...]:
        """The recipe's experts, opened; raises ConfigError when one is not trained, or is named otherwise."""
        opened = []
        for name, (kind, folder) in self.expert_folders.items():
            own = name in {config.name for config in self.recipe.experts}
            if own and folder and not (folder / "card.json").exists():
                raise ConfigError(f"expert {name!r} is not trained", "its folder", "Run `fovea experts train` first.")
            expert = registry.expert_kind(kind).open(folder)
            if expert.card.name != name:
                raise ConfigError(f"expert {name!r} whose card says {expert.card.name!r}", "the name on the card")
            opened.append(expert)
        return tuple(opened)

    @property
    def cards(self) -> tuple[ExpertCard, ...]:
        return tuple(expert.card for expert in self.experts)

    @cached_property
    def findings(self) -> Findings:
        return consult(self.domain, self.corpus, self.experts, FindingsCache(self.recipe.out / "findings"))

    @cached_property
    def pictures(self) -> dict[str, Bytes]:
        """The picture of every study by its name in records."""
        return {f"picture/{item.id}": item.picture for item in self.corpus.items}

    @cached_property
    def records(self) -> tuple[RecordSet, ...]:
        """The imported sets that are mixed in."""
        return open_sets(self.recipe, self.domain, self.corpus)

    def mixed(self, stage: int) -> list[RecordSet]:
        """Those of a stage."""
        return [found for found in self.records if stage in found.config.stages]

    def shown(self, stage: int) -> dict[str, Bytes]:
        """The pictures of all studies, and those of the sets that a stage trains on."""
        return self.pictures | {
            name: found.pictures[name]
            for found in self.mixed(stage)
            for example in found.of(stage)
            for name in example.record.images
        }

    def decks(self, stage: int, fault: Callable[[Record], str]) -> list[Deck]:
        """What a stage draws from its sets, without the records that have a fault (its reason, or "")."""
        decks = []
        for found in self.mixed(stage):
            records = [example.record for example in found.fitting(stage, fault)]
            decks.append(Deck.of(found.name, found.config.share, records))
        return decks

    @cached_property
    def overlays(self) -> dict[str, Bytes]:
        """Pictures with the experts' findings and with the true ones drawn, by their names in records."""
        true = true_overlays(self.domain, self.corpus)
        return {f"overlay/{key}": value for key, value in self.findings.overlays.items()} | {
            f"truth/{key}": value for key, value in true.items()
        }

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The recipe's pretrained tokenizer, or one that is trained on what the domain and its experts say."""
        if self.recipe.tokenizer:
            return load_tokenizer(self.recipe.tokenizer)
        folder = self.recipe.out / "tokenizer"
        note, wanted = folder / "recipe.txt", " ".join([str(self.recipe.vocabulary), *(r.digest for r in self.records)])
        if not note.exists() or note.read_text() != wanted:
            train_tokenizer(self._texts(), self.recipe.vocabulary).save_pretrained(folder)
            note.write_text(wanted)
        return load_tokenizer(folder)

    def _texts(self) -> list[str]:
        texts = [ALONE, DESCRIBE, DOUBT, FAILED, UNMEASURED, "Experts:\n"] * 5
        rng = Random(self.recipe.seed)
        texts += [describe_card(card) for card in self.cards] * 20
        for item in self.corpus.split("train"):
            questions = self.domain.questions(item.study, item.facts, rng)
            texts += [item.description, self.domain.caption(item.study, item.facts, rng)]
            texts += [question.text for question in questions]
            texts += [self.domain.answer(question, item.facts).text for question in questions]
            texts += [describe_call(self.findings.call(item.id, card.name, "all")) for card in self.cards]
        for found in self.records:
            taught = [example.record for example in found.examples if example.split == "train"]
            for record in taught[:: max(1, len(taught) // _TEXTS)]:
                texts += [part.text for message in record.messages for part in message.parts if part.image is None]
        return texts

    def writer(self, with_experts: bool) -> Writer:
        """Writes the records of the training split."""
        studies = {item.id: item for item in self.corpus.split("train")}
        if not with_experts:
            return Writer(self.domain, studies)
        return Writer(self.domain, studies, self.cards, self.findings, self.recipe.dialogues)

    def inherited(self, stage: int) -> str:
        """What a stage took over from the one before, for the reader of the log."""
        _, taken = self.recipe.stage(stage)
        values = ", ".join(f"{key}={value}" for key, value in taken.items() if key != "phases")
        source = f"stage {stage - 1}" if stage > 1 else "the defaults"
        return f"stage {stage} inherits from {source}: {values or 'nothing'}"
