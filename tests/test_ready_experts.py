"""Experts that a recipe takes as they are: opened, offered, and packed into the assistant's folder."""

from __future__ import annotations

import json

import pytest
from tiny import tiny_model

from curriculum.assistant import Assistant, save_assistant
from curriculum.recipe import Recipe
from curriculum.tracking import Tracker
from curriculum.workshop import Workshop
from experts import index
from experts.untrained import save
from fovea import registry
from fovea.config import load
from fovea.errors import ConfigError


@pytest.fixture
def recipe(tmp_path, repository):
    def make(*changes: str) -> Recipe:
        file = repository / "configs" / "smoke" / "remote_sensing.yaml"
        return load(Recipe, file, [f"out={tmp_path}/rs", "experts=[]", *changes])

    return make


def ready(name: str, kind: str, folder: object = "null") -> str:
    return f"ready_experts=[{{name: {name}, kind: {kind}, folder: {folder}}}]"


def test_a_rule_and_a_folder_are_offered_and_opened_again_with_the_model(recipe, tmp_path):
    save(index.OPEN_WATER, tmp_path / "water")
    name = index.open(tmp_path / "water").card.name
    cover = registry.expert_kind("index").open(None).card.name
    chosen = recipe(f"ready_experts=[{{name: {name}, kind: index, folder: {tmp_path}/water}}, "
                    f"{{name: {cover}, kind: index}}]")  # fmt: skip
    shop = Workshop(chosen, Tracker(chosen, ""))
    assert [card.name for card in shop.cards] == [name, cover]
    tiny_model().save(tmp_path / "model")
    save_assistant(tmp_path / "assistant", "remote_sensing", tmp_path / "model", shop.expert_folders, True)
    again = Assistant.open(str(tmp_path / "assistant"))
    assert [card.version for card in again.cards] == [card.version for card in shop.cards]
    assert json.loads((tmp_path / "assistant" / "assistant.json").read_text())["experts"] == {
        name: "index", cover: "index",
    }  # fmt: skip


def test_another_name_than_the_cards_is_told(recipe):
    chosen = recipe(ready("mine", "index"))
    with pytest.raises(ConfigError, match="whose card says"):
        _ = Workshop(chosen, Tracker(chosen, "")).experts


def test_two_experts_of_one_name_are_refused(recipe):
    twice = "ready_experts=[{name: a, kind: index}, {name: a, kind: quality}]"
    with pytest.raises(ConfigError, match="two experts named a"):
        recipe(twice)
