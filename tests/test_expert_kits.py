"""Every expert of the built-in recipes keeps the contract, after a few steps of training on studies made here."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from curriculum.recipe import Recipe
from experts.segmentation import rivals
from experts.segmentation_training import segmentation_loss, times
from experts.settings import ExpertConfig
from fovea import config, registry
from fovea.testing import ExpertContract

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@cache
def recipe(domain: str) -> Recipe:
    return config.load(Recipe, CONFIGS / f"{domain}.yaml")


def small(expert: ExpertConfig) -> ExpertConfig:
    training = expert.training.model_copy(update={"steps": 3, "batch": 2, "width": 4})
    return expert.model_copy(update={"training": training})


class Trained(ExpertContract):
    """An expert of a recipe, made small: `recipe` names the domain, `expert_name` the expert."""

    domain_name: ClassVar[str]
    expert_name: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def studies(cls, tmp_path_factory):
        """Studies that the expert takes, with their truth."""
        domain = registry.domain(cls.domain_name)
        folder = tmp_path_factory.mktemp(cls.expert_name)
        wanted = next(e for e in recipe(cls.domain_name).experts if e.name == cls.expert_name)
        samples = domain.synth(folder, 12, seed=5)
        pairs = [(domain.load(folder / sample.path), sample.facts) for sample in samples]
        return [pair for pair in pairs if pair[0].modality in wanted.modalities]

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, studies, tmp_path_factory):
        """Where the trained expert lies."""
        wanted = next(e for e in recipe(cls.domain_name).experts if e.name == cls.expert_name)
        kind, folder = registry.expert_kind(wanted.kind), tmp_path_factory.mktemp("weights")
        coded = small(wanted).coded(registry.domain(cls.domain_name).vocabulary)
        half = len(studies) // 2
        kind.train(coded, studies[:half], studies[half:], folder, 0)
        return folder

    @pytest.fixture(scope="class", params=["as calibrated", "eager"])
    @classmethod
    def expert(cls, folder, request):
        """The expert, and one that calls everything present, for that is what so little training seldom does."""
        wanted = next(e for e in recipe(cls.domain_name).experts if e.name == cls.expert_name)
        expert = registry.expert_kind(wanted.kind).open(folder)
        if request.param == "eager":
            expert.calibrations = {k: replace(c, threshold=0.0, cut=0.0) for k, c in expert.calibrations.items()}
        return expert

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls, studies):
        return studies[-1][0]

    def test_an_eager_expert_shows_and_measures(self, expert, study, request):
        if "eager" in request.node.callspec.id:
            wanted = next(e for e in recipe(self.domain_name).experts if e.name == self.expert_name)
            for finding in expert.run(study, "all"):
                if not wanted.labels[finding.label].rule:
                    assert finding.present
                    assert len(finding.measures) >= bool(wanted.labels[finding.label].measures)
                    assert (finding.region is not None) == (wanted.kind == "segmentation")

    def test_labels_are_those_of_the_recipe(self, expert):
        wanted = next(e for e in recipe(self.domain_name).experts if e.name == self.expert_name)
        assert set(expert.card.labels) == set(wanted.arguments["all"])
        codes = {term.label: term.code for term in registry.domain(self.domain_name).vocabulary}
        assert all(label in codes for label in expert.card.labels)


class TestChestSegmentation(Trained):
    domain_name, expert_name = "radiology", "chest_segmentation"


class TestNoduleSegmentation(Trained):
    domain_name, expert_name = "radiology", "nodule_segmentation"


class TestChestClassification(Trained):
    domain_name, expert_name = "radiology", "chest_classification"


class TestTorsoSegmentation(Trained):
    domain_name, expert_name = "radiology", "torso_segmentation"


class TestLesionSegmentation(Trained):
    domain_name, expert_name = "radiology", "lesion_segmentation"


class TestLandCoverSegmentation(Trained):
    domain_name, expert_name = "remote_sensing", "land_cover_segmentation"


class TestObjectSegmentation(Trained):
    domain_name, expert_name = "remote_sensing", "object_segmentation"


@pytest.mark.parametrize("domain", ["radiology", "remote_sensing"])
def test_no_expert_of_a_recipe_is_left_out(domain):
    tested = {kit.expert_name for kit in Trained.__subclasses__() if kit.domain_name == domain}
    assert {expert.name for expert in recipe(domain).experts} == tested


@pytest.mark.parametrize("axes", [(6, 8), (4, 6, 8)])
def test_a_pixel_has_one_exclusive_label_at_most(axes):
    logits = torch.randn((3, *axes), generator=torch.Generator().manual_seed(0))
    chances = rivals(logits)
    for label, chance in enumerate(chances):
        others = torch.cat((torch.zeros(1, *axes), logits[[other for other in range(3) if other != label]])).amax(0)
        assert torch.equal(chance, torch.sigmoid(logits[label] - others))
    said = chances >= 0.5
    likeliest = torch.cat((torch.zeros(1, *axes), logits)).argmax(0)
    assert torch.equal(said, torch.stack([likeliest == label for label in (1, 2, 3)]))


@pytest.mark.parametrize("axes", [(6, 8), (4, 6, 8)])
@pytest.mark.parametrize("exclusive", [False, True])
def test_the_loss_ends_where_the_masks_are_drawn(axes, exclusive):
    masks = torch.zeros(2, 3, *axes)
    masks[:, 0, ..., :2], masks[:, 1, ..., 3:5] = 1, 1
    weight = torch.ones_like(masks)
    right, wrong = (segmentation_loss(20 * sign * (2 * masks - 1), masks, weight, exclusive).item() for sign in (1, -1))
    assert right == pytest.approx(0, abs=1e-3)
    assert wrong > 5
    unknown = segmentation_loss(20 * (1 - 2 * masks), masks, torch.zeros_like(masks), exclusive)
    assert unknown.item() == 0


def test_a_rare_label_weighs_more_where_it_is_and_nowhere_else():
    masks = torch.zeros(1, 1, 4, 4)
    masks[..., 0] = 1
    weight = torch.ones_like(masks)
    missed, invented = -20 * torch.ones_like(masks), 20 * torch.ones_like(masks)
    gain = [
        (segmentation_loss(logits, masks, weight, rarity=5.0) - segmentation_loss(logits, masks, weight)).item()
        for logits in (missed, invented)
    ]
    assert gain[0] == pytest.approx(4 * 20 / 4, rel=1e-3)  # a quarter of the pixels, each 20 off
    assert gain[1] == pytest.approx(0, abs=1e-3)


def test_rare_labels_are_not_weighed_where_labels_are_exclusive():
    wanted = next(e for e in recipe("remote_sensing").experts if e.exclusive).model_dump()
    with pytest.raises(ValueError, match="rare: 1 where labels are exclusive"):
        ExpertConfig.model_validate({**wanted, "training": {**wanted["training"], "rare": 10}})


def test_studies_of_rare_labels_are_shown_more_often():
    shown = torch.tensor([[1, 1], [1, 0], [1, 0], [0, 0]]).bool()
    assert times(shown, 10).tolist() == [4, 1, 1, 1]
    assert times(shown, 3).tolist() == [3, 1, 1, 1]
    assert times(shown, 1).tolist() == [1, 1, 1, 1]


def test_what_is_drawn_for_others_is_not_told():
    wanted = next(e for e in recipe("radiology").experts if e.name == "nodule_segmentation")
    assert set(wanted.midline) <= set(wanted.drawn)
    assert set(wanted.midline).isdisjoint(wanted.arguments)
    assert wanted.arguments["all"] == ("nodule",)
    silent = {label: {**wanted.labels[label].model_dump(), "reported": False} for label in wanted.labels}
    with pytest.raises(ValueError, match="one that is reported"):
        ExpertConfig.model_validate({**wanted.model_dump(), "labels": silent})
