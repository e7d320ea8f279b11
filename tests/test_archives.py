"""Archives: what comes out is what went in, and what is hostile is refused before anything is written."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.formats import archives
from fovea.errors import InputError, LimitError, UnsupportedError

FILES = {"a.dcm": b"first" * 999, "folder/b.dcm": os.urandom(70_000), "folder/deep/empty": b""}
TARS = ("w", "w:gz", "w:bz2", "w:xz")


@pytest.fixture(autouse=True)
def room(tmp_path, monkeypatch) -> Path:
    """Where temporary folders are made: it has to be empty whenever nothing is unpacked."""
    folder = tmp_path / "room" / "temporary"
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT, **odd) -> Path:
    with tarfile.open(path, mode, format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in odd.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(path: Path, room: Path, error: type[InputError] = InputError, match: str | None = None) -> None:
    """Refused with nothing written, in the temporary folder or beside it."""
    before = sorted(room.parent.parent.rglob("*"))
    written = []
    real = Path.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", lambda p, mode="r", *a, **k: written.append(mode) or real(p, mode, *a, **k))
        with pytest.raises(error, match=match), archives.unpacked(path):
            pass
        with pytest.raises(error, match=match):
            archives.members(path)
    assert not [mode for mode in written if mode != "rb"]
    assert sorted(room.parent.parent.rglob("*")) == before


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_comes_out_as_it_went_in(tmp_path, room, method):
    path = zipped(tmp_path / "a.zip", FILES, method)
    assert archives.is_archive(path)
    assert archives.members(path) == [(name, len(data)) for name, data in FILES.items()]
    with archives.unpacked(path) as folder:
        assert content(folder) == FILES
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.parent == room
    assert not list(room.iterdir())


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", TARS)
def test_a_tar_comes_out_as_it_went_in(tmp_path, room, mode, form):
    files = FILES | {"long/" + "n" * 90 + "/" + "m" * 90: b"x"}
    if form != tarfile.USTAR_FORMAT:
        files["ü" * 120] = b"letters"
    path = tarred(tmp_path / "a.tar", files, mode, form)
    assert archives.is_archive(path)
    assert archives.members(path) == [(name, len(data)) for name, data in files.items()]
    with archives.unpacked(path) as folder:
        assert content(folder) == files
    assert not list(room.iterdir())


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_is_compressed_alone_keeps_its_name(tmp_path, pack):
    data = b"DICM" * 99_999
    path = tmp_path / "scan.dcm.gz"
    path.write_bytes(pack(data))
    assert archives.members(path) == [("scan.dcm", len(data))]
    with archives.unpacked(path) as folder:
        assert content(folder) == {"scan.dcm": data}


@given(st.dictionaries(st.text("abcü/.", min_size=1, max_size=6), st.binary(max_size=99), max_size=5), st.booleans())
def test_any_names_come_out_as_they_went_in_or_not_at_all(files, tar):
    with tempfile.TemporaryDirectory() as name:
        path = (tarred if tar else zipped)(Path(name, "a"), files)
        try:
            with archives.unpacked(path) as folder:
                told = {os.path.normpath(n): data for n, data in files.items() if not n.endswith("/")}
                assert content(folder) == told
        except InputError:
            parts = [n.split("/") for n in files]
            names = [os.path.normpath(n).casefold() for n in files]
            clash = any(
                a == b or b.startswith(a + "/") for i, a in enumerate(names) for b in names[:i] + names[i + 1 :]
            )
            assert clash or not files or any({"", "..", "."} & set(p) for p in parts)


@pytest.mark.parametrize(
    "name",
    ["../out", "a/../../out", "/out", "\\out", "..\\out", "a\\..\\..\\out", "C:\\out", "c:out", "a//b", "a\x01b", "..",
     "n" * 300, "a/./b", "/".join("a" * 99)],
)  # fmt: skip
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, room, pack, name):
    refused(pack(tmp_path / "a", {"good": b"1", name: b"2"}), room, match="member 2")


def test_a_name_with_nul_is_refused(tmp_path, room):
    path = zipped(tmp_path / "a.zip", {"good": b"1", "aXb": b"2"})
    path.write_bytes(path.read_bytes().replace(b"aXb", b"a\0b"))
    refused(path, room, match="member 2")


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("names", [("a", "A"), ("x/ü", "x/u\u0308"), ("a", "a/b"), ("a/b", "a"), ("a", "./a")])
def test_a_name_of_two_members_is_refused(tmp_path, room, pack, names):
    refused(pack(tmp_path / "a", dict.fromkeys(names, b"1")), room, match="name of another")


def test_a_name_twice_is_refused(tmp_path, room):
    path = zipped(tmp_path / "a.zip", {"aa": b"1", "ab": b"2"})
    path.write_bytes(path.read_bytes().replace(b"ab", b"aa"))
    refused(path, room, match="name of another")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_of_a_zip_are_refused(tmp_path, room, kind):
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path / "a.zip", room, match="link or device")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "good", "x" * 200])
def test_links_and_devices_of_a_tar_are_refused(tmp_path, room, kind, target):
    refused(tarred(tmp_path / "a.tar", {"link": b""}, type=kind, linkname=target), room, match="a link, a device")


def test_sparse_files_of_a_tar_are_refused(tmp_path, room):
    refused(tarred(tmp_path / "a.tar", {"s": b""}, type=tarfile.GNUTYPE_SPARSE), room, match="sparse")
    refused(tarred(tmp_path / "b.tar", {"s": b""}, pax_headers={"GNU.sparse.major": "1"}), room, match="sparse")


def test_an_encrypted_zip_is_refused(tmp_path, room):
    path = zipped(tmp_path / "a.zip", {"a": b"secret"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, room, UnsupportedError, "encrypted")


def test_other_ways_of_packing_are_refused(tmp_path, room):
    refused(zipped(tmp_path / "a.zip", {"a": b"1"}, zipfile.ZIP_LZMA), room, UnsupportedError, "deflated")
    (tmp_path / "b").write_bytes(b"no archive")
    refused(tmp_path / "b", room, UnsupportedError, "no archive")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_too_many_members_are_refused(tmp_path, room, pack, monkeypatch):
    monkeypatch.setattr(archives, "MEMBERS", 20)
    assert len(archives.members(pack(tmp_path / "a", {str(n): b"" for n in range(20)}))) == 20
    refused(pack(tmp_path / "b", {str(n): b"" for n in range(21)}), room, LimitError, "20 members")


def zeros(path: Path, kind: str, size: int) -> Path:
    """An archive of `size` zeros, written in small pieces."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("z", "w") as file:
            for _ in range(size >> 20):
                file.write(bytes(2**20))
    elif kind == "alone":
        with gzip.open(path, "wb") as file:
            for _ in range(size >> 20):
                file.write(bytes(2**20))
    else:
        info = tarfile.TarInfo("z")
        info.size = size
        with tarfile.open(path, f"w:{kind}") as archive, Path("/dev/zero").open("rb") as endless:
            archive.addfile(info, endless)
    return path


def peak(run) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["zip", "gz", "bz2", "xz", "alone"])
def test_a_bomb_is_refused_in_little_memory(tmp_path, room, kind):
    path = zeros(tmp_path / "bomb", kind, 80 * 2**20)
    assert peak(lambda: refused(path, room, LimitError, "times its size")) < 2**26


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_memory_does_not_grow_with_the_archive(tmp_path, kind, monkeypatch):
    path = zeros(tmp_path / "large", kind, 80 * 2**20)
    monkeypatch.setattr(archives, "RATIO", 10**9)

    def unpack() -> None:
        with archives.unpacked(path) as folder:
            assert (folder / "z").stat().st_size == 80 * 2**20

    assert peak(unpack) < 2**23


def test_a_total_above_the_limit_is_refused(tmp_path, room, monkeypatch):
    monkeypatch.setattr(archives, "TOTAL", 3000)
    refused(zipped(tmp_path / "a.zip", {"a": b"1" * 2000, "b": b"1" * 2000}), room, LimitError)
    refused(tarred(tmp_path / "b.tar", {"a": b"1" * 4000}), room, LimitError)


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path, room):
    path = zipped(tmp_path / "a.zip", {"a": bytes(10**6)})
    data = path.read_bytes().replace(struct.pack("<I", 10**6), struct.pack("<I", 10))
    path.write_bytes(data)
    with pytest.raises(InputError), archives.unpacked(path):
        pass
    assert not list(room.iterdir())


def test_members_that_overlap_are_refused(tmp_path, room):
    """Two entries of the list that share one member's bytes, as in a zip bomb without nesting."""
    path = zipped(tmp_path / "a.zip", {"aa": bytes(10**5), "ab": b"2"})
    data = path.read_bytes()
    first, second = data.index(b"PK\x01\x02"), data.rindex(b"PK\x01\x02")
    entry = bytearray(data[first:second])
    entry[46:48] = b"ab"
    path.write_bytes(data[:second] + entry + data[second + len(entry) :])
    refused(path, room, match="overlap")


def test_a_huge_header_is_refused_in_little_memory(tmp_path, room):
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(info.tobuf())
        for _ in range(100):
            file.write(bytes(2**20))
    assert peak(lambda: refused(tmp_path / "a.tar.gz", room, LimitError)) < 2**26


def test_a_long_list_of_members_is_refused_in_little_memory(tmp_path, room):
    path = zipped(tmp_path / "a.zip", {f"{n:05}": b"" for n in range(30_000)}, zipfile.ZIP_STORED)
    assert peak(lambda: refused(path, room, LimitError, "members")) < 2**26


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_archives_inside_stay_as_they_are(tmp_path, pack):
    inner = zipped(tmp_path / "inner.zip", FILES).read_bytes()
    with archives.unpacked(pack(tmp_path / "outer", {"inner.zip": inner})) as folder:
        assert content(folder) == {"inner.zip": inner}


def test_folders_are_no_members(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in (".", "./sub", "sub/"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
    assert archives.members(tmp_path / "a.tar") == []
    assert archives.members(zipped(tmp_path / "a.zip", {"sub/": b"", "sub/x": b"1"})) == [("sub/x", 1)]


@pytest.mark.parametrize("kind", ["zip", *TARS])
def test_broken_archives_raise_nothing_but_input_errors(tmp_path, room, kind):
    whole = tmp_path / "whole"
    original = (zipped(whole, FILES) if kind == "zip" else tarred(whole, FILES, kind)).read_bytes()
    random, path, failed = Random(kind), tmp_path / "broken", 0
    for turn in range(80):
        data = bytearray(original)
        for _ in range(random.randint(1, 5)):
            data[random.randrange(len(data))] = random.randrange(256)
        path.write_bytes(data[: random.randrange(1, len(data))] if turn % 3 == 0 else data)
        try:
            with archives.unpacked(path):
                pass
        except InputError:
            failed += 1
    assert failed > 15
    assert not list(room.iterdir())


def test_an_error_of_the_user_stays_his(tmp_path):
    path = zipped(tmp_path / "a.zip", FILES)
    with pytest.raises(ZeroDivisionError), archives.unpacked(path) as folder:
        raise ZeroDivisionError
    assert not folder.exists()


def test_heads_tell_what_an_archive_holds(tmp_path):
    for pack in (zipped, tarred):
        assert archives.heads(pack(tmp_path / "a", FILES)) == [data[:512] for data in FILES.values()]
    assert zlib.crc32(archives.heads(zeros(tmp_path / "b", "gz", 2**22), 1)[0]) == zlib.crc32(bytes(512))
