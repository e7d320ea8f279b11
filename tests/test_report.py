"""Reports: what stands in them, that nothing else does, and that a batch can be stopped, repeated and trusted."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import apps_toys as toys
import numpy as np
import pytest
from PIL import Image as Pillow

from apps.geometry import edges, round_length, scale
from apps.pictures import annotated, color, draw, layer
from apps.report.batch import write, write_reports
from apps.report.document import report_key, to_document, to_text
from apps.report.html import figures, study_page
from apps.service import Inputs, Service, find_studies, installed_domains
from apps.wording import Claim, chance, cited, claims, quantity
from fovea.colors import legend
from fovea.errors import InputError
from fovea.jsonable import from_json
from fovea.key_slices import key_slices
from fovea.overlay import overlay
from fovea.types import DETECTOR, LPS, Answer, Box, Grid, Instance, Measure, Picture, Study, View


def _service(version: str = "1") -> tuple[Service, toys.Oracle]:
    oracle = toys.Oracle(version)
    return Service(oracle.domain, lambda: oracle), oracle


def _find(*paths: Path) -> Inputs:
    return find_studies(paths, (toys.Toy(),))


def _study(folder: Path, kind: str) -> Study:
    return toys.Toy().load(toys.write(folder, kind, 3))


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    toys.Toy().synth(folder, 4, 0)
    return folder


# Words


def test_chance_in_words_stays_close_to_the_score() -> None:
    for score in np.linspace(0, 1, 201):
        part, whole = map(int, re.findall(r"\d+", chance(float(score))))
        assert abs(part / whole - score) <= (0.051 if whole == 10 else 0.011)
        assert 0 < part < whole


def test_quantities_carry_unit_and_uncertainty() -> None:
    assert quantity(Measure("area", 23.14, "cm2", 1.24)) == "23.1 ± 1.2 cm²"
    assert quantity(Measure("cardiothoracic_ratio", 0.596, "1", 0.00508)) == "0.596 ± 0.005"
    assert quantity(Measure("area", 19700, "m2", 2160)) == "19700 ± 2000 m²"
    assert quantity(Measure("count", 3, "1")) == "3"
    assert quantity(Measure("bearing", 41.7, "deg")) == "41.7°"


def test_a_claim_met_in_two_answers_is_listed_once(tmp_path: Path) -> None:
    report = toys.Oracle().report(_study(tmp_path, "film"))
    known = claims(report.answers)
    assert [claim.finding.label for claim in known] == ["pleural_effusion", "nodule", "pneumothorax"]
    second = report.answers[1]
    assert [claim.mark for claim in cited(second, second.sentences[0].evidence, known)] == ["F2"]


# Geometry and pictures


def test_scale_is_the_true_one() -> None:
    assert scale(Grid.plain(4, 4)) is None
    assert scale(Grid(np.diag([0.5, 0.7, 3, 1.0]), LPS, (2, 4, 4))).row == pytest.approx(0.7)
    utm = scale(Grid.from_gdal((10, 0, 500000, 0, -10, 6600000), "EPSG:32636", 100, 100))
    assert utm.column == pytest.approx(10 / 0.9996, rel=1e-4)  # the scale factor of UTM's central meridian
    mercator = scale(Grid.from_gdal((20, 0, 0, 0, -20, 8399737.9), "EPSG:3857", 10, 10))  # latitude 60: half as long
    assert mercator.column == pytest.approx(10, rel=0.01)
    degrees = scale(Grid.from_gdal((0.001, 0, 10, 0, -0.001, 60), "EPSG:4326", 10, 10))
    assert degrees.column == pytest.approx(55.8, rel=0.01)
    assert degrees.row == pytest.approx(111.4, rel=0.01)


def test_edges_name_the_side_that_is_there() -> None:
    axial = np.diag([0.8, 0.8, 2.0, 1.0])
    assert edges(Grid(axial, LPS, (2, 8, 8))) == ("R", "A", "L")
    assert edges(Grid(axial @ np.diag([-1, -1, 1, 1.0]), LPS, (2, 8, 8))) == ("L", "P", "R")
    coronal = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    assert edges(Grid(coronal, LPS, (2, 8, 8))) == ("R", "H", "L")
    assert edges(Grid(axial, DETECTOR, (1, 8, 8)), frontal=True) == ("R", "", "L")
    assert edges(Grid(axial, DETECTOR, (1, 8, 8)), frontal=False) == ("", "", "")
    assert edges(Grid.from_gdal((10, 0, 0, 0, -10, 0), "EPSG:32636", 8, 8)) == ("", "", "")
    assert edges(Grid.plain(8, 8)) == ("", "", "")


def test_scale_bars_are_round_and_fit() -> None:
    for limit in np.geomspace(1e-3, 1e6, 40):
        length = round_length(float(limit))
        assert limit / 2.5001 <= length <= limit * 1.001
        assert f"{length:e}"[0] in "125"


@pytest.mark.parametrize("kind", toys.SHAPES)
def test_layers_over_the_picture_are_the_overlay(tmp_path: Path, kind: str) -> None:
    domain, study = toys.Toy(), _study(tmp_path, kind)
    picture = draw(domain, study, View(size=200))
    for finding in toys.Oracle().findings(study)[:2]:
        over = layer(picture, finding, domain.vocabulary)
        assert over is not None
        weight = over[..., 3:] / 255
        composed = picture.pixels * (1 - weight) + over[..., :3] * weight
        assert abs(composed - overlay(picture, [finding], domain.vocabulary)).max() <= 3
        assert (over[..., 3] > 0).any()
        assert (over[..., 3] == 0).any()


def test_an_absent_finding_has_no_layer(tmp_path: Path) -> None:
    domain, study = toys.Toy(), _study(tmp_path, "film")
    finding = replace(toys.Oracle().findings(study)[0], present=False)
    assert layer(draw(domain, study, View(size=100)), finding, domain.vocabulary) is None


def test_pictures_lose_their_border_and_nothing_else(tmp_path: Path) -> None:
    domain, study = toys.Toy(), _study(tmp_path, "film")
    whole, cut = domain.render(study, View(size=200)), draw(domain, study, View(size=200))
    panel = whole.panels[0]
    assert (cut.pixels == whole.pixels[slice(*panel.rows), slice(*panel.columns)]).all()
    assert cut.pixels.shape[:2] == (200, 160)
    assert cut.panels[0].rows == (0, 200)
    assert cut.panels[0].columns == (0, 160)


def test_scale_bar_has_the_length_that_it_names(tmp_path: Path) -> None:
    study = _study(tmp_path, "film")
    picture = draw(toys.Toy(), study, View(size=600))
    black = Picture(np.zeros_like(picture.pixels), picture.panels)
    bar = annotated(black.pixels, black, study)[-12, :, 0] > 250
    assert bar.sum() * 0.8 * 200 / 600 == pytest.approx(20, abs=0.8)  # 2 cm is the largest round part of 128 mm / 3


def test_the_pages_pictures_are_the_key_slices_with_a_legend(tmp_path: Path) -> None:
    study, domain = _study(tmp_path, "volume"), toys.Toy()
    findings = toys.Oracle().findings(study)
    known = claims(toys.Oracle().report(study).answers)
    overview, *shown = figures(domain, study, known)
    assert [figure.caption for figure in shown] == [
        f"Slice {key.slice + 1} of 12" for key in key_slices(study, findings)
    ]
    assert overview.legend == legend(findings, domain.vocabulary) != ""
    assert overview.legend in study_page(domain, toys.Oracle().report(study))
    assert [color(finding, domain.vocabulary) for finding in findings[:2]] == ["#40a0ff", "#ffaa00"]
    assert color(replace(findings[0], label="unheard_of"), domain.vocabulary) != "#ffff00"


def test_instances_without_a_region_are_drawn_too(tmp_path: Path) -> None:
    study, domain = _study(tmp_path, "scene"), toys.Toy()
    finding = replace(
        toys.Oracle().findings(study)[1], region=None, instances=(Instance(Box((0, 9, 9), (1, 60, 60)), 0.9),)
    )
    (figure,) = figures(domain, study, [Claim(1, finding)])
    assert [item.name for item in figure.layers] == ["nodule"]


# One report


def test_json_reads_back_to_the_same_answers(tmp_path: Path) -> None:
    study = _study(tmp_path, "volume")
    oracle = toys.Oracle()
    report = oracle.report(study)
    document = json.loads(to_text(to_document(oracle.domain, report, report_key(study, oracle.provenance))))
    answers = [from_json(Answer, answer) for answer in document["answers"]]
    assert [answer.sentences for answer in answers] == [answer.sentences for answer in report.answers]
    for one, other in zip(answers[0].findings, report.answers[0].findings, strict=True):
        assert (one.label, one.measures, one.by) == (other.label, other.measures, other.by)
        assert (one.region is None) == (other.region is None)
        assert one.region is None or (one.region.data == other.region.data).all()
    assert document["state"] == "draft"
    assert document["notice"].startswith("Draft, not reviewed")
    assert document["study"]["images"][0]["affine"] == study.images[0].grid.affine.tolist()


@pytest.mark.parametrize("kind", toys.SHAPES)
def test_the_page_holds_the_report_and_needs_nothing_else(tmp_path: Path, kind: str) -> None:
    study = _study(tmp_path, kind)
    page = study_page(toys.Toy(), toys.Oracle().report(study))
    for text in ("Draft, not reviewed. Not for clinical use.", "supported by expert", "model only", "expert failed",
                 "contradicted by expert", "23.1 ± 1.2 cm²", "effusion of 23.1 cm².",
                 "about 9 in 10", "toy_segmentation@1.2.0", study.digest,
                 "needs a frontal view", "Looked for and not found", "toy 1"):  # fmt: skip
        assert text in page, text
    assert "&lt;b&gt;intact&lt;/b&gt;" in page
    assert "<b>intact" not in page
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert not re.search(r"url\((?!data:)", page)
    for encoded in re.findall(r'src="data:image/png;base64,([^"]+)"', page):
        Pillow.open(BytesIO(base64.b64decode(encoded))).verify()


def test_the_page_says_scale_and_reference_system_of_a_scene(tmp_path: Path) -> None:
    page = study_page(toys.Toy(), toys.Oracle().report(_study(tmp_path, "scene")))
    assert "EPSG:32636, WGS 84 / UTM zone 36N" in page
    assert re.search(r"pixel 10 m", page)


def test_text_of_a_study_cannot_become_markup(tmp_path: Path) -> None:
    study = _study(tmp_path, "film")
    nasty = replace(study, meta={**study.meta, "sensor": '"><img src=x onerror=alert(1)>'})
    page = study_page(toys.Toy(), toys.Oracle().report(nasty))
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


# Many reports


def test_every_study_gets_its_two_files(samples: Path, tmp_path: Path) -> None:
    service, _ = _service()
    batch = write_reports(service, _find(samples), tmp_path / "out")
    assert len(batch.done) == 4
    assert not batch.failures
    for done in batch.done:
        assert (tmp_path / "out" / f"{done.id}.html").exists()
        assert json.loads((tmp_path / "out" / f"{done.id}.json").read_text())["study"]["id"] == done.id
    index = batch.index.read_text()
    assert all(f'href="{done.id}.html"' in index for done in batch.done)


def test_a_second_run_asks_nothing_and_changes_nothing(samples: Path, tmp_path: Path) -> None:
    service, oracle = _service()
    out = tmp_path / "out"
    write_reports(service, _find(samples), out)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    asked = oracle.asked
    batch = write_reports(service, _find(samples), out)
    assert oracle.asked == asked
    assert all(done.reused for done in batch.done)
    for name, (time, content) in before.items():
        assert (out / name).read_bytes() == content
        assert name.startswith("index") or (out / name).stat().st_mtime_ns == time


@pytest.mark.parametrize("loss", ["html", "json", "torn", "model"])
def test_what_is_missing_torn_or_of_another_model_is_made_again(samples: Path, tmp_path: Path, loss: str) -> None:
    service, _ = _service()
    out = tmp_path / "out"
    first = write_reports(service, _find(samples), out).done[0]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    if loss == "torn":
        (out / f"{first.id}.json").write_text('{"schema": "fovea.rep')
    elif loss == "model":
        service, _ = _service("2")
    else:
        (out / f"{first.id}.{loss}").unlink()
    again = write_reports(service, _find(samples), out)
    assert sum(not done.reused for done in again.done) == (4 if loss == "model" else 1)
    if loss != "model":
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_copy_under_another_name_is_the_same_report(samples: Path, tmp_path: Path) -> None:
    first = next(samples.iterdir())
    (samples / "copy.toy").write_bytes(first.read_bytes())
    batch = write_reports(_service()[0], _find(samples), tmp_path / "out")
    assert sum(done.reused for done in batch.done) == 1
    assert len(list((tmp_path / "out").glob("*.html"))) == 4 + 1


def test_failures_do_not_stop_the_others_and_come_first(samples: Path, tmp_path: Path) -> None:
    toys.write(samples, "broken", name="0-DOE^JANE.toy")
    toys.write(samples, "bug", name="0-DOE^JOHN.toy")
    (samples / "PATIENT-DOE.bin").write_bytes(b"\x00\xff\x01")
    (samples / "PATIENT-DOE.txt").write_text("a note")
    seen = []
    batch = write_reports(_service()[0], _find(samples), tmp_path / "out", lambda item, outcome: seen.append(outcome))
    assert len(seen) == 7
    assert len(batch.done) == 4
    assert len(batch.failures) == 3
    index = batch.index.read_text()
    assert index.index("Without a report") < index.index("What it is")
    for text in ("Slices with different spacing", "Send the whole series again.", "No report was written.",
                 "KeyError", "no domain recognises", "1 text file left out"):  # fmt: skip
        assert text in index, text
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    for word in (b"DOE^JANE", b"DOE^JOHN", b"PATIENT-DOE", b"Traceback", str(tmp_path).encode()):
        assert word not in everything


def test_a_study_of_another_domain_is_refused_by_name(samples: Path, tmp_path: Path) -> None:
    class Other(toys.Toy):
        name = "other"

    batch = write_reports(_service()[0], find_studies([samples], (Other(),)), tmp_path / "out")
    assert not batch.done
    assert {failure.happened for failure in batch.failures} == {"A study of other, while this model reads toy."}


def test_a_picture_is_of_no_domain_by_its_looks(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    Pillow.fromarray(noise).save(tmp_path / "DOE.png")
    other = installed_domains()["remote_sensing"]
    batch = write_reports(_service()[0], find_studies([tmp_path], (toys.Toy(), other)), tmp_path / "out")
    assert not batch.done
    assert "does not tell what it shows" in batch.failures[0].happened
    assert "remote_sensing" not in batch.failures[0].happened + batch.failures[0].remedy


def test_an_output_folder_that_cannot_be_written_is_an_error(samples: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="output folder"):
        write_reports(_service()[0], _find(samples), tmp_path / "file" / "out")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write(path, "new \ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


_KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import apps_toys, os
from apps.service import Service, find_studies
from apps.report.batch import write_reports
oracle = apps_toys.Oracle()
count = 0
def notify(item, outcome):
    global count
    count += 1
    if count == 2:
        os.kill(os.getpid(), 9)
inputs = find_studies([Path({samples!r})], (oracle.domain,))
write_reports(Service(oracle.domain, lambda: oracle), inputs, Path({out!r}), notify)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(samples: Path, tmp_path: Path) -> None:
    tests = str(Path(__file__).parent)
    code = _KILLED.format(tests=tests, samples=str(samples), out=str(tmp_path / "killed"))
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert len(list((tmp_path / "killed").glob("*.json"))) == 2
    batch = write_reports(_service()[0], _find(samples), tmp_path / "killed")
    assert sum(done.reused for done in batch.done) == 2
    write_reports(_service()[0], _find(samples), tmp_path / "straight")
    files = {path.name: path.read_bytes() for path in (tmp_path / "straight").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()} == files


# Finding studies


def test_files_named_one_by_one_are_a_series_of_their_folder(tmp_path: Path) -> None:
    parts = [toys.write(tmp_path, "volume", i, series="a") for i in range(3)]
    other = toys.write(tmp_path, "film", 9)
    assert [item.files for item in _find(*parts[:2]).items] == [tuple(parts[:2])]
    assert [item.files for item in _find(tmp_path).items] == [(other,), tuple(parts)]
    assert [item.files for item in _find(parts[0]).items] == [(parts[0],)]


def test_a_file_given_twice_is_one_study(tmp_path: Path) -> None:
    path = toys.write(tmp_path, "film")
    assert len(_find(tmp_path, path, path).items) == 1


def test_hidden_files_are_left_alone_and_missing_ones_are_an_error(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.bin").write_bytes(b"\0")
    assert _find(tmp_path) == Inputs((), ())
    with pytest.raises(InputError, match="1 of 2 paths"):
        _find(tmp_path, tmp_path / "JANE")
