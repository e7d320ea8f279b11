"""The check of a set of data as one HTML page, without scripts, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.pictures import data_uri
from apps.report.batch import write
from apps.report.html import check_page
from curriculum.data.check import Check, Twins
from curriculum.data.images import gray_copy, is_picture
from fovea.errors import InputError

_WIDTH, _HEIGHT, _FOOT = 360, 96, 16
_PAIRS = 8


def write_check(check: Check, out: Path) -> Path:
    """Write `out`/check.json and `out`/check.html, each whole or not at all; returns the page's path.

    Raises InputError when `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        write(out / "check.json", json.dumps(check.document(), ensure_ascii=False, indent=1) + "\n")
        write(out / "check.html", check_page(_context(check)))
    except OSError as error:
        raise InputError(
            f"a folder that cannot be written ({type(error).__name__})", "a writable one", "Choose another with --out."
        ) from None
    return out / "check.html"


def _context(check: Check) -> dict[str, Any]:
    numbers = check.numbers
    return {
        "check": check,
        "splits": {split or "no split": told for split, told in numbers["splits"].items()},
        "files": numbers["files"],
        "labels": _label_rows(numbers),
        "lengths": [
            {"name": f"{unit.capitalize()} of {kind}", "rows": _length_rows(numbers["lengths"][kind], unit)}
            for kind in ("questions", "answers")
            for unit in ("characters", "words")
            if numbers["lengths"][kind]
        ],
        "answers": _answer_rows(numbers),
        "pairs": [_pair(twins) for twins in check.leaks if is_picture(twins.paths[0])][:_PAIRS],
        "megabytes": numbers["files"]["bytes"] / 1e6,
    }


def _label_rows(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The labels, the most frequent first, with their counts and shares in each split."""
    rows = []
    for label, splits in numbers["labels"].items():
        counts = [splits.get(split, [0, 0, 0]) for split in numbers["splits"]]
        totals = [told["records"] for told in numbers["splits"].values()]
        cells = [
            {"present": c[0], "absent": c[1], "uncertain": c[2], "share": c[0] / n}
            for c, n in zip(counts, totals, strict=True)
        ]
        rows.append({"label": label, "cells": cells, "present": sum(c[0] for c in counts)})
    return sorted(rows, key=lambda row: (-row["present"], row["label"]))[:60]


def _length_rows(splits: Mapping[str, Any], unit: str) -> list[dict[str, Any]]:
    edges = [told[unit]["histogram"]["edges"] for told in splits.values()]
    low, high = min(edge[0] for edge in edges), max(edge[-1] for edge in edges)
    varied = high - low > 2
    return [
        {
            "split": split or "no split",
            **told[unit],
            "plot": _bars(told[unit]["histogram"], low, high) if varied else None,
        }
        for split, told in splits.items()
    ]


def _bars(histogram: Mapping[str, Sequence[int]], least: int, most: int) -> dict[str, Any]:
    """Rectangles of a histogram over a logarithmic axis, and its ticks."""
    edges, counts = histogram["edges"], histogram["counts"]

    def x(value: float) -> float:
        return float(_WIDTH * (np.log1p(value) - np.log1p(least)) / (np.log1p(most) - np.log1p(least)))

    top = max(counts) or 1
    bars = [
        {"x": x(low), "width": max(0.5, x(high) - x(low) - 1), "height": (_HEIGHT - _FOOT) * n / top}
        for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True)
        if n
    ]
    round_ = [step * 10**power for power in range(6) for step in (1, 2, 5)]
    ticks = [(x(value), value) for value in round_ if least <= value <= most]
    spaced = [tick for index, tick in enumerate(ticks) if index == 0 or tick[0] - ticks[index - 1][0] > 14]
    return {"bars": bars, "ticks": spaced, "width": _WIDTH, "height": _HEIGHT, "floor": _HEIGHT - _FOOT}


def _answer_rows(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The most frequent short answers of each split, with their share of its records."""
    return [
        {
            "split": split or "no split",
            "answers": [(text, n, n / numbers["splits"][split]["records"]) for text, n in listed],
        }
        for split, listed in numbers["answers"].items()
    ]


def _pair(twins: Twins) -> dict[str, Any]:
    """The first image, and the first of another split, as small pictures with their lines."""
    first = next(i for i, split in enumerate(twins.splits) if split)
    other = next(i for i, split in enumerate(twins.splits) if split not in ("", twins.splits[first]))
    shown = []
    for index in (first, other):
        small, (rows, columns) = gray_copy(twins.paths[index])
        pixels = np.repeat(np.clip(small, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        shown.append(
            {"uri": data_uri(pixels), "ratio": columns / rows, "line": twins.lines[index], "split": twins.splits[index]}
        )
    return {"shown": shown, "equal": twins.equal, "count": len(twins.lines)}
