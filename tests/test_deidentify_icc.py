"""Colour profiles after de-identification: the same colours, and no text."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from dicom_files import SC, make, save
from PIL import Image, ImageCms
from pydicom.dataset import Dataset

from domains.radiology.deidentify.icc import without_texts
from domains.radiology.deidentify.instance import deidentify_instance
from domains.radiology.deidentify.profile import DEFAULT, basic

rng = np.random.default_rng(6)
NAME = "DOE JANE, ROOM 7"


def profile(more=None):
    """A profile of a matrix and curves, and more tags, whose texts are a name, as ASCII and in UTF-16."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    count = int.from_bytes(data[128:132])
    table = [data[132 + 12 * k : 144 + 12 * k] for k in range(count)]
    tags = {entry[:4]: data[(at := int.from_bytes(entry[4:8])) : at + int.from_bytes(entry[8:])] for entry in table}
    wide = NAME.encode("utf-16-be")
    tags[b"desc"] = tags[b"cprt"] = b"mluc\0\0\0\0\0\0\0\1\0\0\0\x0cenUS" + len(wide).to_bytes(4) + b"\0\0\0\x1c" + wide
    tags[b"dmnd"] = tags[b"targ"] = b"text\0\0\0\0" + NAME.encode() + b"\0"
    tags |= {b"priv": tags[b"targ"]} | (more or {})
    start, head, body = 132 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        head += name + (start + len(body)).to_bytes(4) + len(value).to_bytes(4)
        body += value + b"\0" * (-len(value) % 4)
    found = bytearray((start + len(body)).to_bytes(4) + data[4:128] + len(tags).to_bytes(4) + head + body)
    found[48:52] = found[80:84] = b"DOEJ"
    return bytes(found)


def named():
    """A profile whose class and colour spaces are a name."""
    data = profile()
    return data[:12] + b"DOE JANE, R7" + data[24:]


def colours(data):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8))
    given = ImageCms.ImageCmsProfile(BytesIO(data))
    return np.asarray(ImageCms.profileToProfile(picture, given, ImageCms.createProfile("LAB"), outputMode="LAB"))


def test_a_profile_keeps_its_colours_and_no_text():
    given = profile()
    assert NAME.encode() in given and b"DOEJ" in given  # noqa: PT018 # one condition: the texts are there to be lost
    cleaned = without_texts(given)
    for text in (NAME.encode(), NAME.encode("utf-16-be"), b"DOEJ"):
        assert text not in cleaned
    assert (colours(cleaned) == colours(given)).all()
    opened = ImageCms.ImageCmsProfile(BytesIO(cleaned)).profile
    assert (opened.profile_description, opened.copyright, opened.manufacturer) == ("A profile", "None", None)
    assert without_texts(cleaned) == cleaned


def test_tables_are_kept():
    """A table of 16 bits from red, green and blue to Lab: its curves have two entries, its grid two points an axis."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 0xFF00, 2)] * 3, indexing="ij"), -1).astype(">u2")
    matrix = np.eye(3, dtype=">i4") * 65536
    table = b"mft2\0\0\0\0\3\3\2\0" + matrix.tobytes() + b"\0\2\0\2" + b"\0\0\xff\xff" * 3 + grid.tobytes()
    given = profile({b"A2B0": table + b"\0\0\xff\xff" * 3})
    given = given[:20] + b"Lab " + given[24:]
    assert (colours(without_texts(given)) == colours(given)).all()
    assert (colours(given) != colours(profile())).any()


@pytest.mark.parametrize(
    "tag", [b"XYZ \0\0\0\0" + bytes(12) + NAME.encode(), b"text\0\0\0\0" + NAME.encode(), b"mAB ", b"par"]
)
def test_a_profile_whose_numbers_are_not_only_numbers_goes(tag):
    assert without_texts(profile({b"lumi": tag})) is None


@pytest.mark.parametrize("version", [2, 4])
def test_the_texts_are_those_of_the_version(version):
    given = bytearray(profile())
    given[8] = version
    opened = ImageCms.ImageCmsProfile(BytesIO(without_texts(bytes(given)))).profile
    assert (opened.profile_description, opened.copyright) == ("A profile", "None")


@pytest.mark.parametrize(
    "data", [b"", b"DOE JANE", profile()[:200], bytes(4000), profile()[:128] + b"\xff" * 400, named()]
)
def test_what_is_no_profile_goes(data):
    assert without_texts(data) is None


def test_a_cut_or_damaged_profile_gives_a_profile_or_nothing():
    given = profile()
    for _ in range(300):
        damaged = bytearray(given)
        for place in rng.integers(0, len(given), 3):
            damaged[place] = rng.integers(256)
        cleaned = without_texts(bytes(damaged))
        assert cleaned is None or ImageCms.ImageCmsProfile(BytesIO(cleaned))
        assert cleaned is None or (NAME.encode() not in cleaned and NAME.encode("utf-16-be") not in cleaned)


def test_the_optical_path_of_a_copy_has_its_profile(tmp_path):
    assert basic(0x00282000) is None  # table E.1-1 does not list it
    path, broken = Dataset(), Dataset()
    path.ICCProfile, broken.ICCProfile = profile(), NAME.encode()
    ds = make(
        np.zeros((8, 8, 3), np.uint8),
        modality="SM",
        sop=SC,
        BurnedInAnnotation="NO",
        OpticalPathSequence=[path, broken],
    )
    _, written = deidentify_instance(save(ds, tmp_path / "a.dcm"), "00" * 32, sorted(DEFAULT), "refuse")
    assert NAME.encode() not in written.tobytes()
    first, second = pydicom.dcmread(BytesIO(written.tobytes())).OpticalPathSequence
    assert (colours(first.ICCProfile) == colours(profile())).all()
    assert "ICCProfile" not in second
