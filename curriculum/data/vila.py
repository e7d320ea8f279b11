"""Dialogues with experts in the JSON of VILA-M3 (Nath et al., CVPR 2025, arXiv:2411.12915), to train such a model on.

The layout is LLaVA's: turns "from" human and gpt, a place "<image>" for each listed image, in order. On top of it, the
first human turn opens with a line for each expert, `<NAME(args)> Modality: …`, a gpt turn calls one expert as
`<NAME(argument)>`, and the human turn after it tells what came back, with the findings drawn over the picture. The
sentences are our own.

What is answered is the truth, never what an expert said. The files are divided by patient or place; the experts are
offered in an order that changes; results carry scores and measures, and some of them are another study's, which the
answer doubts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any, Literal

from PIL import Image as Pillow

from curriculum.data.corpus import Corpus, Item, Split, open_study
from curriculum.data.dialogues import contradicts, draw, oracle
from curriculum.data.findings import claimed
from curriculum.data.importers.source import replacing
from curriculum.prompts import DOUBT, FAILED, UNMEASURED, route
from curriculum.recipe import Dialogues
from experts.cache import FindingsCache
from fovea.colors import legend
from fovea.contracts import Domain, Expert
from fovea.errors import ExpertError, InputError
from fovea.overlay import overlay
from fovea.progress import track
from fovea.types import MEASURING, Bytes, Call, ExpertCard, Finding, Picture, Question
from fovea.verbal import describe_call, words

PLACE = "<image>"
Told = Literal["no expert", "the expert's own", "the truth", "another study's", "a failure"]
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_METRICS = {"dice": "Dice", "auroc": "AUROC", "ap50": "AP at IoU 0.5", "accuracy": "accuracy"}


@dataclass(frozen=True, eq=False)
class Result:
    """What a call gave back, the file of its overlay, and what the colours stand for; "" where nothing is drawn."""

    call: Call
    image: str = ""
    colors: str = ""


@dataclass(frozen=True, eq=False)
class Dialogue:
    """One question about a picture (a file's name), the experts on offer, what they gave back, and the true answer."""

    id: str
    image: str
    description: str
    question: str
    answer: str
    cards: tuple[ExpertCard, ...] = ()
    results: tuple[Result, ...] = ()
    told: Told = "no expert"


def offer(cards: Iterable[ExpertCard]) -> str:
    """The experts on offer, a line each."""
    lines = [
        f"<{card.name}(args)> Modality: {', '.join(card.modalities)}, Task: {card.task}, Overview: {card.summary}, "
        f"Accuracy: {_accuracy(card)}, Valid args are: {', '.join(map(words, card.arguments))}"
        for card in cards
    ]
    return "\n".join(("These expert models can be asked:", *lines, "To ask one, write <NAME(argument)>."))


def _accuracy(card: ExpertCard) -> str:
    rows = [row for row in card.performance if row.metric in _METRICS][:4]
    told = [
        f"{words(row.label)} {_METRICS[row.metric]} {row.value:.2f} ({row.low:.2f} to {row.high:.2f})" for row in rows
    ]
    return "; ".join(told) or "not measured"


def to_vila(dialogue: Dialogue) -> dict[str, Any]:
    """One item of the JSON: "id", "image" (a list of files), "conversations", and as "result" whose findings are shown.

    Raises InputError where a text holds "<" or ">", which would read as a call or as the place of an image.
    """
    question = _plain(dialogue.question)
    first = [offer(map(_plain_card, dialogue.cards))] if dialogue.cards else []
    turns = ["\n".join((*first, PLACE, _plain(dialogue.description), question))]
    images = [dialogue.image]
    for place, result in enumerate(dialogue.results, start=1):
        call = result.call
        turns.append(f"An expert should look at this. I ask <{_plain(call.expert)}({_plain(words(call.argument))})>.")
        told = _plain(describe_call(call))
        if result.image:
            images.append(result.image)
            told = f"{PLACE}\nThe colors in this image describe {_plain(result.colors)}.\n{told}"
        last = place == len(dialogue.results)
        turns.append(f"This came back: {told}" + (f"\nWith this in mind, answer: {question}" if last else "\nGo on."))
    turns.append(_plain(dialogue.answer))
    return {
        "id": dialogue.id,
        "image": images,
        "conversations": [{"from": ("human", "gpt")[place % 2], "value": value} for place, value in enumerate(turns)],
        "result": dialogue.told,
    }


def _plain(text: str) -> str:
    if "<" in text or ">" in text:
        raise InputError("a text that holds '<' or '>'", "text without them", "Mend the question, label or task.")
    return text


def _plain_card(card: ExpertCard) -> ExpertCard:
    for text in (card.name, card.task, card.summary, *card.modalities, *card.arguments):
        _plain(text)
    return card


@dataclass(frozen=True, eq=False)
class Exporter:
    """Writes the dialogues of a corpus: JSON files by split, and images/ beside them."""

    domain: Domain
    corpus: Corpus
    experts: tuple[Expert, ...]
    cache: FindingsCache
    shares: Dialogues
    seed: int = 0

    def write(self, folder: Path, questions: int) -> dict[str, int]:
        """At most `questions` dialogues a study; returns how many stand in each file. The same again gives the same
        bytes."""
        (folder / "images").mkdir(parents=True, exist_ok=True)
        counts: dict[str, int] = {}
        for split in _SPLITS:
            items = self.corpus.split(split)
            rows = [
                to_vila(dialogue)
                for item in track(items, f"{self.domain.name}: {split} dialogues")
                for dialogue in self.dialogues(item, folder, questions)
            ]
            with replacing(folder / f"{split}.json") as partial:
                partial.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            counts[split] = len(rows)
        return counts

    def dialogues(self, item: Item, folder: Path, n: int) -> list[Dialogue]:
        """Up to `n` dialogues about one study, whose pictures go to `folder`/images."""
        rng = Random(f"{self.seed}/{item.id}")
        picture = _store(folder, item.picture)
        cards = tuple(expert.card for expert in self.experts if item.modality in expert.card.modalities)
        done = []
        for place, question in enumerate(draw(self.domain.questions(item.study, item.facts, rng), rng, n)):
            truth = self.domain.answer(question, item.facts).text
            plain = Dialogue(f"{item.id}-{place}", picture, item.description, question.text, truth)
            if rng.random() < self.shares.none:
                done.append(plain)
                continue
            offered = replace(plain, cards=tuple(rng.sample(cards, len(cards))))
            asked = [] if question.kind in self.shares.direct else route(question, cards, item.modality)
            done.append(self._consulted(offered, item, question, asked, folder, rng) if asked else offered)
        return done

    def _consulted(
        self,
        dialogue: Dialogue,
        item: Item,
        question: Question,
        asked: Sequence[tuple[str, str]],
        folder: Path,
        rng: Random,
    ) -> Dialogue:
        """With results: another study's, which are doubted; the experts' own where they lead to the true answer; or the
        true findings in their place."""
        measured = question.kind in MEASURING or question.kind == "report"
        alone = UNMEASURED if measured else dialogue.answer
        others = [o for o in self.corpus.split(item.split) if o.modality == item.modality and o.id != item.id]
        if others and rng.random() < self.shares.wrong:
            other = rng.choice(others)
            calls = [self._call(other, *call) for call in asked]
            told = not any(call.failure for call in calls)
            if told and contradicts(self.domain, question, claimed(calls), item.facts):
                shown = self._results(calls, other, folder)
                return replace(dialogue, results=shown, told="another study's", answer=f"{DOUBT} {alone}")
        own = [self._call(item, *call) for call in asked]
        if any(call.failure for call in own):
            shown = self._results(own, item, folder)
            return replace(dialogue, results=shown, told="a failure", answer=f"{FAILED} {alone}")
        if self.domain.answer(question, claimed(own)).text == dialogue.answer:
            return replace(dialogue, results=self._results(own, item, folder), told="the expert's own")
        facts = item.truth()
        true = [oracle(facts, call, dialogue.cards) for call in asked]
        true = [replace(call, findings=tuple(_unsure(f, rng) for f in call.findings)) for call in true]
        return replace(dialogue, results=self._results(true, item, folder), told="the truth")

    def _call(self, item: Item, name: str, argument: str) -> Call:
        """The call with its findings and their regions, from the cache."""
        expert = next(expert for expert in self.experts if expert.card.name == name)
        try:
            found = self.cache.run(expert, item.study, "all", lambda: open_study(self.domain, item))
        except ExpertError as error:
            return Call(name, argument, failure=error.given)
        labels = expert.card.arguments[argument]
        return Call(name, argument, tuple(finding for finding in found if finding.label in labels))

    def _results(self, calls: Iterable[Call], item: Item, folder: Path) -> tuple[Result, ...]:
        """Each call with its findings drawn over the picture of the study that they are of."""
        shown = []
        for call in calls:
            colors = legend(call.findings, self.domain.vocabulary)
            drawn = overlay(Picture(item.picture, item.panels), call.findings, self.domain.vocabulary)
            shown.append(Result(call, _store(folder, drawn) if colors and self.shares.overlay else "", colors))
        return tuple(shown)


def _store(folder: Path, pixels: Bytes) -> str:
    """Write a picture under the name that its content gives it."""
    stream = BytesIO()
    Pillow.fromarray(pixels).save(stream, "PNG")
    data = stream.getvalue()
    name = f"images/{sha256(data).hexdigest()[:16]}.png"
    if not (folder / name).exists():
        with replacing(folder / name) as partial:
            partial.write_bytes(data)
    return name


def _unsure(finding: Finding, rng: Random) -> Finding:
    """A true finding with a score such as experts give, so that it is not known by a perfect one."""
    doubt = min(0.45, rng.expovariate(8))
    return replace(finding, score=1 - doubt if finding.present else doubt)
