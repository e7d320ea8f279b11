"""The fit loop: what it trains, what it leaves alone, and that an interrupted run ends where a straight one does."""

from __future__ import annotations

import random

import pytest
import torch
from tiny import CLIP, DECODERS, tiny_model

from curriculum.parts.fit import fit
from curriculum.parts.muon import orthogonal
from curriculum.parts.packing import collate, encode, pack
from curriculum.parts.schedule import phase_at, rate
from curriculum.recipe import DEFAULTS, Phase, Recipe, StageConfig
from fovea.errors import ConfigError, ModelError
from fovea.types import Message, Part, Record

BOTH = (Phase(train=("connector", "decoder")),)


def settings(steps=6, optimizer="muon", phases=BOTH, **more):
    return DEFAULTS.model_copy(
        update={"steps": steps, "optimizer": optimizer, "phases": phases, "checkpoint": 2, **more}
    )


def objective_for(model, pixels=False):
    torch.manual_seed(0)
    seen = (
        {"a": torch.randint(0, 255, (128, 128, 3), dtype=torch.uint8)}
        if pixels
        else {"a": torch.randn(16, model.tower.channels)}
    )

    def objective(wrapped, step):
        size = random.Random(step).randint(1, 99)
        messages = (
            Message("user", (Part("found "), Part(image=0), Part(f"\nHow large is the nodule of {size}?"))),
            Message("assistant", (Part(f"The nodule measures {size} mm."),)),
        )
        encoded = encode(Record("a", "a", "size", messages, ("a",)), model)
        total, weight = wrapped(collate(pack([[encoded]], 256, model.gap, model.pad_id), model.pad_id, seen))
        return {"loss": total / weight}

    return objective


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def quiet(metrics, step):
    del metrics, step


@pytest.mark.parametrize("trained", [("connector",), ("decoder",), ("tower", "connector"), ("connector", "decoder")])
def test_only_the_named_parts_change(tmp_path, trained):
    model = tiny_model()
    before = weights(model)
    config = settings(steps=2, phases=(Phase(train=trained),))
    fit(model, objective_for(model, pixels="tower" in trained), config, tmp_path, "test", quiet)
    changed = {name.split(".")[0] for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert changed == set(trained)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resumed_run_equals_straight_run_bit_for_bit(tmp_path, optimizer):
    phases = (Phase(share=0.5, train=("connector",)), Phase(share=0.5, train=("connector", "decoder")))
    config = settings(6, optimizer, phases)
    straight, broken, resumed = tiny_model(), tiny_model(), tiny_model()
    fit(straight, objective_for(straight), config, tmp_path / "straight", "test", quiet)
    fit(broken, objective_for(broken), config, tmp_path / "broken", "test", quiet, stop_after=4)
    fit(resumed, objective_for(resumed), config, tmp_path / "broken", "test", quiet, resume=True)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(straight).items())
    assert not all(torch.equal(value, weights(broken)[name]) for name, value in weights(straight).items())


def test_a_damaged_checkpoint_is_refused(tmp_path):
    model = tiny_model()
    fit(model, objective_for(model), settings(2), tmp_path, "test", quiet)
    file = tmp_path / "checkpoint" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match="safetensors"):
        fit(model, objective_for(model), settings(4), tmp_path, "test", quiet, resume=True)


def test_a_batch_can_be_learned_by_heart(tmp_path):
    model, losses = tiny_model(), []
    objective = objective_for(model)
    fit(
        model,
        lambda m, step: objective(m, 0),
        settings(60, lr=2e-2),
        tmp_path,
        "test",
        lambda m, s: losses.append(m["loss"]),
    )
    assert losses[-1] < 0.2 < losses[0]


def test_an_unknown_part_is_refused(tmp_path):
    model = tiny_model()
    with pytest.raises(ConfigError, match="tower, connector, decoder"):
        fit(model, objective_for(model), settings(phases=(Phase(train=("head",)),)), tmp_path, "test", quiet)


def test_orthogonal_makes_singular_values_about_one():
    for shape in ((8, 20), (20, 8)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(*shape), 5))
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_schedule_warms_up_and_decays():
    config = settings(100, warmup=0.1)
    rates = [rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.15
    two = settings(10, phases=(Phase(share=0.3, train=("connector",)), Phase(share=0.7, train=("decoder",))))
    assert [phase_at(step, two).train[0] for step in range(10)] == ["connector"] * 3 + ["decoder"] * 7


def test_a_stage_inherits_what_it_does_not_set():
    recipe = Recipe(
        domain="radiology", out="x", clip=CLIP, decoder=DECODERS["lfm2"],
        stage2=StageConfig(steps=7, batch=3, phases=(Phase(train=("decoder",)),)), stage3=StageConfig(steps=9),
    )  # fmt: skip
    config, inherited = recipe.stage(3)
    assert (config.steps, config.batch, config.phases[0].train) == (9, 3, ("decoder",))
    assert inherited["batch"] == 3
    assert "steps" not in inherited
    assert recipe.stage(2)[0].phases[0].train == ("decoder",)
    assert recipe.stage(1)[0].phases[0].train == ("clip",)
