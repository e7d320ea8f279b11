"""Hostile rasters: what a file declares, names or does to its decoder costs that file, and nothing more."""

from __future__ import annotations

import signal
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest
import rasterio
from geotiff_files import UTM, image, scene, seeds, write

from domains.formats.rasters import geotiff
from fovea.errors import InputError, LimitError, UnsupportedError
from fovea.image import Window


def children() -> list[psutil.Process]:
    return psutil.Process().children()


@contextmanager
def growth(most: int) -> Iterator[None]:
    """Neither this process nor a child may grow by more than so many bytes at any time."""
    processes = [psutil.Process(), *children()]
    for process in processes:
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the high-water mark falls to what is held now
    before = {process.pid: high_water(process.pid) for process in processes}
    yield
    after = {pid: high_water(pid) for pid in before}
    assert {pid: after[pid] - held for pid, held in before.items() if after[pid] - held > most} == {}


def high_water(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.fixture
def warm(tmp_path: Path) -> None:
    """Children that have loaded GDAL: what that takes is not a file's doing."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("memory is measured on Linux")
    path = scene(tmp_path / "warm.tif", compress="deflate", crs="+proj=laea +lat_0=1 +units=m")
    _ = [image(path).pixels, image(path).window(shape=(4, 4)).pixels]


def tiff(path: Path, **tags: tuple[int, int, int]) -> Path:
    """A classic TIFF of one directory; a tag's (number, type, value) replaces that of a 10 x 10 image of a byte."""
    plain = {
        "width": (256, 4, 10), "height": (257, 4, 10), "bits": (258, 3, 8), "compression": (259, 3, 1),
        "photometric": (262, 3, 1), "offsets": (273, 4, 8), "samples": (277, 3, 1), "rows": (278, 4, 10),
        "counts": (279, 4, 100),
    }  # fmt: skip
    entries = sorted({**plain, **tags}.values())
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", n, k, 1, v) for n, k, v in entries)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + 100) + bytes(100) + directory + bytes(4))
    return path


BOMBS = {
    "a block of 16 GB": {
        "width": (256, 4, 2**17), "height": (257, 4, 2**17), "rows": (278, 4, 2**17), "compression": (259, 3, 8),
    },
    "a strip of 200 MiB in a small file": {
        "width": (256, 4, 2**14), "height": (257, 4, 12800), "rows": (278, 4, 12800), "compression": (259, 3, 8),
    },
    "a tile of 200 MiB in a small file": {
        "width": (256, 4, 2**14), "height": (257, 4, 12800), "compression": (259, 3, 8), "across": (322, 4, 2**14),
        "down": (323, 4, 12800), "offsets": (324, 4, 8), "counts": (325, 4, 100),
    },
    "65535 bands": {"samples": (277, 3, 65535)},
    "2**31 columns": {"width": (256, 4, 2**31 - 1)},
    "tiles of 2**30 columns": {"tile": (322, 4, 2**30), "tall": (323, 4, 2**20)},
    "2**32 rows in strips of one": {"height": (257, 4, 2**31 - 1), "rows": (278, 4, 1)},
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_declares_much_is_refused_for_little(bomb: str, tmp_path: Path, warm: None) -> None:
    path = tiff(tmp_path / "a.tif", **BOMBS[bomb])
    assert path.stat().st_size < 1700
    with growth(2**26), pytest.raises(InputError):
        _ = image(path).pixels


def test_a_small_file_of_40_gigabytes_is_refused_for_little(tmp_path: Path, warm: None) -> None:
    path = tmp_path / "a.tif"
    profile = {"width": 200_000, "height": 200_000, "count": 1, "dtype": "uint8", "tiled": True}
    with rasterio.open(
        path, "w", driver="GTiff", SPARSE_OK=True, BIGTIFF="YES", blockxsize=16384, blockysize=16384, **profile, **UTM
    ):
        pass
    assert path.stat().st_size < 4000
    with growth(2**26), pytest.raises(LimitError):
        _ = image(path).pixels


def test_a_compressed_bomb_fills_its_blocks_and_no_more(tmp_path: Path, warm: None) -> None:
    """A strip of 64 KiB whose deflate stream holds 64 MiB."""
    path = tiff(
        tmp_path / "a.tif", width=(256, 4, 256), height=(257, 4, 256), rows=(278, 4, 256), compression=(259, 3, 8)
    )
    stream = zlib.compress(bytes(2**26))
    data = path.read_bytes()
    at = data.index(struct.pack("<HHI", 273, 4, 1)) + 8
    count = data.index(struct.pack("<HHI", 279, 4, 1)) + 8
    data = (
        data[:at]
        + struct.pack("<I", len(data))
        + data[at + 4 : count]
        + struct.pack("<I", len(stream))
        + data[count + 4 :]
    )
    path.write_bytes(data + stream)
    with growth(2**25), suppress(InputError):
        assert not image(path).pixels.any()


# The decoder dies


def test_a_decoder_that_dies_while_it_reads_costs_one_read(tmp_path: Path, warm: None) -> None:
    path = scene(tmp_path / "a.tif")
    whole = image(path)
    expected = whole.pixels
    for process in children():
        process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(whole.read, None, None)
        time.sleep(0.1)
        dying = children()
        for process in dying:
            process.kill()
        with pytest.raises(InputError, match="ended its process"):
            reading.result(10)
        psutil.wait_procs(dying, 5)
    np.testing.assert_array_equal(image(path).pixels, expected)


def test_a_decoder_that_died_before_costs_nothing(tmp_path: Path, warm: None) -> None:
    path = scene(tmp_path / "a.tif")
    for process in children():
        process.kill()
        process.wait(5)
    assert image(path).pixels.all()


# Other files and the network


@pytest.fixture
def server() -> Iterator[tuple[int, list[bytes]]]:
    """A port of this machine and what was sent to it."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        done = threading.Event()

        def listen() -> None:
            while not done.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection:
                    heard.append(b"a connection")

        thread = threading.Thread(target=listen)
        thread.start()
        yield listening.getsockname()[1], heard
        done.set()
        thread.join()


def test_no_file_makes_another_be_read(tmp_path: Path, server: tuple[int, list[bytes]]) -> None:
    """Virtual rasters, tile indices, links and archives under the name of a TIFF, and every kind of sidecar."""
    port, heard = server
    url = f"http://127.0.0.1:{port}/a.tif"
    secret = write(tmp_path / "secret.tif", np.full((1, 8, 8), 99, np.uint8), **UTM)
    path = write(tmp_path / "a.tif", np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8), transform=UTM["transform"])
    before = geotiff.read(path)
    _ = before.images[0].pixels
    plain = write(tmp_path / "b.tif", np.ones((1, 8, 8), np.uint8))
    (tmp_path / "b_RPC.TXT").write_text(_polynomials())
    (tmp_path / "b.tfw").write_text("10\n0\n0\n-10\n5\n5\n")
    assert geotiff.read(plain).meta["geometry"] == "no georeference"
    (tmp_path / "a.IMD").write_text('version = "R";\n')
    (tmp_path / "a.prj").write_text('GEOGCS["x"]')
    for name in ("a.tif.ovr", "a.tif.aux.xml", "a.aux.xml", "a.ovr", "a.rrd"):
        for target in (url, f"/vsicurl/{url}", secret):
            (tmp_path / name).write_text(_virtual(str(target)))
            after = geotiff.read(path)
            assert (after.meta, after.hashes) == (before.meta, before.hashes)
            np.testing.assert_array_equal(after.images[0].pixels, before.images[0].pixels)
            assert after.images[0].window(shape=(4, 4)).pixels.max() < 64
    stac = '{"type": "FeatureCollection", "stac_version": "1.0.0", "features": [{"assets": {"a": {"href": "%s"}}}]}'
    index = "<GDALTileIndexDataset><IndexDataset>%s</IndexDataset></GDALTileIndexDataset>"
    for text in (_virtual(url), _virtual(str(secret)), stac % url, index % url, url, f"/vsicurl/{url}", f"GTI:{url}"):
        path.write_text(text)
        with pytest.raises(UnsupportedError):
            geotiff.read(path)
    for name in (url, f"/vsicurl/{url}", f"/vsizip//vsicurl/{url}/a.tif", f"/vsizip/{secret}", f"GTIFF_DIR:1:{secret}"):
        with pytest.raises(InputError) as error:
            geotiff.read(Path(name))
        assert "127.0.0.1" not in str(error.value)
    assert not heard


def _polynomials() -> str:
    """A sidecar of rational polynomials that GDAL takes."""
    names = [f"{axis}_{what}" for what in ("OFF", "SCALE") for axis in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")]
    names += [f"{axis}_{part}_COEFF_{i}" for axis in ("LINE", "SAMP") for part in ("NUM", "DEN") for i in range(1, 21)]
    return "".join(f"{name}: 1\n" for name in names)


def _virtual(target: str) -> str:
    return (
        '<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32633</SRS><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{target}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )


def test_a_name_that_a_library_could_take_for_a_command_is_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "zip+http:" / "a.zip!b"
    folder.mkdir(parents=True)
    for name in ("a.tif,1", "GTIFF_DIR:2:a.tif", "a b\n.tif", "é.tif", "%s.tif"):
        assert image(scene(tmp_path / "plain.tif").rename(folder / name)).pixels.all()


def test_a_file_that_changes_after_its_header_was_read_is_refused(tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif")
    whole = image(path)
    assert whole.window(Window((0, 4), (0, 4))).pixels.all()
    other = scene(tmp_path / "b.tif", bands=1)
    other.replace(path)
    with pytest.raises(InputError, match="changed"):
        _ = whole.pixels
    assert image(path).pixels.all()


# Mutants


def test_mutants_are_read_or_refused(repository: Path, tmp_path: Path) -> None:
    script = load("fuzz_geotiff", repository / "scripts" / "fuzz_geotiff.py")
    outcome = script.fuzz([path.read_bytes() for path in seeds(tmp_path)], 400, 3, tmp_path)
    assert [what for what, _ in outcome.broken] == []
    assert outcome.counts["read"] > 40
    assert outcome.counts["InputError"] > 40


def load(name: str, path: Path) -> ModuleType:
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
