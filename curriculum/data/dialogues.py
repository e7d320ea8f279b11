"""Conversations for the stages, made afresh at every step from facts and findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from curriculum.data.corpus import Item
from curriculum.data.findings import Findings
from curriculum.prompts import DESCRIBE, DOUBT, FAILED, UNMEASURED, ask, opening, results, route, say
from curriculum.recipe import Dialogues
from fovea.contracts import Domain
from fovea.types import MEASURING, Call, Code, ExpertCard, Facts, Finding, Message, Origin, Part, Question, Record
from fovea.verbal import call_text


@dataclass(frozen=True, eq=False)
class Writer:
    """Writes the records of one domain. `findings` and `cards` are needed for stage 4 only."""

    domain: Domain
    studies: Mapping[str, Item]
    cards: tuple[ExpertCard, ...] = ()
    findings: Findings | None = None
    shares: Dialogues = field(default_factory=Dialogues)

    def captions(self, item: Item, rng: Random, n: int) -> list[Record]:
        """Stage 2: texts for the picture."""
        first = ask(opening(item.description, ()), DESCRIBE)
        return [
            self._record(item, "caption", (*first, say(self.domain.caption(item.study, item.facts, rng))))
            for _ in range(n)
        ]

    def readings(self, rng: Random, n: int) -> list[Record]:
        """Text alone: questions, the true findings of some studies, and the answers that they give; at most n."""
        records: list[Record] = []
        for name in rng.choices(list(self.studies), k=n):
            item = self.studies[name]
            for question in self._questions(item, rng, min(4, n - len(records))):
                order = [term.label for term in self.domain.vocabulary if term.label in item.facts.assessed]
                labels = [question.label] if question.label else order
                found = tuple(_surely(item.facts.finding(label) or _absent(label), rng) for label in labels)
                shown = results([Call("expert", "all", found)], None)
                reply = self.domain.answer(question, item.facts)
                messages = (Message("user", (Part(question.text),)), shown, say(reply.text))
                records.append(replace(self._record(item, "reading", messages), images=()))
        return records

    def instructions(self, item: Item, rng: Random, n: int) -> list[Record]:
        """Stage 3: questions about the picture alone."""
        first = opening(item.description, ())
        records = []
        for question in self._questions(item, rng, n):
            reply = self.domain.answer(question, item.facts)
            records.append(self._record(item, question.kind, (*ask(first, question.text), say(reply.text))))
        return records

    def consultations(self, item: Item, rng: Random, n: int) -> list[Record]:
        """Stage 4: the same questions with experts on offer; some dialogues of the study have none."""
        if rng.random() < self.shares.none:
            return self.instructions(item, rng, n)
        cards = self._offer(rng)
        first = opening(item.description, cards)
        return [self._consultation(item, question, first, rng) for question in self._questions(item, rng, n)]

    def _questions(self, item: Item, rng: Random, n: int) -> list[Question]:
        """Questions of all kinds in turn."""
        return draw(self.domain.questions(item.study, item.facts, rng), rng, n)

    def _offer(self, rng: Random) -> tuple[ExpertCard, ...]:
        """The experts in a fresh order, so that cards are read and not places remembered."""
        return tuple(rng.sample(self.cards, len(self.cards)))

    def _consultation(self, item: Item, question: Question, first: tuple[Message, ...], rng: Random) -> Record:
        calls = [] if question.kind in self.shares.direct else route(question, self.cards, item.modality)
        asked = ask(first, question.text)
        if not calls:
            reply = self.domain.answer(question, item.facts)
            return self._record(item, question.kind, (*asked, say(reply.text)))
        done, answer, overlay = self._outcome(item, question, calls, rng)
        request = say("".join(call_text(*call) for call in calls))
        shown = results(done, 1 if overlay else None)
        return self._record(item, question.kind, (*asked, request, shown, say(answer)), overlay)

    def _outcome(
        self, item: Item, question: Question, calls: Sequence[tuple[str, str]], rng: Random
    ) -> tuple[list[Call], str, str]:
        """What the experts gave back, what is to be answered, and the key of the overlay ("" for none)."""
        if self.findings is None:
            raise ValueError("stage 4 needs findings")
        shares, draw_ = self.shares, rng.random()
        truth = self.domain.answer(question, item.facts).text
        alone = UNMEASURED if question.kind in MEASURING else truth
        own = [self.findings.call(item.id, *call) for call in calls]
        key = f"overlay/{item.id}" if shares.overlay else ""
        if draw_ < shares.failed:
            reason = rng.choice(("time-out", "out of memory", "the study is not of its kind", "no answer"))
            return [Call(e, a, failure=reason) for e, a in calls], f"{FAILED} {alone}", ""
        draw_ -= shares.failed
        if draw_ < shares.wrong:
            others = [i for i in self.studies.values() if i.modality == item.modality and i.id != item.id]
            other = rng.choice(others or [item])
            if contradicts(self.domain, question, self.findings.facts(other.id, calls), item.facts):
                wrong = [self.findings.call(other.id, *call) for call in calls]
                return wrong, f"{DOUBT} {alone}", f"overlay/{other.id}" if shares.overlay else ""
        draw_ -= shares.wrong
        if 0 <= draw_ < shares.partly_false:
            return [_falsified(call, rng) for call in own], f"{DOUBT} {alone}", key
        if any(call.failure for call in own):
            return own, f"{FAILED} {alone}", ""
        facts = self.findings.facts(item.id, calls)
        if rng.random() < shares.truth or contradicts(self.domain, question, facts, item.facts):
            true = [oracle(item.facts, call, self.cards) for call in calls]
            true = [replace(call, findings=tuple(_surely(f, rng) for f in call.findings)) for call in true]
            return true, truth, key.replace("overlay", "truth", 1)
        return own, self.domain.answer(question, facts).text, key

    def _record(self, item: Item, kind: str, messages: tuple[Message, ...], overlay: str = "") -> Record:
        images = (f"picture/{item.id}", *([overlay] if overlay else []))
        return Record(item.id, item.group, kind, messages, images)


def draw(pool: Sequence[Question], rng: Random, n: int) -> list[Question]:
    """`n` questions, taking the kinds in turn."""
    kinds: dict[str, list[Question]] = {}
    for question in rng.sample(pool, len(pool)):
        kinds.setdefault(question.kind, []).append(question)
    order = rng.sample(list(kinds), len(kinds))
    turns = max((len(group) for group in kinds.values()), default=0)
    mixed = [kinds[kind][turn] for turn in range(turns) for kind in order if turn < len(kinds[kind])]
    return mixed[:n]


def oracle(facts: Facts, call: tuple[str, str], cards: Sequence[ExpertCard]) -> Call:
    """What a perfect expert would give back: the truth on every label that it is asked for."""
    expert, argument = call
    labels = next(card for card in cards if card.name == expert).arguments[argument]
    return Call(expert, argument, tuple(facts.finding(label) or _absent(label) for label in labels))


def contradicts(domain: Domain, question: Question, claimed: Facts, truth: Facts, tolerance: float = 0.35) -> bool:
    """Whether the answer that `claimed` gives differs from the true one."""
    a, b = domain.answer(question, claimed).value, domain.answer(question, truth).value
    if isinstance(a, float) and isinstance(b, (int, float)):
        return abs(a - b) > tolerance * abs(b)
    return a != b


def _falsified(call: Call, rng: Random) -> Call:
    """One finding turned: present for absent, or its measures and side far off."""
    if not call.findings:
        return call
    at = rng.randrange(len(call.findings))
    finding = call.findings[at]
    far = rng.choice((0.3, 0.4, 2.2, 3.0))
    other = {"left": "right", "right": "left"}.get(finding.location, finding.location)
    measures = tuple(
        replace(m, value=max(1.0, round(m.value * far)) if m.name == "count" else m.value * far)
        for m in finding.measures
    )
    turned = replace(finding, location=other, measures=measures) if finding.present else replace(finding, present=True)
    return replace(call, findings=(*call.findings[:at], turned, *call.findings[at + 1 :]))


def _surely(finding: Finding, rng: Random) -> Finding:
    """The finding with a score such as experts give, so that the truth is not known by its perfect score."""
    doubt = min(0.45, rng.expovariate(8))
    return replace(finding, score=1 - doubt if finding.present else doubt)


def _absent(label: str) -> Finding:
    return Finding(label, Code("FOVEA", label, label), False, 0.01, Origin("truth", "1"))
