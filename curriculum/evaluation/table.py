"""Scores with bootstrap intervals, as rows, as CSV and on the screen."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fovea.types import MEASURING


@dataclass(frozen=True)
class Score:
    """One graded answer: `group` is the patient or place, `key` tells the same question apart from others."""

    stage: int
    arm: str
    kind: str
    group: str
    key: str
    value: float
    refused: bool = False
    doubted: bool = False
    text: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table; `low` and `high` bound the 95 % interval."""

    stage: int
    arm: str
    kind: str
    n: int
    accuracy: float
    low: float
    high: float


def tabulate(scores: Sequence[Score], resamples: int, seed: int) -> list[Row]:
    """A row for each stage, arm and kind of question, and for `measuring`, `other` and `all`."""
    rows = []
    for stage, arm in dict.fromkeys((score.stage, score.arm) for score in scores):
        mine = [score for score in scores if (score.stage, score.arm) == (stage, arm)]
        for kind in (*sorted({score.kind for score in mine}), "measuring", "other", "all"):
            chosen = [score for score in mine if belongs(score.kind, kind)]
            if chosen:
                mean, low, high = interval([(s.group, s.value) for s in chosen], resamples, seed)
                rows.append(Row(stage, arm, kind, len(chosen), mean, low, high))
    return rows


def difference(
    scores: Sequence[Score], one: tuple[int, str], other: tuple[int, str], kind: str, resamples: int, seed: int
) -> Row:
    """How much better `one` (stage, arm) answers than `other` on the same questions, paired."""
    first = {s.key: s for s in scores if (s.stage, s.arm) == one and belongs(s.kind, kind)}
    second = {s.key: s for s in scores if (s.stage, s.arm) == other and belongs(s.kind, kind)}
    pairs = [(s.group, s.value - second[key].value) for key, s in first.items() if key in second]
    mean, low, high = interval(pairs, resamples, seed)
    return Row(one[0], f"{one[1]} - {other[1]} of stage {other[0]}", kind, len(pairs), mean, low, high)


def interval(pairs: Sequence[tuple[str, float]], resamples: int, seed: int) -> tuple[float, float, float]:
    """Mean and 95 % percentile interval by bootstrap over whole groups (Efron and Tibshirani 1993)."""
    groups: dict[str, list[float]] = {}
    for group, value in pairs:
        groups.setdefault(group, []).append(value)
    sums = np.array([sum(values) for values in groups.values()])
    sizes = np.array([len(values) for values in groups.values()])
    drawn = np.random.default_rng(seed).integers(0, len(sums), (resamples, len(sums)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(sums.sum() / sizes.sum()), float(low), float(high)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([item.name for item in fields(Row)])
        writer.writerows([[f"{v:.4f}" if isinstance(v, float) else v for v in astuple(row)] for row in rows])


def show(title: str, rows: Sequence[Row], notes: Mapping[str, str], bounded: bool = False) -> None:
    """Print the arms as rows and the kinds as columns, in percent; the sums with their interval, or `bounded` all."""
    last = ("measuring", "other", "all")
    named = {row.kind for row in rows}
    kinds = [*sorted(named - set(last)), *(kind for kind in last if kind in named)]
    table = Table(title=title)
    for name in ("stage", "arm", *kinds):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for stage, arm in dict.fromkeys((row.stage, row.arm) for row in rows):
        cells = {row.kind: row for row in rows if (row.stage, row.arm) == (stage, arm)}
        table.add_row(str(stage), arm, *(_cell(cells.get(kind), bounded or kind in last) for kind in kinds))
    console = Console(width=max(140, Console().width))
    console.print(table)
    for name, text in notes.items():
        console.print(f"{name}: {text}")


def _cell(row: Row | None, bounded: bool) -> str:
    if row is None:
        return "–"
    return f"{100 * row.accuracy:.0f}" + (f" [{100 * row.low:.0f}, {100 * row.high:.0f}]" if bounded else "")


def belongs(kind: str, wanted: str) -> bool:
    """Whether a kind of question is one of those that a row of the table is about."""
    if wanted == "measuring":
        return kind in MEASURING
    if wanted == "other":
        return kind not in MEASURING
    return wanted in ("all", kind)
