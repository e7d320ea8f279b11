"""Whether an answer is right, by rule."""

from __future__ import annotations

from collections.abc import Sequence

from curriculum.prompts import DOUBT, FAILED, UNMEASURED
from fovea.types import Question, Reply, Term
from fovea.verbal import read_value


def grade(question: Question, reply: Reply, text: str, vocabulary: Sequence[Term], tolerance: float) -> float:
    """1 or 0; for a report the F1 score of its labels.

    A size or area is right within `tolerance` of the truth, everything else only when equal. What precedes the claim
    (that an expert is doubted or failed) is passed over, and an abstention is not right.
    """
    claim = bare(text)
    if not claim or refused(text):
        return 0.0
    value = read_value(question, claim, vocabulary)
    if isinstance(reply.value, frozenset):
        said = value if isinstance(value, frozenset) else frozenset()
        both = len(said & reply.value)
        return 1.0 if said == reply.value else 2 * both / max(1, len(said) + len(reply.value))
    if isinstance(reply.value, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(abs(value - reply.value) <= tolerance * abs(reply.value))
    return float(value == reply.value and type(value) is type(reply.value))


def bare(text: str) -> str:
    """The claim without the sentences that say that an expert is doubted or failed."""
    for prefix in (DOUBT, FAILED):
        text = text.replace(prefix, "")
    return text.strip()


def refused(text: str) -> bool:
    """Whether the model says that it cannot tell."""
    return UNMEASURED in text
