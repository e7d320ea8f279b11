"""What the network is shown, when training stops, and what is logged."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from experts import classification, segmentation
from experts.segmentation_training import mean_dice, segmentation_loss
from experts.settings import ExpertConfig, LabelConfig, TrainingConfig
from experts.training import apart, batch, fit, gather, seeded
from experts.variation import Variation
from fovea.errors import ConfigError
from fovea.types import LPS, Channel, Code, Facts, Finding, Grid, Image, Mask, Origin, Source, Study

DISC = Code("99TEST", "disc", "disc")


def recipe(size=(1, 32, 32), **training):
    wanted = {"steps": 4, "batch": 4, "width": 4, **training}
    return ExpertConfig(
        name="toy", task="outlines discs", modalities=("DX",), low=0.0, high=1.0, size=size,
        labels={"disc": LabelConfig(code=DISC)}, training=TrainingConfig(**wanted),
    )  # fmt: skip


def study(number, shape=(40, 48), slices=1, mask=True, present=True):
    """A bright disc somewhere, with a corner that holds no data."""
    rng = np.random.default_rng(number)
    grid = Grid(np.diag([1.0, 1.0, 1.0, 1.0]), LPS, (slices, *shape))
    place = np.indices((slices, *shape))[1:]
    center = rng.uniform(8, np.array(shape) - 8)
    disc = np.hypot(*(place - center.reshape(2, 1, 1, 1))) < 6
    disc &= present
    pixels = np.where(disc, 0.8, 0.2) + rng.normal(0, 0.02, disc.shape)
    valid = np.ones_like(disc)
    valid[:, :5, :5] = False
    image = Image.from_array((Channel("intensity", "1"),), grid, pixels[None].astype(np.float32), valid)
    found = Finding("disc", DISC, True, 1.0, Origin("truth", "1"), region=Mask(disc) if mask else None)
    facts = Facts((found,) if present else (), frozenset(["disc"]))
    return Study("toy", (image,), Source([f"{number}"], "toy"), {"modality": "DX"}), facts


def pairs(n, start=0, **given):
    return [study(start + i, present=i % 3 > 0, **given) for i in range(n)]


def ragged(data, shapes):
    """The same data with studies of other shapes, each with a small mask near its last corner."""
    pixels, planes, spots = [], [], torch.zeros(len(shapes), 1, 32, len(shapes[0]), dtype=torch.long)
    for number, shape in enumerate(shapes):
        plane = torch.ones(2, *shape, dtype=torch.uint8)
        plane[1] = 0
        plane[(1, *(slice(side - 7, side - 4) for side in shape))] = 1
        pixels.append(plane[1:].half().repeat(4, *(1 for _ in shape)))
        planes.append(plane)
        spots[number] = torch.tensor(shape) - 6
    sizes = torch.ones(len(shapes), 1, dtype=torch.long)
    return replace(data, pixels=tuple(pixels), planes=tuple(planes), sizes=sizes, spots=spots)


def shown(config, data, seed, showings=12):
    vary, generator = Variation(config, data.sides, seed), torch.Generator().manual_seed(seed)
    indices = torch.arange(len(data))
    for _ in range(showings):
        yield batch(config, data, indices, vary, generator, torch.device("cpu"))


@pytest.mark.parametrize(("crop", "turns"), [(0, False), (0, True), (32, True)])
def test_masks_move_with_what_they_outline(crop, turns):
    config = recipe(size=(1, 64, 64), crop=crop, turns=turns)
    data = gather(config, pairs(6, shape=(64, 64)), ("disc",), masks=True)
    overlaps, turned = [], set()
    for pixels, valid, masks in shown(config, data, 1):
        assert pixels.shape[2:] == masks.shape[2:] == ((crop or 64),) * 2
        assert (pixels[(valid == 0).expand_as(pixels)] == 0).all()
        bright = (pixels[:, :1] > 0.5) & (valid > 0)
        overlaps.append((2 * (bright * masks).sum() / (bright.sum() + masks.sum()).clamp(min=1)).item())
        column, row = (pixels[0, channel].where(valid[0, 0] > 0, torch.nan) for channel in (-1, -2))
        across = (column[:, -8:].nanmean() - column[:, :8].nanmean(), row[-8:].nanmean() - row[:8].nanmean())
        turned.add(tuple(np.sign(float(value)) for value in across))
    assert np.mean(overlaps) > 0.9
    assert (len(turned) > 1) == turns  # only what may be mirrored is


@pytest.mark.parametrize(("size", "shapes"), [
    ((1, 32, 32), [(32, 32), (64, 40), (40, 96)]),
    ((16, 32, 32), [(16, 32, 32), (20, 40, 50), (18, 33, 64)]),
])  # fmt: skip
def test_studies_may_differ_in_shape(size, shapes):
    config = recipe(size=size, batch=3)
    slices = size[0]
    data = ragged(gather(config, pairs(3, shape=(32, 32), slices=slices), ("disc",), masks=True), shapes)
    visible = torch.zeros(3)
    for pixels, valid, masks in shown(config, data, 0, 30):
        assert pixels.shape[2:] == valid.shape[2:] == masks.shape[2:] == torch.Size(size[-len(shapes[0]) :])
        visible += masks.flatten(1).amax(1)
    assert (visible[1:] / 30 > 0.4).all()  # chance alone would show a corner of these less often


def test_variation_follows_its_seed():
    config = recipe(turns=True)
    data = gather(config, pairs(4), ("disc",), masks=True)
    first, again, other = (torch.stack([p for p, _, _ in shown(config, data, seed)]) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_is_not_varied_is_left_as_it_is():
    config = recipe(size=(1, 64, 64), crop=32)
    vary = Variation(config, [(64, 64), (64, 64)], 0)
    vary._resampled = True
    vary._affine.rotate_range = vary._affine.scale_range = (0.0, 0.0)
    vary._affine.translate_range = ()
    planes = torch.randint(0, 255, (2, 2, 40, 40), dtype=torch.uint8)
    assert torch.equal(vary(torch.rand(2, 4, 40, 40), planes)[1], planes[:, :, 4:-4, 4:-4])


def test_the_dice_part_is_monais():
    from monai.losses.dice import DiceLoss

    generator = torch.Generator().manual_seed(0)
    logits, masks = torch.randn(3, 2, 8, 8, generator=generator), torch.rand(3, 2, 8, 8, generator=generator).round()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks)
    dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=1, smooth_dr=1)(logits, masks)
    assert segmentation_loss(logits, masks, torch.ones_like(masks)).item() == pytest.approx((entropy + dice).item())


@pytest.mark.parametrize("exclusive", [False, True])
def test_what_is_not_known_teaches_nothing(exclusive):
    generator = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 3, 2, 8, 8, generator=generator)
    masks = torch.nn.functional.one_hot(torch.randint(0, 2, (3, 8, 8), generator=generator), 2).movedim(-1, 1).float()
    weight = torch.rand(3, 1, 8, 8, generator=generator).round().expand_as(masks)
    first, again = (
        segmentation_loss(torch.where(weight > 0, logits, hidden), masks, weight, exclusive).item()
        for hidden in (logits, 9 * other)
    )
    assert first == pytest.approx(again)


@pytest.mark.parametrize("kind", [segmentation, classification])
def test_the_same_seed_gives_the_same_weights(kind, tmp_path):
    config = recipe(steps=2).model_copy(update={"kind": kind.__name__.rpartition(".")[2]})
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        card = kind.train(config, pairs(6), pairs(6, 50), tmp_path / str(number), seed)
        weights.append(load_file(tmp_path / str(number) / "weights.safetensors"))
        assert json.loads((tmp_path / str(number) / "reliability.json").read_text()).keys() == {"disc"}
        assert {"auroc", "ece", "ece_uncalibrated"} <= {row.metric for row in card.performance}
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_training_learns_what_a_disc_is():
    config = recipe(steps=50, batch=8, rate=1e-2, width=8)
    data = gather(config, pairs(24, shape=(32, 32)), ("disc",), masks=True)
    network, held = (
        seeded(lambda: segmentation.build(config), 0),
        gather(config, pairs(9, 100, shape=(32, 32)), ("disc",), masks=True),
    )
    before = mean_dice(config, network.eval(), held, torch.device("cpu"))
    vary = Variation(config, data.sides, 0)

    def loss(indices, generator):
        pixels, valid, masks = batch(config, data, indices, vary, generator, torch.device("cpu"))
        return segmentation_loss(network(pixels), masks, valid)

    fit(network, loss, torch.ones(24, dtype=torch.long), config, 0, torch.device("cpu"), None)
    assert before < 0.5 < 0.85 < mean_dice(config, network, held, torch.device("cpu"))


def test_a_mask_that_is_not_known_is_not_scored():
    config = recipe()
    data = gather(config, pairs(6, mask=False)[1:], ("disc",), masks=True)
    assert mean_dice(config, segmentation.build(config).eval(), data, torch.device("cpu")) == 0


@pytest.mark.parametrize(("scores", "patience", "kept", "checks"), [
    ([1, 2, 3, 4, 5, 6], 2, 12, 6),
    ([1, 5, 4, 3, 9, 9], 2, 4, 4),
    ([5, 1, 6, 1, 2, 9], 2, 6, 5),
    ([3, 3, 3, 9, 9, 9], 3, 8, 6),
])  # fmt: skip
def test_training_stops_and_keeps_the_best_weights(scores, patience, kept, checks):
    config = recipe(steps=12, check=2, patience=patience)
    network, seen, logged = torch.nn.Linear(1, 1), [], []

    def score():
        assert not network.training
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return float(scores[len(seen) - 1])

    def loss(indices, generator):
        return (network(torch.randn(len(indices), 1, generator=generator)) ** 2).mean()

    log = lambda *entry: logged.append(entry)  # noqa: E731
    step = fit(network, loss, torch.ones(4, dtype=torch.long), config, 0, torch.device("cpu"), log, score)
    assert (step, len(seen)) == (kept, checks)
    best = seen[kept // 2 - 1]
    assert all(torch.equal(value, best[name]) for name, value in network.state_dict().items())
    assert [value for name, value, _ in logged if name == "toy/validation score"] == scores[:checks]


def test_an_update_that_is_not_finite_is_left_out():
    config, network, losses = recipe(steps=3), torch.nn.Linear(1, 1), iter([1.0, float("nan"), 1.0])
    fit(
        network,
        lambda indices, generator: network(torch.ones(1, 1)).sum() * next(losses),
        torch.ones(4, dtype=torch.long),
        config,
        0,
        torch.device("cpu"),
        None,
    )
    assert all(value.isfinite().all() for value in network.parameters())


def test_what_tells_when_to_stop_is_held_apart():
    config, many, few = recipe(patience=3), pairs(40), pairs(10)
    learned, stopping, examined = apart(config, many, few)
    assert (learned, stopping, examined) == (many[:35], many[35:], few)
    learned, stopping, examined = apart(config, few, many)
    assert (learned, stopping, examined) == (few, many[:10], many[10:])
    assert apart(recipe(), few, many) == (few, (), many)


@pytest.mark.parametrize("kind", [segmentation, classification])
def test_an_expert_that_stops_early_says_when(kind, tmp_path):
    config = recipe(patience=1, check=1, steps=30).model_copy(update={"kind": kind.__name__.rpartition(".")[2]})
    logged = {}
    kind.train(config, pairs(8), pairs(6, 50), tmp_path, 0, log=lambda name, value, step: logged.update({name: value}))
    assert 1 <= logged["toy/best step"] < 30
    assert (logged["toy/validation score"] < 0) == (kind is classification)  # a loss, the other way round, or a Dice


def test_without_a_study_to_stop_by_the_reason_is_told(tmp_path):
    wrong = [(replace(s, meta={"modality": "CT"}), facts) for s, facts in pairs(4)]
    with pytest.raises(ConfigError, match="none of 1 studies"):
        segmentation.train(recipe(patience=1), pairs(4) + wrong[:1] * 4, pairs(4), tmp_path, 0)


@pytest.mark.parametrize(("kind", "calibration"), [(segmentation, "platt"), (classification, "isotonic")])
def test_an_expert_is_calibrated_as_its_recipe_says(kind, calibration, tmp_path):
    labels = {"disc": LabelConfig(code=DISC, operating="sensitivity>=0.9")}
    name = kind.__name__.rpartition(".")[2]
    config = recipe(calibration=calibration).model_copy(update={"labels": labels, "kind": name})
    card = kind.train(config, pairs(6), pairs(12, 50), tmp_path, 0)
    fitted = kind.open(tmp_path).calibrations["disc"]
    assert (fitted.pixel_slope != 1) == (fitted.pixel_intercept != 0) == (kind is segmentation)
    assert (fitted.method, fitted.rule) == (calibration, "sensitivity>=0.9")
    assert bool(fitted.knots) == (calibration == "isotonic")
    assert any(row.metric.startswith("threshold by sensitivity>=0.9") for row in card.performance)


def test_a_map_smaller_than_the_support_still_has_evidence(tmp_path):
    segmentation.train(recipe(), pairs(4), pairs(4, 50), tmp_path, 0)
    (drawn,) = segmentation.open(tmp_path).outputs([pairs(1)[0][0]])
    pixels = drawn.map("disc").size
    assert drawn.evidence("disc", pixels + 1) == drawn.evidence("disc", pixels) < drawn.evidence("disc", 1)
