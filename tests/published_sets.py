"""Small sets in the layouts in which sets of remote sensing and of conversations are published."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from curriculum.data.importers import Entry, ImportedSet, import_set, importer, load_records
from curriculum.data.importers.scenes import BANDS, EUROSAT

DISC = "Vh09m04M2N2N2N2O0O2O0000000000000001N101N2N2N2N3LTf0"
"""What the reference implementation of COCO writes of a disc of radius 12 about (18, 30) in 40 x 60 pixels."""


def encoded(seed: int, suffix: str = "PNG") -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    Pillow.fromarray(pixels).save(stream, suffix)
    return stream.getvalue()


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(seed, {".jpg": "JPEG", ".tif": "TIFF"}.get(path.suffix, "PNG")))


def written(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def run(name: str, source: Path, out: Path, *, disjoint: bool = False) -> ImportedSet:
    import_set(importer(name), source, out, disjoint=disjoint)
    return load_records(out)


def reader(written: Mapping[str, Callable[[Path], Any]], folder: Path) -> Callable[..., ImportedSet]:
    """What reads a small set by its name, written into the folder once, and imported."""

    def read(name: str, **options: bool) -> ImportedSet:
        source = folder / name
        if not source.exists():
            source.mkdir()
            written[name](source)
        return run(name, source, folder / f"{name}-out", **options)

    return read


def said(item: Entry) -> list[str]:
    return [part.text for message in item.record.messages for part in message.parts if part.image is None]


def karpathy(root: Path, table: str, folder: str, suffix: str, splits: tuple[str, ...]) -> None:
    images = []
    for number, split in enumerate(splits):
        name = f"airport_{number}{suffix}"
        picture(root / folder / name, number)
        raw = [f"Picture {number} shows {n} planes ." for n in range(5)]
        sentences = [
            {"tokens": t.split(), "raw": t, "imgid": number, "sentid": 5 * number + n} for n, t in enumerate(raw)
        ]
        images.append({"filename": name, "imgid": number, "split": split, "sentences": sentences, "sentids": [0]})
    images[0]["sentences"][4]["raw"] = images[0]["sentences"][3]["raw"]  # the sets repeat sentences up to five
    images[1]["sentences"][2]["raw"] = "  "
    written(root / table, {"images": images, "dataset": "made"})


def rsicd(root: Path) -> None:
    karpathy(root, "annotations_rsicd/dataset_rsicd.json", "RSICD_images", ".jpg", ("train", "val", "test"))


def ucm_captions(root: Path) -> None:
    karpathy(root, "dataset.json", "imgs", ".tif", ("train", "val", "test"))


def rsitmd(root: Path) -> None:
    karpathy(root, "dataset_RSITMD.json", "images", ".tif", ("train", "test"))


def rsvqa(root: Path, prefix: str, folder: str, names: Mapping[str, str], parts: tuple[str, ...]) -> None:
    """Two questions a picture; `names` are original names by id, and every part in turn gets the next picture."""
    for position, part in enumerate(parts):
        questions, answers, images = [], [], []
        for number, original in names.items():
            mine, id_ = list(names).index(number) % len(parts) == position, int(number)
            twice = [2 * id_, 2 * id_ + 1]
            if not mine:
                images.append({"id": id_, "active": False})
                questions += [{"id": n, "active": False} for n in twice]
                answers += [{"id": n + 100, "active": False} for n in twice]
                continue
            picture(root / folder / f"{number}.tif", id_)
            images.append({"id": id_, "original_name": original, "questions_ids": twice, "active": True})
            for n, (kind, text, said) in zip(
                twice,
                (("comp", "Are there more roads than lakes?", "yes"), ("count", "How many roads?", 7)),
                strict=True,
            ):
                questions.append(
                    {"id": n, "img_id": id_, "type": kind, "question": text, "answers_ids": [n + 100], "active": True}
                )
                answers.append({"id": n + 100, "question_id": n, "answer": said, "active": True})
        for key, items in (("questions", questions), ("answers", answers), ("images", images)):
            written(root / f"{prefix}_split_{part}_{key}.json", {key: items})


def rsvqa_lr(root: Path) -> None:
    rsvqa(root, "LR", "Images_LR", {str(n): f"T31UFU_{n % 3}_0-{n}.tif" for n in range(9)}, ("train", "val", "test"))


def rsvqa_hr(root: Path) -> None:
    tiles = {str(n): f"98{n % 4}217_{n}-1.tif" for n in range(8)}
    rsvqa(root, "USGS", "Data", tiles, ("train", "val", "test", "test_phili"))


def dior_object(name: str, box: tuple[int, int, int, int], phrase: str) -> str:
    sides = "".join(f"<{side}>{v}</{side}>" for side, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return (
        f"<object><name>{name}</name><pose>Unspecified</pose><bndbox>{sides}</bndbox>"
        f"<description>{phrase}</description></object>"
    )


def dior_annotation(root: Path, number: int, *objects: str) -> None:
    path = root / "Annotations" / f"{number:05}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?><annotation><filename>{number:05}.jpg</filename>'
        f"<size><width>800</width><height>600</height><depth>3</depth></size>{''.join(objects)}</annotation>"
    )
    picture(root / "JPEGImages" / f"{number:05}.jpg", number)


def dior_rsvg(root: Path) -> None:
    golf = dior_object("golffield", (133, 237, 684, 472), "A green and brown golf field")
    dior_annotation(root, 1, golf)
    dior_annotation(
        root, 2, dior_object("ship", (0, 0, 8, 6), "A ship"), dior_object("ship", (790, 590, 800, 600), "Another")
    )
    dior_annotation(
        root, 7, dior_object("dam", (10, 10, 900, 20), "Outside"), dior_object("dam", (10, 10, 90, 20), "A dam")
    )
    for name, numbers in (("train", "0\n2\n"), ("val", "1\n"), ("test", "3\n4\n")):
        (root / f"{name}.txt").write_text(numbers)


def rrsis_d(root: Path) -> None:
    images = [{"id": n, "file_name": f"{n:05}.jpg", "height": 40, "width": 60} for n in (1, 2)]
    whole = {"size": [40, 60], "counts": [0, 2400]}
    empty = {"size": [40, 60], "counts": [2400]}
    annotations = [
        {"id": 11, "image_id": 1, "category_id": 1, "segmentation": [{"size": [40, 60], "counts": DISC}], "bbox": []},
        {"id": 12, "image_id": 2, "category_id": 1, "segmentation": whole, "bbox": []},
        {"id": 13, "image_id": 2, "category_id": 1, "segmentation": [empty], "bbox": []},
    ]
    refs = [
        {
            "ref_id": 1,
            "ann_id": 11,
            "image_id": 1,
            "split": "train",
            "sentences": [{"raw": "the tank", "sent": "the tank"}],
        },
        {"ref_id": 2, "ann_id": 12, "image_id": 2, "split": "val", "sentences": [{"raw": "all of it"}, {"raw": "it"}]},
        {"ref_id": 3, "ann_id": 13, "image_id": 2, "split": "test", "sentences": [{"raw": "nothing"}]},
    ]
    written(root / "rrsisd" / "instances.json", {"images": images, "annotations": annotations, "categories": []})
    written(root / "rrsisd" / "refs(unc).json", refs)
    for n in (1, 2):
        picture(root / "images" / "rrsisd" / "JPEGImages" / f"{n:05}.jpg", n)


def eurosat(root: Path) -> None:
    for position, label in enumerate(EUROSAT):
        for n in (1, 2, 10):
            picture(root / "EuroSAT_RGB" / label / f"{label}_{n}.jpg", 10 * position + n)
    for part, n in (("train", 1), ("val", 2), ("test", 10)):
        (root / f"eurosat-{part}.txt").write_text("".join(f"{label}_{n}.jpg\n" for label in list(EUROSAT)[:9]))


def eurosat_ms(root: Path) -> None:
    for label in EUROSAT:
        picture(root / "ds" / "tif" / label / f"{label}_1.tif")


def patch(folder: Path) -> None:
    for position, band in enumerate(BANDS):
        picture(folder / f"{folder.name}_{band}.tif", position)


def bigearthnet(root: Path) -> None:
    for n, labels in enumerate((["Pastures", "Water bodies"], ["Airports"], ["Airports", "Rice fields", "Vineyards"])):
        folder = root / "BigEarthNet-v1.0" / f"S2A_MSIL2A_20170613T101031_{n}_45"
        patch(folder)
        tile = f"S2A_MSIL1C_20170613T101031_N0205_R022_T33UU{'PQ'[n > 1]}_20170613T101608.SAFE"
        written(
            folder / f"{folder.name}_labels_metadata.json", {"labels": labels, "tile_source": tile, "projection": ""}
        )
        split = ("train", "val", "test")[n]
        (root / f"{split}.csv").write_text(f"{folder.name},S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{n}_45\n")


def bigearthnet_v2(root: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    scene = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP"
    rows = []
    for n, split in enumerate(("train", "validation", "test")):
        name = f"{scene}_{n}_57"
        patch(root / "BigEarthNet-S2" / scene / name)
        labels = [
            "Arable land",
            "Land principally occupied by agriculture, with significant areas of natural vegetation",
        ]
        rows.append(
            {"patch_id": name, "labels": labels[: n + 1], "split": split, "country": "Austria", "s1_name": "S1"}
        )
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "metadata.parquet")


def packed(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def rsteller(root: Path) -> None:
    for shard, split in enumerate(("train", "val")):
        members = []
        for n in (726, 727):
            about = {
                "patch_id": n + 10 * shard,
                "image_name": f"m_4107501_{'nw' if shard else 'ne'}_18_060_202{n - 726}1108",
            }
            annotations = [
                {"task": 1, "text": "A wooded area lies at the top.", "annotator": "a/Small"},
                {"task": 3, "text": "Woods lie to the north.", "annotator": "a/Nemo"},
            ]
            told = {"metadata": about, "annotations": annotations}
            members += [(f"{n}.jpg", encoded(n + 9 * shard, "JPEG")), (f"{n}.json", json.dumps(told).encode())]
        packed(root / "JPG" / f"{split}-{shard:06}.tar", members)


def gaia(root: Path) -> None:
    for position, split in enumerate(("train", "test", "val")):
        members, told = [], []
        for n in range(2):
            id_, captions = f"{split}{n}", [f"The image showcases: a fire seen {k} times." for k in range(5)]
            about = {"url": "https://x.invalid/a.png", "caption": "Fire", "key": f"{n:09}", "status": "success"}
            members += [
                (f"{n:09}.json", json.dumps({**about, "id": id_, "captions": captions}).encode()),
                (f"{n:09}.png", encoded(10 * position + n)),
                (f"{n:09}.txt", b"Fire"),
            ]
            told.append({"id": id_, "captions": captions, "lat": 38.0, "lon": 23.5, "sensor": ["MODIS"], "tag": None})
        packed(root / split / "00000.tar", members)
        written(root / f"{split}_data.json", told)


def web_dataset(root: Path) -> None:
    packed(
        root / "train-0.tar", [("./a.b/x.png", encoded(1)), ("./a.b/x.txt", "Über ".encode()), ("y.jpg", encoded(2))]
    )
    packed(root / "test-0.tar.gz", [("x.seg.png", b"?"), ("x.png", encoded(3)), ("x.json", b'{"text": "One"}')], "w:gz")


def turn(speaker: str, value: Any) -> dict[str, Any]:
    return {"from": speaker, "value": value}


def llava(root: Path) -> None:
    for n in range(4):
        picture(root / "images" / "coco" / f"{n}.png", n)
    items = [
        {"id": "a", "image": "coco/0.png",
         "conversations": [turn("human", "<image>\nWhat is it?"), turn("gpt", "A cat.")]},
        {"id": "a", "image": ["coco/1.png", "coco/2.png"],
         "conversations": [turn("human", "Is <image> before <image>?"), turn("gpt", "Yes."), turn("human", "Why?"),
                           turn("gpt", "The tree grew.")]},
        {"id": "text", "conversations": [turn("system", "Be brief."), turn("human", "Hello"), turn("gpt", "Hello.")]},
        {"id": "v", "video": "a.mp4", "conversations": [turn("human", "<video>\nWhat?"), turn("gpt", "That.")]},
        {"id": "e", "image": "coco/3.png", "conversations": [turn("human", "<image>\nWhat?"), turn("gpt", " ")]},
    ]  # fmt: skip
    written(root / "train.json", items)
    flags = {"chest_xray": False, "mri": False, "histology": False, "gross": False, "ct_scan": True}
    med = {
        "id": "m",
        "image": "coco/3.png",
        "domain": flags,
        "conversatons": [turn("human", "What?"), turn("gpt", "A cyst.")],
    }
    (root / "test.jsonl").write_text(json.dumps(med) + "\n\n")


def chat_rows(n: int) -> list[dict[str, Any]]:
    def said(role: str, *parts: str) -> dict[str, Any]:
        content = [{"type": "text" if part else "image", "text": part or None} for part in parts]
        return {"role": role, "content": content}

    image = {"bytes": encoded(n), "path": None}
    return [
        {"images": [image], "messages": [said("user", "", "What is it?"), said("assistant", f"Number {n}.")]},
        {"images": [], "messages": [said("user", "Hello"), said("assistant", "Hello.")]},
        {"images": [image, {"bytes": None, "path": "raw/1.png"}],
         "messages": [said("user", "First ", "", " then ", ""), said("assistant", "Yes.")]},
    ]  # fmt: skip


def hugging_face(root: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    picture(root / "raw" / "1.png", 77)
    for n, split in enumerate(("train", "validation", "test")):
        (root / "data").mkdir(exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(chat_rows(n)), root / f"data/{split}-00000-of-00001.parquet")


def saved_to_disk(root: Path) -> None:
    import pyarrow

    picture(root / "raw" / "1.png", 77)
    written(root / "dataset_dict.json", {"splits": ["train", "test"]})
    for n, split in enumerate(("train", "test")):
        folder = root / split
        written(folder / "state.json", {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split})
        written(folder / "dataset_info.json", {"features": {}})
        for name in ("data-00000-of-00001.arrow", "cache-1f.arrow"):
            table = pyarrow.Table.from_pylist(chat_rows(n))
            with pyarrow.OSFile(str(folder / name), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table, max_chunksize=2)


REMOTE_SENSING = {
    "rsicd": rsicd,
    "ucm-captions": ucm_captions,
    "rsitmd": rsitmd,
    "rsvqa-lr": rsvqa_lr,
    "rsvqa-hr": rsvqa_hr,
    "dior-rsvg": dior_rsvg,
    "rrsis-d": rrsis_d,
    "eurosat": eurosat,
    "eurosat-ms": eurosat_ms,
    "bigearthnet": bigearthnet,
    "bigearthnet-43": bigearthnet,
    "bigearthnet-v2": bigearthnet_v2,
}
GENERIC = {
    "rsteller": rsteller,
    "gaia": gaia,
    "webdataset": web_dataset,
    "llava": llava,
    "huggingface": hugging_face,
}
