"""De-identification by its parts: key, dates, table, words, code streams, and one file."""

from __future__ import annotations

import io
import stat
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import planted
import pydicom
import pytest
from deidentify_files import KEY, SECRET, cleaned, ct, labelled
from dicom_files import CT, MR, PLANE, make, save
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from domains.radiology import synth
from domains.radiology.deidentify import profile
from domains.radiology.deidentify.codestreams import strip_jpeg, strip_jpeg2000
from domains.radiology.deidentify.dates import plain_time, shift_date, shift_datetime
from domains.radiology.deidentify.instance import deidentify_instance
from domains.radiology.deidentify.lists import words
from domains.radiology.deidentify.profile import DEFAULT, OPTIONS, action, chosen
from domains.radiology.deidentify.pseudonyms import Key, is_public
from domains.radiology.deidentify.words import REMOVED, kept_label, kept_words, standard_code
from fovea.errors import ConfigError, InputError, LimitError, UnsupportedError

# the key


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "key"
    first, second = Key.open(path), Key.open(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.uid("1.2.3") == second.uid("1.2.3")
    assert first.hex() not in (first.name(), first.patient("x"), first.uid("1"))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="0600"):
        Key.open(path)
    other = tmp_path / "other"
    other.write_text("a word")
    other.chmod(0o600)
    with pytest.raises(ConfigError, match="64 hexadecimal"):
        Key.open(other)
    assert other.read_text() == "a word"


@given(st.text(max_size=70), st.text(max_size=70))
def test_what_a_key_gives_is_valid_and_one_to_one(one: str, two: str) -> None:
    other = Key(bytes(32))
    for name in ("uid", "patient"):
        make_it, differently = getattr(KEY, name), getattr(other, name)
        assert (make_it(one) == make_it(two)) == (one == two)
        assert make_it(one) != differently(one)
    uid = pydicom.uid.UID(KEY.uid(one))
    assert uid.is_valid
    assert uid.startswith("2.25.")
    assert -3650 <= KEY.days(one) <= -1


# dates


@given(st.dates(date(1850, 1, 1), date(2100, 1, 1)), st.integers(-3650, -1), st.integers(0, 3000))
def test_dates_move_together(day: date, days: int, apart: int) -> None:
    def read(text: str | None) -> date:
        assert text is not None
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))

    later = day + timedelta(apart)
    moved = [read(shift_date(f"{d:%Y%m%d}" if d.year > 999 else "", days)) for d in (day, later)]
    assert moved[1] - moved[0] == later - day
    assert read(shift_datetime(f"{day:%Y%m%d}235959.123456+0100", days)) == moved[0]
    assert shift_date(f"{day:%Y.%m.%d}", days) == shift_date(f"{day:%Y%m%d}", days)


@pytest.mark.parametrize("text", ["", "Doe", "20200230", "2020013", "20201301", "00010101", "20200101-20200102"])
def test_what_is_no_date_does_not_stay(text: str) -> None:
    assert shift_date(text, -400) is None


def test_the_precision_of_a_datetime_stays() -> None:
    for text in ("2020", "202002", "20200203", "2020020304", "20200203040506.7"):
        moved = shift_datetime(text, -10)
        assert moved is not None
        assert len(moved) == len(text)
        assert moved[8:] == text[8:]
    assert shift_datetime("2020020399", -10) is None
    assert plain_time("10:11:12.5") == "101112.5"
    assert plain_time("Doe") is None


# the table


def test_the_table_is_whole_and_names_what_the_dictionary_names() -> None:
    rows = profile.table()
    assert len(rows) > 640
    for tag, row in rows.items():
        if "X" not in tag and DicomDictionary.get(int(tag, 16), ("",) * 5)[4]:
            assert DicomDictionary[int(tag, 16)][4] == row["keyword"]
        assert row["basic"] in ("D", "Z", "X", "U", "Z/D", "X/Z", "X/D", "X/Z/D", "X/Z/U*")
        assert {row[option] for option in OPTIONS} <= {"", "K", "C"}


def test_every_date_and_uid_of_the_table_has_its_option() -> None:
    for tag, row in profile.table().items():
        vr = DicomDictionary.get(int(tag, 16), ("",))[0] if "X" not in tag else ""
        if vr == "UI" and row["keyword"] != "DigitalSignatureUID":
            assert row["uids"] == "K"
        if vr in ("DA", "DT", "TM") and not row["keyword"].startswith("PatientBirth"):
            assert row["modified-dates"] == "C"


def test_options_decide_and_repeating_groups_are_one_row() -> None:
    assert action(0x00080020, DEFAULT) == "C"
    assert action(0x00080020, chosen(fewer=["modified-dates"])) == "Z"
    assert action(0x00101010, DEFAULT) == "X"
    assert action(0x00101010, chosen(["patient-characteristics"])) == "K"
    assert action(0x00181000, chosen(["device-identity"])) == "K"
    assert {action(tag, DEFAULT) for tag in (0x50003000, 0x501E2500, 0x60003000, 0x60064000)} == {"X"}
    assert action(0x00280010, DEFAULT) is None
    with pytest.raises(ConfigError, match="patient-characteristics"):
        chosen(["everything"])


def test_lists_name_attributes_that_exist() -> None:
    known = {entry[4] for entry in DicomDictionary.values()}
    for name in ("measured", "technical", "labels", "dropped", "code"):
        assert words(name) <= known, name


# words and codes


def test_only_closed_words_stay() -> None:
    assert kept_label("Left lung") == "Left lung"
    assert kept_label("lung_left") == "lung_left"
    for text in ("Doe", "Left lung of Doe", "Lung 19610304", "Lungé", ""):
        assert kept_label(text) is None
    assert kept_words("T1 AX Doe post, 5.0mm 04.03.61 Dr. Who") == "T1 AX POST 5.0MM"
    assert kept_words("Doe, Jane") is None


def code(value: str, scheme: str, meaning: str = "Doe") -> Dataset:
    ds = Dataset()
    setattr(ds, "CodeValue" if len(value) < 17 else "LongCodeValue", value)
    ds.CodingSchemeDesignator, ds.CodeMeaning = scheme, meaning
    return ds


def test_a_code_has_the_meaning_of_the_standard() -> None:
    assert standard_code(code("10200004", "SCT"))[2].startswith("Liver")
    assert standard_code(code("T-62000", "SRT")) == standard_code(code("10200004", "SCT"))
    assert standard_code(code("cardiomediastinum", "FOVEA"))[2] == "Heart and mediastinum in projection"
    for unknown in (code("4711", "99DOE"), code("1234567", "SCT"), code("", ""), Dataset()):
        assert standard_code(unknown)[2] == "Unknown"
    assert is_public(CT)
    assert not is_public("1.2.840.113619.2.1")


# code streams


def photograph() -> Pillow.Image:
    return Pillow.fromarray(labelled()[:64, :64])


def test_a_jpeg_is_the_same_picture_without_its_remarks() -> None:
    for how in ({}, {"progressive": True}, {"subsampling": 2}):
        stream, exif = io.BytesIO(), Pillow.Exif()
        exif[0x010E] = "DoeJane"
        photograph().convert("RGB").save(stream, "JPEG", comment=b"DoeJane", exif=exif, **how)
        stripped = strip_jpeg(stream.getvalue() + b"DoeJane")
        assert stream.getvalue().count(b"DoeJane") == 2
        assert b"DoeJane" not in stripped
        before, after = (np.asarray(Pillow.open(io.BytesIO(data))) for data in (stream.getvalue(), stripped))
        np.testing.assert_array_equal(before, after)
        for cut in (1, 10, len(stripped) // 2, len(stripped) - 1):
            with pytest.raises(InputError):
                strip_jpeg(stripped[:cut])


def test_a_jpeg_2000_is_the_same_picture_without_its_remarks() -> None:
    stream = io.BytesIO()
    photograph().save(stream, "JPEG2000", comment=b"DoeJane", no_jp2=True)
    assert b"DoeJane" in stream.getvalue()
    stripped = strip_jpeg2000(stream.getvalue() + b"DoeJane")
    assert b"DoeJane" not in stripped
    before, after = (np.asarray(Pillow.open(io.BytesIO(data))) for data in (stream.getvalue(), stripped))
    np.testing.assert_array_equal(before, after)
    with pytest.raises(InputError):
        strip_jpeg2000(stripped[:30])


# one file


def test_characteristics_and_devices_stay_when_chosen(tmp_path: Path) -> None:
    known = {"PatientAge": "093Y", "PatientSex": "F", "PatientWeight": "61", "DeviceSerialNumber": "SN 12"}
    plain = cleaned(ct(**known), tmp_path)
    assert "PatientAge" not in plain
    assert not plain.PatientSex
    assert plain.DeviceSerialNumber == REMOVED
    kept = cleaned(ct(**known), tmp_path, chosen(["patient-characteristics", "device-identity"]))
    assert (kept.PatientAge, kept.PatientSex, kept.PatientWeight) == ("090Y", "F", 61)
    assert kept.DeviceSerialNumber == "SN 12"
    codes = {item.CodeValue for item in kept.DeidentificationMethodCodeSequence}
    assert codes >= {"113108", "113109"}


def test_dates_are_dropped_when_not_wanted(tmp_path: Path) -> None:
    ds = cleaned(
        ct(ContentDate="20200229", AcquisitionDateTime="20200229101112"), tmp_path, chosen((), ["modified-dates"])
    )
    assert not ds.StudyDate
    assert ds.ContentDate == "19000101"
    assert ds.LongitudinalTemporalInformationModified == "REMOVED"


def test_a_name_goes_from_wherever_it_stands(tmp_path: Path) -> None:
    tags = {"ConvolutionKernel": "B30 Jane", "ImageType": ["ORIGINAL", "PRIMARY", "DOE"], "SoftwareVersions": "V1"}
    ds = cleaned(ct(**tags, BodyPartExamined="DOE", SeriesNumber="4711"), tmp_path)
    assert ds.ConvolutionKernel == REMOVED
    assert list(ds.ImageType) == ["ORIGINAL", "PRIMARY", REMOVED]
    assert ds.SoftwareVersions == "V1"
    assert "BodyPartExamined" not in ds
    assert ds.SeriesNumber is None


def test_sequences_inside_each_other_have_an_end(tmp_path: Path) -> None:
    ds = ct()
    inner = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.PerformedProtocolCodeSequence = [inner]
        inner = outer
    ds.PerformedProtocolCodeSequence = [inner]
    with pytest.raises(LimitError, match="inside each other"):
        cleaned(ds, tmp_path)


def test_every_attribute_of_the_dictionary_planted_leaves_only_numbers(tmp_path: Path) -> None:
    ds = planted.plant(pydicom.dcmread(synth.study(tmp_path, 1, 0).path), 1, set())
    path = planted.save(ds, tmp_path / "planted.dcm")
    _, data = deidentify_instance(path, SECRET, sorted(chosen((), ["modified-dates"])), "mask")
    assert planted.secrets(data.tobytes()) == {str(planted.NUMBER)}, "numbers of the measurement stay"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_values_are_as_before_in_every_byte_order(syntax, tmp_path: Path) -> None:
    source = ct()
    if syntax == ExplicitVRBigEndian:
        source.PixelData = np.frombuffer(source.PixelData, "<i2").astype(">i2").tobytes()
    path = save(source, tmp_path / "order.dcm", syntax)
    _, data = deidentify_instance(path, SECRET, sorted(DEFAULT), "refuse")
    after = pydicom.dcmread(io.BytesIO(data.tobytes()))
    assert after.file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(after.pixel_array, pydicom.dcmread(path).pixel_array)


def test_an_odd_number_of_bytes_in_words_of_either_order(tmp_path: Path) -> None:
    ds = make(np.arange(15, dtype=np.uint8).reshape(3, 5), "MR", MR, **PLANE)
    ds.PixelData = np.frombuffer(ds.PixelData + b"\0", "<u2").astype(">u2").tobytes()
    ds["PixelData"].VR = "OW"
    path = save(ds, tmp_path / "odd.dcm", ExplicitVRBigEndian)
    after = cleaned(ds, tmp_path, syntax=ExplicitVRBigEndian)
    np.testing.assert_array_equal(after.pixel_array, pydicom.dcmread(path).pixel_array)
    assert after.pixel_array.max() == 14


def test_run_length_frames_are_rewritten_as_they_may_end_in_anything(tmp_path: Path) -> None:
    before = ct().PixelData
    ds = ct()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.compress(RLELossless, generate_instance_uid=False)
    frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encapsulate([frame + b"DoeJane."])
    after = cleaned(ds, tmp_path, syntax=RLELossless)
    assert after.PixelData == before


def test_an_overlay_in_the_pixels_goes(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    ds = make(values | 0x8000, "MR", MR, **PLANE)
    ds.BitsStored, ds.HighBit = 12, 11
    ds.add_new(0x60000102, "US", 15)
    after = cleaned(ds, tmp_path)
    np.testing.assert_array_equal(np.frombuffer(after.PixelData, np.uint16).reshape(16, 16), values)
    assert not any(element.tag.group == 0x6000 for element in after)


@pytest.mark.parametrize(
    "sop", ["1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.66", "1.2.840.113619.4.2", "1.2.840.10008.1.3.10"]
)
def test_documents_raw_data_and_private_classes_are_refused(sop: str, tmp_path: Path) -> None:
    ds = ct()
    ds.SOPClassUID = sop
    with pytest.raises(UnsupportedError):
        cleaned(ds, tmp_path)
