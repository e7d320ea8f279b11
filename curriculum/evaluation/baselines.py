"""What needs no language model: the most frequent answer, and a linear probe on the tower of stage 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from statistics import median_low
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from curriculum.workshop import Workshop
from fovea.types import Kind, Question, Reply
from fovea.verbal import number
from models.vlm.towers import build_tower

MAJORITY, PROBE, BLIND = "majority", "linear_probe", "blind"
Vector = NDArray[np.float32]
Slot = tuple[Kind, str, str]
_DRAWS = 3
"""How often each study of the training split is asked, so that most of its labels come up."""
_FEWEST = 5
"""Fewer answers teach a probe nothing."""
_STRENGTHS = np.logspace(1, 6, 11)
"""Ridge penalties to choose from by leave-one-out on the training split; the features are standardised."""


class Taught(NamedTuple):
    """A question about a study of the training split, with its answer."""

    study: str
    question: Question
    reply: Reply


def baselines(shop: Workshop, asked: Sequence[tuple[str, Question]]) -> Iterator[tuple[int, str, list[str]]]:
    """Stage, arm and answers to the questions, each asked of a study by its id."""
    taught = lessons(shop)
    majority = Majority(taught)
    probe = Probe(taught, pooled(shop, {t.study for t in taught} | {study for study, _ in asked}))
    usual = [majority.answer(question) for _, question in asked]
    yield 0, MAJORITY, usual
    yield 1, PROBE, [probe.answer(*pair) or text for pair, text in zip(asked, usual, strict=True)]


def lessons(shop: Workshop) -> list[Taught]:
    """What the training split is asked, drawn as the held-out studies are, and answered."""
    return [
        Taught(item.id, question, shop.domain.answer(question, item.facts))
        for item in shop.corpus.split("train")
        for draw in range(_DRAWS)
        for question in shop.domain.questions(item.study, item.facts, Random(f"{shop.recipe.seed}/{draw}/{item.id}"))
    ]


def pooled(shop: Workshop, studies: set[str]) -> dict[str, Vector]:
    """The mean of the tokens that stage 1's frozen tower makes of each study's picture."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tower = build_tower(f"openclip:{shop.folder(1) / 'clip'}").to(device).eval()
    pictures = {item.id: item.picture for item in shop.corpus.items if item.id in studies}
    names, seen = list(pictures), []
    with torch.inference_mode():
        for start in range(0, len(names), 64):
            pixels = torch.from_numpy(np.stack([pictures[name] for name in names[start : start + 64]]))
            seen.append(tower(pixels.to(device)).pooled.float().cpu().numpy())
    return dict(zip(names, np.concatenate(seen), strict=True))


class Majority:
    """Answers each kind of question about each label with the most frequent answer of the training split.

    Of numbers it takes the median. A label that was never asked about gets the most frequent answer of its kind.
    """

    def __init__(self, taught: Sequence[Taught]) -> None:
        replies: dict[Slot, list[Reply]] = {}
        for _, question, reply in taught:
            for slot in (_slot(question), (question.kind, "", "")):
                replies.setdefault(slot, []).append(reply)
        self._usual = {slot: _usual(given) for slot, given in replies.items()}

    def answer(self, question: Question) -> str:
        """The usual answer; empty for a kind that was never asked."""
        return self._usual.get(_slot(question)) or self._usual.get((question.kind, "", ""), "")


class Probe:
    """Reads presence, class, side and count by a ridge classifier, sizes and areas by ridge regression of their
    logarithm, one for each label, from features of pictures by the name of the study."""

    def __init__(self, taught: Sequence[Taught], features: Mapping[str, Vector]) -> None:
        self._features = features
        self._taught: dict[Slot, dict[str, Taught]] = {}
        for lesson in taught:  # each study once, or leave-one-out would find it again
            self._taught.setdefault(_slot(lesson.question), {})[lesson.study] = lesson
        self._readers: dict[Slot, Callable[[Vector], str]] = {}

    def answer(self, study: str, question: Question) -> str:
        """What the picture tells; empty where a probe cannot answer: reports, and what was hardly ever different."""
        slot = _slot(question)
        if slot not in self._readers:
            self._readers[slot] = self._reader(slot)
        return self._readers[slot](self._features[study])

    def _reader(self, slot: Slot) -> Callable[[Vector], str]:
        taught = [] if slot[0] == "report" else list(self._taught.get(slot, {}).values())
        numbers = [t for t in taught if isinstance(t.reply.value, float) and t.reply.value > 0]
        regress = 2 * len(numbers) > len(taught)
        taught = numbers if regress else taught
        texts = {t.reply.value: t.reply.text for t in taught}
        if len(taught) < _FEWEST or len(texts) < 2:
            return lambda _: ""
        values = list(texts)
        seen = np.stack([self._features[t.study] for t in taught])
        if not regress:
            chooser = make_pipeline(StandardScaler(), RidgeClassifierCV(_STRENGTHS))
            chooser.fit(seen, [values.index(t.reply.value) for t in taught])
            return lambda features: texts[values[int(chooser.predict(features[None])[0])]]
        target = np.log([float(str(t.reply.value)) for t in taught])
        line = make_pipeline(StandardScaler(), RidgeCV(_STRENGTHS)).fit(seen, target)
        return lambda features: number(float(np.exp(line.predict(features[None])[0].clip(target.min(), target.max()))))


def _slot(question: Question) -> Slot:
    return question.kind, question.label, question.measure


def _usual(replies: Sequence[Reply]) -> str:
    """The text of the most frequent value, or of the median where most are numbers with a fraction."""
    numbers = [reply.value for reply in replies if isinstance(reply.value, float)]
    value: object = Counter(reply.value for reply in replies).most_common(1)[0][0]
    if 2 * len(numbers) > len(replies):
        value = median_low(numbers)
    return next(reply.text for reply in replies if reply.value == value and type(reply.value) is type(value))
