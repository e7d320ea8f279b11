"""The viewer: what a visitor sees and can do, without and with a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen
from zipfile import ZipFile

import apps_toys as toys
import pytest
from streamlit.testing.v1 import AppTest

from apps.service import Service
from apps.viewer.launch import SETTINGS, command, launch
from apps.viewer.session import Run, Uploads
from fovea.errors import ConfigError

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip

_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import {module} as toys
import streamlit as st
from apps.service import Service
from apps.viewer.main import page
from apps.viewer.session import Run

@st.cache_resource
def runs():
    oracle = toys.Oracle()
    return {{"toy": Run(Service(oracle.domain, lambda: oracle), Path({samples!r}))}}

page(runs())
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The viewer's page on toy studies: a film, a scene and a volume."""
    return _script(tmp_path, "apps_toys")


@pytest.fixture
def writing(tmp_path: Path) -> Path:
    """The same of a domain that writes files for other systems."""
    return _script(tmp_path, "writing_toys")


def _script(tmp_path: Path, module: str) -> Path:
    samples = tmp_path / "samples"
    for kind in toys.SHAPES:
        toys.write(samples, kind, 5)
    path = tmp_path / "script.py"
    path.write_text(_SCRIPT.format(tests=str(Path(__file__).parent), samples=str(samples), module=module))
    return path


@pytest.fixture
def app(script: Path) -> AppTest:
    return AppTest.from_file(str(script), default_timeout=60).run()


def _html(app: AppTest) -> str:
    return "\n".join(element.proto.body for element in app.get("html"))


def _labels(app: AppTest) -> list[str]:
    return [box.label for box in app.checkbox]


def test_the_first_look_shows_a_study_and_asks_nothing(app: AppTest) -> None:
    assert not app.exception
    assert app.title[0].value == "Chest radiograph, PA view"
    assert "Draft, not reviewed. Not for clinical use." in _html(app)
    assert len(app.get("image")) == 1
    assert _labels(app) == ["Experts may be asked"]


def test_an_answer_comes_with_experts_and_evidence(app: AppTest) -> None:
    app.text_input(key="question").input("What is there?")
    app.button[0].click().run()
    assert not app.exception
    html = _html(app)
    for text in ("supported by expert", "contradicted by expert", "expert failed", "model only",
                 "toy_segmentation(all)", "needs a frontal view", "about 9 in 10", "&lt;b&gt;intact"):  # fmt: skip
        assert text in html, text
    assert "left pleural effusion, area 23.1 ± 1.2 cm²" in _labels(app)


def test_without_experts_none_is_called(app: AppTest) -> None:
    app.checkbox(key="experts").uncheck()
    app.text_input(key="question").input("What is there?")
    app.button[0].click().run()
    assert "No expert was asked." in _html(app)
    assert _labels(app) == ["Experts may be asked"]


def test_an_empty_question_is_not_asked(app: AppTest) -> None:
    app.text_input(key="question").input("   ")
    app.button[0].click().run()
    assert not app.exception
    assert "supported by expert" not in _html(app)


def test_findings_can_be_switched_off_one_by_one(app: AppTest) -> None:
    def shown() -> str:
        return str(app.get("image")[0].proto.imgs[0].url)

    app.text_input(key="question").input("What is there?")
    app.button[0].click().run()
    both = shown()
    app.checkbox(key="show-toy_segmentation-nodule").uncheck().run()
    without = shown()
    app.checkbox(key="show-toy_segmentation-pleural_effusion").uncheck().run()
    assert len({both, without, shown()}) == 3
    app.checkbox(key="show-toy_segmentation-nodule").check()
    app.checkbox(key="show-toy_segmentation-pleural_effusion").check().run()
    assert shown() == both


def test_the_report_is_written_once_and_can_be_taken_along(app: AppTest) -> None:
    app.button(key="write").click().run()
    assert not app.exception
    assert [button.label for button in app.get("download_button")] == ["Download HTML", "Download JSON"]
    assert "Measurements asked for" in app.get("iframe")[0].proto.srcdoc
    assert "right nodule, count 1, longest diameter 12.4 mm" in _labels(app)


def test_files_for_other_systems_come_as_one_zip_with_what_could_not_be(writing: Path) -> None:
    app = AppTest.from_file(str(writing), default_timeout=60).run()
    app.button(key="write").click().run()
    assert not app.exception
    assert "No person has verified these files" in _html(app)
    app.button(key="make").click().run()
    assert not app.exception
    assert "No slices: A film; expected a volume." in [caption.value for caption in app.caption]
    assert app.get("download_button")[-1].label == "Download 2 files as ZIP"
    assert [text.value for text in app.text if "findings.csv" in text.value] == ["catalog.txt\nfindings.csv"]
    app.multiselect(key="outputs").set_value(["slices"]).run()
    assert [button.label for button in app.get("download_button")] == ["Download HTML", "Download JSON"]
    app.button(key="make").click().run()
    assert app.error[0].value.startswith("A film; expected a volume.")
    app.selectbox(key="study-Samples").select_index(2).run()
    app.button(key="write").click().run()
    app.multiselect(key="outputs").set_value(["slices"]).run()
    app.button(key="make").click().run()
    assert app.get("download_button")[-1].label == "Download 1 file as ZIP"


def test_another_study_starts_afresh_and_a_volume_has_slices(app: AppTest) -> None:
    app.button(key="write").click().run()
    app.selectbox(key="study-Samples").select_index(2).run()
    assert not app.exception
    assert app.title[0].value == "CT of the torso, 12 slices"
    assert _labels(app) == ["Experts may be asked"]
    assert not app.get("download_button")
    first = app.get("image")[0].proto.imgs[0].url
    app.slider[0].set_value(3).run()
    assert app.get("image")[0].proto.imgs[0].url != first
    app.toggle(key="overview").set_value(True).run()
    assert app.slider[0].disabled
    assert not app.exception


def test_an_uploaded_file_is_known_by_its_content(app: AppTest, tmp_path: Path) -> None:
    film = toys.write(tmp_path / "up", "film", 8).read_bytes()
    app.segmented_control(key="source").set_value("Your files").run()
    assert app.info[0].value.startswith("Choose a study")
    app.file_uploader(key="files").upload("DOE^JANE.png", b"not a picture", "image/png").run()
    assert not app.exception
    assert "1 of 1 inputs" in app.warning[0].value
    app.file_uploader(key="files").upload("DOE^JANE.txt", film, "text/plain").run()
    assert not app.exception
    assert app.title[0].value == "Chest radiograph, PA view"
    assert "DOE" not in _html(app) + str([caption.value for caption in app.caption])


def test_a_study_that_cannot_be_read_says_why(app: AppTest, tmp_path: Path) -> None:
    broken = toys.write(tmp_path / "up", "broken").read_bytes()
    app.segmented_control(key="source").set_value("Your files").run()
    app.file_uploader(key="files").upload("a.dcm", broken, "").run()
    assert not app.exception
    assert app.error[0].value.startswith("Slices with different spacing")
    assert "Send the whole series again." in app.error[0].value


def test_uploads_are_kept_under_neutral_names_and_removed() -> None:
    class File:
        def __init__(self, name: str, data: bytes) -> None:
            self.name, self._data = name, data

        def getvalue(self) -> bytes:
            return self._data

    oracle = toys.Oracle()
    runs = {"toy": Run(Service(oracle.domain, lambda: oracle), Path())}
    uploads = Uploads()
    uploads.take([File("../../DOE^JANE.nii.gz", b"\0"), File("/etc/passwd", b"text"), File("x.DCM", b"\1")], runs)
    root = uploads.folder
    assert sorted(path.name for path in root.rglob("0*") if path.is_file()) == ["0000.nii.gz", "0001", "0002.dcm"]
    assert len(uploads.items) == 3
    uploads.take([], runs)
    assert not [path for path in root.rglob("*") if path.is_file()]
    assert uploads.items == ()
    del uploads
    assert not root.exists()


def test_without_a_run_the_page_says_what_to_do(tmp_path: Path) -> None:
    app = AppTest.from_string("from apps.viewer.main import page\npage({})").run()
    assert not app.exception
    assert "Run `fovea demo` first." in app.error[0].value


def test_no_torch_before_the_first_question(script: Path) -> None:
    code = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        f"app = AppTest.from_file({str(script)!r}, default_timeout=60).run()\n"
        "assert app.title[0].value and not app.exception\n"
        "print(sorted({'torch', 'monai', 'mlflow', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_server_is_private_and_quiet() -> None:
    line = " ".join(command(Path("x.py"), 8600, "--demo", "d"))
    assert SETTINGS["server.address"] == "127.0.0.1"
    assert "--browser.gatherUsageStats false" in line
    assert "--client.showErrorDetails none" in line
    assert re.search(r"--server.maxUploadSize \d+", line)
    assert line.endswith("-- --demo d")


def test_the_viewer_needs_a_folder_of_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fovea demo"):
        launch(tmp_path / "none", 8600)


# In a browser


@pytest.fixture
def server(writing: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = subprocess.Popen(_headless(writing, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(150):
            try:
                with urlopen(f"{address}/_stcore/health") as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        child.terminate()
        child.wait()


def _headless(script: Path, port: int) -> list[str]:
    line = command(script, port)
    return [*line[: line.index("--")], "--server.headless", "true"]


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists() or shutil.which("chromium") is None, reason="needs Chromium")
def test_in_a_browser(server: str, tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    look = Path(os.environ.get("FOVEA_LOOK", tmp_path))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900}, accept_downloads=True)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server)
        expect(page.get_by_role("heading", name="Chest radiograph, PA view")).to_be_visible(timeout=30_000)
        page.get_by_placeholder("Ask about this study").fill("What is there?")
        page.get_by_role("button", name="Ask").click()
        expect(page.get_by_text("contradicted by expert").first).to_be_visible(timeout=30_000)
        page.wait_for_timeout(700)
        page.screenshot(path=look / "look_app_study.png")
        page.get_by_role("tab", name="Report").click()
        page.get_by_role("button", name="Write the draft report").click()
        expect(page.frame_locator("iframe").get_by_text("Findings of the experts")).to_be_visible(timeout=30_000)
        page.wait_for_timeout(700)
        page.get_by_role("button", name="Make the files").click()
        expect(page.get_by_text("No slices: A film")).to_be_visible(timeout=30_000)
        page.wait_for_timeout(700)
        page.screenshot(path=look / "look_app_report.png")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download 2 files as ZIP").click()
        with ZipFile(download.value.path()) as whole:
            assert whole.namelist() == ["catalog.txt", "findings.csv"]
        with page.expect_download() as download:
            page.get_by_role("button", name="Download JSON").click()
        assert json.loads(Path(download.value.path()).read_text())["state"] == "draft"
        browser.close()
    assert not errors
