"""Trained detection experts against torchvision's own detector, in the same time, on the same splits.

    python -m benchmarks.detection_table FOLDER --minutes 3

FOLDER holds real files with their manifest.jsonl; without it only made scenes are examined. A quarter of the images is
held out (of the trees, one image after the other); of the others, a fifth calibrates and sets the threshold, in both
arms by the same code. Of made scenes it is half each time: most have no building, some have thirty, so that few scenes
do not tell how frequent they are. torchvision's arm is its
FCOS with a ResNet-10 of random weights and, in the pyramid and the heads, a quarter of the usual 256 channels, for the
time; it is trained as its reference script trains FCOS: SGD, the rate for the batch, two drops of the rate, mirroring.
It sees pictures of the recipe's size and draws upright boxes: on made scenes it is examined by the upright boxes of the
truth, the expert by the slanted ones. Time is that of the processor, divided over the folds; imports and calibration
are not counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from io import StringIO
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy.special import expit, logit
from torchvision.models.detection import FCOS  # type: ignore[import-untyped]
from torchvision.models.detection.backbone_utils import BackboneWithFPN  # type: ignore[import-untyped]
from torchvision.models.resnet import BasicBlock, ResNet  # type: ignore[import-untyped]
from torchvision.ops.feature_pyramid_network import LastLevelP6P7  # type: ignore[import-untyped]

from experts import boxes as rectangles
from experts import detection
from experts.boxes import Boxes
from experts.calibration import Calibration, binned, calibration_error
from experts.detection_examination import Trial, average_precision, matched
from experts.detection_training import truth
from experts.settings import ExpertConfig
from fovea import config, registry
from fovea.types import PIXEL, Box, Channel, Code, Facts, Finding, Floats, Grid, Image, Instance, Origin, Source, Study

Pair = tuple[Study, Facts]
Rows = list[tuple[Pair, str]]
Found = dict[str, tuple[Boxes, NDArray[np.float64]]]
_WIDTH = 64
DOUBT = 0.05
"""Candidates of a smaller probability are left out of the calibration error."""


@dataclass(frozen=True)
class Task:
    """What is sought in which images; `rows` are the studies with the image or place of each."""

    name: str
    recipe: ExpertConfig
    rows: Callable[[], Rows]
    folds: int = 1
    held: int = 4
    """One of so many images or places is held out, where there is one fold."""
    apart: int = 5
    """One of so many of the others calibrates."""


@dataclass
class Result:
    """What was found of one label in the studies that were held out, study by study."""

    groups: list[str] = field(default_factory=list)
    trial: Trial = field(default_factory=Trial)
    errors: list[float] = field(default_factory=list)
    bins: list[list[NDArray[np.float64]]] = field(default_factory=list)

    def add(self, group: str, found: Boxes, evidence: NDArray[np.float64], wanted: Boxes, by: Calibration) -> None:
        """One study: its candidates against the truth, with the calibration that has not seen it."""
        right, fair = matched(found, wanted), by.probabilities(evidence)
        self.groups.append(group)
        self.trial.evidence.append(np.asarray(logit(np.clip(fair, 1e-9, 1 - 1e-9))))  # comparable over the folds
        self.trial.right.append(right)
        self.trial.objects.append(len(wanted))
        self.errors.append(abs(float((fair >= by.threshold).sum()) - len(wanted)))
        chances = np.asarray(expit(evidence), float), fair
        self.bins.append([binned(p[p >= DOUBT], right[p >= DOUBT]) for p in chances])

    def told(self) -> str:
        """The columns of the table: objects, average precision with its interval, errors of count and calibration."""
        rng, groups = np.random.default_rng(0), np.array(self.groups)
        of = [np.flatnonzero(groups == group) for group in dict.fromkeys(self.groups)]
        every = np.arange(len(groups))
        draws = [self._figure(np.concatenate([of[i] for i in rng.integers(0, len(of), len(of))])) for _ in range(1000)]
        low, high = np.nanpercentile(draws, (2.5, 97.5))
        before, after = (calibration_error(np.sum([row[side] for row in self.bins], 0)) for side in (0, 1))
        return (
            f"{sum(self.trial.objects)} in {len(every)} | {self._figure(every):.3f} ({low:.3f} to {high:.3f}) | "
            f"{np.mean(self.errors):.2f} | {before:.3f} | {after:.3f} |"
        )

    def _figure(self, chosen: NDArray[np.intp]) -> float:
        parts = ([column[i] for i in chosen] for column in (self.trial.evidence, self.trial.right))
        evidence, right = (np.concatenate(part) for part in parts)
        return average_precision(evidence, right, sum(self.trial.objects[i] for i in chosen))


def study(pixels: Floats, boxes: dict[str, Boxes]) -> Pair:
    """A picture (channel, row, column) in three colours, with upright boxes as its truth."""
    grid = Grid(np.eye(4), PIXEL, (1, *pixels.shape[1:]))
    channels = tuple(Channel(name, "") for name in ("red", "green", "blue"))
    source = Source((sha256(pixels.tobytes()).hexdigest(),), "picture/1")
    regions = {k: [rectangles.to_region(box, False, pixels.shape[1:]) for box in found] for k, found in boxes.items()}
    findings = tuple(
        Finding(label, Code("99FOVEA", label, label), True, 1.0, Origin("annotation", "1"),
                instances=tuple(Instance(region, 1.0) for region in found))
        for label, found in regions.items() if found
    )  # fmt: skip
    image = Image.from_array(channels, grid, pixels[:, None])
    return Study("pictures", (image,), source, {"modality": "picture"}), Facts(findings, frozenset(boxes))


def edges(corners: Sequence[tuple[float, ...]]) -> Boxes:
    """Boxes from (left, top, right, bottom)."""
    found = [rectangles.of_region(Box((0, y0, x0), (1, y1, x1)), False) for x0, y0, x1, y1 in corners]
    return np.concatenate([rectangles.NO_BOXES, *found])


def colours(path: Path) -> Floats:
    """The picture in a file, (colour, row, column)."""
    return np.asarray(Pillow.open(path).convert("RGB"), np.float32).transpose(2, 0, 1)


def cells(root: Path) -> Rows:
    """Blood smears with boxes."""
    names, rows = {"WBC": "white_cell", "RBC": "red_cell", "Platelets": "platelet"}, []
    for line in (root / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["path"].startswith("med/bccd/"):
            found: dict[str, list[tuple[float, ...]]] = {name: [] for name in names.values()}
            for box in row["label"]["boxes"]:
                found[names[box["name"]]].append(tuple(box["bbox_xyxy"]))
            boxes = {name: edges(corners) for name, corners in found.items()}
            rows.append((study(colours(root / row["path"]), boxes), row["group"]))
    return rows


def trees(root: Path) -> Rows:
    """Four tiles of each aerial image of which the crowns are known; a crown is in a tile that shows half of it."""
    folder, rows = root / "rs" / "deepforest_trees", []
    sides = "xmin", "ymin", "xmax", "ymax"
    site = "2018_SJER_3_252000_4107000_image_477"
    with (folder / f"{site}_truth.csv").open() as file:
        known = {f"{site}.tif": [tuple(float(row[side]) for side in sides) for row in csv.DictReader(file)]}
    for name in ("OSBS_029", "SOAP_061"):
        found = ElementTree.parse(folder / f"{name}.xml").iter("bndbox")
        known[f"{name}.png"] = [tuple(float(box.findtext(side, "nan")) for side in sides) for box in found]
    for name, corners in known.items():
        pixels, boxes = colours(folder / name), edges(corners)
        side = pixels.shape[1] // 2
        for start in ((0, 0), (0, side), (side, 0), (side, side)):
            cut = rectangles.cut(boxes - np.array((*start, 0, 0, 0)), (side, side))
            shown = cut[cut[:, 2] * cut[:, 3] >= 0.5 * boxes[:, 2] * boxes[:, 3]]
            rows.append(
                (study(pixels[:, start[0] : start[0] + side, start[1] : start[1] + side], {"tree": shown}), name)
            )
    return rows


def scenes(n: int) -> Rows:
    """Scenes that the domain makes."""
    plugin, folder = registry.domain("remote_sensing"), Path(tempfile.mkdtemp())
    samples = plugin.synth(folder, n, 11)
    return [((plugin.load(folder / sample.path), sample.facts), sample.group) for sample in samples]


def tasks(root: Path | None, n: int) -> Iterator[Task]:
    """What is compared."""
    plain = {"kind": "detection", "task": "t", "channels": ("red", "green", "blue"), "low": 0.0}
    picture = plain | {"modalities": ("picture",), "high": 255.0}
    if root:
        labels = {label: {"measures": ("count",)} for label in ("white_cell", "red_cell", "platelet")}
        yield Task("blood cells, real", recipe(picture, labels, (1, 160, 192)), partial(cells, root))
        crown = {"tree": {"measures": ("count",)}}
        yield Task("tree crowns, real", recipe(picture, crown, (1, 192, 192), turns=True), partial(trees, root), 3)
    along = {"measures": ("count", "length", "bearing")}
    made = plain | {"modalities": ("optical",), "high": 0.5}
    objects = {"ship": along, "building": along}
    sought = recipe(made, objects, (1, 320, 320), turns=True, crop=160)
    yield Task("scenes, made", sought, partial(scenes, n), held=2, apart=2)


def recipe(settings: dict[str, object], labels: object, size: tuple[int, int, int], **training: object) -> ExpertConfig:
    """An expert of one kind of picture."""
    given = {"name": "objects", "labels": labels, "size": size, "training": {"batch": 8, "width": 16} | training}
    return config.parse(ExpertConfig, settings | given)


def expert(task: Task, train: Rows, examined: Rows, seconds: float, seed: int) -> tuple[Callable[[Study], Found], int]:
    """What an expert finds that was trained for so many seconds of the processor, and its steps."""

    def taught(steps: int, folder: Path, validation: Rows) -> tuple[float, float]:
        settings = task.recipe.training.model_copy(update={"steps": steps})
        ticks: list[float] = [time.process_time()]
        given = task.recipe.model_copy(update={"training": settings})
        detection.train(given, [pair for pair, _ in train], [pair for pair, _ in validation], folder, seed,
                        log=lambda *_: ticks.append(time.process_time()))  # fmt: skip
        return ticks[1] - ticks[0], ticks[-2] - ticks[1]  # until the first step, and from there to the last

    with tempfile.TemporaryDirectory() as name:
        taught(1, Path(name), examined[:1])  # imports
        reading, trial = taught(11, Path(name), examined[:1])
        steps = max(int((seconds - reading) / (trial / 10)), 20)
        taught(steps, Path(name), examined)
        trained = detection.open(Path(name))

    def find(given: Study) -> Found:
        output = trained.outputs([given])[0]
        return {label: (output.boxes[label], output.evidence[label]) for label in task.recipe.labels}

    return find, steps


def plain(task: Task, train: Rows, examined: Rows, seconds: float, seed: int) -> tuple[Callable[[Study], Found], int]:  # noqa: ARG001
    """The same of torchvision's FCOS with its defaults, but for the backbone and the size of pictures."""
    torch.manual_seed(seed)
    labels = list(task.recipe.labels)
    side, batch = min(task.recipe.size[1:]), task.recipe.training.batch
    layers = {f"layer{number}": str(number) for number in (2, 3, 4)}
    backbone = BackboneWithFPN(
        ResNet(BasicBlock, [1, 1, 1, 1]), layers, [128, 256, 512], _WIDTH, extra_blocks=LastLevelP6P7(_WIDTH, _WIDTH)
    )
    network = FCOS(backbone, len(labels) + 1, min_size=side, score_thresh=0.01)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01 * batch / 16, momentum=0.9, weight_decay=1e-4)
    began, step, rng = time.process_time(), 0, Random(seed)
    seen = [(colored(task.recipe, given), targets(facts, labels)) for (given, facts), _ in train]
    network.train()
    while (spent := (time.process_time() - began) / seconds) < 1:
        for group in optimizer.param_groups:  # of 26 passes, drops after 16 and 22
            group["lr"] = 0.01 * batch / 16 * 0.1 ** ((spent > 16 / 26) + (spent > 22 / 26))
        chosen = [mirrored(*rng.choice(seen)) if rng.random() < 0.5 else rng.choice(seen) for _ in range(batch)]
        losses = network([image for image, _ in chosen], [wanted for _, wanted in chosen])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        step += 1
    network.eval()

    def find(given: Study) -> Found:
        with torch.inference_mode():
            told = {name: value.numpy() for name, value in network([colored(task.recipe, given)])[0].items()}
        out = {}
        for number, label in enumerate(labels, 1):
            which = told["labels"] == number
            scores = told["scores"][which].astype(float)
            out[label] = (
                edges([tuple(row) for row in told["boxes"][which].tolist()]),
                logit(scores.clip(1e-6, 1 - 1e-6)),
            )
        return out

    return find, step


def colored(recipe: ExpertConfig, given: Study) -> torch.Tensor:
    """What torchvision sees of a study: three colours between 0 and 1, in their own size."""
    image = given.images[0]
    names = [channel.name for channel in image.channels]
    values = image.pixels[[names.index(name) for name in recipe.channels], 0]
    return torch.from_numpy(np.nan_to_num(values) / (recipe.high or 1.0)).clamp(0, 1)


def targets(facts: Facts, labels: list[str]) -> dict[str, torch.Tensor]:
    """The truth as torchvision takes it."""
    found = [truth(facts, label, 0, False) for label in labels]
    boxes = np.concatenate([rectangles.NO_BOXES if one is None else one for one in found])
    numbers = [number for number, one in enumerate(found, 1) for _ in (() if one is None else one)]
    half = boxes[:, 3:1:-1] / 2
    corners = np.concatenate((boxes[:, :2] + 0.5 - half, boxes[:, :2] + 0.5 + half), 1)[:, [1, 0, 3, 2]]
    return {"boxes": torch.from_numpy(corners).float(), "labels": torch.tensor(numbers, dtype=torch.long)}


def mirrored(image: torch.Tensor, wanted: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Left and right exchanged."""
    left, top, right, bottom = wanted["boxes"].unbind(1)
    width = image.shape[2]
    return image.flip(2), wanted | {"boxes": torch.stack((width - right, top, width - left, bottom), 1)}


def compare(task: Task, seconds: float) -> Iterator[str]:
    """A line of the table for each label and arm."""
    rows, oriented = task.rows(), detection.is_oriented(task.recipe)
    groups = sorted({group for _, group in rows})
    Random(0).shuffle(groups)
    for name, arm, slanted in (("Fovea", expert, oriented), ("torchvision FCOS", plain, False)):
        out, steps = {label: Result() for label in task.recipe.labels}, []
        for fold in range(task.folds):
            outside = set(groups[fold :: task.held if task.folds == 1 else task.folds])
            learned, held = ([row for row in rows if (row[1] in outside) == side] for side in (False, True))
            keys = [group if task.folds == 1 else str(i) for i, (_, group) in enumerate(learned)]
            order = list(dict.fromkeys(keys))
            Random(fold).shuffle(order)
            apart = set(order[: max(1, len(order) // task.apart)])
            train, examined = ([r for r, key in zip(learned, keys, strict=True) if (key in apart) == side]
                               for side in (False, True))  # fmt: skip
            with redirect_stderr(StringIO()):
                find, n = arm(task, train, examined, seconds / task.folds, fold)
            steps.append(n)
            judge(task, find, slanted, examined, held, out)
        for label, result in out.items():
            yield f"| {task.name} | {label} | {name} | {int(np.mean(steps))} | {result.told()}"


def judge(
    task: Task, find: Callable[[Study], Found], slanted: bool, examined: Rows, held: Rows, out: dict[str, Result]
) -> None:
    """Calibrate on the studies that are apart, and examine what is held out."""
    trials = {label: Trial(rule=wanted.operating) for label, wanted in task.recipe.labels.items()}
    known: list[tuple[str, Found, dict[str, Boxes | None]]] = []
    for (given, facts), group in [*examined, *held]:
        known.append((group, find(given), {label: truth(facts, label, 0, slanted) for label in trials}))
    for _, found, wanted in known[: len(examined)]:
        for label, trial in trials.items():
            if (boxes := wanted[label]) is not None:
                trial.evidence.append(found[label][1])
                trial.right.append(matched(found[label][0], boxes))
                trial.objects.append(len(boxes))
    fitted = {label: trial.calibration() for label, trial in trials.items()}
    for group, found, wanted in known[len(examined) :]:
        for label, result in out.items():
            if (boxes := wanted[label]) is not None:
                result.add(group, *found[label], boxes, fitted[label])


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder of the real files' manifest.jsonl")
    parser.add_argument("--minutes", type=float, default=3.0, help="of the processor, an arm")
    parser.add_argument("--scenes", type=int, default=1500, help="how many are made")
    parser.add_argument("--only", default="", help="tasks whose name holds this")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(
        "| task | label | trained by | steps | objects in pictures | AP50 | error of count | ECE before | ECE after |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for task in tasks(given.folder, given.scenes):
        if given.only in task.name:
            for line in compare(task, 60 * given.minutes):
                print(line, flush=True)


if __name__ == "__main__":
    main()
