"""What a step is made of: so many studies and so many pictures of each imported set, decided by seed and step alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from random import Random

from fovea.types import Record


@dataclass(frozen=True, eq=False)
class Deck:
    """The conversations of a set that a stage draws from, those about the same pictures together; and its share of a
    step."""

    name: str
    share: float
    units: Mapping[str, tuple[Record, ...]]

    @classmethod
    def of(cls, name: str, share: float, records: Iterable[Record]) -> Deck:
        """Records that show the same pictures make one unit; one that shows none is a unit of its own."""
        units: dict[str, list[Record]] = {}
        for record in records:
            units.setdefault(" ".join(record.images) or record.id, []).append(record)
        return cls(name, share, {key: tuple(found) for key, found in units.items()})


def portions(shares: Sequence[float], places: int) -> list[int]:
    """How many of the first `places` each share fills, then what is left; none of them falls as `places` grows."""
    filled, rest = [], Fraction(1)
    for share in (Fraction(str(share)) for share in shares):
        filled.append(int(places * share / rest))
        places, rest = places - filled[-1], rest - share
    return [*filled, places]


def deal(
    studies: Sequence[str], decks: Sequence[Deck], seed: int, step: int, batch: int
) -> tuple[list[str], list[tuple[str, tuple[Record, ...]]]]:
    """The studies of a step, and the units of its decks, each with a name of its own."""
    shares = [deck.share for deck in decks]
    before, after = portions(shares, step * batch), portions(shares, (step + 1) * batch)
    dealt = [
        (f"{deck.name}/{unit}", deck.units[unit])
        for deck, start, stop in zip(decks, before, after, strict=False)
        for unit in pick(list(deck.units), f"{seed}/{deck.name}", start, stop - start)
    ]
    return pick(studies, seed, before[-1], after[-1] - before[-1]), dealt


def pick(names: Sequence[str], seed: int | str, start: int, n: int) -> list[str]:
    """The names from place `start` of an endless row: each once before any comes again, in orders that the seed
    decides."""
    places = (divmod(at, len(names)) for at in range(start, start + n))
    return [names[_order(str(seed), epoch, len(names))[place]] for epoch, place in places]


@lru_cache(maxsize=16)  # to shuffle a large set at every step would cost more than the step
def _order(seed: str, epoch: int, n: int) -> list[int]:
    return Random(f"{seed}/{epoch}").sample(range(n), n)
