"""STAC items of models: valid, true to the network, and read back."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from hashlib import sha256

import pystac
import pytest
import torch
from foreign_files import item as foreign_item
from foreign_files import raster
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.version import ItemVersionExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from experts import classification, detection, index, model_item, segmentation
from experts.calibration import Calibration
from experts.foreign import exported, mlm
from experts.network import card_of, save
from experts.preparation import n_features
from experts.settings import ExpertConfig
from fovea.types import Code

KINDS = {"segmentation": segmentation, "classification": classification, "detection": detection}
NAME = re.compile(r"^[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]$")
"""What the schema of the extension asks of `mlm:name`."""


def told(folder, kind, **more):
    """An untrained expert of a kind, opened from its folder, its network as it was saved, and its item."""
    labels = {"water": {"code": Code("WORLDCOVER", "80", "Permanent water bodies")}, "ship": {"measures": ["length"]}}
    given = {
        "name": "land", "kind": kind, "task": "maps land", "modalities": ["optical"], "channels": ["red", "nir"],
        "low": 0.0, "high": 0.5, "size": (1, 64, 96), "training": {"width": 4},
        "labels": labels if kind == "detection" else {label: {"code": labels["water"]["code"]} for label in labels},
    } | more  # fmt: skip
    config = ExpertConfig.model_validate(given)
    network = KINDS[kind].build(config)
    save(folder, config, dict.fromkeys(config.labels, Calibration()), network, card_of(config, network, ("0",)))
    expert = KINDS[kind].open(folder)
    return expert, network, json.loads(json.dumps(model_item.describe(expert, folder)))


def checked(found):
    """A valid item, with what the extension asks for and no schema on disk tells, as pystac's extension reads it."""
    assert JsonSchemaSTACValidator().validate_core(found, pystac.STACObjectType.ITEM, "1.1.0")
    said = found["properties"]
    assert all(said[f"mlm:{name}"] for name in ("name", "architecture", "tasks", "input", "output"))
    assert NAME.match(said["mlm:name"])
    assert {band["name"] for band in said.get("bands", [])} == {
        band["name"] if isinstance(band, dict) else band for given in said["mlm:input"] for band in given["bands"]
    }
    (asset,) = found["assets"].values()
    assert "mlm:model" in asset["roles"]
    assert asset["mlm:artifact_type"]
    assert not {"mlm:name", "mlm:input", "mlm:output", "mlm:hyperparameters"} & set(asset)
    copy = json.loads(json.dumps(found).replace("mlm/v1.5.0", "mlm/v1.4.0"))  # the newest that pystac knows
    return MLMExtension.ext(pystac.Item.from_dict(copy))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", [None, (1.0, 10.0, 10.0)])
def test_an_expert_is_told_as_its_network_is(kind, spacing, tmp_path):
    expert, network, found = told(tmp_path, kind, spacing=spacing)
    said = checked(found)
    assert (said.mlm_name, said.framework, said.pretrained) == ("land", "PyTorch", False)
    assert said.total_parameters == sum(weights.numel() for weights in network.parameters())
    assert ItemVersionExtension.ext(pystac.Item.from_dict(found)).version == expert.card.version
    (given,), (answer,) = said.input, said.output
    shape = [side if side > 0 else 64 for side in given.input.shape[1:]]
    with torch.inference_mode():
        made = network.eval()(torch.zeros(1, *shape)).shape[1:]
    assert [side if side > 0 else 64 for side in answer.result.shape[1:]] == list(made)
    assert len(given.input.dim_order) == len(given.input.shape)
    assert len(answer.result.dim_order) == len(answer.result.shape)
    assert given.input.shape[1] == n_features(expert.config)
    assert [(one.value, one.name) for one in answer.classes] == [(0, "water"), (1, "ship")]
    assert answer.classes[0].description == "Permanent water bodies"
    (scaling,) = found["properties"]["mlm:input"][0]["value_scaling"]  # pystac knows but one for all bands
    assert scaling == {"type": "min-max", "minimum": 0.0, "maximum": 0.5}


def test_a_file_is_named_by_its_content(tmp_path):
    _, _, found = told(tmp_path, "segmentation")
    content = (tmp_path / "weights.safetensors").read_bytes()
    asset = pystac.Item.from_dict(found).assets["model"]
    assert urlsafe_b64decode(asset.href.removeprefix("ni:///sha-256;") + "=") == sha256(content).digest()
    file = FileExtension.ext(asset)
    assert (file.checksum, file.size) == (f"1220{sha256(content).hexdigest()}", len(content))
    assert str(tmp_path) not in json.dumps(found)


def test_channels_of_any_name_and_volumes_are_told_too(tmp_path):
    more = {"channels": ["*"], "low": None, "high": None, "size": (16, 32, 32)}
    _, network, found = told(tmp_path, "segmentation", **more)
    said = checked(found)
    assert (said.input[0].bands, said.input[0].value_scaling, "bands" in found["properties"]) == ([], None, False)
    assert said.input[0].input.dim_order == ["batch", "channel", "depth", "height", "width"]
    with torch.inference_mode():
        assert (
            list(network.eval()(torch.zeros(1, *said.input[0].input.shape[1:])).shape[1:])
            == (said.output[0].result.shape[1:])
        )


def test_a_foreign_network_is_told_by_its_own_card(tmp_path):
    expert = exported.open(raster(tmp_path, ".pt2"))
    found = model_item.describe(expert, tmp_path)
    checked(found)
    assert found["properties"]["mlm:input"] == mlm.write(expert.model, expert.card)["properties"]["mlm:input"]
    assert found["assets"]["model"]["file:size"] == (tmp_path / expert.model.file).stat().st_size
    checked(mlm.write(mlm.read(foreign_item("net.onnx")), expert.card))


def test_what_is_no_network_of_known_layout_is_not_told(tmp_path):
    assert model_item.describe(index.open(None), tmp_path) is None


@pytest.mark.parametrize("name", ["ab", "1st", "_x", "a.", "-", "", "Straße_", "good name 2"])
def test_names_become_names_of_models(name):
    assert NAME.match(mlm.model_name(name))
    assert mlm.model_name("good name 2") == "good name 2"
