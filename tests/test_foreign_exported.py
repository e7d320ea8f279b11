"""Exported networks and their cards: bands by name, windows without seams, and no file that would run code."""

from __future__ import annotations

import copy
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pystac
import pytest
import torch
from foreign_files import BANDS, RASTER, Comparison, export, item, raster, scene, write
from hypothesis import given
from hypothesis import strategies as st

from experts.foreign import exported, mlm, programs
from experts.foreign import onnx as onnx_kind
from fovea import registry
from fovea.errors import ExpertError, LimitError, ModelError
from fovea.testing import ExpertContract
from fovea.types import ExpertCard, Mask, Study

KINDS = {".pt2": exported, ".onnx": onnx_kind}


def trees(seen: Study) -> np.ndarray:
    """Where the network of `Comparison` sees trees, by its definition."""
    values = dict(zip((c.name for c in seen.images[0].channels), seen.images[0].pixels, strict=True))
    lead = 20 * (values["nir"] - values["red"]) / 0.5
    return (lead > 2) & seen.images[0].valid


class Raster(ExpertContract):
    suffix: str

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls, tmp_path_factory):
        return KINDS[cls.suffix].open(raster(tmp_path_factory.mktemp("raster"), cls.suffix))

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        return scene()

    def test_bands_are_found_by_name_and_seams_are_not_seen(self, expert, study):
        for seen in (study, scene(names=("green", "nir", "blue", "red"))):
            forest, bare = expert.run(seen, "all")
            np.testing.assert_array_equal(forest.region.data, trees(seen))
            assert not (forest.region.data & bare.region.data).any()
            assert forest.measure("area").unit == "ha"
            assert forest.measure("area").value == pytest.approx(trees(seen).sum() / 100, rel=0.01)
            assert forest.location
            assert len(forest.instances) == 2
            assert forest.score > 0.9

    def test_a_missing_band_is_told(self, expert):
        other = scene(names=("red", "green", "swir"))
        assert not expert.accepts(other)
        with pytest.raises(ExpertError, match="'nir' is missing"):
            expert.run(other, "all")

    def test_a_scene_without_data_is_told(self, expert):
        image = scene().images[0]
        empty = type(image).from_array(image.channels, image.grid, image.pixels, np.zeros_like(image.valid))
        with pytest.raises(ExpertError, match="no data"):
            expert.run(Study("remote_sensing", (empty,), scene(seed=1).source, {"modality": "optical"}), "all")


class TestExported(Raster):
    suffix = ".pt2"


class TestOnnx(Raster):
    suffix = ".onnx"


@pytest.mark.parametrize("suffix", KINDS)
def test_the_registry_opens_them(suffix):
    assert registry.expert_kind({".pt2": "torch_export", ".onnx": "onnx"}[suffix]) is KINDS[suffix]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_filled_up(tmp_path, batch):
    seen = scene((40, 200), seed=3)
    expert = exported.open(raster(tmp_path, ".pt2", batch=batch))
    forest, _ = expert.run(seen, "all")
    assert isinstance(forest.region, Mask)
    np.testing.assert_array_equal(forest.region.data, trees(seen))


@pytest.mark.parametrize("resize", ["interpolation-linear", "crop"])
def test_scenes_are_classified(tmp_path, resize):
    labels = {"forest": {"source": "Trees", "threshold": 0.2}, "bare_ground": {"source": "Soil"}}
    folder = raster(tmp_path, ".pt2", pooled=True, person={**RASTER, "labels": labels}, resize_type=resize)
    expert, seen = exported.open(folder), scene((70, 70))
    found = expert.run(seen, "all")
    assert all(finding.region is None for finding in found)
    values = seen.images[0].pixels[[2, 0, 1], 0] / 0.5
    values[:, ~seen.images[0].valid[0]] = 0
    if resize == "crop":
        answer = Comparison(pooled=True)(torch.from_numpy(values[None, :, 3:67, 3:67])).softmax(1)[0]
        assert [finding.score for finding in found] == pytest.approx(answer[1:].tolist(), abs=1e-4)


@given(how=st.sampled_from(sorted(mlm._PARAMETERS)), a=st.floats(-100, 100), b=st.floats(0.5, 50))
def test_values_are_scaled_as_the_extension_says(how, a, b):
    entry = {"type": how, "minimum": a, "maximum": a + b, "mean": a, "stddev": b, "value": b}
    model = mlm.read(item("x.onnx", value_scaling=[entry]))
    data = np.linspace(-150, 150, 3 * 4, dtype=np.float32).reshape(3, 2, 2)
    formula = {
        "min-max": (data - a) / b,
        "z-score": (data - a) / b,
        "clip": np.clip(data, a, a + b),
        "clip-min": np.maximum(data, a),
        "clip-max": np.minimum(data, a + b),
        "offset": data - b,
        "scale": data / b,
    }
    np.testing.assert_allclose(model.scale(data), formula[how], rtol=1e-4, atol=1e-4)


def test_each_band_may_be_scaled_in_its_own_way():
    ways = [{"type": "scale", "value": 2}, {"type": None}, {"type": "offset", "value": 1}]
    scaled = mlm.read(item("x.onnx", value_scaling=ways)).scale(np.full((3, 1, 1), 4, np.float32))
    assert scaled.ravel().tolist() == [2, 4, 3]


def test_a_card_is_read_as_it_was_written(tmp_path):
    card = ExpertCard(
        "tiny", "abc", "maps", "Maps.", ("optical",), {"all": ("forest",)}, data="Somewhere", licence="MIT"
    )
    for size, batch, task in ((64, -1, "semantic-segmentation"), (-1, 4, "classification")):
        model = mlm.read(item("net.onnx", task, size, batch))
        written = mlm.write(model, card)
        again = mlm.read(json.loads(json.dumps(written)))
        assert again == type(model)(**{**vars(model), "data": "Somewhere"})
        pystac.Item.from_dict(written)
    expert = exported.open(raster(tmp_path, ".pt2"))
    write(tmp_path / "item.json", mlm.write(expert.model, expert.card))
    assert exported.open(tmp_path).model.bands == ("B08", "B04", "green")


def broken(path: str, value: object) -> dict:
    out = item("x.onnx")
    part = out
    *parents, last = path.split("/")
    for step in parents:
        part = part[int(step) if step.isdigit() else step]
    part[last] = value
    return out


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        ("stac_extensions", [], "mlm extension"),
        ("properties/mlm:input", [], "0 entries"),
        ("properties/mlm:input/0/bands", ["B1"], "1 bands and 3"),
        ("properties/mlm:input/0/bands", ["a", "b", {"name": "c", "format": "f", "expression": "A+B"}], "expression"),
        ("properties/mlm:input/0/pre_processing_function", {"format": "python", "expression": "a:b"}, "never run"),
        ("properties/mlm:output/0/post_processing_function", {"format": "python", "expression": "a:b"}, "never run"),
        ("properties/mlm:input/0/value_scaling", [{"type": "processing", "expression": "y"}], "processing"),
        ("properties/mlm:input/0/value_scaling", [{"type": "z-score", "mean": 0, "stddev": 0}], "nothing"),
        ("properties/mlm:input/0/value_scaling", [{"type": "scale"}], "without its numbers"),
        ("properties/mlm:input/0/value_scaling", [{"type": "scale", "value": 1}] * 2, "2 entries"),
        ("properties/mlm:input/0/input/dim_order", ["batch", "time", "height", "width"], "axes"),
        ("properties/mlm:input/0/input/shape", [-1, 3, 10**6, 64], "8192"),
        ("properties/mlm:input/0/input/data_type", "uint8", "float32"),
        ("properties/mlm:output/0/tasks", ["object-detection"], "other tasks"),
        ("properties/mlm:output/0/classification:classes", [{"value": 5, "name": "b"}], "0, 1"),
        ("properties/mlm:output/0/classification:classes", [{"value": 0, "name": "a"}], "1 classes"),
        ("assets/model/href", "https://example.org/net.onnx", "relative href"),
        ("assets/model/roles", [], "mlm:model"),
    ],
)  # fmt: skip
def test_cards_that_are_not_supported_are_told(path, value, match):
    with pytest.raises(ModelError, match=match):
        mlm.read(broken(path, value))


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("href", ["../net.onnx", "/etc/hostname", "missing.onnx"])
def test_files_outside_of_the_folder_are_refused(tmp_path, suffix, href):
    write(tmp_path / "in" / "expert.json", {**RASTER, "kind": {".pt2": "torch_export", ".onnx": "onnx"}[suffix]})
    write(tmp_path / "in" / "item.json", item(href))
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(ModelError, match="inside the folder"):
        KINDS[suffix].open(tmp_path / "in")


def rewritten(path: Path, **entries: bytes | None) -> None:
    """The archive with some entries replaced, or added, by the end of their name."""
    with zipfile.ZipFile(path) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    root = next(iter(files)).partition("/")[0]
    for name, data in entries.items():
        files[f"{root}/{name}"] = data
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("harm"),))


def pickled() -> bytes:
    out = io.BytesIO()
    torch.save((Evil(),), out)
    return out.getvalue()


def edited(graph: dict, how: str) -> dict:
    node = graph["graph_module"]["graph"]["nodes"][0]
    signature = graph["graph_module"]["module_call_graph"][0]["signature"]
    evil = {"type": "builtins.tuple", "context": '{"__enum__": 1, "fqn": "os:x", "name": "y"}', "children_spec": []}
    if how == "operator":
        node["target"] = "torch.hub.load"
    elif how == "file":
        node["target"] = "torch.ops.aten.from_file.default"
    elif how == "expression":
        sizes = graph["graph_module"]["graph"]["tensor_values"]["pixels"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = "__import__('pathlib').Path('harm').touch()"
    elif how == "attribute":
        sizes = graph["graph_module"]["graph"]["tensor_values"]["pixels"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = "Symbol.__class__"
    elif how == "tree":
        signature["in_spec"] = json.dumps([1, {**evil, "type": "collections.defaultdict"}])
    elif how == "context":
        signature["in_spec"] = json.dumps([1, evil])
    elif how == "guards":
        graph["guards_code"] = ["__import__('os').system('true')"]
    return graph


@pytest.mark.parametrize("how", ["operator", "file", "expression", "attribute", "tree", "context", "guards"])
def test_a_graph_that_would_run_code_is_refused(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = export(tmp_path / "net.pt2", Comparison())
    programs.exported(tmp_path, "net.pt2")
    with zipfile.ZipFile(path) as archive:
        graph = json.loads(archive.read("net/models/model.json"))
    rewritten(path, **{"models/model.json": json.dumps(edited(copy.deepcopy(graph), how)).encode()})
    with pytest.raises(ModelError, match="It was not loaded"):
        programs.exported(tmp_path, "net.pt2")
    rewritten(path, **{"models/model.json": json.dumps(graph).encode()})
    programs.exported(tmp_path, "net.pt2")  # so it was the graph, not the archive
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "entries",
    [
        {"data/sample_inputs/model.pt": pickled()},
        {"data/weights/model.pt": pickled()},
        {"data/constants/custom_obj_0": pickle.dumps(Evil())},
        {"data/aotinductor/model/run.so": b"\x7fELF"},
        {"extra/thing": b"x"},
    ],
)
def test_an_archive_with_other_things_is_refused(tmp_path, monkeypatch, entries):
    monkeypatch.chdir(tmp_path)
    rewritten(export(tmp_path / "net.pt2", Comparison()), **entries)
    with pytest.raises(ModelError):
        programs.exported(tmp_path, "net.pt2")
    assert not (tmp_path / "harm").exists()


def test_pickled_weights_are_refused(tmp_path):
    path = export(tmp_path / "net.pt2", Comparison())
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("net/data/weights/model_weights_config.json"))
    for entry in config["config"].values():
        entry["use_pickle"] = True
    rewritten(path, **{"data/weights/model_weights_config.json": json.dumps(config).encode()})
    with pytest.raises(ModelError, match="a pickled tensor"):
        programs.exported(tmp_path, "net.pt2")


@pytest.mark.parametrize("suffix", KINDS)
def test_damaged_and_huge_files_are_refused(tmp_path, suffix, monkeypatch):
    path = export(tmp_path / f"net{suffix}", Comparison())
    opener = programs.exported if suffix == ".pt2" else programs.onnx
    whole = path.read_bytes()
    for data in (b"", b"PK\x03\x04", whole[: len(whole) // 2], whole[:50] + b"\xff" * 50 + whole[100:]):
        path.write_bytes(data)
        with pytest.raises(ModelError):
            opener(tmp_path, path.name)
    path.write_bytes(whole)
    monkeypatch.setattr(programs, "LIMIT", 100)
    with pytest.raises(LimitError):
        opener(tmp_path, path.name)


def test_tensors_outside_of_the_folder_are_refused(tmp_path):
    import onnx

    folder = tmp_path / "in"
    folder.mkdir()
    export(folder / "net.onnx", Comparison())
    model = onnx.load(folder / "net.onnx")
    tensor = next(t for t in programs._tensors(model) if t.name and len(t.raw_data) > 8)
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "net.bin"
    (folder / "net.bin").write_bytes(data)
    onnx.save(model, folder / "net.onnx")
    _, files = programs.onnx(folder, "net.onnx")
    assert [file.name for file in files] == ["net.onnx", "net.bin"]
    (tmp_path / "net.bin").write_bytes(data)
    entry.value = "../net.bin"
    onnx.save(model, folder / "net.onnx")
    with pytest.raises(ModelError, match="inside the folder"):
        programs.onnx(folder, "net.onnx")


def test_a_network_that_does_not_keep_to_its_card_is_told(tmp_path):
    folder = raster(tmp_path, ".pt2")
    card = item("net.pt2")
    card["properties"]["mlm:output"][0]["classification:classes"].append({"value": 3, "name": "Water"})
    card["properties"]["mlm:output"][0]["result"]["shape"][1] = 4
    write(folder / "item.json", card)
    with pytest.raises(ExpertError, match="answered in shape"):
        exported.open(folder).run(scene(), "all")
    assert len(BANDS) == 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": {"water": {}}}, "water"),
        ({"activation": "tanh"}, "activation"),
        ({"activation": "sigmoid", "exclusive": True}, "may overlap"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, change, match):
    with pytest.raises(ModelError, match=match):
        exported.open(raster(tmp_path, ".pt2", person={**RASTER, **change}))
