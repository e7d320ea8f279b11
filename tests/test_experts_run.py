"""An expert asked from the command line: the table, the picture, the files, and what goes wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import apps_toys as toys
import numpy as np
import pytest
from PIL import Image as Pillow
from writing_toys import Writing

from apps import cli, experts, mapping
from apps.figure import figure
from apps.geometry import north_of, position
from fovea import config, registry
from fovea.colors import color_of
from fovea.errors import ConfigError, ExpertError, ModelError
from fovea.jsonable import from_json
from fovea.types import (
    LPS,
    Box,
    Bytes,
    ExpertCard,
    Finding,
    Grid,
    Instance,
    Measure,
    OrientedBox,
    Performance,
    Study,
)

CARD = ExpertCard(
    "toy_segmentation", "1.2.0", "outlines effusions and nodules", "a toy", ("DX", "CT", "optical"),
    {"pleural_effusion": ("pleural_effusion",), "all": ("pleural_effusion", "nodule", "pneumothorax")},
    performance=(Performance("dice", "nodule", 0.8123, 0.7, 0.9, 40, "d", "2026-01-01"),),
)  # fmt: skip


class ToyExpert:
    """The findings of the oracle, as an expert gives them."""

    card = CARD

    def accepts(self, study: Study) -> bool:
        return study.modality in CARD.modalities

    def run(self, study: Study, argument: str) -> tuple[Finding, ...]:
        if argument not in CARD.arguments:
            raise ExpertError(f"no argument {argument!r}", ", ".join(CARD.arguments))
        labels = CARD.arguments[argument]
        return tuple(finding for finding in toys.Oracle().findings(study) if finding.label in labels)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with one expert, opened by a kind that is not installed; the toy domain is the only one."""
    folder = tmp_path / "run" / "experts" / "toy_segmentation"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"kind": "toy", "name": "toy_segmentation"}')
    kinds = {"toy": SimpleNamespace(open=lambda folder: ToyExpert())}
    monkeypatch.setattr(registry, "expert_kind", kinds.__getitem__)
    monkeypatch.setattr(experts, "installed_domains", lambda: {"toy": Writing()})
    return tmp_path / "run"


def call(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["experts", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_table_says_everything_and_files_are_whole(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = toys.write(tmp_path, "film"), tmp_path / "out"
    code, text, _ = call("run", "toy_segmentation", file, "--in", run, "--out", out, capsys=capsys)
    assert code == 0
    assert "toy_segmentation@1.2.0 on Chest radiograph, PA view" in text
    first = next(line for line in text.splitlines() if line.startswith("pleural effusion"))
    assert first.split() == ["pleural", "effusion", "yes", "0.91", "area", "23.1", "±", "1.2", "cm²", "left"]
    assert "Not verified by a person." in text
    assert sorted(path.name for path in out.iterdir()) == ["findings.json", "findings.png", "findings.txt"]
    document = json.loads((out / "findings.json").read_text())
    findings = [from_json(Finding, item) for item in document["findings"]]
    assert [finding.label for finding in findings] == list(CARD.labels)
    assert findings[0].region.data.any()
    assert from_json(ExpertCard, document["expert"]) == CARD
    assert "nodule: yes 0.74; right; count 1; longest diameter 12.4 mm" in (out / "findings.txt").read_text()
    with Pillow.open(out / "findings.png") as picture:
        assert min(picture.size) > 600
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    call("run", "toy_segmentation", file, "--in", run, "--out", out, capsys=capsys)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_one_argument_and_files_of_the_trade(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = toys.write(tmp_path, "film"), tmp_path / "out"
    folder = run / "experts" / "toy_segmentation"
    code, text, _ = call(
        "run", folder, file, "--argument", "pleural_effusion", "--out", out, "--write", "all", capsys=capsys
    )
    assert code == 0
    assert "nodule" not in text
    assert (out / "findings.csv").read_text() == "pleural_effusion"
    assert str(out / "findings.csv") in text
    assert "no slices: A film; expected a volume." in text
    assert "a film" in call("run", folder, file, "--out", out, "--write", "slices", capsys=capsys)[2]
    assert call("run", folder, file, "--out", out, "--write", "csv", capsys=capsys)[0] == 0


def test_what_cannot_be_done_is_said_and_ends_with_2(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    film = toys.write(tmp_path / "in", "film")
    name = ("run", "toy_segmentation")
    assert "no argument 'lung'" in call(*name, film, "--in", run, "--argument", "lung", capsys=capsys)[2]
    code, _, err = call("run", "toy", film, "--in", run, capsys=capsys)
    assert (code, "one of toy_segmentation" in err) == (cli.REFUSED, True)
    assert "paths do not exist" in call(*name, tmp_path / "none", "--in", run, capsys=capsys)[2]
    assert "--write without --out" in call(*name, film, "--in", run, "--write", "csv", capsys=capsys)[2]
    toys.write(tmp_path / "in", "scene")
    assert "2 studies that toy_segmentation takes" in call(*name, tmp_path / "in", "--in", run, capsys=capsys)[2]
    broken = toys.write(tmp_path, "broken")
    assert "slices with different spacing" in call(*name, broken, "--in", run, capsys=capsys)[2]
    monkeypatch.setattr(ToyExpert, "accepts", lambda self, study: False)
    assert "does not take this study (DX)" in call(*name, film, "--in", run, capsys=capsys)[2]
    monkeypatch.setattr(experts, "installed_domains", lambda: {"toy": toys.Toy()})
    monkeypatch.setattr(ToyExpert, "accepts", lambda self, study: True)
    code, _, err = call(*name, film, "--in", run, "--out", tmp_path / "no", "--write", "all", capsys=capsys)
    assert (code, "writes no files for other systems" in err, (tmp_path / "no").exists()) == (2, True, False)


@pytest.mark.parametrize("recipe", ["", "[1]", '{"kind": 3}', "{", '{"kind": "' + "x" * 1_100_000 + '"}'])
def test_a_folder_without_a_kind_is_refused(tmp_path: Path, recipe: str) -> None:
    (tmp_path / "expert.json").write_text(recipe)
    with pytest.raises(ModelError):
        experts.open_expert(str(tmp_path))


def test_kinds_are_found_in_foreign_folders_and_by_name(run: Path, tmp_path: Path) -> None:
    (tmp_path / "expert.yaml").write_text("kind: toy\nname: x\n")
    (tmp_path / "config.json").write_text('{"model_type": "of somebody else"}')
    assert experts.open_expert(str(tmp_path)).card is CARD
    with pytest.raises(ModelError):
        experts.open_expert(str(run))
    with pytest.raises(ConfigError, match="with --in RUN"):
        experts.open_expert("nobody")


def test_the_card_is_shown_with_intervals(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = call("show", "toy_segmentation", "--in", run, capsys=capsys)
    assert code == 0
    assert "toy_segmentation@1.2.0" in text
    row = next(line for line in text.splitlines() if line.startswith("nodule"))
    assert row.split() == ["nodule", "dice", "0.812", "0.7", "to", "0.9", "40"]


# The picture


@pytest.mark.parametrize("kind", toys.SHAPES)
def test_the_picture_shows_findings_in_their_colours_with_a_legend(tmp_path: Path, kind: str) -> None:
    domain = toys.Toy()
    study = domain.load(toys.write(tmp_path, kind, 3))
    findings = toys.Oracle().findings(study)
    drawn = figure(domain, study, CARD, findings)
    assert drawn.dtype == np.uint8
    for label in ("pleural_effusion", "nodule"):
        exact = (drawn == color_of(label, domain.vocabulary)).all(-1)
        right = exact[:, -500:]
        assert right.sum() > 150, "a swatch in the column"
        assert exact.sum() > right.sum() + 50, "an edge in the image"
    absent = figure(domain, study, CARD, [replace(f, present=False, region=None) for f in findings])
    assert not (absent == color_of("nodule", domain.vocabulary)).all(-1).any()
    assert not (drawn[:, -16:] != 255).any(), "no text leaves the column"


def test_the_picture_tells_the_threshold_that_a_likely_label_misses(tmp_path: Path) -> None:
    domain = toys.Toy()
    study = domain.load(toys.write(tmp_path, "film", 3))
    known = replace(
        CARD,
        performance=(
            *CARD.performance,
            Performance("threshold by youden", "nodule", 0.7, 0.6, 0.8, 9, "", ""),
        ),
    )
    (finding,) = (f for f in toys.Oracle().findings(study) if f.label == "nodule")

    def shown(card: ExpertCard, score: float) -> Bytes:
        return figure(domain, study, card, [replace(finding, present=False, region=None, score=score)])

    for score, told in ((0.3, False), (0.65, True), (0.8, False)):
        assert np.array_equal(shown(known, score), shown(CARD, score)) != told


def test_long_words_and_many_instances_stay_in_the_picture(tmp_path: Path) -> None:
    domain = toys.Toy()
    study = domain.load(toys.write(tmp_path, "scene", 3))
    boxes = [Box((0, 10 * n, 10), (1, 10 * n + 6, 20)) for n in range(12)]
    many = tuple(Instance(box, 0.9, (Measure("x" * 90, 1.0, "mm", 0.1),), "north") for box in boxes)
    tilted = (Instance(OrientedBox((90, 90), 60, 20, 30), 0.9),)
    finding = toys.Oracle().findings(study)[0]
    findings = [
        replace(finding, label="w" * 120, region=None, instances=many),
        replace(finding, label="other", region=None, instances=tilted),
    ]
    drawn = figure(domain, study, CARD, findings)
    assert not (drawn[:, -16:] != 255).any()
    assert not (drawn[-16:] != 255).any()
    assert (drawn == color_of("other", domain.vocabulary)).all(-1).sum() > 200


def test_slices_say_where_they_are() -> None:
    axial = Grid(np.array([[1.0, 0, 0, -8], [0, 1, 0, -8], [0, 0, 5, -40], [0, 0, 0, 1]]), LPS, (20, 16, 16))
    assert [position(axial, slice_) for slice_ in (0, 8, 19)] == ["F 40 mm", "F 0 mm", "H 55 mm"]
    sagittal = Grid(np.array([[0, 0, 3.0, -30], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]), LPS, (20, 16, 16))
    assert position(sagittal, 0) == "R 30 mm"
    assert position(Grid.plain(4, 4), 0) == ""


@pytest.mark.parametrize(
    ("transform", "crs", "expected"),
    [
        ((10, 0, 500000, 0, -10, 3300000), "EPSG:32636", (0, -1)),
        ((10, 0, 500000, 0, 10, 3300000), "EPSG:32636", (0, 1)),
        ((0, 10, 500000, 10, 0, 3300000), "EPSG:32636", (1, 0)),
        ((0.001, 0, 12.0, 0, -0.001, 45.0), "EPSG:4326", (0, -1)),
    ],
)
def test_the_arrow_points_to_the_north(transform, crs, expected) -> None:
    direction = north_of(Grid.from_gdal(transform, crs, 100, 100))
    assert direction is not None
    np.testing.assert_allclose(direction, expected, atol=1e-3)


def test_there_is_no_north_without_the_earth() -> None:
    assert north_of(Grid.plain(9, 9)) is None
    assert north_of(Grid(np.eye(4), "no crs", (1, 9, 9))) is None


# A large scene


@pytest.fixture
def cover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scene that counts as large, and an expert that reads it in windows."""
    import scene_files as files

    truth, valid = files.truth(300, 420, 3), files.border(300, 420)
    network = files.expert(files.recipe(size=(1, 64, 64)), files.Smooth(3))
    monkeypatch.setattr(mapping, "LARGE", 100_000)
    monkeypatch.setattr(experts, "open_expert", lambda name, run: network)
    return files.write(tmp_path / "scene.tif", files.pixels(truth, 3), valid)


def test_a_large_scene_becomes_a_map_with_objects_and_a_picture(
    cover: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import geopandas
    import rasterio

    out = tmp_path / "out"
    assert "without --out" in call("run", "cover", cover, capsys=capsys)[2]
    code, text, err = call("run", "cover", cover, "--out", out, capsys=capsys)
    assert code == 0, err
    assert "map:" in err
    assert "100%" in err
    names = {path.name for path in out.iterdir()}
    assert {*mapping._FILES, "findings.png", "findings.json", "findings.txt"} <= names
    assert not [name for name in names if name.startswith(".")]
    told = {item["label"]: item for item in json.loads((out / "statistics.json").read_text())["classes"]}
    assert f"count {told['forest']['objects']}" in " ".join(text.split())
    assert "the mean over the pixels" in text
    objects = geopandas.read_parquet(out / "objects.parquet")
    assert objects.crs.to_epsg() == 32633
    assert objects.label.value_counts().to_dict() == {k: v["objects"] for k, v in told.items() if v["objects"]}
    with rasterio.open(out / "classes.tif") as file:
        classes, place = file.read(1), file.transform
    for box, pixels, label in zip(objects.geometry, objects.pixels, objects.label, strict=True):
        left, top = ~place @ (box.bounds[0], box.bounds[3])
        right, bottom = ~place @ (box.bounds[2], box.bounds[1])
        inside = classes[round(top) : round(bottom), round(left) : round(right)]
        number = ("none", "water", "forest", "built_up").index(label)
        assert (inside == number).sum() >= pixels
        assert all((edge == number).any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    drawn = np.asarray(Pillow.open(out / "findings.png"))
    vocabulary = registry.domain("remote_sensing").vocabulary
    assert (drawn == color_of("forest", vocabulary)).all(-1).sum() > 200

    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "objects.parquet").unlink()
    assert "map:" in call("run", "cover", cover, "--out", out, capsys=capsys)[2]
    assert "map:" not in call("run", "cover", cover, "--out", out, capsys=capsys)[2], "what is there is not redone"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    code, text, _ = call("run", "cover", cover, "--out", out, "--write", "all", capsys=capsys)
    assert (code, "no other output: A mapped scene has its class map" in text) == (0, True)
    assert "mapped scene" in call("run", "cover", cover, "--out", out, "--write", "cog", capsys=capsys)[2]
    assert "a scene without a date" in call("run", "cover", cover, "--out", out, "--write", "stac", capsys=capsys)[2]
    code, text, _ = call("run", "cover", cover, "--out", out, "--argument", "water", capsys=capsys)
    assert (code, "forest" in text) == (0, False)
    assert "no map for 'road'" in call("run", "cover", cover, "--out", out, "--argument", "road", capsys=capsys)[2]


def test_a_map_has_a_stac_item(cover: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pystac
    import rasterio

    with rasterio.open(cover, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2024:06:01 10:00:00")
    out = tmp_path / "out"
    code, text, err = call("run", "cover", cover, "--out", out, "--write", "all", capsys=capsys)
    assert code == 0, err
    assert str(out / "item.json") in text
    item = pystac.Item.from_file(out / "item.json")
    assert set(item.assets) == {"classes", "confidence", "objects.parquet"}
    told = {row["label"]: row["objects"] for row in json.loads((out / "statistics.json").read_text())["classes"]}
    counts = {row["name"]: row["count"] for row in item.properties["label:overviews"][0]["counts"]}
    assert counts == {label: n for label, n in told.items() if n and label != "none"}
    names = {row["name"] for row in item.assets["classes"].extra_fields["classification:classes"]}
    assert {"water", "forest", "built_up", "no_data"} <= names


def test_a_map_without_objects_says_so(cover: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    import scene_files as files

    nothing = files.expert(files.recipe(size=(1, 64, 64)), files.Smooth(3, level=9.0))
    monkeypatch.setattr(experts, "open_expert", lambda name, run: nothing)
    code, text, err = call("run", "cover", cover, "--out", tmp_path / "out", capsys=capsys)
    assert code == 0, err
    assert [line.split()[1] for line in text.splitlines() if line.startswith(("water", "forest"))] == ["no", "no"]


def test_what_is_not_large_or_not_read_in_windows_is_asked_as_a_whole(cover: Path, tmp_path: Path) -> None:
    import scene_files as files

    study = registry.domain("remote_sensing").load(cover)
    assert mapping.mappable(files.expert(files.recipe(size=(1, 64, 64)), files.Smooth(3)), study)
    assert not mapping.mappable(files.expert(files.recipe(spacing=None), files.Smooth(3)), study)
    assert not mapping.mappable(ToyExpert(), study)
    assert not mapping.mappable(ToyExpert(), toys.Toy().load(toys.write(tmp_path, "scene")))


# A real one


def test_a_trained_expert_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from curriculum.recipe import Recipe

    recipe = config.load(Recipe, Path(__file__).parents[1] / "configs" / "smoke" / "remote_sensing.yaml")
    domain = registry.domain("remote_sensing")
    samples = domain.synth(tmp_path / "data", 6, seed=3)
    pairs = [(domain.load(Path(sample.path)), sample.facts) for sample in samples]
    wanted = next(expert for expert in recipe.experts if expert.name == "object_segmentation")
    folder = tmp_path / "run" / "experts" / wanted.name
    registry.expert_kind(wanted.kind).train(wanted.coded(domain.vocabulary), pairs[:3], pairs[3:], folder, 0)
    code, text, err = call(
        "run", wanted.name, samples[0].path, "--in", tmp_path / "run", "--out", tmp_path / "out", "--write", "stac",
        capsys=capsys,
    )  # fmt: skip
    assert code == 0, err
    assert {"building", "ship"} <= set(text.split())
    assert call("show", folder, capsys=capsys)[0] == 0
    assert (tmp_path / "out" / "findings.png").stat().st_size > 10_000
    links = json.loads((tmp_path / "out" / "item.json").read_text())["links"]
    (model,) = [link["href"] for link in links if link.get("mlm:name")]
    assert json.loads((tmp_path / "out" / model).read_text())["properties"]["mlm:tasks"]
