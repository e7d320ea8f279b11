"""How a question is answered: experts are called under a grammar, their results are read, every sentence is tied to
its evidence. Evaluation, command line, viewer and batch use the same code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curriculum.prompts import DOUBT, FAILED, ask, results, say
from fovea.types import Answer, Call, ExpertCard, Finding, Message, Record, Sentence, Term
from fovea.verbal import LOCATIONS, all_calls, figure, named, read_calls, words
from models.vlm.grammar import CallGrammar
from models.vlm.model import Generated, Prompt, VisionLanguageModel

Execute = Callable[[Sequence[tuple[str, str]]], tuple[list[Call], Tensor | None]]
"""Runs calls; also gives what the tower sees of the picture with the findings drawn over it, if there is one."""


SHORT, LONG = 48, 192
"""How many tokens an answer, and a report, may take."""


@dataclass(frozen=True, eq=False)
class Case:
    """A question to be answered: the conversation's opening, what the tower sees of its picture, and who runs calls."""

    question: str
    opening: tuple[Message, ...]
    picture: Tensor
    execute: Execute
    limit: int = SHORT


def converse(
    model: VisionLanguageModel,
    cases: Sequence[Case],
    cards: Sequence[ExpertCard],
    vocabulary: Sequence[Term],
    batch: int = 32,
) -> list[Answer]:
    """Answer all cases, decoding `batch` of them together."""
    return conclude(model, cases, begin(model, cases, cards, batch), vocabulary, batch)


def begin(
    model: VisionLanguageModel, cases: Sequence[Case], cards: Sequence[ExpertCard], batch: int, budget: int = 4
) -> list[Generated]:
    """The first turn: at most `budget` calls of the experts on offer, or already the answer."""
    grammar = CallGrammar(model.tokenizer, all_calls(cards), budget)
    first = [ask(case.opening, case.question) for case in cases]
    return generate(model, first, [[case.picture] for case in cases], [case.limit for case in cases], grammar, batch)


def conclude(
    model: VisionLanguageModel,
    cases: Sequence[Case],
    written: Sequence[Generated],
    vocabulary: Sequence[Term],
    batch: int,
) -> list[Answer]:
    """Run the calls that were written and answer from their results."""
    called = {i: calls for i, out in enumerate(written) if (calls := read_calls(out.text))}
    done = {i: cases[i].execute(calls) for i, calls in called.items()}
    second, pictures = [], []
    for i, (answered, overlay) in done.items():
        shown = results(answered, None if overlay is None else 1)
        second.append((*ask(cases[i].opening, cases[i].question), say(written[i].text), shown))
        pictures.append([cases[i].picture] + ([] if overlay is None else [overlay]))
    silent = CallGrammar(model.tokenizer, ())
    answers = generate(model, second, pictures, [cases[i].limit for i in done], silent, batch)
    final = dict(enumerate(written)) | dict(zip(done, answers, strict=True))
    return [
        _answer(case.question, final[i], done[i][0] if i in done else [], vocabulary) for i, case in enumerate(cases)
    ]


def generate(
    model: VisionLanguageModel,
    conversations: Sequence[tuple[Message, ...]],
    pictures: Sequence[Sequence[Tensor]],
    limits: Sequence[int],
    grammar: CallGrammar,
    batch: int,
) -> list[Generated]:
    """Continue each conversation; those of one limit and of like length go together."""
    prompts = [_prompt(model, c, p) for c, p in zip(conversations, pictures, strict=True)]
    out: dict[int, Generated] = {}
    for limit in sorted(set(limits)):
        alike = [i for i in range(len(prompts)) if limits[i] == limit]
        order = sorted(alike, key=lambda i: len(prompts[i].ids))
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            out |= zip(part, model.generate([prompts[i] for i in part], grammar, limit), strict=True)
    return [out[i] for i in range(len(prompts))]


def _prompt(model: VisionLanguageModel, messages: Iterable[Message], pictures: Sequence[Tensor]) -> Prompt:
    chat = Record("", "", "", tuple(messages)).to_chat()
    out: Any = model.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
    expanded, visible, _ = model.expand(out["input_ids"])
    return Prompt(expanded, visible, torch.stack([*pictures]))


def _answer(question: str, out: Generated, calls: Sequence[Call], vocabulary: Sequence[Term]) -> Answer:
    findings = [finding for call in calls for finding in call.findings]
    failed = any(call.failure for call in calls)
    parts = [part for part in re.split(r"(?<=[.!?])\s+", out.text) if part]
    sentences = tuple(_sentence(part, findings, failed, vocabulary) for part in parts)
    return Answer(question, out.text, out.confidence, sentences, tuple(calls))


def _sentence(text: str, findings: Sequence[Finding], failed: bool, vocabulary: Sequence[Term]) -> Sentence:
    """Tie a sentence to the findings of the labels that it names.

    It is contradicted when it gives a figure or a place that none of them has, or affirms what they deny.
    """
    if text == FAILED:
        return Sentence(text, "failed")
    if text == DOUBT:
        return Sentence(text, "contradicted", tuple(range(len(findings))))
    plain = text.lower()
    labels = {label for label, _ in named(plain, vocabulary)}
    evidence = tuple(i for i, finding in enumerate(findings) if finding.label in labels)
    if not evidence and len(findings) == 1:
        evidence = (0,)
    if not evidence:
        return Sentence(text, "failed" if failed else "model")
    told = [findings[i] for i in evidence]
    denies = re.match(r"(no|there is no|there are no)\b", plain) is not None
    names = [name.lower() for t in vocabulary if t.label in labels for name in (words(t.label), *t.synonyms)]
    # the side of a "left kidney" is no place
    plain = re.sub("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)), "", plain)
    figures = set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?!\d)", text))
    places = set(re.findall(rf"(?<![\w-])(?:{'|'.join(LOCATIONS)})(?![\w-])", plain))
    sound = (
        any(finding.present is not denies for finding in told)
        and figures <= {figure(m).partition(" ")[0] for finding in told for m in finding.measures}
        and places <= {finding.location for finding in told if finding.location}
    )
    return Sentence(text, "expert" if sound else "contradicted", evidence)
