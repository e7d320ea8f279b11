"""Trained experts against the same architectures trained with MONAI's defaults, in the same time, on the same splits.

    python -m benchmarks.expert_table FOLDER --threads 2

FOLDER holds real files with their manifest.jsonl; without it only made studies are examined. Patients or places are
divided into folds; each fold is examined by networks that have seen none of it. An expert is calibrated on a fifth of
the patients or places that it may learn from, of made ones on half; the plain network learns from all of them. Time is
that of the processor, divided evenly over the folds, and includes reading, but not calibration. A row is printed as
soon as it is known.

The plain networks see each picture resized; scenes are mirrored, patients are not. Their loss is DiceCELoss. Its
cross-entropy takes labels that exclude each other, so that labels that overlap have binary ones beside its Dice.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from monai.losses.dice import DiceCELoss, DiceLoss
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.resnet import ResNet
from monai.transforms.spatial.array import Resize
from monai.transforms.spatial.dictionary import RandFlipd
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from curriculum.data.manifest import read_manifest
from curriculum.recipe import DataConfig
from experts import classification, segmentation
from experts.calibration import auroc, binned, calibration_error
from experts.examination import dice
from experts.preparation import choose
from experts.settings import ExpertConfig
from fovea import config, registry
from fovea.errors import FoveaError
from fovea.types import Facts, Mask, Origin, Study

Pair = tuple[Study, Facts]
Rows = list[tuple[Pair, str]]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """What is learned from which studies; `rows` are the studies with the patient or place of each."""

    name: str
    recipe: ExpertConfig
    domain: str
    rows: Callable[[], Rows]
    apart: int = 5
    """One of so many patients or places calibrates an expert."""


@dataclass
class Result:
    """What was found in the studies that were held out: a score a study, or what an AUROC needs, and its group.

    `bins` are those of the calibration error, before and after, of each study.
    """

    groups: list[str]
    scores: list[float]
    truth: list[bool]
    bins: list[tuple[Vector, Vector]]

    def figure(self, chosen: NDArray[np.intp]) -> float:
        """The mean Dice, or the AUROC of classes."""
        scores = np.array(self.scores)[chosen]
        return auroc(scores, np.array(self.truth)[chosen]) if self.truth else float(np.nanmean(scores))

    def error(self, chosen: NDArray[np.intp], side: int) -> float:
        """The expected calibration error before (0) or after (1) calibration."""
        return calibration_error(np.sum([self.bins[i][side] for i in chosen], 0))

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the figure, by resampling patients or places."""
        rng, groups = np.random.default_rng(0), np.array(self.groups)
        of = [np.flatnonzero(groups == group) for group in dict.fromkeys(self.groups)]
        draws = [self.figure(np.concatenate([of[i] for i in rng.integers(0, len(of), len(of))])) for _ in range(1000)]
        low, high = np.nanpercentile(draws, (2.5, 97.5))
        return float(low), float(high)


def recipe(domain: str, **settings: Any) -> ExpertConfig:
    """A recipe with the codes of its domain."""
    return config.parse(ExpertConfig, settings).coded(registry.domain(domain).vocabulary)


def real(domain: str, folders: tuple[str, ...], root: Path) -> Rows:
    """The studies of a manifest's folders."""
    plugin = registry.domain(domain)
    samples = read_manifest(DataConfig(source="manifest", path=root, folders=folders), plugin)
    return [((plugin.load(Path(sample.path)), sample.facts), sample.group) for sample in samples]


@lru_cache(maxsize=1)
def made(domain: str, n: int) -> Rows:
    """Studies that the domain makes."""
    plugin = registry.domain(domain)
    folder = Path(tempfile.mkdtemp())
    samples = plugin.synth(folder, n, 11)
    return [((plugin.load(folder / sample.path), sample.facts), sample.group) for sample in samples]


def tasks(root: Path | None, n: int) -> Iterator[Task]:
    """What is compared."""
    chest = {"modalities": ("DX", "CR"), "meta": {"view": ("PA", "AP")}, "low": 0.0, "high": 1.0}
    chest |= {"size": (1, 128, 128)}
    lungs = {label: {} for label in ("left_lung", "right_lung", "cardiomediastinum")}
    cover = {label: {} for label in ("water", "bare_soil", "vegetation", "road", "building")}
    segment, classify = {"batch": 8, "rate": 6e-3, "width": 16}, {"batch": 16, "rate": 2e-3, "width": 12}
    scene = {"modalities": ("optical",), "channels": ("red", "green", "blue"), "low": 0.0, "high": 255.0}
    scene |= {"size": (1, 256, 256), "exclusive": True}
    if root:
        yield Task("lungs, real", recipe("radiology", name="lungs", task="t", labels=lungs, training=segment, **chest),
                   "radiology", lambda: real("radiology", ("med/cxr_seg",), root))  # fmt: skip
        ground = segment | {"crop": 128, "turns": True}
        yield Task("land cover, real", recipe("remote_sensing", name="cover", task="t", labels=cover, training=ground,
                   **scene), "remote_sensing", lambda: real("remote_sensing", ("rs/dubai_seg",), root))  # fmt: skip
        yield Task("COVID-19, real", recipe("radiology", name="covid", task="t", kind="classification",
                   labels={"covid_19": {}}, training=classify, **chest), "radiology",
                   lambda: real("radiology", ("med/cxr_findings",), root))  # fmt: skip
    organs = {label: {} for label in ("left_lung", "right_lung", "heart", "pleural_effusion")}
    yield Task("chest, made", recipe("radiology", name="organs", task="t", labels=organs, training=segment, **chest),
               "radiology", lambda: made("radiology", n), 2)  # fmt: skip
    yield Task("support device, made", recipe("radiology", name="device", task="t", kind="classification",
               labels={"support_device": {}}, training=classify, **chest | {"size": (1, 256, 256)}), "radiology",
               lambda: made("radiology", n), 2)  # fmt: skip


def expert(task: Task, learned: Rows, held: Rows, seconds: float, seed: int, out: Result) -> int:
    """Train an expert for so many seconds of the processor, and examine it; returns its steps."""
    groups = list(dict.fromkeys(group for _, group in learned))
    Random(seed).shuffle(groups)
    apart = set(groups[: max(1, len(groups) // task.apart)])
    train, validation = ([pair for pair, group in learned if (group in apart) == side] for side in (False, True))
    kind = segmentation if task.recipe.kind == "segmentation" else classification

    def taught(steps: int, folder: Path, learned: list[Pair], examined: list[Pair]) -> tuple[float, float]:
        settings = task.recipe.training.model_copy(update={"steps": steps})
        ticks: list[float] = [time.process_time()]
        kind.train(task.recipe.model_copy(update={"training": settings}), learned, examined, folder, seed,
                   log=lambda *_: ticks.append(time.process_time()))  # fmt: skip
        return ticks[1] - ticks[0], ticks[-2] - ticks[1]  # until the first step, and from there to the last

    with tempfile.TemporaryDirectory() as name:
        some = train[: len(train) // 4]
        reading, trial = taught(21, Path(name), some, validation[:1])
        steps = max(int((seconds - reading * len(train) / len(some)) / (trial / 20)), 20)
        taught(steps, Path(name), train, validation)
        trained = kind.open(Path(name))
        for ((_study, facts), output), group in zip(trained.looks([p for p, _ in held]), [g for _, g in held],
                                                   strict=True):  # fmt: skip
            if isinstance(trained, classification.ClassificationExpert):
                label = task.recipe.drawn[0]
                if label in facts.assessed:
                    fitted, logit = trained.calibrations[label], output[label]
                    before = float(torch.tensor(logit).sigmoid())
                    judge(out, group, facts.finding(label) is not None, before, fitted.probability(logit))
                continue
            masks, shares, truths = {}, {}, {}
            for label in task.recipe.drawn:
                truth = mask_of(facts, label)
                if truth is None:
                    continue
                found = trained.finding(label, output, Origin("expert", ""))
                masks[label] = found.region.data if isinstance(found.region, Mask) else np.zeros_like(truth)
                truths[label], inside = truth, output.seen.valid
                plain = output.map(label)[inside]
                shares[label] = plain, trained.calibrations[label].pixel(plain), output.seen.shrink(truth)[inside]
            score(out, group, masks, truths, shares)
    return steps


def plain(task: Task, learned: Rows, held: Rows, seconds: float, seed: int, out: Result) -> int:
    """The same architecture with MONAI's defaults and Adam at 1e-3."""
    began, torch_state = time.process_time(), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    labels, width, size = task.recipe.drawn, task.recipe.training.width, task.recipe.size[1:]
    draws = task.recipe.kind == "segmentation"
    extra = 1 if task.recipe.exclusive else 0
    network: nn.Module
    if draws:
        features = (width, width, 2 * width, 4 * width, 4 * width, width)
        channels, drawn = len(task.recipe.channels), len(labels) + extra
        inner = BasicUNet(2, 4 * channels, 4 * drawn, features, act="RELU", norm="BATCH", upsample="nontrainable")
        network = segmentation.Folded(inner, drawn)
    else:
        network = ResNet("basic", [1, 1, 1, 1], [width, 2 * width, 4 * width, 8 * width], spatial_dims=2,
                         n_input_channels=1, conv1_t_stride=2, num_classes=len(labels))  # fmt: skip
    seen = [(resized(task.recipe, pair[0]), pair[1]) for pair, _ in learned]
    pixels = torch.stack([image for image, _ in seen])
    truth = torch.stack([targets(facts, labels, size, draws) for _, facts in seen])
    known = torch.tensor([draws or labels[0] in facts.assessed for _, facts in seen])
    pixels, truth = pixels[known], truth[known]
    flips = [RandFlipd(("image", "truth") if draws else "image", 0.5, axis) for axis in (0, 1) if extra]
    for number, flip in enumerate(flips):
        flip.set_random_state(seed=seed + number)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    exclusive, overlapping = DiceCELoss(softmax=True), DiceLoss(sigmoid=True)
    step = 0
    while time.process_time() - began < seconds:
        chosen = torch.randint(len(pixels), (task.recipe.training.batch,), generator=torch_state)
        items = [{"image": pixels[i], "truth": truth[i]} for i in chosen]
        for flip in flips:
            items = [flip(item) for item in items]
        given, wanted = (torch.stack([torch.as_tensor(item[key]) for item in items]) for key in ("image", "truth"))
        logits = network(given)
        if draws and extra:
            loss = exclusive(logits, torch.cat((1 - wanted.amax(1, keepdim=True), wanted), 1))
        else:
            loss = functional.binary_cross_entropy_with_logits(logits, wanted)
            loss = loss + (overlapping(logits, wanted) if draws else 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    network.eval()
    for (study, facts), group in held:
        with torch.inference_mode():
            logits = network(resized(task.recipe, study)[None])[0]
        if not draws:
            if labels[0] in facts.assessed:
                value = float(logits[0].sigmoid())
                judge(out, group, facts.finding(labels[0]) is not None, value, value)
            continue
        maps = logits.softmax(0)[1:] if extra else logits.sigmoid()
        masks, shares, truths = {}, {}, {}
        for place, label in enumerate(labels):
            whole = mask_of(facts, label)
            if whole is not None:
                full = functional.interpolate(maps[None, place, None], whole.shape[1:], mode="bilinear")[0].numpy()
                truths[label], masks[label] = whole, full >= 0.5
                small = targets(facts, (label,), size, True).numpy()[0] >= 0.5
                shares[label] = maps[place].numpy(), maps[place].numpy(), small
        score(out, group, masks, truths, shares)
    return step


def resized(recipe: ExpertConfig, study: Study) -> Tensor:
    """What a plain network sees: the channels between 0 and 1, in the recipe's size."""
    image = study.images[int(choose(recipe, study))]
    names = [channel.name for channel in image.channels]
    places = [0 if name == "*" else names.index(name) for name in recipe.channels]
    low, high = recipe.low or 0.0, recipe.high or 1.0
    values = (torch.from_numpy(image.pixels[places, 0]) - low) / (high - low)
    return torch.as_tensor(Resize(recipe.size[1:], mode="area")(values.nan_to_num(0))).clone().as_subclass(Tensor)


def targets(facts: Facts, labels: Sequence[str], size: Sequence[int], draws: bool) -> Tensor:
    """Masks in a size, or which labels there are."""
    if not draws:
        return torch.tensor([float(facts.finding(label) is not None) for label in labels])
    masks = [mask_of(facts, label) for label in labels]
    shape = next((mask.shape for mask in masks if mask is not None), (1, *size))
    whole = torch.stack([torch.from_numpy(np.zeros(shape) if m is None else m)[0].float() for m in masks])
    return functional.interpolate(whole[None], tuple(size), mode="nearest")[0]


def mask_of(facts: Facts, label: str) -> NDArray[np.bool_] | None:
    """The mask of a label that is there; None where it is absent or was not drawn."""
    finding = facts.finding(label)
    return finding.region.data if finding and isinstance(finding.region, Mask) else None


def score(out: Result, group: str, masks: dict[str, Any], truths: dict[str, Any], shares: dict[str, Any]) -> None:
    """The mean Dice over a study's labels, and the bins of its pixels from a probability of 1 % on."""
    if truths:
        sides = []
        for side in (0, 1):
            bins = []
            for *both, true in shares.values():
                told = both[side] >= 0.01
                bins.append(binned(both[side][told].astype(float), true[told]))
            sides.append(np.sum(bins, 0))
        out.groups.append(group)
        out.scores.append(float(np.mean([dice(truth, masks[label]) for label, truth in truths.items()])))
        out.bins.append((sides[0], sides[1]))


def judge(out: Result, group: str, present: bool, before: float, after: float) -> None:
    """What was said of one study, and whether it is so."""
    out.groups.append(group)
    out.scores.append(after)
    out.truth.append(present)
    one, two = (binned(np.array([value]), np.array([present])) for value in (before, after))
    out.bins.append((one, two))


def compare(task: Task, seconds: float, folds: int) -> Iterator[str]:
    """A line of the table an arm."""
    rows = [row for row in task.rows() if not isinstance(choose(task.recipe, row[0][0]), str)]
    known = [row for row in rows if not row[0][1].assessed.isdisjoint(task.recipe.drawn)]
    groups = sorted({group for _, group in known})
    Random(0).shuffle(groups)
    for name, arm in (("Fovea", expert), ("MONAI defaults", plain)):
        out, steps = Result([], [], [], []), []
        for fold in range(folds):
            outside = set(groups[fold::folds])
            learned, held = ([row for row in known if (row[1] in outside) == side] for side in (False, True))
            with redirect_stderr(StringIO()):
                steps.append(arm(task, learned, held, seconds / folds, fold, out))
        low, high = out.interval()
        every = np.arange(len(out.scores))
        metric = "AUROC" if out.truth else "Dice"
        before, after = (out.error(every, side) for side in (0, 1))
        yield (
            f"| {task.name} | {name} | {int(np.mean(steps))} | {len(every)} of {len(set(out.groups))} | {metric} "
            f"{out.figure(every):.3f} ({low:.3f} to {high:.3f}) | {before:.3f} | {after:.3f} |"
        )


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder of the real files' manifest.jsonl")
    parser.add_argument("--minutes", type=float, default=1.0, help="of the processor, an arm")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--studies", type=int, default=1800, help="how many are made")
    parser.add_argument("--only", default="", help="tasks whose name holds this")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| task | trained by | steps | studies of patients or places | 95 % interval | ECE before | ECE after |")
    print("|---|---|---|---|---|---|---|")
    for task in tasks(given.folder, given.studies):
        if given.only not in task.name:
            continue
        try:
            for line in compare(task, 60 * given.minutes, given.folds):
                print(line, flush=True)
        except (FoveaError, OSError, RuntimeError, ValueError) as error:
            print(f"| {task.name} | failed: {type(error).__name__}: {error} | | | | | |", flush=True)


if __name__ == "__main__":
    main()
