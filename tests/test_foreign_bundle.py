"""MONAI bundles: what MONAI itself would answer, and nothing of the configuration is run."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from foreign_files import BUNDLE, METADATA, PERSON, Tree, bundle, study, volume, write
from hypothesis import given
from hypothesis import strategies as st

from domains.radiology import reader
from experts.foreign import bundle as kind
from experts.foreign import bundle_config, weights
from fovea import registry
from fovea.errors import ExpertError, ModelError
from fovea.jsonable import to_json
from fovea.testing import ExpertContract
from fovea.types import Finding, Grid, Image, Mask


def changed(**changes: object) -> Tree:
    return copy.deepcopy(BUNDLE) | changes


def chain(key: str, *steps: Tree, base: Tree = BUNDLE, at: int = 0) -> Tree:
    """The configuration with steps put into a chain."""
    out = copy.deepcopy(base)
    out[key]["transforms"][at:at] = list(steps)
    return out


class TestBundle(ExpertContract):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls, tmp_path_factory):
        return kind.open(bundle(tmp_path_factory.mktemp("bundle")))

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        return volume()

    def test_the_registry_opens_it(self):
        assert registry.expert_kind("monai_bundle") is kind

    def test_the_card_tells_what_the_metadata_say(self, expert):
        card = expert.card
        assert (card.licence, card.data) == ("Apache-2.0", "nothing")
        assert "A tiny network of chance" in card.summary
        organ, tumour = expert.run(volume(), "all")
        assert organ.measure("volume").value > 0
        assert organ.location in ("left", "right", "both")
        assert 1 <= len(organ.instances) <= 3
        assert tumour.code.value == "108369006"


def monai_says(folder: Path, given: list[Path], config: Tree) -> np.ndarray:
    """What MONAI's own parser, transforms, inferer and inverse make of files: labels or channels on their grid."""
    from monai.bundle import ConfigParser
    from monai.data import decollate_batch, list_data_collate

    parser = ConfigParser({**config, "imports": [], "device": "cpu"})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True)["model"])
    names = [str(path) for path in given]
    batch = list_data_collate([parser.get_parsed_content("preprocessing")({"image": names if names[1:] else names[0]})])
    with torch.inference_mode():
        batch["pred"] = parser.get_parsed_content("inferer")(batch["image"], network)
    (item,) = decollate_batch(batch)
    return np.asarray(parser.get_parsed_content("postprocessing")(item)["pred"])


def saved(image: Image, path: Path) -> Path:
    affine = np.diag([-1, -1, 1, 1]) @ image.grid.affine
    nibabel.save(nibabel.Nifti1Image(image.pixels[0].transpose(2, 1, 0), affine), path)
    return path


def drawn(finding: Finding, shape: tuple[int, ...]) -> np.ndarray:
    return finding.region.data if isinstance(finding.region, Mask) else np.zeros(shape, bool)


@pytest.mark.filterwarnings("ignore")  # MONAI's own
@pytest.mark.parametrize("seed", range(3))
def test_it_draws_what_monai_draws(tmp_path, seed):
    folder, seen = bundle(tmp_path / "bundle", seed=seed), volume(seed=seed)
    labels = monai_says(folder, [saved(seen.images[0], tmp_path / "x.nii.gz")], BUNDLE)[0].transpose(2, 1, 0)
    for number, finding in enumerate(kind.open(folder).run(seen, "all"), start=1):
        np.testing.assert_array_equal(drawn(finding, labels.shape), labels == number)
        assert finding.present == (finding.score >= 0.5)


def brats() -> tuple[Tree, Tree, Tree]:
    """Four images in, three overlapping labels out, and an expression after the threshold."""
    config = changed(
        network_def={"_target_": "SegResNet", "blocks_down": [1, 1], "blocks_up": [1], "init_filters": 8,
                     "in_channels": 4, "out_channels": 3, "dropout_prob": 0.2},
        preprocessing={"_target_": "Compose", "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
        ]},
    )  # fmt: skip
    config["postprocessing"]["transforms"] = [
        {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
         "nearest_interp": False, "to_tensor": True},
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.6},
    ]  # fmt: skip
    metadata = copy.deepcopy(METADATA)
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "Core", "1": "Whole", "2": "Enhancing"}
    labels = {name: {"source": name} for name in ("core", "whole", "enhancing")}
    return (
        config,
        metadata,
        {**PERSON, "modalities": ["CT", "MR"], "channels": ["T1c", "T1", "T2", "FLAIR"], "labels": labels},
    )


@pytest.mark.filterwarnings("ignore")
def test_four_images_are_put_in_order_by_name(tmp_path):
    config, metadata, person = brats()
    folder = bundle(tmp_path / "bundle", config, metadata, person)
    config["postprocessing"]["transforms"].append({"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: 1 / 0"})
    with pytest.raises(ModelError, match=r"postprocessing#3: 'Lambda'.*leave_out"):
        kind.open(bundle(tmp_path / "with", config, metadata, person))
    person = {**person, "leave_out": ["postprocessing#3"]}
    expert = kind.open(bundle(tmp_path / "without", config, metadata, person))
    parts = {n: volume(channels=(n,), seed=i).images[0] for i, n in enumerate(person["channels"])}
    mixed = study("radiology", *(parts[name] for name in ("FLAIR", "T1", "T1c", "T2")), modality="CT")
    (tmp_path / "case").mkdir()
    files = [saved(parts[name], tmp_path / "case" / f"case_{name}.nii.gz") for name in parts]
    channels = monai_says(folder, files, brats()[0])
    for seen in (mixed, reader.load(tmp_path / "case")):
        for finding, channel in zip(expert.run(seen, "all"), channels, strict=True):
            np.testing.assert_array_equal(drawn(finding, channel.T.shape), channel.transpose(2, 1, 0) > 0)
    assert not expert.accepts(study("radiology", *list(parts.values())[:3], modality="CT"))
    shifted = Grid(np.array(parts["T2"].grid.affine) + np.eye(4) * 0.1, parts["T2"].grid.frame, parts["T2"].grid.shape)
    askew = [*list(parts.values())[:3], replace(parts["FLAIR"], grid=shifted)]
    with pytest.raises(ExpertError, match="one grid"):
        expert.run(study("radiology", *askew, modality="CT"), "all")
    with pytest.raises(ExpertError, match="twice"):
        expert.run(study("radiology", *mixed.images, parts["T1"], modality="CT"), "all")


@pytest.mark.parametrize(("axes", "flips"), [((1, 2, 0), ()), ((0, 2, 1), (1,)), ((2, 1, 0), (0, 2))])
def test_the_order_of_slices_does_not_matter(tmp_path, axes, flips):
    expert, seen = kind.open(bundle(tmp_path)), volume()
    image = seen.images[0]
    pixels = np.flip(image.pixels[0].transpose(axes), flips)
    affine = np.array(image.grid.affine)[:, [2, 1, 0, 3]]  # in the order slice, row, column
    affine = affine[:, [*axes, 3]]
    for axis in flips:
        affine[:, 3] += affine[:, axis] * (pixels.shape[axis] - 1)
        affine[:, axis] *= -1
    grid = Grid(affine[:, [2, 1, 0, 3]], image.grid.frame, pixels.shape)
    turned = study("radiology", Image.from_array(image.channels, grid, pixels[None]), modality="CT")
    for one, other in zip(expert.run(seen, "all"), expert.run(turned, "all"), strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
        differ = np.flip(one.region.data.transpose(axes), flips) != other.region.data
        assert differ.sum() <= 1
        assert one.location == other.location


VISTA = {
    "input_channels": 1,
    "embedding": 8,
    "resample_spacing": [2.0, 2.0, 2.0],
    "patch_size": [32, 32, 32],
    "everything_labels": "$list(set([i+1 for i in range(132)]))",
    "network_def": "$monai.networks.nets.vista3d132(in_channels=@input_channels, encoder_embed_dim=@embedding)",
    "preprocessing_transforms": [
        {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelGPUReader", "image_only": True},
        {"_target_": "Spacingd", "keys": "image", "pixdim": "@resample_spacing", "mode": "bilinear"},
        {"_target_": "monai.apps.vista3d.transforms.VistaPreTransformd", "keys": "image", "subclass": "@subclass"},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -963.8, "a_max": 1053.7, "b_min": 0,
         "b_max": 1, "clip": True},
        {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float32"},
    ],
    "preprocessing": {"_target_": "Compose", "transforms": "$@preprocessing_transforms "},
    "inferer": {"_target_": "scripts.inferer.Vista3dInferer", "roi_size": "@patch_size", "overlap": 0.3,
                "sw_batch_size": 1, "use_point_window": True},
    "postprocessing": {"_target_": "Compose", "transforms": [
        {"_target_": "ToDeviced", "keys": "pred", "device": "cpu", "_disabled_": True},
        {"_target_": "monai.apps.vista3d.transforms.VistaPostTransformd", "keys": "pred"},
    ]},
}  # fmt: skip


def test_vista3d_is_told_its_classes(tmp_path, monkeypatch):
    from monai.networks.nets.vista3d import vista3d132
    from safetensors.torch import save_file

    metadata = copy.deepcopy(METADATA)
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {"0": "background", "1": "liver", "3": "spleen"}
    person = {**PERSON, "labels": {"liver": {}, "spleen": {}}, "arguments": {"abdomen": ["spleen", "liver"]}}
    folder = bundle(tmp_path, VISTA, metadata, person)
    torch.manual_seed(0)
    network = vista3d132(encoder_embed_dim=8).eval()
    (folder / "models").mkdir()
    save_file(network.state_dict(), folder / "models" / "model.safetensors")
    expert, seen = kind.open(folder), volume()
    (alone,) = expert.run(seen, "spleen")
    spleen, liver = expert.run(seen, "abdomen")
    assert to_json(alone) == to_json(spleen)
    assert (spleen.label, liver.label) == ("spleen", "liver")
    assert spleen.score != liver.score
    monkeypatch.setattr(kind, "PROMPTS", 1)
    other = kind.open(folder)
    for one, again in zip((liver, spleen), other.run(seen, "all"), strict=True):
        assert one.score == pytest.approx(again.score, abs=1e-5)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (changed(network_def={"_target_": "os.system", "command": "true"}), "network_def"),
        (changed(network_def="$__import__('os').system('true')"), "network_def"),
        (changed(network_def="$monai.networks.nets.UNet(spatial_dims=open('x'))"), "network_def#spatial_dims"),
        (changed(network_def={**BUNDLE["network_def"], "channels": "$[2 ** 3, 8]"}), "network_def#channels"),
        (changed(network_def={**BUNDLE["network_def"], "channels": [4, 10**9]}), "network_def"),
        (changed(network_def={**BUNDLE["network_def"], "act": {"_target_": "builtins.exec"}}), "network_def#act"),
        (changed(network_def={**BUNDLE["network_def"], "act": "%file.json"}), "network_def#act"),
        (changed(network_def={**BUNDLE["network_def"], "norm": "@norm", }), "network_def#norm"),
        (changed(loop="@loop", network_def={**BUNDLE["network_def"], "norm": "@loop"}), "in a circle"),
        (chain("preprocessing", {"_target_": "Lambdad", "keys": "image", "func": "$print"}), "preprocessing#0"),
        (chain("preprocessing", {"_target_": "Spacingd", "keys": "image", "pixdim": "$f()"}), "preprocessing#0#pixdim"),
        (chain("preprocessing", {"_target_": "CropForegroundd", "keys": "image", "select_fn": "$f"}), "#0#select_fn"),
        (chain("postprocessing", {"_target_": "evil.module.Thing", "keys": "pred"}), "postprocessing#0"),
        (changed(inferer={"_target_": "SliceInferer", "roi_size": [8, 8]}), "inferer"),
        (changed(postprocessing={"_target_": "Compose", "transforms": []}), "how the answer reads"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named_and_never_run(tmp_path, config, key):
    write(tmp_path / "configs" / "inference.json", config)
    write(tmp_path / "configs" / "metadata.json", METADATA)
    with pytest.raises(ModelError, match=key):
        bundle_config.read(tmp_path).build()


@given(text=st.text("@$%()[]{}'\"abc123.,:+-*/ \\\n", max_size=30))
def test_expressions_of_any_kind_give_values_or_are_refused(text):
    parser = bundle_config._Bundle({"abc": [1, {"b": "$3"}], "c": "@abc#1"}, frozenset())
    with suppress(ModelError):
        value = parser.value(text, "place")
        assert isinstance(value, (int, float, str, list, tuple, dict, bytes, set, type(None), type(...), complex))


def test_references_and_choices_between_literals_are_understood():
    parser = bundle_config._Bundle({"shown": {"high": True}, "a": [1.5, "@b"], "b": 2}, frozenset())
    assert parser.value("$[1.5, 1.5] if @shown#high else [3.0, 3.0]", "x") == [1.5, 1.5]
    assert parser.value("@a", "x") == [1.5, 2]
    assert parser.value("$@a::1", "x") == 2
    assert parser.value({"k": ["$(1, -2)"]}, "x") == {"k": [(1, -2)]}


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("harm"),))


def test_weights_are_read_without_running_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = {"module.a": torch.ones(2)}
    for data in (table, {"state_dict": table}, {"model": {"network": table}, "epoch": 3}):
        torch.save(data, tmp_path / "w.pt")
        assert list(weights.load(tmp_path / "w.pt")) == ["a"]
    torch.save({"model": Evil()}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="safely"):
        weights.load(tmp_path / "w.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="safely"):
        weights.load(tmp_path / "w.pt")
    for data in ({"epoch": 3}, [1], {"model": 3}):
        torch.save(data, tmp_path / "w.pt")
        with pytest.raises(ModelError, match="state dict"):
            weights.load(tmp_path / "w.pt")
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 20)
    (tmp_path / "w.ts").write_bytes(b"PK")
    for name in ("w.safetensors", "w.ts", "missing.pt"):
        with pytest.raises(ModelError):
            weights.load(tmp_path / name)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("person", "match"),
    [
        ({**PERSON, "labels": {"kidney": {}}}, "kidney"),
        ({**PERSON, "channels": ["a", "b"]}, "2 channels"),
        ({**PERSON, "kind": "onnx"}, "kind monai_bundle"),
        ({**PERSON, "weights": "../model.pt"}, "inside the folder"),
        ({**PERSON, "labels": {"organ": {"measure": []}}}, "did you mean 'measures'"),
        ({**PERSON, "arguments": {"organ": ["tumour"]}}, "taken"),
    ],
)
def test_what_does_not_fit_together_is_told(tmp_path, person, match):
    folder = bundle(tmp_path / "bundle", person=person)
    torch.save({}, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=match):
        kind.open(folder)


def test_the_version_follows_every_file_that_changes_an_answer(tmp_path):
    folder = bundle(tmp_path)
    seen = {kind.open(folder).card.version}
    for name in ("expert.json", "configs/inference.json", "configs/metadata.json"):
        (folder / name).write_text((folder / name).read_text() + " ")
        seen.add(kind.open(folder).card.version)
    assert kind.open(folder).card.version in seen
    torch.save({"model": weights.load(folder / "models/model.pt"), "epoch": 1}, folder / "models" / "model.pt")
    seen.add(kind.open(folder).card.version)
    assert len(seen) == 5


def test_weights_of_another_network_are_told(tmp_path):
    folder = bundle(tmp_path)
    torch.save({"conv.weight": torch.ones(3)}, folder / "models" / "model.pt")
    with pytest.raises(ModelError, match=r"do not fit.*missing, 1 unknown"):
        kind.open(folder)


def test_volumes_of_unknown_place_are_refused(tmp_path):
    expert, image = kind.open(bundle(tmp_path)), volume().images[0]
    plain = study("radiology", Image.from_array(image.channels, Grid.plain(28, 24, 20), image.pixels), modality="CT")
    with pytest.raises(ExpertError, match="how the volume lies"):
        expert.run(plain, "all")
