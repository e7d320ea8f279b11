"""DICOMweb: a round trip through a real server, and what servers may do wrong."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicomweb_client import DICOMwebClient
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from requests import Session
from typer.testing import CliRunner

from apps.cli import app
from domains.formats.dicom import dicomweb
from domains.formats.dicom.dicomweb import Server, split
from domains.radiology import reader, synth
from fovea.errors import ConfigError, FoveaError, InputError, LimitError

USER, PASSWORD = "reader", "correct-horse"


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch, tmp_path):
    for name in ("TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"FOVEA_DICOMWEB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory, repository) -> Iterator[str]:
    """The address of a server of our own; skips where Orthanc is not installed (scripts/orthanc install)."""
    if not shutil.which("Orthanc") or not Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so").exists():
        pytest.skip("Orthanc is not installed: scripts/orthanc install")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("orthanc")
    with (folder / "log").open("wb") as log:
        command = [repository / "scripts" / "orthanc", "start", folder, str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(150):
            with socket.socket() as knock:
                if process.poll() is not None or not knock.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}/dicom-web"
    finally:
        process.terminate()
        process.wait(20)


def bundled(name: str, path: Path, study: str) -> Path:
    """One of pydicom's own test files as another patient's: two names for one study would confuse a server."""
    ds = pydicom.dcmread(get_testdata_file(name, download=False))
    ds.PatientID, ds.StudyInstanceUID = study, study
    ds.SeriesInstanceUID, ds.SOPInstanceUID = generate_uid(), generate_uid()
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(path)
    return path


def store(url: str, files: list[Path]) -> pydicom.Dataset:
    """Send files by STOW-RS; returns the first."""
    session = Session()
    session.auth = (USER, PASSWORD)
    sets = [pydicom.dcmread(file) for file in files]
    DICOMwebClient(url, session=session).store_instances(sets)
    return sets[0]


def pull(url: str, out: Path, **options: str) -> str:
    """Run `fovea data pull`."""
    arguments = ["data", "pull", url, str(out), *(part for k, v in options.items() for part in (f"--{k}", v))]
    done = CliRunner().invoke(app, arguments, env={"FOVEA_DICOMWEB_USER": USER, "FOVEA_DICOMWEB_PASSWORD": PASSWORD})
    if done.exception:
        raise done.exception
    return done.output


def assert_same(back: Path, original: tuple[Path, ...]) -> None:
    ((*files,),) = reader.studies(back)
    ours, theirs = reader.load(files), reader.load(original)
    assert len(files) == len(original)
    assert ours.meta == theirs.meta
    for one, other in zip(ours.images, theirs.images, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert np.array_equal(one.grid.affine, other.grid.affine)
        assert (one.grid.frame, one.channels) == (other.grid.frame, other.channels)


def test_a_series_comes_back_as_it_was(orthanc, tmp_path):
    folder = Path(synth.study(tmp_path / "made", 1, 2).path)
    files = sorted(folder.iterdir())
    first = store(orthanc, files)
    out = tmp_path / "back"
    assert pull(orthanc, out, study=first.StudyInstanceUID) == f"{len(files)} files in {out}\n"
    assert_same(out, tuple(files))
    assert out.stat().st_mode & 0o777 == 0o700
    assert all(len(file.stem) == 32 and file.suffix == ".dcm" for file in out.iterdir())
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_one_series_of_a_study(orthanc, tmp_path, monkeypatch):
    monkeypatch.setenv("FOVEA_DICOMWEB_USER", USER)
    monkeypatch.setenv("FOVEA_DICOMWEB_PASSWORD", PASSWORD)
    files = [bundled(f"{name}_small.dcm", tmp_path / f"{name}.dcm", "1.2.3.4.5") for name in ("CT", "MR")]
    ct, mr = map(pydicom.dcmread, files)
    store(orthanc, files)
    found = {s.modality: s for s in Server(orthanc).series("1.2.3.4.5")}
    assert {s.instances for s in found.values()} == {1}
    assert found["MR"].series == mr.SeriesInstanceUID
    assert mr.SeriesInstanceUID not in repr(found)
    assert len(Server(orthanc).series(StudyInstanceUID="1.2.3.4.5")) == 2
    for ds, file in zip((ct, mr), files, strict=True):
        pull(orthanc, tmp_path / ds.Modality, study="1.2.3.4.5", series=ds.SeriesInstanceUID)
        assert_same(tmp_path / ds.Modality, (file,))
    assert "2 files" in pull(orthanc, tmp_path / "both", study="1.2.3.4.5")


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_dcmtk.dcm", "CT_small.dcm"])
def test_files_come_back_in_the_encoding_in_which_they_are_stored(orthanc, tmp_path, name):
    ds = store(orthanc, [bundled(name, tmp_path / "a.dcm", generate_uid())])
    pull(orthanc, tmp_path / "back", study=ds.StudyInstanceUID, series=ds.SeriesInstanceUID)
    (file,) = (tmp_path / "back").iterdir()
    back = pydicom.dcmread(file)
    assert back.file_meta.TransferSyntaxUID == ds.file_meta.TransferSyntaxUID
    assert back.PixelData == ds.PixelData


def test_a_real_series_comes_back_as_it_was(orthanc, tmp_path, data_dir):
    ((*files,),) = reader.studies(data_dir / "med" / "dicom_series")
    first = store(orthanc, files)
    pull(orthanc, tmp_path / "back", study=first.StudyInstanceUID)
    assert_same(tmp_path / "back", tuple(files))


def test_what_the_server_refuses_is_said(orthanc, tmp_path):
    with pytest.raises(InputError, match="404") as error:
        pull(orthanc, tmp_path / "out", study="1.2.3.999")
    assert "999" not in str(error.value)
    with pytest.raises(InputError, match=r"credentials \(401\)"):
        Server(orthanc).pull(tmp_path / "out", "1.2.3.999")
    with pytest.raises(InputError, match=r"\(401\)"):
        Server(orthanc).series("1.2.3")
    assert not (tmp_path / "out").exists()
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    assert Server(orthanc).series("1.2.3.999") == []


Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def fake() -> Iterator[Callable[[Answer], str]]:
    """Starts servers that answer as told; gives their address."""
    servers: list[ThreadingHTTPServer] = []

    def serve(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


MULTIPART = 'multipart/related; type="application/dicom"; boundary=xx'


def answering(body: bytes, kind: str = MULTIPART, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


DICOM = bytes(128) + b"DICM" + b"body"
PART = b"--xx\r\nContent-Type: application/dicom\r\n\r\n" + DICOM + b"\r\n"


def test_parts_become_files(fake, tmp_path):
    other = PART.replace(b"body", b"else")
    assert Server(fake(answering(PART + other + b"--xx--"))).pull(tmp_path / "a", "1.2") == 2
    assert sorted(f.read_bytes()[-4:] for f in (tmp_path / "a").iterdir()) == [b"body", b"else"]


@pytest.mark.parametrize(
    ("body", "kind", "match"),
    [
        (PART, None, "breaks off"),
        (PART[:60], None, "breaks off"),
        (b"", None, "breaks off"),
        (b"--xx--", None, "without files"),
        (PART.replace(b"DICM", b"html") + b"--xx--", None, "no DICOM"),
        (b"--xx\r\n" + b"h" * 40_000 + PART, None, "headers"),
        (b"<html>", "text/html", "multipart"),
        (DICOM, "application/dicom", "multipart"),
        (PART + b"--xx--", "multipart/related", "multipart"),
    ],
)
def test_answers_that_are_wrong_leave_nothing(fake, tmp_path, body, kind, match):
    url = fake(answering(body, *([kind] if kind else [])))
    with pytest.raises(InputError, match=match):
        Server(url).pull(tmp_path / "out", "1.2")
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_breaks_leaves_nothing(fake, tmp_path):
    with pytest.raises(InputError, match="breaks off"):
        Server(fake(answering(PART, Content_Length="99999"))).pull(tmp_path / "out", "1.2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406, 500, 503])
def test_every_status_has_a_reason(fake, tmp_path, status):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_error(status, "DOE^JANE")

    with pytest.raises(InputError, match=str(status)) as error:
        Server(fake(answer)).pull(tmp_path / "out", "1.2.3")
    assert "DOE" not in str(error.value)


def test_no_redirect_is_followed_and_no_other_host_hears_a_password(fake, tmp_path, monkeypatch):
    heard = []

    def listen(handler: BaseHTTPRequestHandler) -> None:
        heard.append(handler.headers.get("Authorization"))
        answering(PART + b"--xx--")(handler)

    other = fake(listen)

    def send_away(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", other)
        handler.end_headers()

    url = fake(send_away)
    monkeypatch.setenv("FOVEA_DICOMWEB_TOKEN", "secret")
    with pytest.raises(InputError, match="sends elsewhere"):
        Server(url).pull(tmp_path / "out", "1.2")
    with pytest.raises(InputError, match="sends elsewhere"):
        Server(url).series("1.2")
    assert heard == []
    Server(other).pull(tmp_path / "out", "1.2")
    monkeypatch.delenv("FOVEA_DICOMWEB_TOKEN")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    Server(other).pull(tmp_path / "again", "1.2")
    assert heard == ["Bearer secret", "Basic YTpi"]


def test_a_silent_or_missing_server_is_said(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb, "_READ", 0.2)
    with pytest.raises(InputError, match=r"in time|not there"):
        Server(fake(lambda _: time.sleep(1))).pull(tmp_path / "out", "1.2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(InputError, match="not there"):
        Server(url).pull(tmp_path / "out", "1.2")


def test_too_much_is_refused(fake, tmp_path, monkeypatch):
    url = fake(answering(PART + PART.replace(b"body", b"else") + b"--xx--"))
    monkeypatch.setattr(dicomweb, "FILES", 1)
    with pytest.raises(LimitError, match="files"):
        Server(url).pull(tmp_path / "out", "1.2")
    monkeypatch.setattr(dicomweb, "BYTES", 100)
    with pytest.raises(LimitError, match="GiB"):
        Server(url).pull(tmp_path / "out", "1.2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    ["ftp://host/x", "host/x", "https://", "https://me:secret@host/x", "https://host/x?a=1", "http://host.example/x",
     "http://10.0.0.1/", "http://127.0.0.1.example.org/", "https://host:99999/", "http://localhost.example.org"],
)  # fmt: skip
def test_addresses_that_are_not_safe_are_refused(url):
    with pytest.raises(ConfigError) as error:
        Server(url)
    assert "secret" not in str(error.value)


def test_addresses_that_are_safe():
    for url in ("https://host/x", "http://localhost:80/x/", "http://127.0.0.1", "http://[::1]:8042/dicom-web"):
        Server(url)
    Server("http://host.example/x", allow_http=True)


def test_uids_and_folders_in_use_are_refused(fake, tmp_path):
    server = Server(fake(answering(PART + b"--xx--")))
    for uid in ("", "../1", "1.2/series/3", "1..2", "a", "1" * 65, "1.2\n"):
        with pytest.raises(FoveaError):
            server.pull(tmp_path / "out", uid)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(ConfigError, match="in use"):
        server.pull(tmp_path / "used", "1.2")
    (tmp_path / "empty").mkdir()
    assert server.pull(tmp_path / "empty", "1.2") == 1


@given(st.lists(st.binary(max_size=40), max_size=4), st.integers(1, 9), st.binary(max_size=8), st.data())
def test_bodies_come_out_as_they_went_in(bodies, size, before, data):
    """Whatever is in them, short of the boundary, and however the message is cut."""
    ends = st.sampled_from([(b"", b""), (b"", b"\r\n"), (b"\r\n--x", b""), (b"\r\n\r\n", b"")])
    bodies = [start + body + end for body, (start, end) in ((body, data.draw(ends)) for body in bodies)]
    message = before.replace(b"-", b"") + b"\r\n" if before else b""
    message += b"".join(b"--xyz\r\nA: b\r\n\r\n" + body + b"\r\n" for body in bodies) + b"--xyz--\r\nafter"
    pieces = iter([message[i : i + size] for i in range(0, len(message), size)])
    assert [b"".join(part) for part in split(pieces, b"xyz")] == bodies


def test_memory_does_not_grow_with_a_file():
    pieces = iter([b"--xx\r\nA: b\r\n\r\n", *[bytes(2**16)] * 800, b"\r\n--xx--"])
    tracemalloc.start()
    total = sum(len(piece) for part in split(pieces, b"xx") for piece in part)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 800 * 2**16
    assert peak < 2**20
