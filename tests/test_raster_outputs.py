"""Class maps as COGs: any strips give the same bytes, also after a kill; read back they are the same map."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
import rasterio
from found import FRAMES, blobs, finding, grid, report, ships, study
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate

from domains.formats.rasters import geotiff
from domains.remote_sensing.outputs import cog
from domains.remote_sensing.outputs.cog import Canvas
from domains.remote_sensing.plugin import RemoteSensing
from domains.remote_sensing.vocabulary import TERMS, VOCABULARY
from fovea.errors import GeometryError, InputError, UnsupportedError
from fovea.types import LPS, Box, Grid, Mask, Strip

ABOUT = {"model": "land_cover@1.2 <&é", "input": "0" * 64}
ROWS, COLUMNS = 600, 700
DOMAIN = RemoteSensing()


def values(rows: int = ROWS, columns: int = COLUMNS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 13, (rows // 10 + 1, columns // 10 + 1)).repeat(10, 0).repeat(10, 1)[:rows, :columns]
    classes[:70, 100:400] = Strip.NODATA
    confidence = rng.random((rows, columns)).astype(np.float32)
    confidence[classes == Strip.NODATA] = np.nan
    return classes.astype(np.uint8), confidence


def strips(rows: list[int], columns: list[int]) -> list[Strip]:
    """The strips between the cuts, all rows of one band of columns after the other."""
    classes, confidence = values()
    spans = [((a, b), (c, d)) for c, d in pairwise(columns) for a, b in pairwise(rows)]
    return [Strip(r, c, classes[slice(*r), slice(*c)], confidence[slice(*r), slice(*c)]) for r, c in spans]


PLAIN = strips([0, 512, ROWS], [0, 333, COLUMNS])


def canvas(folder: Path, frame: str = "north up", **more: str) -> Canvas:
    return Canvas(folder, grid(frame, ROWS, COLUMNS), VOCABULARY, {**ABOUT, **more})


def painted(folder: Path, parts: list[Strip], frame: str = "north up") -> dict[str, bytes]:
    target = canvas(folder, frame)
    for strip in parts:
        target.write(strip)
    paths = target.finish()
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths}
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    painted(folder, PLAIN)
    return folder


@pytest.mark.parametrize("frame", sorted(FRAMES))
def test_maps_are_valid_cogs_that_read_back_exactly(frame, tmp_path):
    painted(tmp_path, PLAIN, frame)
    classes, confidence = values()
    place = grid(frame, ROWS, COLUMNS)
    for name in ("classes", "confidence"):
        valid, errors, warnings = cog_validate(tmp_path / f"{name}.tif", strict=True)
        assert (valid, errors, warnings) == (True, [], [])
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            back = Grid.from_gdal(tuple(file.transform), place.frame, ROWS, COLUMNS)
            np.testing.assert_array_equal(back.affine, place.affine)
            assert file.crs == rasterio.crs.CRS.from_user_input(place.frame)
            assert file.nodata == Strip.NODATA
            assert file.tags() == {**ABOUT, "AREA_OR_POINT": "Area"}
            assert file.overviews(1) == [2]
            stored = file.read(1)
        if name == "classes":
            np.testing.assert_array_equal(stored, classes)
        else:
            known = ~np.isnan(confidence)
            np.testing.assert_array_equal(stored[~known], Strip.NODATA)
            np.testing.assert_allclose(stored[known] * 0.01, confidence[known], atol=0.005001)


def test_the_map_of_classes_names_and_colours_them(whole):
    with rasterio.open(whole / "classes.tif") as file:
        assert file.colorinterp == (ColorInterp.palette,)
        assert file.descriptions == ("class",)
        names = file.tags(1)
        assert all(file.colormap(1)[n][:3] == term.color for n, term in enumerate(VOCABULARY, 1))
    assert [names[f"class_{n}"] for n in range(len(VOCABULARY) + 1)] == ["none", *(term.label for term in VOCABULARY)]
    sidecar = (whole / "classes.tif.aux.xml").read_text()
    assert [sidecar.count(f"<Category>{term.label}</Category>") for term in VOCABULARY] == [1] * len(VOCABULARY)
    with rasterio.open(whole / "confidence.tif") as file:
        assert (file.scales, file.descriptions) == ((0.01,), ("confidence",))


def test_our_reader_finds_the_same_map(whole):
    classes, confidence = values()
    image = geotiff.read(whole / "classes.tif").images[0]
    np.testing.assert_array_equal(image.valid[0], classes != Strip.NODATA)
    np.testing.assert_array_equal(image.grid.affine, grid("north up", ROWS, COLUMNS).affine)
    for number, term in enumerate(VOCABULARY, 1):
        np.testing.assert_array_equal(np.equal(image.pixels[:, 0].T, term.color).all(-1).T, classes == number)
    image = geotiff.read(whole / "confidence.tif").images[0]
    np.testing.assert_array_equal(image.valid[0], ~np.isnan(confidence))
    np.testing.assert_allclose(image.pixels[0, 0][image.valid[0]], confidence[image.valid[0]], atol=0.0051)


def test_overviews_are_the_mode_and_the_mean_of_what_is_known(tmp_path):
    classes, confidence = np.full((ROWS, COLUMNS), 3, np.uint8), np.full((ROWS, COLUMNS), 0.5, np.float32)
    classes[::2, ::2], confidence[::2, ::2] = 7, 0.9
    classes[:, 400:], classes[::2, 400::2] = Strip.NODATA, 5
    confidence[:, 400:], confidence[::2, 400::2] = np.nan, 0.8
    painted(tmp_path, [Strip((0, ROWS), (0, COLUMNS), classes, confidence)])
    for name, left, right in (("classes", 3, 5), ("confidence", 60, 80)):
        with rasterio.open(tmp_path / f"{name}.tif", overview_level=0) as file:
            reduced = file.read(1)
        assert (reduced.shape, set(np.unique(reduced[:, :199])), set(np.unique(reduced[:, 201:]))) == (
            (ROWS // 2, COLUMNS // 2), {left}, {right},
        )  # fmt: skip


def cuts(size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, size - 1), unique=True, max_size=3).map(lambda found: [0, *sorted(found), size])


@settings(max_examples=8)
@given(rows=cuts(ROWS), columns=cuts(COLUMNS), seed=st.integers(0, 99))
def test_any_strips_in_any_order_give_the_same_bytes(rows, columns, seed, whole, tmp_path_factory):
    parts = strips(rows, columns)
    Random(seed).shuffle(parts)
    found = painted(tmp_path_factory.mktemp("cut"), parts)
    assert found == {path.name: path.read_bytes() for path in whole.iterdir()}


WRITER = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_raster_outputs import canvas, strips
    target = canvas(Path(sys.argv[1]))
    for strip in strips([0, 100, 200, 300, 400, 500, 600], [0, 333, 700])[target.done:]:
        target.write(strip)
        print(target.done, flush=True)
        time.sleep(0.05)
    target.finish()
"""


def test_a_killed_map_goes_on_and_ends_in_the_same_bytes(whole, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "1\n"
        time.sleep(0.12)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".canvas"]
    journal = tmp_path / ".canvas" / "journal.txt"
    journal.write_bytes(journal.read_bytes() + b"0 100 0")  # killed in the middle of a line
    raw = tmp_path / ".canvas" / "classes.raw"
    parts = strips([0, 100, 200, 300, 400, 500, 600], [0, 333, 700])
    target = canvas(tmp_path)
    target.write(parts[target.done])
    done = canvas(tmp_path).done
    assert 2 <= done == target.done < 12
    with raw.open("r+b") as file:  # and of a strip
        file.seek(parts[done].rows[0] * COLUMNS)
        file.write(b"\x07" * 50) if done < 6 else None
    for name in ("classes.tif", "classes.tif.aux.xml", "confidence.tif"):  # or when it was made a COG
        (raw.parent / name).write_bytes(b"unfinished")
    target = canvas(tmp_path)
    for strip in parts[target.done :]:
        target.write(strip)
    assert {path.name: path.read_bytes() for path in target.finish()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_what_does_not_fit_is_refused(tmp_path):
    target = canvas(tmp_path)
    good = PLAIN[0]
    outside = Strip((ROWS - 1, ROWS + 1), (0, 2), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.float32))
    shaped = Strip((0, 2), (0, 3), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.float32))
    unnamed = Strip((0, 1), (0, 1), np.full((1, 1), len(VOCABULARY) + 1, np.uint8), np.zeros((1, 1), np.float32))
    unsure = Strip((0, 1), (0, 1), np.ones((1, 1), np.uint8), np.full((1, 1), 1.5, np.float32))
    for strip in (outside, shaped, unnamed, unsure):
        with pytest.raises(InputError):
            target.write(strip)
    target.write(good)
    with pytest.raises(InputError, match="lacks pixels"):
        target.finish()
    with pytest.raises(InputError, match="another unfinished map"):
        canvas(tmp_path, input="1")
    other = canvas(tmp_path)
    other.write(PLAIN[1])
    with pytest.raises(InputError, match="another process"):
        target.write(PLAIN[1])
    for strip in (*PLAIN[2:], PLAIN[1]):
        other.write(strip)
    with pytest.raises(InputError, match="twice"):
        other.finish()
    assert [path.name for path in tmp_path.iterdir()] == [".canvas"]
    with pytest.raises(GeometryError):
        Canvas(tmp_path / "x", Grid(np.eye(4), LPS, (1, 5, 5)), VOCABULARY, {})


def test_a_scene_without_a_place_has_a_map_without_one(tmp_path):
    target = Canvas(tmp_path, Grid.plain(20, 30), VOCABULARY, {})
    target.write(Strip((0, 20), (0, 30), np.ones((20, 30), np.uint8), np.ones((20, 30), np.float32)))
    target.finish()
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(tmp_path / "classes.tif") as file:
        assert (file.crs, file.transform.is_identity, file.read(1).min()) == (None, True, 1)


def test_memory_does_not_grow_with_the_map(tmp_path):
    code = """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from domains.remote_sensing.outputs.cog import Canvas
        from fovea.types import Grid, Strip
        size = int(sys.argv[2])
        target = Canvas(Path(sys.argv[1]), Grid.from_gdal((1, 0, 0, 0, -1, 0), "EPSG:32633", size, size), (), {})
        ones = np.zeros((750, 750), np.uint8)
        for row in range(0, size, 750):
            for column in range(0, size, 750):
                target.write(Strip((row, row + 750), (column, column + 750), ones, ones.astype(np.float32)))
        target.finish()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    used = [
        int(subprocess.check_output([sys.executable, "-c", textwrap.dedent(code), str(tmp_path / size), size]))
        for size in ("1500", "6000")
    ]
    assert used[1] - used[0] < 20_000, used  # kB: the larger maps are 36 MB each


def test_findings_become_a_map_on_the_grid_of_the_scene(tmp_path):
    place = grid("rotated")
    valid = np.ones(place.shape, bool)
    valid[0, :5] = False
    water, box = Mask(blobs(60, 80)), Box((0, 10, 12), (1, 20, 40))
    given_report = report(study(place, valid), finding("water", water, 0.6), ships(place), finding("cloud", box, 0.75))
    paths = DOMAIN.write(given_report, (), tmp_path, ("cog",))
    assert [path.name for path in paths] == ["classes.tif.aux.xml", "classes.tif", "confidence.tif"]
    expected, sure = np.zeros((60, 80)), np.full((60, 80), 255)
    for label, region, percent in (
        ("water", water.data[0], 60), ("cloud", np.s_[10:20, 12:40], 75), ("ship", ships(place).region.data[0], 90),
    ):  # fmt: skip
        expected[region], sure[region] = list(TERMS).index(label) + 1, percent
    expected[:5] = sure[:5] = Strip.NODATA
    for name, array in (("classes", expected), ("confidence", sure)):
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            np.testing.assert_array_equal(file.read(1), array)
            assert file.tags()["experts"] == "land_cover@1.2"
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in DOMAIN.write(given_report, (), tmp_path, ("cog",))] == before


def test_no_map_of_findings_without_a_region(tmp_path):
    with pytest.raises(UnsupportedError, match="without a region"):
        cog.write(report(study(grid()), finding("water")), tmp_path)
    with pytest.raises(UnsupportedError, match="one of cog"):
        DOMAIN.write(report(study(grid())), (), tmp_path, ("shapefile",))
    assert DOMAIN.write(report(study(Grid.plain(5, 6)), finding("water")), (), tmp_path) == ()
