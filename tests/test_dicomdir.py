"""The directory of a medium, and studies that come as a medium or in an archive."""

from __future__ import annotations

import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from random import Random

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet

from domains.formats.dicom import dicomdir
from domains.radiology import reader, synth
from fovea.errors import InputError, LimitError
from fovea.types import Study, Window


def write(paths: Iterable[Path], target: Path) -> None:
    """A medium with these files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = FileSet()
        for path in paths:
            files.add(path)
        files.write(target)
    files._stage["t"].cleanup()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[tuple[Path, ...]]]:
    """A medium with two CT series and a radiograph, and the studies that were put on it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("medium")
    synth.synth(source, 6, 1)
    shutil.rmtree(source / "00002")
    for name in ("00001.dcm", "00003.dcm", "00004.dcm"):
        (source / name).unlink()
    synth.study(source / "other", 1, 2)
    write(sorted(source.rglob("*.dcm")), target)
    return target, reader.studies(source)


@pytest.fixture
def medium(made, tmp_path) -> Path:
    """A copy of the medium, to be changed."""
    return shutil.copytree(made[0], tmp_path / "medium")


def digests(found: list[tuple[Path, ...]]) -> set[str]:
    return {reader.load(files).digest for files in found}


def renamed(medium: Path, name: object) -> Path:
    """The DICOMDIR whose last record, so that no offset moves, refers to another file."""
    path = medium / "DICOMDIR"
    ds = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such names are against the standard
        ds.DirectoryRecordSequence[-1].ReferencedFileID = name
        ds.save_as(path)
    return path


def test_the_records_tell_the_series_without_opening_a_file(medium):
    for file in medium.rglob("*"):
        if file.is_file() and file.name != "DICOMDIR":
            file.write_bytes(b"nothing")
    series = dicomdir.read(medium / "DICOMDIR")
    assert sorted(s.modality for s in series) == ["CT", "CT", "DX"]
    assert {s.study for s in series} == {1, 2, 3}
    assert {path for s in series for path in s.paths} == {p for p in medium.rglob("*") if p.is_file()} - {
        medium / "DICOMDIR"
    }
    assert str(medium) not in repr(series)


def test_a_medium_gives_the_studies_that_were_put_on_it(made):
    medium, studies = made
    assert reader.sniff(medium / "DICOMDIR")
    assert digests(reader.studies(medium / "DICOMDIR")) == digests(studies)
    assert digests(reader.studies(medium)) == digests(studies)


def test_files_that_the_directory_does_not_list_are_found_too(medium, tmp_path):
    extra = Path(synth.study(tmp_path, 7, 0).path)
    shutil.copy(extra, medium / "extra.dcm")
    assert len(reader.studies(medium)) == 4
    assert len(reader.studies(medium / "DICOMDIR")) == 3


def test_missing_files_are_told_by_number(medium):
    series = next(s for s in dicomdir.read(medium / "DICOMDIR") if s.modality == "CT")
    series.paths[0].unlink()
    series.paths[-1].unlink()
    lacking = next(s for s in dicomdir.read(medium / "DICOMDIR") if s.missing)
    assert lacking.missing == (1, len(series.paths))
    for path in (medium, medium / "DICOMDIR"):
        found = reader.studies(path)
        assert len(found) == 3
        (bad,) = (files for files in found if files[0].name == "DICOMDIR")
        numbers = rf"\(number 1, {len(series.paths)}\)"
        with pytest.raises(InputError, match=rf"lacks 2 of its {len(series.paths)} files {numbers}"):
            reader.load(bad)


def test_names_in_lower_case_are_found(medium):
    for path in sorted(medium.rglob("*"), key=lambda p: -len(p.parts)):
        if path.name != "DICOMDIR":
            path.rename(path.with_name(path.name.lower()))
    series = dicomdir.read(medium / "DICOMDIR")
    assert not any(s.missing for s in series)
    assert all(path.is_file() for s in series for path in s.paths)


@pytest.mark.parametrize(
    "name",
    [["..", "secret"], ["PT000000", "..", "..", "secret"], "/etc/passwd", ["", "etc", "passwd"], "C:\\secret", ["."],
     "..\\secret", ["PT000000", "/etc/passwd"], ["D:", "secret"],
     ["..", "medium", "DICOMDIR"]],
)  # fmt: skip
def test_a_record_that_leads_out_is_refused(medium, name):
    (medium.parent / "secret").write_text("secret")
    path = renamed(medium, name)
    with pytest.raises(InputError, match="lead out") as error:
        dicomdir.read(path)
    assert "secret" not in str(error.value)
    ((file,),) = reader.studies(path)
    assert file == path
    with pytest.raises(InputError, match="lead out"):
        reader.load(path)


@pytest.mark.parametrize("folder", [True, False])
def test_a_link_that_leads_out_is_refused(medium, folder):
    outside = medium.parent / "outside"
    first = dicomdir.read(medium / "DICOMDIR")[0].paths[0]
    if folder:
        shutil.move(first.parent, outside)
        first.parent.symlink_to(outside)
    else:
        shutil.move(first, outside)
        first.symlink_to(outside)
    with pytest.raises(InputError, match="lead out"):
        dicomdir.read(medium / "DICOMDIR")


def test_a_link_inside_is_followed(medium):
    first = dicomdir.read(medium / "DICOMDIR")[0].paths[0]
    shutil.move(first, medium / "moved")
    first.symlink_to(medium / "moved")
    assert not dicomdir.read(medium / "DICOMDIR")[0].missing


@pytest.mark.parametrize("offset", ["own", "first", "nowhere"])
def test_records_in_a_circle_are_refused(medium, offset):
    ds = pydicom.dcmread(medium / "DICOMDIR")
    records = ds.DirectoryRecordSequence
    to = {"own": records[-1].seq_item_tell, "first": records[0].seq_item_tell, "nowhere": 99_999}[offset]
    records[-1].OffsetOfTheNextDirectoryRecord = to
    ds.save_as(medium / "DICOMDIR")
    with pytest.raises(InputError, match="circle"):
        dicomdir.read(medium / "DICOMDIR")


def test_too_many_records_are_refused(medium, monkeypatch):
    monkeypatch.setattr(dicomdir, "RECORDS", 5)
    with pytest.raises(LimitError, match="records"):
        dicomdir.parse(medium / "DICOMDIR")


def test_broken_directories_raise_nothing_but_input_errors(medium):
    path = medium / "DICOMDIR"
    original, random, failed = path.read_bytes(), Random(5), 0
    for turn in range(60):
        data = bytearray(original)
        for _ in range(random.randint(1, 6)):
            data[random.randrange(300, len(data))] = random.randrange(256)
        path.write_bytes(data[: random.randrange(200, len(data))] if turn % 3 == 0 else data)
        try:
            dicomdir.read(path)
        except InputError:
            failed += 1
    assert failed > 10


def test_real_media(data_dir):
    """Directories of one medium in five encodings, with and without offsets, list the same files."""
    folder = data_dir / "med" / "dicom_zoo" / "dicom_pydicom" / "test_files" / "dicomdirtests"
    kinds = ("", "-bigEnd", "-implicit", "-nooffset", "-reordered")
    first, *others = [dicomdir.read(folder / f"DICOMDIR{kind}") for kind in kinds]
    assert len(first) == 13
    assert not any(s.missing for s in first)
    for other in others:
        assert sorted((s.modality, s.paths) for s in other) == sorted((s.modality, s.paths) for s in first)
    orphans = dicomdir.read(folder / "DICOMDIR-nopatient")
    assert {p for s in orphans for p in s.paths} == {p for s in first for p in s.paths}
    assert dicomdir.read(folder / "DICOMDIR-empty.dcm") == []
    (tiny,) = dicomdir.read(folder / "TINY_ALPHA" / "DICOMDIR")
    assert len(tiny.paths) == 50


def packed(files: list[tuple[Path, str]], path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, name in files:
                archive.write(file, name)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for file, name in files:
                archive.add(file, name)
    return path


def assert_same(one: Study, other: Study) -> None:
    assert (one.digest, one.meta) == (other.digest, other.meta)
    for mine, yours in zip(one.images, other.images, strict=True):
        assert np.array_equal(mine.pixels, yours.pixels)
        assert np.array_equal(mine.valid, yours.valid)
        assert np.array_equal(mine.grid.affine, yours.grid.affine)


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_an_archive_of_a_study_is_the_study(made, tmp_path, ending):
    series = next(files for files in made[1] if len(files) > 1)
    path = packed([(file, f"DOE^JANE/{file.name}") for file in series], tmp_path / f"study.{ending}")
    (tmp_path / "note.txt").write_text("nothing")
    assert reader.sniff(path)
    assert reader.studies(tmp_path) == [(path,)]
    study = reader.load(path)
    assert_same(study, reader.load(series))
    window = Window((3, 30), (5, 40))
    assert_same(reader.load(path, window), reader.load(series, window))
    assert "DOE" not in repr(study)


def test_an_archive_of_a_medium_is_its_study(made, tmp_path):
    series = next(files for files in made[1] if len(files) > 1)
    write(series, tmp_path / "medium")
    inside = [(p, p.relative_to(tmp_path).as_posix()) for p in (tmp_path / "medium").rglob("*") if p.is_file()]
    assert_same(reader.load(packed(inside, tmp_path / "cd.zip")), reader.load(series))


def test_archives_that_hold_no_study_or_several_are_refused(made, tmp_path):
    everything = [(file, f"{n}/{file.name}") for n, files in enumerate(made[1]) for file in files]
    with pytest.raises(InputError, match="archive of 3 studies"):
        reader.load(packed(everything, tmp_path / "all.zip"))
    (tmp_path / "text").write_text("nothing")
    other = packed([(tmp_path / "text", "text")], tmp_path / "text.zip")
    assert not reader.sniff(other)
    inner = packed([(made[1][0][0], "a.dcm")], tmp_path / "inner.zip")
    nested = packed([(inner, "inner.zip")], tmp_path / "nested.zip")
    assert not reader.sniff(nested)
    beside = packed([(inner, "inner.zip"), *everything[:1]], tmp_path / "beside.zip")
    assert_same(reader.load(beside), reader.load(everything[0][0]))


def test_a_hostile_archive_is_refused_by_the_reader(made, tmp_path):
    path = packed([(made[1][0][0], "a.dcm"), (made[1][0][0], "../../out.dcm")], tmp_path / "a.zip")
    with pytest.raises(InputError, match="leaves the folder"):
        reader.load(path)
    assert not list(tmp_path.parent.rglob("out.dcm"))
