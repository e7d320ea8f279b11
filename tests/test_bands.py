"""The registry of sensors, and the choice of channels by name and wavelength."""

from __future__ import annotations

import re

import pytest

from domains.formats.rasters.bands import COMMON_NAMES, Band, name_bands, sensor
from domains.formats.rasters.sensors import (
    CHANNELS,
    ETM,
    HLS_L30,
    HLS_S30,
    NAIP,
    OLI,
    PLANET4,
    PLANET8,
    SENSORS,
    SENTINEL1,
    SENTINEL2,
    TM5,
    Sensor,
    select,
)
from fovea.errors import InputError
from fovea.image import Channel

OPTICAL = (SENTINEL2, OLI, TM5, ETM, PLANET4, PLANET8, HLS_S30, HLS_L30)


def channels(name: str) -> list[Channel]:
    return [Channel(band.channel, "reflectance", band.wavelength) for band in SENSORS[name].bands]


@pytest.mark.parametrize("instrument", SENSORS.values(), ids=lambda sensor: sensor.name)
def test_every_band_is_found_by_what_it_is_called(instrument: Sensor) -> None:
    for band in instrument.bands:
        assert instrument.band(band.name) is instrument.band(band.name.lower()) is band
        number = re.fullmatch(r"B0?(\d+)", band.name)
        if number:
            spellings = (f"B{number[1]}", f"B0{number[1]}", f"SR_B{number[1]}")
            assert all(instrument.band(text) is band for text in spellings)
        assert SENSORS[instrument.name].channel(band.channel) is not None
    assert instrument.band("B99") is None
    assert instrument.band("") is None


@pytest.mark.parametrize("name", OPTICAL)
def test_wavelengths_and_names_agree(name: str) -> None:
    """A wavelength lies where its common name says, after the table of the electro-optical extension, in nm."""
    ranges = {
        "coastal": (400, 450), "blue": (450, 530), "green": (510, 600), "green05": (510, 550), "yellow": (580, 620),
        "red": (620, 690), "rededge071": (690, 730), "rededge075": (730, 760), "rededge078": (760, 790),
        "nir": (750, 1000), "nir08": (750, 900), "nir09": (850, 1050), "cirrus": (1350, 1400), "swir16": (1550, 1750),
        "swir22": (2080, 2350), "lwir11": (10500, 11500), "lwir12": (11500, 12500), "lwir": (10400, 12500),
        "pan": (400, 1000),
    }  # fmt: skip
    for band in SENSORS[name].bands:
        low, high = ranges[band.common]
        assert band.wavelength
        assert low <= band.wavelength <= high
        if name == SENTINEL2:
            assert CHANNELS[band.common] == band.channel
        assert band.channel.removesuffix("_high_gain") in COMMON_NAMES
        assert band.resolution


def test_every_platform_asked_for_is_there() -> None:
    assert {SENTINEL2, OLI, TM5, ETM, NAIP, PLANET4, PLANET8, SENTINEL1, HLS_S30, HLS_L30} <= set(SENSORS)
    metres = {band.name: band.resolution for band in SENSORS[SENTINEL2].bands}
    assert {name for name, size in metres.items() if size == 10} == {"B02", "B03", "B04", "B08"}
    assert {name for name, size in metres.items() if size == 60} == {"B01", "B09", "B10"}
    assert all(band.resolution == 30 for band in SENSORS[HLS_S30].bands)


def test_the_two_near_infrared_bands_of_sentinel_2_are_told_apart() -> None:
    names = [channel.name for channel in channels(SENTINEL2)]
    assert select(channels(SENTINEL2), ["nir", "nir08"]) == [names.index("nir"), names.index("nir08")]
    assert select(channels(SENTINEL2), [842, 865]) == [names.index("nir"), names.index("nir08")]
    without = [channel for channel in channels(SENTINEL2) if channel.name != "nir08"]
    for wanted in ("nir08", 865):
        with pytest.raises(InputError, match=str(wanted)):
            select(without, [wanted])


def test_channels_are_chosen_by_name_or_wavelength_in_any_order() -> None:
    for name in OPTICAL:
        given = channels(name)
        for order in (given, given[::-1]):
            for channel in order:
                assert channel.wavelength
                assert order[select(order, [channel.wavelength])[0]].wavelength == channel.wavelength
                assert order[select(order, [channel.name])[0]].name == channel.name
    assert select(channels(SENTINEL2), ["swir16", "swir22", "rededge071"]) == [11, 12, 4]


def test_all_that_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="also blue, 2190") as caught:
        select([Channel("red", "", 665), Channel("nir")], ["red", "blue", 2190])
    assert "red, nir" in str(caught.value)
    with pytest.raises(InputError):
        select([], ["red"])


def test_tm_and_etm_are_told_apart_where_the_header_does() -> None:
    assert sensor({"SPACECRAFT_ID": "LANDSAT_5"}) == sensor({"SATELLITEID": "LT05"}) == TM5
    assert sensor({"SPACECRAFT_ID": "LANDSAT_7"}) == sensor({"SATELLITEID": "LE07"}) == ETM
    assert sensor({"SPACECRAFT_ID": "LANDSAT_9"}) == OLI
    assert sensor({}, ["ST_B6"]) == "Landsat 4-7"
    assert name_bands([Band("SR_B4")], ETM) == [("nir", 835)]
    assert name_bands([Band("SR_B4")], TM5) == [("nir", 840)]
    assert name_bands([Band("coastal_blue"), Band("green_i"), Band("swir22")]) == [
        ("coastal", None), ("green05", None), ("swir2", None),
    ]  # fmt: skip
