"""How a conversation is worded: in training and when the model is used, by the same functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fovea.types import Call, ExpertCard, Message, Part, Question
from fovea.verbal import describe_call, describe_card

ALONE = "Answer from the picture."
DOUBT = "I doubt the expert."
FAILED = "The expert failed."
UNMEASURED = "It cannot be measured from the picture alone."
DESCRIBE = "Describe the picture."


def opening(description: str, cards: Sequence[ExpertCard]) -> tuple[Message, ...]:
    """What all conversations about a study begin with: the experts on offer, the study's description, the picture."""
    offer = "Experts:\n" + "\n".join(map(describe_card, cards)) if cards else ALONE
    return (
        Message("system", (Part(offer),)),
        Message("user", (Part(description + "\n"), Part(image=0))),
    )


def ask(messages: tuple[Message, ...], question: str) -> tuple[Message, ...]:
    """The question, put behind the picture."""
    *before, user = messages
    return (*before, Message("user", (*user.parts, Part("\n" + question))))


def say(text: str) -> Message:
    """The assistant's turn."""
    return Message("assistant", (Part(text),))


def reworded(messages: Sequence[Message], descriptions: Sequence[str]) -> tuple[Message, ...]:
    """A conversation from elsewhere as `opening` and `ask` would word it: each picture behind its description, texts on
    lines of their own, and a first line of the system."""
    told: list[Message] = [] if messages[0].role == "system" else [Message("system", (Part(ALONE),))]
    for message in messages:
        parts: list[Part] = []
        for part in message.parts:
            line = "\n" if parts and (part.image is None or parts[-1].image is None) else ""
            if part.image is None:
                parts.append(Part(line + part.text))
            else:
                parts += [Part(f"{line}{descriptions[part.image]}\n"), part]
        told.append(Message(message.role, tuple(parts)))
    return tuple(told)


def results(calls: Iterable[Call], overlay: int | None) -> Message:
    """What the experts gave back: a text, and the picture of that index with the findings drawn over it."""
    picture = () if overlay is None else (Part(image=overlay),)
    return Message("tool", (Part("\n".join(map(describe_call, calls)) + "\n"), *picture))


def route(question: Question, cards: Sequence[ExpertCard], modality: str) -> list[tuple[str, str]]:
    """The calls that answer a question: for a report all of every expert that knows a label which those before it do
    not; for presence the last expert that knows the label, for a measurement the first. Experts of other modalities
    are not asked."""
    able = [card for card in cards if modality in card.modalities]
    if question.kind == "report":
        calls, covered = [], set[str]()
        for card in able:
            labels = set(card.arguments.get("all", ()))
            if labels - covered:
                calls.append((card.name, "all"))
                covered |= labels
        return calls
    knowing = [card for card in able if question.label in card.arguments]
    if not knowing:
        return []
    return [((knowing[-1] if question.kind == "presence" else knowing[0]).name, question.label)]
