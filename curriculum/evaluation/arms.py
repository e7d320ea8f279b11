"""The arms: baselines, no expert, expert, shuffled expert, oracle, the expert alone, a black picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from random import Random

import numpy as np
from torch import Tensor

from curriculum.data.corpus import Item
from curriculum.data.dialogues import draw, oracle
from curriculum.data.findings import claimed
from curriculum.evaluation import imported
from curriculum.evaluation.baselines import BLIND, MAJORITY, PROBE, baselines
from curriculum.evaluation.grading import grade, refused
from curriculum.evaluation.table import Row, Score, belongs, difference, show, tabulate, write_csv
from curriculum.parts.features import FeatureCache
from curriculum.prompts import DOUBT, opening, route
from curriculum.recipe import Recipe
from curriculum.strategy import LONG, SHORT, Case, Execute, begin, conclude, converse
from curriculum.tracking import Tracker
from curriculum.workshop import Workshop
from fovea.types import Call, ExpertCard, Question, Reply
from models.vlm.model import VisionLanguageModel

CONSULTING = ("expert", "shuffled", "oracle")
STAGE3, STAGE4 = ("none", BLIND), ("none", *CONSULTING, BLIND)
GAINS = (
    ((4, "expert"), (3, "none"), "measuring"),
    ((4, "expert"), (3, "none"), "other"),
    ((4, "shuffled"), (4, "none"), "measuring"),
    ((4, "oracle"), (4, "expert"), "all"),
    ((3, "none"), (1, PROBE), "all"),
    ((4, "expert"), (1, PROBE), "all"),
    ((4, "expert"), (0, MAJORITY), "all"),
)
"""What is compared on the same questions: an arm (stage, name) with another, and the kind of question."""


@dataclass(frozen=True, eq=False)
class Exam:
    """One question about one held-out study, with its true answer."""

    item: Item
    question: Question
    reply: Reply

    @property
    def key(self) -> str:
        return f"{self.item.id}/{self.question.kind}/{self.question.label}/{self.question.text}"


def evaluate(recipe: Recipe) -> list[Row]:
    """Examine stages 3 and 4 and the baselines on the test split; prints the table and writes it to the run's folder
    and to MLflow."""
    shop = Workshop(recipe, Tracker.open(recipe))
    with shop.tracker.stage("evaluation", recipe.evaluation.model_dump()):
        exams = examine(shop)
        scores = [
            _score(shop, stage, arm, exam, text)
            for stage, arm, texts in baselines(shop, [(exam.item.id, exam.question) for exam in exams])
            for exam, text in zip(exams, texts, strict=True)
        ]
        scores += [score for stage, arms in ((3, STAGE3), (4, STAGE4)) for score in _answered(shop, stage, arms, exams)]
        scores += _expert_alone(shop, exams)
        settings = (recipe.evaluation.resamples, recipe.seed)
        rows = tabulate(scores, *settings)
        asked = {exam.question.kind for exam in exams}
        gains = [
            difference(scores, one, other, kind, *settings)
            for one, other, kind in GAINS
            if any(belongs(name, kind) for name in asked)
        ]
        notes = {f"stage {row.stage} {row.arm}, {row.kind} (n {row.n})": _points(row) for row in gains} | {
            f"stage 4 {arm}: results doubted or refused": _doubts(scores, arm)
            for arm in ("expert", "shuffled", "oracle")
        }
        show(
            f"{recipe.domain}: {len({e.item.id for e in exams})} held-out studies, accuracy in % [95 % interval]",
            rows,
            notes,
        )
        write_csv(rows, recipe.out / "evaluation.csv")
        write_csv(gains, recipe.out / "differences.csv")
        (recipe.out / "answers.json").write_text(json.dumps([asdict(score) for score in scores]))
        for row in rows:
            shop.tracker.log({f"stage{row.stage}_{row.arm}_{row.kind}": row.accuracy})
        for name in ("evaluation.csv", "differences.csv"):
            shop.tracker.artifact(recipe.out / name)
        imported.evaluate_sets(shop)
    return rows


def examine(shop: Workshop) -> list[Exam]:
    """The same questions for every arm: some of each kind about every held-out study."""
    exams = []
    for item in shop.corpus.split("test"):
        rng = Random(f"{shop.recipe.seed}/exam/{item.id}")
        pool = shop.domain.questions(item.study, item.facts, rng)
        chosen = draw(pool, rng, shop.recipe.evaluation.questions)
        exams += [Exam(item, question, shop.domain.answer(question, item.facts)) for question in chosen]
    return exams


def _answered(shop: Workshop, stage: int, arms: Sequence[str], exams: Sequence[Exam]) -> list[Score]:
    model = VisionLanguageModel.open(shop.folder(stage) / "model")
    tested = {f"picture/{item.id}" for item in shop.corpus.split("test")}
    features = FeatureCache(shop.recipe.out / "features", model)
    features.add({name: picture for name, picture in shop.pictures.items() if name in tested})
    features.add({BLIND: np.zeros_like(next(iter(shop.pictures.values())))})
    if stage == 4:
        features.add(shop.overlays)
    batch, vocabulary = shop.recipe.evaluation.batch, shop.domain.vocabulary
    scores, begun = [], None
    for arm in arms:
        cards = shop.cards if arm in CONSULTING else ()
        cases = [_case(shop, exam, arm, cards, features) for exam in exams]
        if arm in CONSULTING:  # they differ only in what the experts give back
            begun = begun or begin(model, cases, cards, batch)
            answers = conclude(model, cases, begun, vocabulary, batch)
        else:
            answers = converse(model, cases, cards, vocabulary, batch)
        scores += [_score(shop, stage, arm, exam, answer.text) for exam, answer in zip(exams, answers, strict=True)]
    return scores


def _case(shop: Workshop, exam: Exam, arm: str, cards: Sequence[ExpertCard], features: FeatureCache) -> Case:
    return Case(
        exam.question.text,
        opening(exam.item.description, cards),
        features[BLIND if arm == BLIND else f"picture/{exam.item.id}"],
        _execute(shop, arm, exam.item, features),
        LONG if exam.question.kind == "report" else SHORT,
    )


def _execute(shop: Workshop, arm: str, item: Item, features: FeatureCache) -> Execute:
    """Who answers the calls of an arm."""
    if arm not in CONSULTING:
        return lambda calls: ([Call(*call, failure="not offered") for call in calls], None)
    source = _partner(shop, item) if arm == "shuffled" else item
    name = f"truth/{item.id}" if arm == "oracle" else f"overlay/{source.id}"
    answers: Callable[[tuple[str, str]], Call] = (
        (lambda call: oracle(item.facts, call, shop.cards))
        if arm == "oracle"
        else (lambda call: shop.findings.call(source.id, *call))
    )

    def run(calls: Sequence[tuple[str, str]]) -> tuple[list[Call], Tensor | None]:
        done = [answers(call) for call in calls]
        shown = shop.recipe.dialogues.overlay and any(call.findings for call in done)
        return done, features[name] if shown else None

    return run


def _partner(shop: Workshop, item: Item) -> Item:
    """The held-out study whose findings are given instead: the next one of another patient or place, same modality."""
    alike = [other for other in shop.corpus.split("test") if other.modality == item.modality]
    at = alike.index(item)
    others = [*alike[at + 1 :], *alike[:at]]
    return next((other for other in others if other.group != item.group), item)


def _expert_alone(shop: Workshop, exams: Sequence[Exam]) -> list[Score]:
    """The answers that the domain's rules give from the experts' findings, without any model."""
    scores = []
    for exam in exams:
        calls = route(exam.question, shop.cards, exam.item.modality) or [
            (card.name, "all") for card in shop.cards if exam.item.modality in card.modalities
        ]
        facts = claimed([shop.findings.call(exam.item.id, *call) for call in calls])
        scores.append(_score(shop, 4, "expert_alone", exam, shop.domain.answer(exam.question, facts).text))
    return scores


def _score(shop: Workshop, stage: int, arm: str, exam: Exam, text: str) -> Score:
    value = grade(exam.question, exam.reply, text, shop.domain.vocabulary, shop.recipe.evaluation.tolerance)
    group = exam.item.group
    return Score(stage, arm, exam.question.kind, group, exam.key, value, refused(text), DOUBT in text, text)


def _doubts(scores: Sequence[Score], arm: str) -> str:
    mine = [score for score in scores if (score.stage, score.arm) == (4, arm)]
    return f"{100 * sum(s.doubted or s.refused for s in mine) / max(1, len(mine)):.0f} % of {len(mine)}"


def _points(row: Row) -> str:
    return f"{100 * row.accuracy:+.1f} points [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
