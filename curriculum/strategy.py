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
from fovea.verbal import LOCATIONS, all_calls, named, number, read_calls
from models.vlm.grammar import CallGrammar
from models.vlm.model import Generated, Prompt, VisionLanguageModel

Execute = Callable[[Sequence[tuple[str, str]]], tuple[list[Call], Tensor | None]]
"""Runs calls; also gives what the tower sees of the picture with the findings drawn over it, if there is one."""


@dataclass(frozen=True, eq=False)
class Case:
    """A question to be answered: the conversation's opening, what the tower sees of its picture, and who runs calls."""

    question: str
    opening: tuple[Message, ...]
    picture: Tensor
    execute: Execute


def converse(
    model: VisionLanguageModel,
    cases: Sequence[Case],
    cards: Sequence[ExpertCard],
    vocabulary: Sequence[Term],
    batch: int = 32,
    budget: int = 4,
) -> list[Answer]:
    """Answer all cases, decoding `batch` of them together; at most `budget` calls a case."""
    grammar = CallGrammar(model.tokenizer, all_calls(cards), budget)
    silent = CallGrammar(model.tokenizer, ())
    first = [ask(case.opening, case.question) for case in cases]
    written = _generate(model, first, [[case.picture] for case in cases], grammar if cards else silent, batch)
    called = {i: read_calls(out.text) for i, out in enumerate(written)}
    waiting = [i for i, calls in called.items() if calls]
    done = {i: cases[i].execute(called[i]) for i in waiting}
    second, pictures = [], []
    for i in waiting:
        calls, overlay = done[i]
        shown = results(calls, None if overlay is None else 1)
        second.append((*first[i], say(written[i].text), shown))
        pictures.append([cases[i].picture] + ([] if overlay is None else [overlay]))
    final = dict(enumerate(written)) | dict(
        zip(waiting, _generate(model, second, pictures, silent, batch), strict=True)
    )
    return [
        _answer(case.question, final[i], done[i][0] if i in done else [], vocabulary) for i, case in enumerate(cases)
    ]


def _generate(
    model: VisionLanguageModel,
    conversations: Sequence[tuple[Message, ...]],
    pictures: Sequence[Sequence[Tensor]],
    grammar: CallGrammar,
    batch: int,
) -> list[Generated]:
    """Continue each conversation; those of like length go together."""
    prompts = [_prompt(model, c, p) for c, p in zip(conversations, pictures, strict=True)]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
    out: dict[int, Generated] = {}
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        out |= zip(part, model.generate([prompts[i] for i in part], grammar), strict=True)
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
    labels = {label for label, _ in named(text.lower(), vocabulary)}
    evidence = tuple(i for i, finding in enumerate(findings) if finding.label in labels)
    if not evidence and len(findings) == 1:
        evidence = (0,)
    if not evidence:
        return Sentence(text, "failed" if failed else "model")
    told = [findings[i] for i in evidence]
    denies = re.match(r"(no|there is no|there are no)\b", text.lower()) is not None
    figures = set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?!\d)", text))
    places = set(re.findall(rf"(?<![\w-])(?:{'|'.join(LOCATIONS)})(?![\w-])", text.lower()))
    sound = (
        any(finding.present is not denies for finding in told)
        and figures <= {number(m.value) for finding in told for m in finding.measures}
        and places <= {finding.location for finding in told if finding.location}
    )
    return Sentence(text, "expert" if sound else "contradicted", evidence)
