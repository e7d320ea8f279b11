"""Optical scenes: the contract, words against values, pictures, and exports against geodesics."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import rasterio
from geotiff_files import UTM
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from domains.remote_sensing.plugin import RemoteSensing
from domains.remote_sensing.vocabulary import COUNTED, SIZED, TERMS, VOCABULARY
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.image import DETECTOR, PIXEL, Channel, Grid, Image, Window
from fovea.testing import DomainContract
from fovea.types import (
    MEASURING,
    Answer,
    Box,
    Call,
    Facts,
    Finding,
    Mask,
    Measure,
    OrientedBox,
    Origin,
    Polygon,
    Question,
    Region,
    Report,
    Source,
    Study,
    View,
)
from fovea.verbal import LOCATIONS, NONE, read_value

DOMAIN = RemoteSensing()
QUADRANTS = [place for place in LOCATIONS if "-" in place]


class TestRemoteSensing(DomainContract):
    name = "remote_sensing"
    kinds = MEASURING | {"presence", "report", "class"}


def study(
    grid: Grid | None = None, names: str = "blue green red nir", values: Any = None, unit: str = "reflectance"
) -> Study:
    grid = grid or Grid.from_gdal((10, 0, 399960, 0, -10, 5500020), "EPSG:32633", 60, 80)
    channels = tuple(Channel(name, unit) for name in names.split())
    if values is None:
        values = np.random.default_rng(0).random((len(channels), *grid.shape)) * 0.4
    image = Image.from_array(channels, grid, np.asarray(values, np.float32))
    return Study("remote_sensing", (image,), Source(("0" * 64,), "test"), {"modality": "optical"})


def finding(label: str, *measures: Measure, location: str = "", region: Region | None = None) -> Finding:
    return Finding(label, TERMS[label].code, True, 0.9, Origin("truth", "1"), location, measures, region)


@st.composite
def facts(draw: st.DrawFn, physical: bool = True) -> Facts:
    """Any labels with any measures that the conventions give them."""
    labels = sorted(TERMS)
    present = draw(st.lists(st.sampled_from(labels), unique=True, max_size=8))
    findings = []
    for label in present:
        amount = draw(st.floats(1e-3, 1e6))
        measures = [Measure("fraction", draw(st.floats(0.001, 1)), "1")]
        if label in COUNTED:
            measures = [Measure("count", draw(st.integers(1, 4000)), "1")]
        if label in SIZED:
            measures += [Measure("length", amount, "m"), Measure("bearing", draw(st.floats(0, 179)), "deg")]
        elif physical and label != "tree":
            measures.append(Measure("area", amount, "m2" if label in COUNTED else "ha"))
        findings.append(finding(label, *measures, location=draw(st.sampled_from(QUADRANTS))))
    return Facts(tuple(findings), frozenset(draw(st.lists(st.sampled_from(labels)))) | set(present))


# Words


@given(given_facts=facts(), seed=st.integers(0, 10**6), physical=st.booleans())
def test_every_answer_reads_back(given_facts: Facts, seed: int, physical: bool) -> None:
    """The value of a reply is what `read_value` finds in its text, to the three digits that are written."""
    scene = study(None if physical else Grid.plain(60, 80))
    asked = DOMAIN.questions(scene, given_facts, Random(seed))
    assert len({(q.kind, q.label) for q in asked}) == len(asked)
    for question in asked:
        reply = DOMAIN.answer(question, given_facts)
        assert read_value(question, reply.text, VOCABULARY) == reply.value
        found = given_facts.finding(question.label)
        if found and question.measure:
            measure = found.measure(question.measure)
            assert measure is not None
            factor = 100 if question.measure == "fraction" else 1
            assert reply.value == pytest.approx(measure.value * factor, rel=5e-3, abs=1e-4)
            assert reply.unit == ("%" if question.measure == "fraction" else measure.unit)


@pytest.mark.parametrize("label", sorted(TERMS))
def test_each_label_can_be_asked_about_there_and_not_there(label: str) -> None:
    amounts = (("area", 12.34, "ha"), ("length", 45.6, "m"), ("count", 7, "1"), ("fraction", 0.123, "1"))
    measures = [Measure(*amount) for amount in (*amounts, ("bearing", 17.0, "deg"))]
    there = Facts((finding(label, *measures, location="south-east"),), frozenset({label}))
    absent = Facts((), frozenset({label}))
    expected: dict[Question, tuple[Any, Any]] = {
        Question("presence", "", label): (True, False),
        Question("side", "", label): ("south-east", NONE),
        Question("count", "", label): (7, 0),
        Question("size", "", label, "length"): (45.6, NONE),
        Question("size", "", label, "bearing"): (17.0, NONE),
        Question("area", "", label, "area"): (12.3, NONE),
        Question("area", "", label, "fraction"): (12.3, NONE),
        Question("report", ""): (frozenset({label}), frozenset()),
    }
    if label != "cloud":
        expected[Question("class", "")] = (label, NONE)
    for question, values in expected.items():
        for known, value in zip((there, absent), values, strict=True):
            reply = DOMAIN.answer(question, known)
            assert reply.value == value, (question, reply)
            if question.kind != "class" or known is there:
                assert read_value(question, reply.text, VOCABULARY) == value, (question, reply)


def test_a_measure_that_is_missing_is_an_error_not_a_guess() -> None:
    bare = Facts((finding("water"),), frozenset({"water"}))
    for question in (
        Question("area", "", "water", "area"),
        Question("side", "", "water"),
        Question("count", "", "water"),
    ):
        with pytest.raises(InputError, match="water without its"):
            DOMAIN.answer(question, bare)


def test_reports_keep_the_order_of_the_vocabulary() -> None:
    shares = {"road": 0.7, "water": 0.1}
    found = tuple(finding(label, Measure("fraction", part, "1")) for label, part in shares.items())
    text = DOMAIN.answer(Question("report", ""), Facts(found, frozenset(TERMS))).text
    sentences = text.split(". ")
    assert len(sentences) == len(TERMS)
    assert [sentences[list(TERMS).index(label)].split()[0] for label in ("water", "forest", "road")] == [
        "Water",
        "No",
        "Roads",
    ]


def test_about_one_in_seven_measuring_questions_is_about_something_absent() -> None:
    places = [finding(label, Measure("area", 3.0, "ha"), Measure("fraction", 0.2, "1"), location="north-west")
              for label in ("water", "forest", "road")]  # fmt: skip
    ships = finding("ship", Measure("count", 3, "1"), Measure("length", 40.0, "m"), location="north-west")
    known = Facts((*places, ships), frozenset(TERMS))
    asked = [q for seed in range(300) for q in DOMAIN.questions(study(), known, Random(seed)) if q.kind in MEASURING]
    share = np.mean([known.finding(q.label) is None for q in asked])
    assert 0.09 < share < 0.2
    assert Counter(q.kind for q in asked).keys() == MEASURING
    assert all(len({q.text for q in asked if q.kind == kind}) > 5 for kind in MEASURING)


def test_scenes_without_a_size_are_asked_for_percent() -> None:
    known = Facts((finding("water", Measure("fraction", 0.4, "1")),), frozenset(TERMS) - COUNTED)
    asked = [
        q
        for seed in range(40)
        for q in DOMAIN.questions(study(Grid.plain(60, 80)), known, Random(seed))
        if q.kind == "area"
    ]
    assert {q.measure for q in asked} == {"fraction"}
    assert all("percent" in q.text for q in asked)
    assert any(q.label != "water" for q in asked)


@given(given_facts=facts(), seed=st.integers(0, 10**6))
def test_captions_give_no_exact_numbers_and_name_only_what_is_there(given_facts: Facts, seed: int) -> None:
    text = DOMAIN.caption(study(), given_facts, Random(seed))
    assert not any(character.isdigit() for character in text)
    named = read_value(Question("report", ""), text, VOCABULARY)
    assert isinstance(named, frozenset)
    assert named <= {f.label for f in given_facts.findings}
    if given_facts.findings:
        assert named
    assert text.endswith(".")
    assert "  " not in text


def test_descriptions_tell_what_the_header_says(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", dtype="uint16", count=2, width=9, height=7, **UTM) as file:
        file.write(np.ones((2, 7, 9), np.uint16))
        file.descriptions = ("B8A", "B04")
        file.update_tags(ACQUISITION_DATE="2021-06-12T10:10:31")
    said = DOMAIN.describe(DOMAIN.load(path))
    assert said == "Optical scene, Sentinel-2, 2021-06-12, 9 x 7 pixels of 10 m, bands nir08 red."


# Pictures


def test_true_colour_goes_by_names_and_not_by_place() -> None:
    values = np.zeros((4, 1, 60, 80))
    values[2, :, :, :40] = 0.4
    drawn = DOMAIN.render(study(names="nir blue red green", values=values), View(size=80)).pixels[40]
    assert drawn[10].tolist() == [255, 0, 0]
    assert drawn[70].tolist() == [0, 0, 0]
    false = DOMAIN.render(study(names="nir blue red green", values=values), View("false colour", 80)).pixels[40]
    assert false[10].tolist() == [0, 255, 0]


@pytest.mark.parametrize("factor", [1e-4, 1, 300])
def test_a_stretch_does_not_depend_on_the_scale_of_digital_numbers(factor: float) -> None:
    """Nor on a few outliers: the middle of the picture stays where it was."""
    values = np.random.default_rng(1).random((3, 1, 60, 80)) * 20 + 10
    plain = DOMAIN.render(study(names="red green blue", values=values, unit=""), View(size=80)).pixels
    scaled = values * factor
    scaled[:, :, :2, :2] = scaled.max() * 50
    other = DOMAIN.render(study(names="red green blue", values=scaled, unit=""), View(size=80)).pixels
    assert np.abs(plain.astype(int) - other)[14:].mean() < 3
    assert plain[10:70].min() == 0
    assert plain[10:70].max() == 255


def test_clouds_do_not_darken_the_land() -> None:
    land = 0.05 + 0.1 * np.random.default_rng(2).random((3, 1, 60, 80))
    cloudy = land.copy()
    cloudy[..., :20] = 0.9
    bright = DOMAIN.render(study(names="red green blue", values=cloudy), View(size=80)).pixels[10:70]
    assert (bright[:, :20] == 255).all()
    assert bright[:, 20:].mean() > 60


def test_no_contrast_is_grey_and_no_data_is_black() -> None:
    flat = DOMAIN.render(
        study(names="red green blue", values=np.full((3, 1, 60, 80), 5000), unit="digital number"), View(size=80)
    )
    assert len(np.unique(flat.pixels[10:70])) == 1
    assert 60 < flat.pixels[40, 40, 0] < 220
    scene = study()
    image = scene.images[0]
    valid = np.ones(image.grid.shape, bool)
    valid[:, :, :30] = False
    holed = Image.from_array(image.channels, image.grid, image.pixels, valid)
    for preset in DOMAIN.presets:
        drawn = DOMAIN.render(Study("remote_sensing", (holed,), scene.source, scene.meta), View(preset, 80)).pixels
        assert not drawn[:, :30].any()
        assert drawn[10:70, 30:].any(-1).mean() > 0.9
    holed = Image.from_array(image.channels, image.grid, image.pixels, np.zeros(image.grid.shape, bool))
    assert not DOMAIN.render(Study("remote_sensing", (holed,), scene.source, scene.meta), View(size=80)).pixels.any()


def test_a_map_of_classes_keeps_its_colours() -> None:
    values = np.random.default_rng(3).integers(20, 90, (3, 1, 60, 80))
    scene = replace(study(names="red green blue", values=values), meta={"modality": "classes"})
    drawn = DOMAIN.render(scene, View(size=80)).pixels[10:70]
    np.testing.assert_array_equal(drawn, values[:, 0].transpose(1, 2, 0))


def test_ndvi_has_fixed_colours() -> None:
    values = np.zeros((2, 1, 60, 80))
    values[0], values[1, :, :, :40], values[1, :, :, 40:] = 0.45, 0.03, 0.45
    drawn = DOMAIN.render(study(names="nir red", values=values), View("ndvi", 80)).pixels[40].astype(int)
    assert drawn[10, 1] > 1.5 * drawn[10, [0, 2]].max()
    assert drawn[70].tolist() == [165, 120, 80]


def test_what_cannot_be_drawn_is_said() -> None:
    rgb = study(names="red green blue")
    for preset in ("false colour", "ndvi"):
        with pytest.raises(UnsupportedError, match="nir"):
            DOMAIN.render(rgb, View(preset))
    for view in (View("no such preset"), View(image=1), View(size=0)):
        with pytest.raises(InputError):
            DOMAIN.render(rgb, view)
    unnamed = study(names="band_1 band_2 band_3 band_4")
    first = study(names="red green blue", values=unnamed.images[0].pixels[:3])
    np.testing.assert_array_equal(DOMAIN.render(unnamed, View()).pixels, DOMAIN.render(first, View()).pixels)


def test_only_the_reduced_picture_is_read() -> None:
    asked: list[tuple[Window | None, tuple[int, int] | None]] = []
    plain = study().images[0]

    def read(window: Window | None, shape: tuple[int, int] | None) -> Any:
        asked.append((window, shape))
        return np.zeros((4, 1, *(shape or (0, 0))), np.float32), np.ones((1, *(shape or (0, 0))), bool)

    scene = Study(
        "remote_sensing", (Image(plain.channels, plain.grid, read),), Source((), "test"), {"modality": "optical"}
    )
    DOMAIN.render(scene, View(size=40))
    assert asked == [(None, (30, 40))]


# Exports


def report(scene: Study, *findings: Finding) -> Report:
    answer = Answer(
        "What is there?",
        "Things.",
        0.8,
        (),
        (Call("land_cover", "all", findings), Call("other", "all", failure="broke")),
    )
    return Report(scene, (answer,), {"model": "m@1"})


def geojson(scene: Study, *findings: Finding) -> Any:
    return json.loads(DOMAIN.export(report(scene, *findings), "geojson"))


def rings(feature: Any) -> list[list[np.ndarray[Any, Any]]]:
    return [[np.array(ring) for ring in polygon] for polygon in feature["geometry"]["coordinates"]]


def blobs(shape: tuple[int, int], seed: int) -> np.ndarray[Any, Any]:
    """A mask with holes and islands."""
    noise = np.random.default_rng(seed).random((shape[0] // 8, shape[1] // 8)).repeat(8, 0).repeat(8, 1)
    mask = np.zeros((1, *shape), bool)
    mask[0, : noise.shape[0], : noise.shape[1]] = noise > 0.45
    return mask


@pytest.mark.parametrize(
    ("frame", "transform"),
    [
        ("EPSG:32633", (10, 0, 399960, 0, -10, 5500020)),
        ("EPSG:32633", (10, 0, 399960, 0, 10, 5500020)),
        ("EPSG:32633", (8, 5, 399960, 7, -9, 5500020)),
        ("EPSG:4326", (1e-4, 0, 24.9, 0, -1e-4, 60.2)),
        ("EPSG:6933", (500, 0, 1_000_000, 0, -500, 6_000_000)),
    ],
)
def test_geojson_has_the_area_of_the_mask(frame: str, transform: tuple[float, ...]) -> None:
    """North-up, south-up, rotated, in degrees: area by pyproj.Geod within 0.5 %, rings by the right-hand rule."""
    grid = Grid.from_gdal(transform, frame, 128, 160)
    mask = blobs((128, 160), 3)
    feature = geojson(
        study(grid), finding("water", Measure("area", 3.5, "ha"), location="north-west", region=Mask(mask))
    )["features"][0]
    geod, total = Geod(ellps="WGS84"), 0.0
    for polygon in rings(feature):
        for index, ring in enumerate(polygon):
            np.testing.assert_array_equal(ring[0], ring[-1])
            area = geod.polygon_area_perimeter(ring[:, 0], ring[:, 1])[0]
            assert (area > 0) == (index == 0)
            total += area
    rows, columns = np.array([(r, c) for r, c in ((-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5))]).T
    to_degrees = Transformer.from_crs(frame, 4326, always_xy=True)
    expected = 0.0
    for row in range(0, 128, 8):
        weight = mask[0, row : row + 8].sum()
        at = grid.world(np.stack([np.zeros(4), rows + row + 3.5, columns + 80], -1))
        expected += weight * abs(geod.polygon_area_perimeter(*to_degrees.transform(at[:, 0], at[:, 1]))[0])
    assert total == pytest.approx(expected, rel=5e-3)
    assert feature["properties"]["area_ha"] == 3.5
    assert feature["properties"]["code"] == "WORLDCOVER:80"
    points = np.concatenate([ring for polygon in rings(feature) for ring in polygon])
    np.testing.assert_array_equal(feature["bbox"], [*points.min(0), *points.max(0)])
    back = np.stack([*to_degrees.transform(*points.T, direction="INVERSE"), np.zeros(len(points))], -1)
    rows, columns = np.nonzero(mask[0])
    corners = grid.index(back)[:, 1:] + 0.5
    np.testing.assert_allclose(corners.min(0), (rows.min(), columns.min()), atol=0.02)
    np.testing.assert_allclose(corners.max(0), (rows.max() + 1, columns.max() + 1), atol=0.02)


@pytest.mark.parametrize(
    "region",
    [
        Box((0, 10, 20), (1, 30, 60)),
        OrientedBox((20, 40), 40, 20, 0),
        OrientedBox((20, 40), 20, 40, -90 + 1e-9),
        Polygon(((10, 20), (10, 60), (30, 60), (30, 20))),
    ],
)
def test_all_kinds_of_region_lie_where_the_same_mask_lies(region: Region) -> None:
    mask = np.zeros((1, 60, 80), bool)
    mask[0, 10:30, 20:60] = region is not None
    if isinstance(region, OrientedBox) and region.angle:
        mask[:] = False
        mask[0, 10:30, 20:60] = True
        region = OrientedBox((20, 40), 20, 40, region.angle)
    boxes = [geojson(study(), finding("ship", region=shape))["bbox"] for shape in (region, Mask(mask))]
    np.testing.assert_allclose(boxes[0], boxes[1], atol=2e-7)


def test_geojson_needs_a_place_on_earth() -> None:
    for frame in (PIXEL, DETECTOR):
        with pytest.raises(GeometryError, match="coordinate reference system"):
            geojson(study(Grid(np.eye(4), frame, (1, 60, 80))))
    with pytest.raises(InputError, match="mask"):
        geojson(study(), finding("water", region=Mask(np.ones((1, 5, 5), bool))))


def test_exports_hold_findings_failures_and_state() -> None:
    given_report = report(study(), finding("water", Measure("area", 3.5, "ha"), location="north-west"))
    text = DOMAIN.export(given_report, "text").decode()
    assert "area 3.5 ha" in text
    assert "other(all) failed: broke" in text
    assert "draft" in text
    whole = json.loads(DOMAIN.export(given_report, "json"))
    assert whole["answers"][0]["calls"][0]["findings"][0]["measures"][0]["value"] == 3.5
    assert (whole["state"], whole["study"]["id"]) == ("draft", given_report.study.id)
    feature = geojson(given_report.study, *given_report.answers[0].findings)["features"][0]
    assert feature["geometry"] is None
