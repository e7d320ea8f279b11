"""How far the probabilities of trained experts hold on made radiographs that neither training nor calibration has seen.

    python -m benchmarks.calibration_table --threads 2

Three sets of patients: the network learns from the first, its calibration from the second, and the third tells the
expected calibration error (ECE, 15 bins), with a 95 % interval by bootstrap over its studies. Beside it stands the
error that the same probabilities would show by chance were they true: the mean, and where 95 % lie.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from itertools import count, islice
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import log_loss

from domains.radiology.synth import study as write_study
from experts import classification, segmentation
from experts.calibration import Method, binned, calibrate, calibration_error, error_by_chance, interval
from experts.operating import Truth, Vector
from experts.settings import ExpertConfig
from fovea import config, registry
from fovea.contracts import Domain
from fovea.types import Facts, Study

LABELS = {
    "segmentation": ("left_lung", "right_lung", "heart", "pleural_effusion", "pneumothorax"),
    "classification": ("cardiomegaly", "pleural_effusion", "pneumothorax", "support_device"),
}
TRAINING = {"segmentation": {"batch": 16, "rate": 6e-3, "width": 16}, "classification": {"batch": 16, "rate": 2e-3}}


Pair = tuple[Study, Facts]
Evidence = Mapping[str, tuple[Vector, Truth]]


def radiographs(folder: Path, numbers: Sequence[int], seed: int, domain: Domain) -> Iterator[list[Pair]]:
    """Sets of so many radiographs, one after another; no patient is in two."""
    numbered = (index for index in count() if index % 3 != 2)  # the others are CT series
    seen: set[str] = set()
    for number in numbers:
        made = (sample for index in numbered if (sample := write_study(folder, seed, index)).group not in seen)
        samples = list(islice(made, number))
        seen |= {sample.group for sample in samples}
        yield [(domain.load(Path(sample.path)), sample.facts) for sample in samples]


def recipe(kind: str, steps: int, domain: Domain) -> ExpertConfig:
    """A recipe at 128 x 128 pixels."""
    settings = {
        "name": kind, "task": "t", "kind": kind, "modalities": ("DX",), "low": 0.0, "high": 1.0, "size": (1, 128, 128),
        "labels": {label: {} for label in LABELS[kind]}, "training": {"steps": steps, **TRAINING[kind]},
    }  # fmt: skip
    return config.parse(ExpertConfig, settings).coded(domain.vocabulary)


def evidence(
    expert: segmentation.SegmentationExpert | classification.ClassificationExpert, pairs: Sequence[Pair]
) -> Evidence:
    """What the network says of each label, and what is so."""
    rows: dict[str, list[tuple[float, bool]]] = {label: [] for label in expert.config.drawn}
    for (_, facts), output in expert.looks(pairs):
        for label, row in rows.items():
            told = output[label]
            if isinstance(output, segmentation.Drawn):
                told = output.evidence(label, expert.calibrations[label].support)
            row.append((float(told), facts.finding(label) is not None))
    columns = {label: zip(*row, strict=True) for label, row in rows.items()}
    return {label: (np.array(next(both), float), np.array(next(both), bool)) for label, both in columns.items()}


def error(probability: Vector, truth: Truth) -> tuple[float, str]:
    """The calibration error, and its text with the interval."""

    def value(chosen: NDArray[np.intp]) -> float:
        return calibration_error(binned(probability[chosen], truth[chosen]))

    whole, (low, high) = value(np.arange(len(truth))), interval(value, len(truth), centered=True)
    return whole, f"{whole:.3f} ({low:.3f} to {high:.3f})"


def lines(kind: str, seed: int, learned: Evidence, held: Evidence) -> Iterator[str]:
    """A line of the first table a label that is now there and now not."""
    for label, (logits, truth) in held.items():
        if truth.all() or not truth.any():
            continue
        after = calibrate(*learned[label]).probabilities(logits)
        mean, low, high = error_by_chance(after)
        yield (
            f"| {kind}, seed {seed} | {label} | {truth.sum()} of {len(truth)} | {error(expit(logits), truth)[1]} "
            f"| {error(after, truth)[1]} | {mean:.3f} ({low:.3f} to {high:.3f}) |"
        )


def summaries(pairs: Sequence[tuple[Evidence, Evidence]], sizes: Sequence[int]) -> Iterator[str]:
    """A line of the second table a method of calibration and a number of studies that it learns from."""
    for size in sizes:
        for method in ("none", *get_args(Method)):
            errors, losses = [], []
            for learned, held in pairs:
                for label, (logits, truth) in held.items():
                    seen = tuple(column[:size] for column in learned[label])
                    if truth.all() or not truth.any():
                        continue
                    known = expit(logits) if method == "none" else calibrate(*seen, method).probabilities(logits)
                    errors.append(calibration_error(binned(known, truth)))
                    losses.append(log_loss(truth, np.clip(known, 1e-6, 1 - 1e-6)))
            yield f"| {size} | {method} | {np.mean(errors):.3f} | {max(errors):.3f} | {np.mean(losses):.3f} |"


def main() -> None:
    """Print both tables in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, nargs=3, default=(240, 300, 600), help="that train, calibrate, examine")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=1, help="networks of each kind")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    domain, pairs = registry.domain("radiology"), []
    with tempfile.TemporaryDirectory() as name:
        sets = list(radiographs(Path(name), given.studies, 5, domain))
        print("| expert | label | present | ECE before | ECE after | ECE by chance |\n|---|---|---|---|---|---|")
        for seed in range(given.seeds):
            for kind in (segmentation, classification):
                which, folder = kind.__name__.rpartition(".")[2], Path(name) / "expert"
                with redirect_stderr(StringIO()):
                    kind.train(recipe(which, given.steps, domain), sets[0], sets[1], folder, seed)
                expert = kind.open(folder)
                pairs.append((evidence(expert, sets[1]), evidence(expert, sets[2])))
                for line in lines(which, seed, *pairs[-1]):
                    print(line, flush=True)
    print("\n| calibrated on | method | mean ECE | greatest ECE | mean log loss |\n|---|---|---|---|---|")
    for line in summaries(pairs, (25, 50, given.studies[1])):
        print(line, flush=True)


if __name__ == "__main__":
    main()
