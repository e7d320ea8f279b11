"""How much burned-in text is found, and how often there is none where it is: `python benchmarks/burned_in.py DATA`.

DATA is a folder of DICOM and picture files. Text is written on what can be decoded: two fonts, several sizes, both
polarities, three contrasts against what lies below, near the border and anywhere. A text counts as found when 90 % of
its ink lies in boxes. The share of files with a box before anything is written on them is counted by modality.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread

from domains.radiology.deidentify.burned_in import find_text

TEXTS = ("MUSTERMANN ERIKA", "1961-03-04", "Doe^Jane 04/03/61", "ID: 4711-0815 F", "St. Anna Hospital 12:04:31")
SIZES = (9, 12, 16, 24, 36, 48)


def pictures(folder: Path, most: int) -> Iterator[tuple[str, np.ndarray]]:
    """Kind and grey values in [0, 1]; at most so many files of a kind, one of each series, none that is not decoded."""
    seen: Counter[str] = Counter()
    series = set()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
                kind, values = "picture", np.asarray(Image.open(path).convert("L"), np.float32)
            else:
                ds = dcmread(path, force=True)
                kind = str(ds.get("Modality"))
                if kind in ("SEG", "RTDOSE") or int(ds.get("BitsAllocated", 0)) == 1 or "PixelData" not in ds:
                    continue
                same = (ds.get("SeriesInstanceUID"), ds.get("Rows"), ds.get("InstanceNumber", 0) // 8)
                if same in series:
                    continue
                series.add(same)
                values = ds.pixel_array.astype(np.float32)
                values = values.max(-1) if int(ds.get("SamplesPerPixel", 1)) > 1 else values
                values = values[len(values) // 2] if values.ndim == 3 else values
        except Exception:  # noqa: BLE001 # what cannot be decoded is no picture to write on
            continue
        if seen[kind] >= most or values.ndim != 2 or min(values.shape) < 100 or np.ptp(values) == 0:
            continue
        seen[kind] += 1
        yield kind, (values - values.min()) / np.ptp(values)


def written(picture: np.ndarray, rng: np.random.Generator, style: tuple) -> tuple[np.ndarray, np.ndarray] | None:
    """The picture with a text on it, and its ink; None where it does not fit."""
    size, font, light, contrast, border = style
    text = TEXTS[rng.integers(len(TEXTS))]
    face = ImageFont.load_default(size) if font == "scaled" else ImageFont.load_default_imagefont()
    right, bottom = (int(edge) for edge in face.getbbox(text)[2:])
    rows, columns = picture.shape
    if right + 8 > columns or bottom + 8 > rows:
        return None
    at = (4, 4) if border else (rng.integers(2, columns - right - 2), rng.integers(2, rows - bottom - 2))
    sheet = Image.new("L", (columns, rows))
    ImageDraw.Draw(sheet).text((int(at[0]), int(at[1])), text, 255, font=face)
    ink = np.asarray(sheet, np.float32) / 255
    below = picture[ink > 0.5]
    level = min(1.0, np.percentile(below, 95) + contrast) if light else max(0.0, np.percentile(below, 5) - contrast)
    if abs(level - np.median(below)) < 0.8 * contrast:
        return None
    return (picture * (1 - ink) + level * ink).astype(np.float32), ink > 0.5


def measure(folder: Path, most: int, seed: int, likely: bool) -> dict:
    """Recall by what is written and how, and false alarms by modality."""
    rng = np.random.default_rng(seed)
    alarms, hits = defaultdict(list), defaultdict(list)
    for kind, picture in pictures(folder, most):
        clean = find_text(picture.astype(np.float32), likely)
        alarms[kind].append((bool(clean), covered(clean, picture.shape).mean()))
        for _ in range(6):
            size = int(rng.choice(SIZES))
            style = (size, "scaled" if rng.random() < 0.8 else "bitmap", bool(rng.random() < 0.6))
            style += (float(rng.choice((0.2, 0.4, 0.8))), bool(rng.random() < 0.5))
            made = written(picture, rng, style)
            if made is None:
                continue
            mask = covered(find_text(made[0], likely), picture.shape)
            hit = bool(mask[made[1]].mean() > 0.9)
            names = ("size", "font", "light", "contrast", "border")
            for name, value in zip(names, style, strict=True):
                if name != "size" or style[1] == "scaled":
                    hits[f"{name} {value}"].append(hit)
            hits[f"modality {kind}"].append(hit)
            hits["all"].append(hit)
    return {
        "recall": {name: [round(float(np.mean(h)), 3), len(h)] for name, h in sorted(hits.items())},
        "false alarms": {
            kind: {"files": len(a), "share": round(float(np.mean([x for x, _ in a])), 3),
                   "area": round(float(np.mean([x for _, x in a])), 4)}
            for kind, a in sorted(alarms.items())
        },
    }  # fmt: skip


def covered(boxes: list, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box.rows, box.columns] = True
    return mask


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--most", type=int, default=40, help="files of a kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--likely", action="store_true", help="as for files that often have text")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    json.dump(measure(given.data, given.most, given.seed, given.likely), sys.stdout, indent=1)
