"""Files for other systems beside a report: whole, of that report, written once, and refused in words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import apps_toys as toys
import pydicom
import pytest
from output_reports import PATIENT, RADIOLOGY, blob, complaints, finding, report, series
from writing_toys import Oracle, Writing

from apps import cli, service
from apps.outputs import LEDGER, archive
from apps.report.batch import Batch, write_reports
from apps.service import Service, find_studies
from fovea.errors import UnsupportedError


def reports(oracle: Oracle, out: Path, *paths: Path, outputs: tuple[str, ...] | None = ()) -> Batch:
    found = find_studies(paths, (oracle.domain,))
    return write_reports(Service(oracle.domain, lambda: oracle), found, out, outputs=outputs)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_that_a_study_allows_is_written_and_the_rest_is_said(tmp_path: Path) -> None:
    oracle, out = Oracle(), tmp_path / "out"
    film, volume = toys.write(tmp_path, "film"), toys.write(tmp_path, "volume")
    batch = reports(oracle, out, film, volume)
    assert not batch.failures
    one, other = (out / done.id for done in batch.done)
    assert sorted(content(one)) == ["catalog.txt", "findings.csv", LEDGER]
    assert (one / "catalog.txt").read_text() == "csv catalog", "written together, not one by one"
    assert sorted(content(other)) == ["catalog.txt", "findings.csv", "inner/slices.txt", LEDGER]
    told = json.loads((one / LEDGER).read_text())
    assert told["state"] == "draft"
    assert told["notice"].startswith("Draft, not reviewed")
    assert told["refused"] == {"slices": "A film; expected a volume."}
    index = (out / "index.html").read_text()
    assert f'href="{one.name}/findings.csv"' in index
    assert f'href="{other.name}/inner/slices.txt"' in index
    assert "no slices: A film; expected a volume." in index
    assert "keep them as private" in index
    assert not list(out.rglob(".*"))


def test_a_resend_writes_nothing_and_what_is_missing_or_changed_is_written_again(tmp_path: Path) -> None:
    oracle, out, film = Oracle(), tmp_path / "out", toys.write(tmp_path, "film")
    folder = out / reports(oracle, out, film).done[0].id
    before, asked, calls = content(out), oracle.asked, oracle.domain.calls
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    reports(oracle, out, film)
    assert (content(out), oracle.asked, oracle.domain.calls) == (before, asked, calls)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    for harm in ("unlink", "write_text", "ledger"):
        if harm == "unlink":
            (folder / "findings.csv").unlink()
        elif harm == "write_text":
            (folder / "findings.csv").write_text("other")
        else:
            (folder / "old.txt").write_text("of an earlier report")
            text = (folder / LEDGER).read_text()
            (folder / LEDGER).write_text(text.replace('"key": "', '"key": "0'))
        reports(oracle, out, film)
        assert (content(out), oracle.asked) == (before, asked), harm


def test_a_report_from_before_is_not_asked_for_again_and_gives_the_same_files(tmp_path: Path) -> None:
    oracle, film = Oracle(), toys.write(tmp_path, "film")
    reports(oracle, tmp_path / "late", film, outputs=None)
    assert "Files for other systems" not in (tmp_path / "late" / "index.html").read_text()
    asked = oracle.asked
    assert reports(oracle, tmp_path / "late", film).done[0].reused
    assert oracle.asked == asked
    reports(oracle, tmp_path / "once", film)
    assert content(tmp_path / "late") == content(tmp_path / "once")


def test_a_refused_output_that_was_named_is_a_failure_and_the_report_stays(tmp_path: Path) -> None:
    oracle, out = Oracle(), tmp_path / "out"
    film, volume = toys.write(tmp_path, "film"), toys.write(tmp_path, "volume")
    batch = reports(oracle, out, film, volume, outputs=("csv", "slices"))
    assert len(batch.done) == 1
    (failure,) = batch.failures
    assert failure.happened == "A film; expected a volume."
    assert failure.missing == "The report is there; no file for other systems was written."
    assert "<h2>Without a report or without its files</h2>" in (out / "index.html").read_text()
    index = json.loads((out / "index.json").read_text())
    assert len(index["reports"]) == 2
    assert sorted(len(row["files"]) for row in index["reports"]) == [0, 2]
    assert not list(out.rglob(".*"))
    with pytest.raises(UnsupportedError, match="one of csv, slices, catalog"):
        reports(oracle, tmp_path / "none", film, outputs=("dicom",))
    with pytest.raises(UnsupportedError, match="writes no files"):
        reports(toys.Oracle(), tmp_path / "none", film, outputs=())  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


def test_files_never_stand_beside_a_report_that_is_not_theirs(tmp_path: Path) -> None:
    out, film = tmp_path / "out", toys.write(tmp_path, "film")
    folder = out / reports(Oracle(), out, film).done[0].id
    reports(Oracle("2"), out, film, outputs=None)
    assert not folder.exists(), "another model's"
    reports(Oracle("2"), out, film, outputs=("csv",))
    assert sorted(content(folder)) == ["findings.csv", LEDGER]
    left = out / f".{folder.name}.old.part"
    left.mkdir()
    (left / "findings.csv").write_text("of a run that was killed while it replaced the folder")
    reports(Oracle("2"), out, film, outputs=("catalog",))
    assert not left.exists()
    assert sorted(content(folder)) == ["catalog.txt", LEDGER]


def test_the_files_carry_the_state_of_the_report(tmp_path: Path) -> None:
    out, volume = tmp_path / "out", toys.write(tmp_path, "volume")
    done = reports(Oracle(), out, volume).done[0]
    document = json.loads((out / f"{done.id}.json").read_text())
    (out / f"{done.id}.json").write_text(json.dumps(document | {"state": "final", "reviewer": "Dr A"}))
    reports(Oracle(), out, volume)
    assert (out / done.id / "inner" / "slices.txt").read_text() == "final"
    assert json.loads((out / done.id / LEDGER).read_text())["notice"] == "State: final, by Dr A."


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    out, film = tmp_path / "out", toys.write(tmp_path, "film")
    name = Writing().load(film).id
    (out / name).mkdir(parents=True)
    (out / name / "notes.txt").write_text("mine")
    batch = reports(Oracle(), out, film)
    assert "a folder of other files" in batch.failures[0].happened.lower()
    assert content(out / name) == {"notes.txt": b"mine"}


_KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import writing_toys
from apps.report.batch import write_reports
from apps.service import Service, find_studies
write, calls = writing_toys.Writing.write, 0
def once(self, report, source, folder, outputs=(), models=()):
    global calls
    calls += 1
    paths = write(self, report, source, folder, outputs)
    if calls == {number}:
        (folder / ".left.part").write_text("torn")
        os.kill(os.getpid(), 9)
    return paths
writing_toys.Writing.write = once
oracle = writing_toys.Oracle()
inputs = find_studies([Path({path!r})], (oracle.domain,))
write_reports(Service(oracle.domain, lambda: oracle), inputs, Path({out!r}), outputs=())
"""


@pytest.mark.parametrize("number", [1, 4])
def test_a_killed_run_leaves_no_half_folder_and_ends_in_the_same_bytes(tmp_path: Path, number: int) -> None:
    volume, out = toys.write(tmp_path, "volume"), tmp_path / "killed"
    code = _KILLED.format(tests=str(Path(__file__).parent), number=number, path=str(volume), out=str(out))
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not [path for path in out.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for name in ("killed", "straight"):
        reports(Oracle(), tmp_path / name, volume)
    assert content(out) == content(tmp_path / "straight")
    assert not list(out.rglob(".*"))


def test_an_archive_is_the_same_every_time(tmp_path: Path) -> None:
    domain, volume = Writing(), toys.write(tmp_path, "volume")
    written = Oracle().report(domain.load(volume))
    (one, outputs), (other, _) = (archive(domain, written, (volume,), ()) for _ in range(2))
    assert one == other
    path = tmp_path / "a.zip"
    path.write_bytes(one)
    with ZipFile(path) as whole:
        assert tuple(whole.namelist()) == outputs.files == ("catalog.txt", "findings.csv", "inner/slices.txt")
        assert {info.date_time[0] for info in whole.infolist()} == {1980}, "no clock"
        assert whole.read("findings.csv").startswith(b"pleural_effusion")


def test_the_command_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    film, out = toys.write(tmp_path, "film"), tmp_path / "out"
    monkeypatch.setattr(service, "installed_domains", lambda: {"toy": Writing()})
    monkeypatch.setattr(service, "open_assistant", lambda reference: Oracle())

    def call(wanted: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["report", "run", str(film), "--out", str(out), "--write", wanted])
        return int(ended.value.code or 0), capsys.readouterr().err

    assert call("all")[0] == 0
    assert (out / Writing().load(film).id / "findings.csv").is_file()
    code, err = call("csv,slices")
    assert (code, "A film; expected a volume." in err) == (cli.REJECTS, True)
    code, err = call("dicom")
    assert (code, "one of csv, slices, catalog, or all" in err) == (cli.REFUSED, True)


class Reader:
    """An assistant that finds a liver in every series."""

    domain, experts, model_items = RADIOLOGY, (), ()
    provenance = {"model": "abcd", "fovea": "0.1.0"}  # noqa: RUF012

    def ask(self, study, question, use_experts=True):
        return None

    def report(self, study):
        return report(study, finding("liver", region=blob(study.images[0].grid.shape, 1)))


def test_identity_goes_from_the_source_into_the_outputs_and_nowhere_else(tmp_path: Path) -> None:
    import numpy as np

    series(tmp_path / "in", np.eye(3))
    out = tmp_path / "out"
    inputs = find_studies([tmp_path / "in"], (RADIOLOGY,))
    batch = write_reports(Service(RADIOLOGY, Reader), inputs, out, outputs=("dicom-seg", "fhir"))
    assert not batch.failures, batch.failures
    folder = out / batch.done[0].id
    (path,) = folder.glob("*dicom-seg*.dcm")
    written = pydicom.dcmread(path)
    assert (str(written.PatientName), written.PatientID) == (PATIENT["PatientName"], PATIENT["PatientID"])
    assert not complaints([path])
    names = " ".join(content(out))
    texts = b"".join(file.read_bytes() for file in (*out.glob("*.*"), folder / LEDGER))
    for word in ("Müller", "ID 77", "19600230"):
        assert word not in names
        assert word.encode() not in texts
        assert word.encode("unicode_escape") not in texts
    before = content(out)
    assert write_reports(Service(RADIOLOGY, Reader), inputs, out, outputs=("dicom-seg", "fhir")).done[0].reused
    assert content(out) == before
