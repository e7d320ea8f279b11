"""Volumes beside DICOM: what is written by their own tools comes back with its values and its place, or a reason."""

from __future__ import annotations

import bz2
import gzip
import struct
import zlib
from itertools import permutations, product

import nibabel
import nrrd
import numpy as np
import pytest
from mutations import check_damaged
from nibabel.orientations import apply_orientation, inv_ornt_aff

from domains.formats import content
from domains.formats.volumes import volume
from domains.formats.volumes.payload import beside, read_bytes
from domains.radiology import reader
from fovea.errors import GeometryError, InputError, LimitError, UnsupportedError
from fovea.types import LPS, PIXEL

rng = np.random.default_rng(0)
DATA = rng.integers(-900, 1900, (4, 5, 6)).astype(np.int16)
AFFINE = np.array([[2.0, 0.1, 0, -9], [-0.1, 3, 0.2, -5], [0, -0.2, 4, 7], [0, 0, 0, 1]])
"""Index to LPS in mm, oblique."""
RAS = np.diag((-1.0, -1, 1, 1))


def turned(axes, flips):
    """DATA along other axes, and the affine that puts it at the same place."""
    turn = np.array(list(zip(axes, flips, strict=True)), float)
    return apply_orientation(DATA, turn), AFFINE @ inv_ornt_aff(turn, DATA.shape)


def same_place(image, data=DATA, affine=AFFINE):
    """Whether the image holds `data` where `affine` puts it."""
    index = np.argwhere(np.ones(data.shape, bool))
    places = image.grid.index(index @ affine[:3, :3].T + affine[:3, 3])
    assert np.abs(places - places.round()).max() < 1e-4
    s, r, c = places.round().astype(int).T
    np.testing.assert_array_equal(image.pixels[0, s, r, c], data[tuple(index.T)])
    assert all(image.grid.affine[axis, axis] > 0 for axis in range(3)), "columns left, rows back, slices up"


# how each format is written


def write_nrrd(folder, data=DATA, affine=AFFINE, space="left-posterior-superior", scale=1.0, **header):
    sign = {"left-posterior-superior": (1, 1, 1), "LAS": (1, -1, 1), "right-anterior-superior": (-1, -1, 1)}[space]
    placed = np.diag((*sign, 1)) @ affine / scale
    path = folder / ("a.nhdr" if header.get("detached") else "a.nrrd")
    header.pop("detached", None)
    fields = {"space": space, "space directions": placed[:3, :3].T, "space origin": placed[:3, 3]}
    nrrd.write(str(path), data, fields | header, relative_data_path=True)
    return path


def write_meta(folder, data=DATA, affine=AFFINE, name="LOCAL", compressed=False, big=False, drop=(), **more):
    size = np.linalg.norm(affine[:3, :3], axis=0)
    fields = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": big,
        "CompressedData": compressed,
        "TransformMatrix": " ".join(map(repr, map(float, (affine[:3, :3] / size).T.ravel()))),
        "Offset": " ".join(map(repr, map(float, affine[:3, 3]))),
        "ElementSpacing": " ".join(map(repr, map(float, size))),
        "DimSize": " ".join(map(str, data.shape[:3])),
        "ElementType": "MET_SHORT",
        **more,
        "ElementDataFile": name,
    }
    head = "".join(f"{key} = {value}\n" for key, value in fields.items() if key not in drop).encode()
    raw = data.astype(">i2" if big else "<i2").tobytes("F")
    raw = zlib.compress(raw) if compressed else raw
    path = folder / ("a.mha" if name == "LOCAL" else "a.mhd")
    path.write_bytes(head + (raw if name == "LOCAL" else b""))
    if name == "a.raw":
        (folder / name).write_bytes(raw)
    return path


def write_nifti(folder, data=DATA, affine=AFFINE, name="a.nii", kind=nibabel.Nifti1Image):
    nibabel.save(kind(data, RAS @ affine), folder / name)
    return folder / name


def write_mgh(folder, data=DATA, affine=AFFINE, name="a.mgz"):
    nibabel.save(nibabel.MGHImage(data.astype(np.float32), RAS @ affine), folder / name)
    return folder / name


WRITERS = {
    "NRRD gzip": write_nrrd,
    "NRRD raw": lambda folder, *args: write_nrrd(folder, *args, encoding="raw"),
    "NRRD bzip2": lambda folder, *args: write_nrrd(folder, *args, encoding="bz2"),
    "NRRD text": lambda folder, *args: write_nrrd(folder, *args, encoding="ascii"),
    "NRRD big endian": lambda folder, data, affine: write_nrrd(folder, data.astype(">i2"), affine, endian="big"),
    "NRRD detached": lambda folder, *args: write_nrrd(folder, *args, detached=True),
    "NRRD RAS": lambda folder, *args: write_nrrd(folder, *args, space="right-anterior-superior"),
    "NRRD LAS": lambda folder, *args: write_nrrd(folder, *args, space="LAS"),
    "NRRD cm": lambda folder, *a: write_nrrd(folder, *a, scale=10, **{"space units": ["cm", "cm", "cm"]}),
    "MetaImage": write_meta,
    "MetaImage zlib": lambda folder, *args: write_meta(folder, *args, compressed=True),
    "MetaImage big endian": lambda folder, *args: write_meta(folder, *args, big=True),
    "MetaImage detached": lambda folder, *args: write_meta(folder, *args, name="a.raw"),
    "MetaImage header size": lambda folder, *args: write_meta(folder, *args, name="a.raw", HeaderSize=-1),
    "NIfTI": write_nifti,
    "NIfTI gzip": lambda folder, *args: write_nifti(folder, *args, name="a.nii.gz"),
    "NIfTI pair": lambda folder, *args: write_nifti(folder, *args, name="a.hdr", kind=nibabel.Nifti1Pair),
    "NIfTI-2 pair": lambda folder, *args: write_nifti(folder, *args, name="a.hdr", kind=nibabel.Nifti2Pair),
    "MGH": write_mgh,
    "MGH plain": lambda folder, *args: write_mgh(folder, *args, name="a.mgh"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_volume_comes_back_with_its_values_and_its_place(tmp_path, name):
    for axes, flips in (((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1))):
        path = WRITERS[name](tmp_path, *turned(axes, flips))
        assert volume.kind(path)
        (image,) = volume.read(path).images
        assert image.grid.frame == LPS
        same_place(image)


def test_any_orientation_of_an_nrrd_is_one_image(tmp_path):
    plain = volume.read(write_nrrd(tmp_path)).images[0]
    for axes, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        image = volume.read(write_nrrd(tmp_path, *turned(axes, flips))).images[0]
        np.testing.assert_allclose(image.grid.affine, plain.grid.affine, atol=1e-9)
        np.testing.assert_array_equal(image.pixels, plain.pixels)


@pytest.mark.parametrize("kind", ["nrrd", "mha", "nii.gz", "nii"])
def test_what_simpleitk_writes_is_where_simpleitk_reads_it(tmp_path, kind):
    itk = pytest.importorskip("SimpleITK")
    size = np.linalg.norm(AFFINE[:3, :3], axis=0)
    turn = np.linalg.qr(AFFINE[:3, :3] / size)[0]
    turn *= np.sign(np.diag(turn))
    written = itk.GetImageFromArray(DATA.T)
    written.SetSpacing(size)
    written.SetDirection(turn.ravel())
    written.SetOrigin(AFFINE[:3, 3])
    itk.WriteImage(written, str(tmp_path / f"a.{kind}"), True)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * size, AFFINE[:3, 3]
    same_place(volume.read(tmp_path / f"a.{kind}").images[0], affine=affine)


def test_further_axes_are_further_images(tmp_path):
    many = rng.integers(0, 99, (3, 4, 5, 2, 3)).astype(np.int16)
    images = volume.read(write_nifti(tmp_path, many)).images
    assert len(images) == 6
    for number, image in enumerate(images):
        same_place(image, many[:, :, :, number % 2, number // 2])
    four = rng.integers(0, 99, (2, 3, 4, 5)).astype(np.int16)
    directions = np.full((4, 3), np.nan)
    directions[1:] = AFFINE[:3, :3].T
    fields = {"space": "LPS", "space directions": directions, "space origin": AFFINE[:3, 3]}
    nrrd.write(str(tmp_path / "b.nrrd"), four, fields | {"kinds": ["list", *["domain"] * 3]})
    images = volume.read(tmp_path / "b.nrrd").images
    assert len(images) == 2
    for number, image in enumerate(images):
        same_place(image, four[number])
    images = volume.read(write_meta(tmp_path, np.moveaxis(four, 0, 3), NDims=4, DimSize="3 4 5 2",
                                    TransformMatrix=" ".join(map(str, np.eye(4).ravel())),
                                    Offset="1 2 3 0", ElementSpacing="1 1 1 1")).images  # fmt: skip
    assert len(images) == 2
    np.testing.assert_array_equal(images[1].pixels[0], four[1].T)


def test_colour_is_red_green_and_blue(tmp_path):
    colors = rng.integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    packed = colors.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    files = [write_nifti(tmp_path, packed)]
    directions = np.full((4, 3), np.nan)
    directions[1:] = AFFINE[:3, :3].T
    fields = {"space": "LPS", "space origin": AFFINE[:3, 3], "space directions": directions}
    files.append(tmp_path / "c.nrrd")
    nrrd.write(str(files[1]), np.moveaxis(colors, 3, 0), fields | {"kinds": ["RGB-color", *["domain"] * 3]})
    for file in files:
        (image,) = volume.read(file).images
        assert [channel.name for channel in image.channels] == ["red", "green", "blue"]
        index = np.argwhere(np.ones(colors.shape[:3], bool))
        s, r, c = image.grid.index(index @ AFFINE[:3, :3].T + AFFINE[:3, 3]).round().astype(int).T
        np.testing.assert_allclose(image.pixels[:, s, r, c].T * 255, colors[tuple(index.T)], atol=1e-4)
    assert reader.load(files[0]).modality == "MR"


def test_what_a_file_does_not_tell_is_not_made_up(tmp_path):
    plain = tmp_path / "plain.nrrd"
    nrrd.write(str(plain), DATA, {"spacings": [1.0, 2, 3]})
    unplaced = tmp_path / "unplaced.nrrd"
    nrrd.write(str(unplaced), DATA, {"space": "LPS", "space directions": AFFINE[:3, :3].T})
    other = tmp_path / "other.nrrd"
    fields = {"space directions": AFFINE[:3, :3].T, "space origin": AFFINE[:3, 3]}
    nrrd.write(str(other), DATA, {"space": "3D-right-handed", **fields})
    analyze = nibabel.AnalyzeImage(DATA, np.eye(4))
    nibabel.save(analyze, tmp_path / "a.img")
    files = [plain, unplaced, other, tmp_path / "a.hdr"]
    for key in ("Offset", "TransformMatrix", "ElementSpacing"):
        (tmp_path / key).mkdir()
        files.append(write_meta(tmp_path / key, drop=(key,)))
    for file in files:
        found = volume.read(file)
        assert found.images[0].grid.frame == PIXEL, file.name
        assert found.meta["geometry"]
        np.testing.assert_array_equal(found.images[0].pixels[0], DATA.T)
    with pytest.raises(GeometryError, match="units"):
        volume.read(write_nrrd(tmp_path, **{"space units": ["in", "in", "in"]}))
    flat = AFFINE.copy()
    flat[:, 2] = flat[:, 1]
    for write in (write_nrrd, lambda *a: write_meta(*a)):
        with pytest.raises(GeometryError):
            volume.read(write(tmp_path, DATA, flat))


def test_units_are_told_or_seen_never_written_over(tmp_path):
    told = write_nrrd(tmp_path, np.abs(DATA), **{"sample units": "HU"})
    assert reader.load(told).modality == "CT"
    assert reader.load(told).images[0].channels[0].unit == "HU"
    assert volume.read(write_nrrd(tmp_path)).images[0].channels[0].unit == ""
    assert reader.load(write_meta(tmp_path, np.abs(DATA), Modality="MET_MOD_CT")).modality == "CT"
    assert reader.load(write_meta(tmp_path, DATA, Modality="MET_MOD_MR")).modality == "MR"
    assert reader.load(write_meta(tmp_path, np.abs(DATA))).modality == "MR"


def test_pixels_lie_beside_their_header_and_nowhere_else(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(DATA.astype("<i2").tobytes("F"))
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    for name in (
        "../secret.raw",
        str(tmp_path / "secret.raw"),
        "link.raw",
        "missing.raw",
        "..\\secret.raw",
        "LIST",
        "",
    ):
        with pytest.raises(InputError) as caught:
            volume.read(write_meta(folder, name=name))
        assert "secret" not in str(caught.value)
        detached = folder / "b.nhdr"
        detached.write_text(
            "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nendian: little\nencoding: raw\n"
            f"data file: {name or '../secret.raw'}\n"
        )
        with pytest.raises(InputError):
            _ = volume.read(detached).images[0].pixels
    (folder / "good.raw").write_bytes((tmp_path / "secret.raw").read_bytes())
    assert beside(folder / "a.mhd", "good.raw") == folder / "good.raw"
    (folder / "pair.hdr").write_bytes(write_nifti(folder, name="p.hdr", kind=nibabel.Nifti1Pair).read_bytes())
    with pytest.raises(InputError, match="without the file"):
        volume.read(folder / "pair.hdr")


def nrrd_text(sizes, encoding="raw", kind="double"):
    return (
        f"NRRD0004\ntype: {kind}\ndimension: {len(sizes)}\nsizes: {' '.join(map(str, sizes))}\n"
        f"endian: little\nencoding: {encoding}\n\n"
    ).encode()


def test_a_declaration_is_not_believed(tmp_path):
    big = tmp_path / "big.nrrd"
    big.write_bytes(nrrd_text((10**6, 10**6, 10)))
    with pytest.raises(LimitError):
        volume.read(big)
    for encoding, pack in (("raw", bytes), ("gzip", gzip.compress), ("bz2", bz2.compress)):
        short = tmp_path / f"{encoding}.nrrd"
        short.write_bytes(nrrd_text((512, 512, 512), encoding) + pack(bytes(1000)))
        with pytest.raises(InputError, match="ends before"):
            _ = volume.read(short).images[0].pixels
    bomb = tmp_path / "bomb.nrrd"
    bomb.write_bytes(nrrd_text((2, 2, 2), "gzip") + gzip.compress(bytes(2**26)))
    assert volume.read(bomb).images[0].pixels.shape == (1, 2, 2, 2), "no more is unpacked than was declared"
    for name in ("a.nii", "a.nii.gz", "a.mgz"):
        path = write_mgh(tmp_path, name=name) if name.endswith("mgz") else write_nifti(tmp_path, name=name)
        raw = bytearray(gzip.decompress(path.read_bytes()) if name != "a.nii" else path.read_bytes())
        at, form = (4, ">3i") if name.endswith("mgz") else (42, "<3h")
        raw[at : at + struct.calcsize(form)] = struct.pack(form, 600, 600, 600)
        path.write_bytes(gzip.compress(bytes(raw)) if name != "a.nii" else bytes(raw))
        with pytest.raises(InputError, match="ends before"):
            volume.read(path)
    endless = tmp_path / "endless.nrrd"
    endless.write_bytes(b"NRRD0004\n" + b"#\n" * 2**20)
    with pytest.raises(InputError, match="endless"):
        volume.read(endless)


def test_the_limit_holds_before_anything_is_read(tmp_path, monkeypatch):
    files = [WRITERS[name](tmp_path, DATA, AFFINE) for name in ("NRRD gzip", "MetaImage", "MGH", "NIfTI pair")]
    packed = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    color = write_nifti(tmp_path, packed, name="color.nii")
    monkeypatch.setattr(content, "LIMIT", 100)
    for file in files:
        with pytest.raises(LimitError, match="4 × 5 × 6"):
            volume.read(file)
    with pytest.raises(LimitError):
        volume.read(color)


@pytest.mark.parametrize("name", ["NRRD gzip", "NRRD raw", "MetaImage zlib", "NIfTI gzip", "NIfTI pair", "MGH"])
def test_broken_bytes_give_an_image_or_a_reason(tmp_path, name):
    path = WRITERS[name](tmp_path, DATA, AFFINE)
    check_damaged(path, lambda file: volume.read(file).images[:2], 150)


def test_streams_after_each_other_and_skips_are_read(tmp_path):
    data = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(b"head" + gzip.compress(data[:1000]) + gzip.compress(data[1000:]))
    assert read_bytes(tmp_path / "a", 4, 990, 3000, "zlib") == data[990:3990]
    assert read_bytes(tmp_path / "a", 4, 0, len(data), "zlib") == data
    (tmp_path / "b").write_bytes(b"head" + bz2.compress(data))
    assert read_bytes(tmp_path / "b", 4, 7, len(data) - 7, "bz2") == data[7:]
    with pytest.raises(UnsupportedError):
        read_bytes(tmp_path / "b", 4, 0, 1, "xz")


def test_what_is_no_volume_is_said_to_be_none(tmp_path):
    for name, head in (("a.trk", b"TRACK\0"), ("a.txt", b"a = b\nc = d\n"), ("a.mnc", b"\x89HDF"), ("a.par", b"hello")):
        (tmp_path / name).write_bytes(head + bytes(400))
        assert not volume.kind(tmp_path / name)
        with pytest.raises(UnsupportedError):
            volume.read(tmp_path / name)
    for kinds in (["complex", "domain", "domain"], ["3D-symmetric-matrix", "domain", "domain"]):
        nrrd.write(str(tmp_path / "t.nrrd"), DATA, {"kinds": kinds})
        with pytest.raises(UnsupportedError):
            volume.read(tmp_path / "t.nrrd")
