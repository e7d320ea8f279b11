"""The test splits of imported sets: answers graded by rule, beside a black picture and the most frequent answer."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
import torch

from curriculum.conversation import forged
from curriculum.data.records import Example, RecordSet
from curriculum.evaluation.baselines import BLIND, MAJORITY
from curriculum.evaluation.table import Row, interval, show, write_csv
from curriculum.parts.features import FeatureCache
from curriculum.strategy import LONG, SHORT, generate
from curriculum.workshop import Workshop
from fovea.types import Message
from models.vlm.grammar import CallGrammar
from models.vlm.model import VisionLanguageModel

Form = Literal["closed", "choice", "open", "box", "text"]
"""How an answer is graded: one of few words, a letter, a few words, four numbers, or a text of sentences."""
_ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True, eq=False)
class Turn:
    """One answer of a conversation, what was said before it, and the names of the pictures that were shown."""

    line: int
    number: int
    group: str
    before: tuple[Message, ...]
    images: tuple[str, ...]
    truth: str
    form: Form


def turns(example: Example) -> Iterator[Turn]:
    """Every answer that pictures were shown for, each with the true conversation before it."""
    record = example.record
    for number, message in enumerate(record.messages):
        shown = [part.image for said in record.messages[:number] for part in said.parts if part.image is not None]
        if message.role == "assistant" and shown:
            truth = "".join(part.text for part in message.parts).strip()
            images = tuple(record.images[index] for index in shown)
            form = _form(example, truth)
            yield Turn(example.line, number, record.group, record.messages[:number], images, truth, form)


def _form(example: Example, truth: str) -> Form:
    told = example.attributes.get("answer_type", "")
    if example.record.kind in ("caption", "report"):
        return "text"
    if example.record.kind == "grounding":
        return "box"
    if told == "choice":
        return "choice"
    return "closed" if told == "closed" or _words(truth)[:1] in (["yes"], ["no"]) else "open"


def graded(form: Form, truth: str, text: str) -> dict[str, float]:
    """Scores in 0 to 1 by name.

    closed and choice: the same words, or the same letter; of yes and no the first word counts. open: exact match and
    token F1 after SQuAD (Rajpurkar et al. 2016), without case, punctuation and articles. box: whether the intersection
    over union is at least a half. text: token F1.
    """
    wanted, words = _words(truth), _words(text)
    if form == "choice":
        return {"choice": float(bool(_letter(text)) and _letter(text) == _letter(truth))}
    if form == "box":
        return {"box IoU >= 0.5": float(_overlap(_box(truth), _box(text)) >= 0.5)}
    if form == "closed":
        return {"closed": float(words[:1] == wanted[:1] if wanted[:1] in (["yes"], ["no"]) else words == wanted)}
    both = sum((Counter(wanted) & Counter(words)).values())
    f1 = 2 * both / (len(wanted) + len(words)) if both else float(wanted == words)
    return {"text F1": f1} if form == "text" else {"open exact": float(wanted == words), "open F1": f1}


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+(?:\.\d+)?", text.lower()) if word not in _ARTICLES]


def _letter(text: str) -> str:
    found = re.match(r"\s*\(?([A-Za-z])\b", text)
    return found[1].upper() if found else ""


def _box(text: str) -> tuple[float, ...]:
    """Left, top, right, bottom; all 0 where the text holds no box."""
    sides = tuple(map(float, re.findall(r"\d+(?:\.\d+)?", text)))
    return sides if len(sides) == 4 else (0.0,) * 4


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union; NaN of two boxes without an area."""
    from torchvision.ops import box_iou  # type: ignore[import-untyped]

    return float(box_iou(torch.tensor([one]), torch.tensor([other])))


def evaluate_sets(shop: Workshop) -> list[Row]:
    """Examine stages 3 and 4, without experts, on the test split of every set that has one; prints the table and writes
    records.csv and records.json to the run's folder, and the scores to MLflow."""
    rows: list[Row] = []
    answers: list[dict[str, object]] = []
    folders = {stage: shop.folder(stage) / "model" for stage in (3, 4) if shop.records}
    models = {stage: VisionLanguageModel.open(folder) for stage, folder in folders.items() if folder.is_dir()}
    for found, asked in ((found, _asked(shop, found)) for found in shop.records):
        if not asked:
            continue
        said = {(0, MAJORITY): [_usual(found)(turn) for turn in asked]}
        for stage, model in models.items():
            said |= {(stage, arm): _answered(shop, found, model, asked, arm) for arm in ("none", BLIND)}
        for (stage, arm), texts in said.items():
            rows += _rows(shop, found.name, stage, arm, asked, texts)
            told = [
                {"set": found.name, "line": t.line, "turn": t.number, "stage": stage, "arm": arm, "text": text}
                for t, text in zip(asked, texts, strict=True)
            ]
            answers += told
    if rows:
        show("test splits of imported sets, scores in % [95 % interval]", rows, {}, bounded=True)
        write_csv(rows, shop.recipe.out / "records.csv")
        (shop.recipe.out / "records.json").write_text(json.dumps(answers))
        shop.tracker.artifact(shop.recipe.out / "records.csv")
        for row in rows:
            name = re.sub(r"[^\w. -]+", "_", f"stage{row.stage}_{row.arm}_{row.kind}")
            shop.tracker.log({name: row.accuracy})
    return rows


def _asked(shop: Workshop, found: RecordSet) -> list[Turn]:
    """The answers to be given, at most `evaluation.records`."""
    fault, limit = forged(shop.tokenizer), shop.recipe.evaluation.records
    examples = found.fitting(max(found.config.stages), fault, "test")
    asked = [turn for example in examples for turn in turns(example)]
    return Random(f"{shop.recipe.seed}/{found.name}").sample(asked, limit) if len(asked) > limit else asked


def _usual(found: RecordSet) -> Callable[[Turn], str]:
    """The most frequent answer of the training split to turns of a form."""
    known: dict[Form, Counter[str]] = {}
    for example in found.examples:
        for turn in turns(example) if example.split == "train" else ():
            known.setdefault(turn.form, Counter())[turn.truth] += 1
    usual = {form: counts.most_common(1)[0][0] for form, counts in known.items()}
    return lambda turn: usual.get(turn.form, "")


def _answered(
    shop: Workshop, found: RecordSet, model: VisionLanguageModel, asked: Sequence[Turn], arm: str
) -> list[str]:
    features = FeatureCache(shop.recipe.out / "features", model)
    names = {name for turn in asked for name in turn.images}
    features.add({name: found.pictures[name] for name in sorted(names)})
    features.add({BLIND: np.zeros_like(found.pictures[asked[0].images[0]])})
    written = generate(
        model,
        [turn.before for turn in asked],
        [[features[BLIND if arm == BLIND else name] for name in turn.images] for turn in asked],
        [LONG if turn.form == "text" else SHORT for turn in asked],
        CallGrammar(model.tokenizer, ()),
        shop.recipe.evaluation.batch,
    )
    return [out.text for out in written]


def _rows(
    shop: Workshop, name: str, stage: int, arm: str, asked: Sequence[Turn], texts: Sequence[str]
) -> Iterator[Row]:
    """A row for each score, its interval by bootstrap over patients or places."""
    scores: dict[str, list[tuple[str, float]]] = {}
    for turn, text in zip(asked, texts, strict=True):
        for score, value in graded(turn.form, turn.truth, text).items():
            scores.setdefault(score, []).append((turn.group, value))
    for score, pairs in sorted(scores.items()):
        mean, low, high = interval(pairs, shop.recipe.evaluation.resamples, shop.recipe.seed)
        yield Row(stage, arm, f"{name}: {score}", len(pairs), mean, low, high)
