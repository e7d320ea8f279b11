"""TorchXRayVision from a local file: its own arithmetic, its labels, and no network."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from foreign_files import radiograph, write
from foreign_files import study as made
from safetensors.torch import save_file

from experts.foreign import xrv as kind
from fovea import registry
from fovea.errors import ExpertError, ModelError
from fovea.testing import ExpertContract
from fovea.types import Image

MODEL = "densenet121-res224-chex"
PERSON = {
    "kind": "torchxrayvision",
    "low": "least",
    "high": "greatest",
    "name": "tiny_xrv",
    "task": "names pathologies",
    "modalities": ["DX", "CR"],
    "meta": {"view": ["PA", "AP"]},
    "model": MODEL,
    "labels": {
        "cardiomegaly": {"source": "Cardiomegaly"},
        "effusion": {
            "source": "Effusion",
            "code": {"scheme": "SCT", "value": "60046008", "meaning": "Pleural effusion"},
        },
        "edema": {"source": "Edema"},
    },
}


def library():
    with warnings.catch_warnings():
        import torchxrayvision
    return torchxrayvision


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return library().models.DenseNet(num_classes=18, weights=None).eval()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("xrv")
    save_file(network.state_dict(), folder / "model.safetensors")
    write(folder / "expert.json", PERSON)
    return folder


class TestXrv(ExpertContract):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls, folder):
        return kind.open(folder)

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        return radiograph()

    def test_the_registry_opens_it(self):
        assert registry.expert_kind("torchxrayvision") is kind

    def test_it_says_what_the_library_says(self, expert, study, network):
        xrv = library()
        values = study.images[0].pixels[0, 0]
        scaled = xrv.utils.normalize(values - values.min(), float(np.ptp(values)), reshape=True)
        cut = torch.from_numpy(xrv.datasets.XRayCenterCrop()(scaled))
        network.input_resolution = 224
        network.op_threshs = torch.tensor(xrv.models.model_urls[MODEL]["op_threshs"])
        with torch.inference_mode(), redirect_stdout(io.StringIO()):
            shares = network(cut[None])[0].numpy()
        names = xrv.models.model_urls[MODEL]["labels"]
        for finding in expert.run(study, "all"):
            share = shares[names.index(PERSON["labels"][finding.label]["source"])]
            assert finding.score == pytest.approx(share, abs=1e-5)
            assert finding.present == (share >= 0.5)

    def test_the_range_may_be_named(self, folder, study, tmp_path):
        write(tmp_path / "expert.json", {**PERSON, "low": 0, "high": 4095})
        (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
        with pytest.raises(ModelError, match="inside the folder"):
            kind.open(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        (tmp_path / "model.safetensors").hardlink_to(folder / "model.safetensors")
        seen = kind.open(tmp_path).prepare(study, [(0, 0)])
        assert seen.shape == (1, 1, 224, 224)
        assert -1024 < seen.min() < seen.max() < 1024
        write(tmp_path / "expert.json", {**PERSON, "low": 0, "high": 1})
        with pytest.raises(ExpertError, match="0 to 1"):
            kind.open(tmp_path).run(study, "all")

    def test_other_views_and_empty_pictures_are_refused(self, expert, study):
        image = study.images[0]
        assert not expert.accepts(made("radiology", image, modality="DX", view="LL"))
        flat = Image.from_array(image.channels, image.grid, np.full_like(image.pixels, 7))
        with pytest.raises(ExpertError, match="one value"):
            expert.run(made("radiology", flat, modality="DX"), "all")


def test_opening_it_keeps_the_warnings_of_the_process(folder):
    before = list(warnings.filters)
    kind.open(folder)
    assert list(warnings.filters) == before


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": "densenet121-res224-mine"}, "no model"),
        ({"labels": {"hernia": {"source": "Hernia"}}}, "hernia"),
        ({"weights": "other.pt"}, "inside the folder"),
    ],
)
def test_what_does_not_fit_is_told(folder, tmp_path, change, match):
    write(tmp_path / "expert.yaml", {**PERSON, **change})
    with pytest.raises(ModelError, match=match):
        kind.open(tmp_path)


def test_operating_points_in_the_file_go_before_the_published_ones(network, tmp_path):
    points = torch.full((18,), 0.9)
    save_file({**network.state_dict(), "op_threshs": points}, tmp_path / "model.safetensors")
    write(tmp_path / "expert.json", PERSON)
    assert torch.equal(kind.open(tmp_path).points, points)


def test_the_residual_network_too(tmp_path):
    from torchvision.models import resnet50

    inner = resnet50(weights=None, num_classes=18)
    inner.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    torch.save({f"model.{name}": tensor for name, tensor in inner.state_dict().items()}, tmp_path / "model.pt")
    labels = {"fracture": {"source": "Fracture"}}
    person = {**PERSON, "model": "resnet50-res512-all", "weights": "model.pt", "labels": labels}
    write(tmp_path / "expert.json", person)
    (finding,) = kind.open(tmp_path).run(radiograph(), "all")
    assert 0 <= finding.score <= 1
