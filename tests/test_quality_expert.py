"""Image quality: what is measured of known degradations, whatever the scale of the values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from experts import quality, untrained
from fovea import registry
from fovea.errors import ExpertError, ModelError
from fovea.testing import ExpertContract, check_finding
from fovea.types import DETECTOR, Channel, Grid, Image

SIDE = 160


def sharp(seed=0, side=SIDE):
    """Discs of random places, sizes and brightness over a slope, with edges as sharp as pixels allow."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    picture = 0.1 * rows / side
    for _ in range(14):
        y, x, radius = *rng.uniform(0, side, 2), rng.uniform(8, 25)
        picture[np.hypot(rows - y, columns - x) < radius] += rng.uniform(0.2, 0.6)
    return picture


def radiograph(picture, valid=None):
    grid = Grid(np.diag([0.2, 0.2, 1.0, 1.0]), DETECTOR, (1, *picture.shape))
    return scenes.study(
        Image.from_array((Channel("intensity"),), grid, picture[None, None], valid), modality="DX", domain="radiology"
    )


def found(study, config=None):
    expert = quality.QualityExpert(config or quality.QualityConfig())
    return {finding.label: finding for finding in expert.run(study, "all")}


def value(study, label, config=None):
    return found(study, config)[label].measure(quality.MEASURED[label]).value


class TestRadiograph(ExpertContract):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls):
        return quality.open(None)

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        picture = np.minimum(sharp(), 0.8)
        valid = np.ones((1, SIDE, SIDE), bool)
        valid[0, :30, :40] = False
        return radiograph(picture + np.random.default_rng(0).normal(0, 0.1, picture.shape) * (picture < 0.8), valid)


class TestScene(ExpertContract):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls):
        return quality.QualityExpert(quality.SCENE)

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls):
        return clouded(0.3)


def colour(pixels):
    """A scene of digital numbers (band, row, column)."""
    bands = dict(zip("rgb", pixels, strict=True))
    return scenes.study(scenes.optical(bands, scenes.scene_grid(*pixels.shape[1:]), unit="digital number"))


def clouded(share):
    """Vegetation of some texture, with a cloud over the first columns."""
    rng = np.random.default_rng(1)
    texture = 1 + 0.2 * rng.random((SIDE, SIDE))
    bands = {"blue": 0.03, "green": 0.06, "red": 0.04, "nir": 0.3}
    image = {name: (v * texture).astype(np.float32) for name, v in bands.items()}
    for values in image.values():
        values[:, : round(share * SIDE)] = 0.5 * texture[:, : round(share * SIDE)]
    return scenes.study(scenes.optical(image, scenes.scene_grid(SIDE, SIDE)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_blur_is_measured_within_its_spread_and_rises(seed):
    picture, applied = sharp(seed), (0.0, 1.0, 2.0, 3.0, 5.0)
    values = [value(radiograph(ndimage.gaussian_filter(picture, s) if s else picture), "blur") for s in applied]
    assert values == sorted(values)
    assert values[0] < 0.6
    for measured, truth in zip(values[1:], applied[1:], strict=True):
        assert abs(np.log(measured / truth)) < quality.QualityConfig().labels["blur"].spread


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_is_measured_within_its_spread_and_rises(seed):
    picture, rng = sharp(seed), np.random.default_rng(seed)
    applied = (0.02, 0.05, 0.1)
    span = np.ptp(np.percentile(picture, (1, 99)))
    values = [value(radiograph(picture + rng.normal(0, s * span, picture.shape)), "noise") for s in (0.0, *applied)]
    assert values == sorted(values)
    assert values[0] < 0.002
    for measured, truth in zip(values[1:], applied, strict=True):
        assert abs(np.log(measured / truth)) < quality.QualityConfig().labels["noise"].spread


@given(st.floats(1e-3, 1e4), st.floats(-1000, 1000))
@settings(max_examples=12)
def test_no_measure_depends_on_scale_or_offset(gain, offset):
    rng = np.random.default_rng(0)
    picture = np.minimum(ndimage.gaussian_filter(sharp(side=96), 1.5), 0.7) + rng.normal(0, 0.01, (96, 96))
    one, other = found(radiograph(picture)), found(radiograph(gain * (picture + 3 * offset / 1000)))
    for label, finding in one.items():
        assert other[label].present == finding.present
        assert other[label].score == pytest.approx(finding.score, abs=0.02)
        assert other[label].measures[0].value == pytest.approx(finding.measures[0].value, rel=0.02, abs=1e-6)


def test_noise_is_no_blur_and_blur_no_noise():
    picture, rng = sharp(), np.random.default_rng(0)
    noisy, blurred = (
        found(radiograph(p))
        for p in (picture + rng.normal(0, 0.08, picture.shape), ndimage.gaussian_filter(picture, 4))
    )
    assert noisy["noise"].present
    assert not noisy["blur"].present
    assert blurred["blur"].present
    assert not blurred["noise"].present


def test_clipping_is_the_share_at_the_ends_but_no_background():
    picture = sharp() + np.random.default_rng(0).normal(0, 0.01, (SIDE, SIDE))
    high = np.quantile(picture, 0.9)
    clipped = found(radiograph(np.minimum(picture, high)))["clipping"]
    assert clipped.present
    assert clipped.measures[0].value == pytest.approx(0.1, abs=0.002)
    assert np.count_nonzero(clipped.region.data[0] != (np.float32(picture) >= np.float32(high))) <= 1  # the darkest
    collimated = picture.copy()
    collimated[:50] = -1.0
    assert found(radiograph(collimated))["clipping"].measures[0].value < 0.001
    inside = picture.copy()
    inside[50:90, 50:90] = -1.0
    assert found(radiograph(inside))["clipping"].measures[0].value == pytest.approx(1600 / SIDE**2, abs=1e-3)


def test_missing_data_is_counted_and_placed():
    valid = np.ones((1, SIDE, SIDE), bool)
    valid[0, :, :40] = False
    picture = sharp()
    picture[0, 100] = np.nan
    gap = found(radiograph(picture, valid))["missing_data"]
    assert gap.measures[0].value == pytest.approx(0.25 + 1 / SIDE**2)
    assert gap.location == "right"
    nothing = radiograph(sharp(), np.zeros((1, SIDE, SIDE), bool))
    assert quality.open(None).run(nothing, "missing_data")[0].measures[0].value == 1
    with pytest.raises(ExpertError, match="no data"):
        quality.open(None).run(nothing, "all")


def test_what_cannot_be_judged_is_said_to_be_open():
    flat = found(radiograph(np.full((SIDE, SIDE), 5.0)))
    for label in ("blur", "noise"):
        assert (flat[label].present, flat[label].score, flat[label].measures) == (False, 0.5, ())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_clouds_are_bright_white_and_hazy(share):
    cloud = found(clouded(share), quality.SCENE)["cloud"]
    assert cloud.measures[0].value == pytest.approx(round(share * SIDE) / SIDE, abs=0.01)
    assert cloud.present == (share > 0.05)
    if cloud.present:
        assert "west" in cloud.location


def test_a_scene_classification_is_believed():
    scene = clouded(0.0)
    flags = np.zeros((1, 1, SIDE, SIDE), np.float32)
    flags[..., :16, :] = 5
    image = scene.images[0]
    with_flags = Image.from_array(
        (*image.channels, Channel("quality", "class")), image.grid, np.concatenate((image.pixels, flags))
    )
    assert value(scenes.study(with_flags), "cloud", quality.SCENE) == pytest.approx(0.1)


def test_windows_and_slices_hold_what_the_whole_holds():
    rng = np.random.default_rng(0)
    bands = {n: np.minimum(sharp(3, 300) + rng.normal(0, 0.02, (300, 300)), 0.9) for n in ("blue", "green", "red")}
    scene = scenes.study(scenes.optical(bands, scenes.scene_grid(300, 300)))
    whole, parts = (found(scene, quality.SCENE.model_copy(update={"window": side})) for side in (1024, 150))
    for label, finding in whole.items():
        close = 0.3 if label in ("blur", "noise") else 0.0
        assert parts[label].measures[0].value == pytest.approx(finding.measures[0].value, rel=close, abs=1e-9)
    stack = np.stack([ndimage.gaussian_filter(sharp(seed, 96), 3) for seed in range(5)])
    stack[2] = sharp(9, 96)  # one sharp slice of five
    volume = scenes.study(scenes.volume(stack), modality="CT", domain="radiology")
    assert value(volume, "blur") == pytest.approx(3, rel=0.25)


def test_what_is_not_taken_is_said():
    raw = replace(clouded(0.1), meta={"modality": "radar"})
    assert not quality.open(None).accepts(raw)
    scene = quality.QualityExpert(quality.SCENE)
    numbers = scenes.study(
        scenes.optical(
            {n: sharp() for n in ("blue", "green", "red")}, scenes.scene_grid(SIDE, SIDE), unit="digital number"
        )
    )
    with pytest.raises(ExpertError, match="digital number"):
        scene.run(numbers, "all")
    assert quality.open(None).accepts(numbers)


def test_recipes_are_saved_and_opened(tmp_path):
    untrained.save(quality.SCENE, tmp_path)
    assert quality.open(tmp_path).card == quality.QualityExpert(quality.SCENE).card
    assert quality.open(tmp_path).card.version != quality.open(None).card.version
    (tmp_path / "config.json").write_text('{"labels": {"rust": {"limit": 1, "rule": "x"}}}')
    with pytest.raises(ModelError):
        quality.open(tmp_path)


def test_real_pictures_get_worse_by_what_is_done_to_them(data_dir):
    files = [*sorted((data_dir / "med" / "bccd").glob("*.jpg"))[:1]]
    files += sorted((data_dir / "rs" / "dubai_seg").rglob("*.jpg"))[:1]
    domain = registry.domain("remote_sensing")
    for file in files:
        image = domain.load(file).images[0]
        pixels = image.pixels[:, 0, :400, :400]
        plain = found(colour(pixels))
        blurred = found(colour(ndimage.gaussian_filter(pixels, (0, 4, 4))))
        noisy = found(colour(pixels + np.random.default_rng(0).normal(0, 25, pixels.shape)))
        assert plain["blur"].score < 0.5 < 0.9 < blurred["blur"].score
        assert plain["noise"].score < noisy["noise"].score
        assert noisy["noise"].present
        for finding in (*plain.values(), *blurred.values()):
            check_finding(finding, colour(pixels))
