"""Model cards as STAC items with the Machine Learning Model extension (mlm), version 1.1 to 1.5, read and written.

https://github.com/stac-extensions/mlm tells what the fields mean. Of a card we need the bands in their order, how
values are scaled, the size of the input, and the classes of the output. What would need somebody's code (`processing`
expressions, pre- and post-processing functions, band expressions) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fovea.errors import ModelError
from fovea.types import ExpertCard, Floats

SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
CLASSES = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
VERSIONS = "https://stac-extensions.github.io/version/v1.2.0/schema.json"
FILES = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_VERSION = re.compile(r"^https://stac-extensions\.github\.io/mlm/v1\.[1-5]\.\d+/schema\.json$")
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "min-max": ("minimum", "maximum"),
    "z-score": ("mean", "stddev"),
    "clip": ("minimum", "maximum"),
    "clip-min": ("minimum",),
    "clip-max": ("maximum",),
    "offset": ("value",),
    "scale": ("value",),
}
Task = Literal["segmentation", "classification"]
_TASKS: Mapping[str, Task] = {
    "segmentation": "segmentation",
    "semantic-segmentation": "segmentation",
    "classification": "classification",
    "scene-classification": "classification",
}
_AXES = {"channels": "channel", "bands": "channel", "band": "channel", "class": "channel", "classes": "channel"}


@dataclass(frozen=True)
class Scaling:
    """How the values of one band, or of all, become what the network reads; an empty type leaves them."""

    type: str
    values: tuple[float, ...] = ()

    def apply(self, band: NDArray[Any]) -> NDArray[Any]:
        """The formula of the extension for this type."""
        first, second = (*self.values, 0.0, 0.0)[:2]
        out: dict[str, Callable[[], NDArray[Any]]] = {
            "min-max": lambda: (band - first) / (second - first),
            "z-score": lambda: (band - first) / second,
            "clip": lambda: np.clip(band, first, second),
            "clip-min": lambda: np.maximum(band, first),
            "clip-max": lambda: np.minimum(band, first),
            "offset": lambda: band - first,
            "scale": lambda: band / first,
        }
        return out[self.type]() if self.type else band


@dataclass(frozen=True)
class Model:
    """What a card says of a network with one input (batch, channel, height, width) and one output.

    `size` is (height, width), -1 where any is taken, and `batch` likewise. `classes` are the names of the output
    channels in order. `file` is the name of the model's asset.
    """

    name: str
    architecture: str
    task: Task
    bands: tuple[str, ...]
    scaling: tuple[Scaling, ...]
    size: tuple[int, int]
    batch: int
    resize: str
    classes: tuple[str, ...]
    file: str
    framework: str = ""
    summary: str = ""
    licence: str = ""
    data: str = ""

    def scale(self, values: Floats) -> Floats:
        """Bands (band, row, column) as the network reads them."""
        each = self.scaling if len(self.scaling) > 1 else self.scaling * len(self.bands)
        if not each:
            return values
        out = [how.apply(band) for how, band in zip(each, values.astype(np.float64), strict=True)]
        return np.stack(out).astype(np.float32)


def read(item: Mapping[str, Any]) -> Model:
    """The card in a STAC item; raises ModelError naming the field that is missing or not supported."""
    if not any(_VERSION.match(str(uri)) for uri in item.get("stac_extensions", ())):
        raise ModelError("a STAC item without the mlm extension", "mlm 1.1 to 1.5 among its stac_extensions")
    said = _part(item, "properties", dict)
    given, answer = _one(said, "mlm:input"), _one(said, "mlm:output")
    bands = tuple(_band(band) for band in given.get("bands") or ())
    shape = _axes(given, "input", ("batch", "channel", "height", "width"))
    if not bands or shape["channel"] not in (-1, len(bands)):
        raise ModelError(
            f"mlm:input with {len(bands)} bands and {shape['channel']} channels", "a name for each channel"
        )
    tasks = {_TASKS.get(task) for task in answer.get("tasks") or said.get("mlm:tasks") or ()}
    task = next((task for task in tasks if task), None)
    if task is None:
        raise ModelError("a model for other tasks", f"one of {', '.join(_TASKS)}")
    axes = ("batch", "channel", "height", "width") if task == "segmentation" else ("batch", "channel")
    channels = _axes(answer, "result", axes)["channel"]
    classes = _classes(answer)
    if channels not in (-1, len(classes)):
        raise ModelError(f"mlm:output with {channels} channels and {len(classes)} classes", "a class for each channel")
    for part in (given, answer):
        for key in ("pre_processing_function", "post_processing_function"):
            if part.get(key):
                raise ModelError(f"{key}: somebody's code, which is never run", "null", "Put it into the model itself.")
    return Model(
        name=str(said.get("mlm:name", "")),
        architecture=str(said.get("mlm:architecture", "")),
        task=task,
        bands=bands,
        scaling=_scaling(given.get("value_scaling"), len(bands)),
        size=(shape["height"], shape["width"]),
        batch=shape["batch"],
        resize=str(given.get("resize_type") or ""),
        classes=classes,
        file=_asset(item),
        framework=str(said.get("mlm:framework") or ""),
        summary=str(said.get("description") or ""),
        licence=str(said.get("license") or ""),
        data=str(said.get("mlm:pretrained_source") or ""),
    )


def write(model: Model, card: ExpertCard, made: datetime | None = None) -> dict[str, Any]:
    """A STAC item that tells others of a network and its card; `read` gives the same model back.

    `made` is when the model was made; without it the item covers all time, for a STAC item has to name some.
    """
    return item(card, properties(model, card), asset(model.file, card.task, artifact(model.file)), made)


def item(
    card: ExpertCard, told: Mapping[str, Any], model: Mapping[str, Any], made: datetime | None = None
) -> dict[str, Any]:
    """The STAC item of a card with what `properties` tells, and with the asset that the extension wants of a model.

    Its bands stand in both: mlm wants them in the properties, and STAC 1.1 has them there only beside those of assets.
    """
    time: dict[str, Any] = (
        {"datetime": made.astimezone(UTC).isoformat().replace("+00:00", "Z")}
        if made
        else {"datetime": None, "start_datetime": "1900-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}
    )
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [SCHEMA, CLASSES, VERSIONS, *([FILES] if "file:checksum" in model else [])],
        "id": card.name,
        "geometry": None,
        "properties": {**time, "version": card.version, **told},
        "links": [],
        "assets": {"model": {**model, "bands": told["bands"]} if told.get("bands") else dict(model)},
    }


def asset(href: str, title: str, artifact_type: str) -> dict[str, Any]:
    """The asset of a model's file; `artifact_type` tells what wrote it."""
    return {
        "href": href,
        "type": "application/octet-stream",
        "title": title,
        "mlm:artifact_type": artifact_type,
        "roles": ["mlm:model", "mlm:weights", "data"],
    }


def artifact(name: str) -> str:
    """The `mlm:artifact_type` of a file of a foreign model, by its name."""
    return "torch.export.save" if name.endswith(".pt2") else "onnx"


def model_name(text: str) -> str:
    """A name as `mlm:name` may be: at least three characters, from a letter to a letter or digit."""
    plain = re.sub(r"[^A-Za-z0-9_.\s-]", "-", text).strip("-_.").strip()
    return plain if re.match(r"[A-Za-z]..", plain) else f"model-{plain or 'unnamed'}"


def properties(model: Model, card: ExpertCard) -> dict[str, Any]:
    """The properties of a model's item, without those of every item."""
    spatial = model.task == "segmentation"
    task = "semantic-segmentation" if spatial else "classification"
    height, width = model.size
    channels = len(model.classes)
    axes = ["batch", "channel", "height", "width"]
    result = {"shape": [model.batch, channels, height, width], "dim_order": axes}
    taken = {
        "name": "image",
        "bands": [{"name": name} for name in model.bands],
        "input": {"shape": [model.batch, len(model.bands), height, width], "dim_order": axes, "data_type": "float32"},
        "value_scaling": [_written(how) for how in model.scaling] or None,
        "resize_type": model.resize or None,
        "pre_processing_function": None,
    }
    given = {
        "name": task,
        "tasks": [task],
        "result": (result if spatial else {"shape": [model.batch, channels], "dim_order": axes[:2]})
        | {"data_type": "float32"},
        "classification:classes": [{"value": n, "name": name} for n, name in enumerate(model.classes)],
        "post_processing_function": None,
    }
    out: dict[str, Any] = {
        "description": model.summary or card.summary,
        "license": model.licence or card.licence,
        "bands": [{"name": name} for name in model.bands],
        "mlm:name": model_name(model.name or card.name),
        "mlm:architecture": model.architecture,
        "mlm:tasks": [task],
        "mlm:framework": model.framework,
        "mlm:pretrained_source": model.data or card.data,
        "mlm:input": [taken],
        "mlm:output": [given],
    }
    return {key: value for key, value in out.items() if value != "" or key == "mlm:architecture"}


def _part(data: Mapping[str, Any], key: str, kind: type) -> Any:
    if not isinstance(data.get(key), kind):
        raise ModelError(f"a model card without {key}", f"a {kind.__name__}")
    return data[key]


def _one(said: Mapping[str, Any], key: str) -> dict[str, Any]:
    parts = _part(said, key, list)
    if len(parts) != 1 or not isinstance(parts[0], dict):
        raise ModelError(f"{key} with {len(parts)} entries", "exactly one")
    return dict(parts[0])


def _axes(part: Mapping[str, Any], key: str, wanted: Sequence[str]) -> dict[str, int]:
    inner = _part(part, key, dict)
    order, shape = _part(inner, "dim_order", list), _part(inner, "shape", list)
    names = [_AXES.get(str(name), str(name)) for name in order]
    if names != list(wanted) or len(shape) != len(names) or not all(isinstance(n, int) for n in shape):
        raise ModelError(f"{key} with axes {', '.join(map(str, order))}", ", ".join(wanted))
    if any(n != -1 and not 1 <= n <= 8192 for n in shape):
        raise ModelError(f"{key} of shape {shape}", "sizes from 1 to 8192, or -1 for any")
    if key == "input" and str(inner.get("data_type", "float32")) != "float32":
        raise ModelError(f"an input of {inner['data_type']}", "float32")
    return dict(zip(names, shape, strict=True))


def _band(band: Any) -> str:
    if isinstance(band, dict) and band.get("expression"):
        raise ModelError("a band that is computed by an expression", "bands that a study holds")
    name = band.get("name") if isinstance(band, dict) else band
    if not isinstance(name, str):
        raise ModelError("a band without a name", "names of bands")
    return name


def _scaling(said: Any, bands: int) -> tuple[Scaling, ...]:
    entries = [said] if isinstance(said, dict) else said or []
    if len(entries) not in (0, 1, bands):
        raise ModelError(f"value_scaling with {len(entries)} entries", f"one for all bands, or {bands}")
    out = []
    for entry in entries:
        how = (entry or {}).get("type") or ""
        if how and how not in _PARAMETERS:
            raise ModelError(f"value_scaling {how!r}", f"one of {', '.join(_PARAMETERS)}")
        given = [entry.get(name) for name in _PARAMETERS.get(how, ())]
        values = [float(value) for value in given if isinstance(value, (int, float)) and np.isfinite(value)]
        if len(values) != len(given):
            raise ModelError(f"value_scaling {how!r} without its numbers", ", ".join(_PARAMETERS[how]))
        divisor = {"min-max": lambda v: v[1] - v[0], "z-score": lambda v: v[1], "scale": lambda v: v[0]}.get(how)
        if divisor and divisor(values) == 0:
            raise ModelError(f"value_scaling {how!r} that divides by nothing", "another number than 0")
        out.append(Scaling(how, tuple(values)))
    return tuple(out)


def _written(how: Scaling) -> dict[str, Any]:
    return {"type": how.type or None} | dict(zip(_PARAMETERS.get(how.type, ()), how.values, strict=True))


def _classes(answer: Mapping[str, Any]) -> tuple[str, ...]:
    entries = answer.get("classification:classes") or answer.get("classification_classes") or []
    try:
        table = {int(entry["value"]): str(entry["name"]) for entry in entries}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError("a class without value and name", "both of each class") from error
    if not table or sorted(table) != list(range(len(entries))):
        raise ModelError("classes whose values are not the output's channels", "values 0, 1, 2 and so on, each once")
    return tuple(table[number] for number in sorted(table))


def _asset(item: Mapping[str, Any]) -> str:
    assets = [a for a in _part(item, "assets", dict).values() if "mlm:model" in (a.get("roles") or ())]
    href = str(assets[0].get("href", "")) if len(assets) == 1 else ""
    if not href or "://" in href:
        raise ModelError(
            "a card that names no model file of its folder", "one asset with role mlm:model and a relative href"
        )
    return href.removeprefix("./")
