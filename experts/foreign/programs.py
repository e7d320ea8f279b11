"""Exported networks: opened only after their files were found to hold nothing but a network.

`torch.export.load` unpickles, evaluates symbolic expressions as Python, imports what a tree of arguments names and
looks up any function of torch. A .pt2 file is therefore read first, by the same reader, and refused with ModelError
unless it holds raw tensors, operators of ATen, plain trees and plain expressions.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experts.foreign.settings import inside
from fovea.errors import LimitError, ModelError

Run = Callable[[Tensor], Tensor]
"""A network as a function: (batch, channel, height, width) to its first output."""
LIMIT = 2 << 30
"""Bytes that an exported file may have, packed and unpacked."""
_FILES = re.compile(
    r"(data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|models/model\.json|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder|\.data/\w+)"
)
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file|_print|save|load|to_file)[a-zA-Z0-9_]+\.[a-zA-Z0-9_]+"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|getitem|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|torch\.sym_(int|float|max|min|not|ite|sqrt|sum)"
)
_EXPRESSION = re.compile(r"[\w\s+*/(),=<>'-]{1,500}")
_WORDS = frozenset({
    "Symbol", "positive", "integer", "nonnegative", "True", "False", "Integer", "Float", "precision", "Rational", "Add",
    "Mul", "Pow", "FloorDiv", "Mod", "PythonMod", "ModularIndexing", "CleanDiv", "CeilDiv", "Max", "Min", "CeilToInt",
    "FloorToInt", "IntTrueDiv", "FloatTrueDiv", "ToFloat", "TruncToInt", "RoundToInt", "evaluate", "Eq", "Ne", "Le",
    "Ge", "Lt", "Gt", "StrictLessThan", "LessThan", "GreaterThan", "StrictGreaterThan", "Equality",
})  # fmt: skip
_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def exported(folder: Path, name: str) -> tuple[Run, list[Path]]:
    """A network saved by `torch.export.save`, and its file; raises ModelError or LimitError."""
    path = inside(folder, name, LIMIT)
    data = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LIMIT:
                raise LimitError(f"a network that unpacks to more than {LIMIT >> 30} GB", "a smaller one")
        _check(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.export.pt2_archive._package import load_pt2

            module = load_pt2(io.BytesIO(data)).exported_programs["model"].module(check_guards=False)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError, zipfile.BadZipFile,
            UnpicklingError, RecursionError) as error:  # fmt: skip
        raise ModelError(
            f"a .pt2 file that cannot be opened ({type(error).__name__})", "one that torch.export.save wrote"
        ) from error

    def run(pixels: Tensor) -> Tensor:
        answer: Any = module(pixels)
        first: Tensor = answer[0] if isinstance(answer, (tuple, list)) else answer
        return first

    return run, [path]


def _check(data: bytes) -> None:
    """Raises ModelError for an archive that holds anything but tensors and a graph of known operators."""
    from torch.export.pt2_archive._package import PT2ArchiveReader

    with PT2ArchiveReader(io.BytesIO(data)) as archive:
        names = archive.get_file_names()
        strange = [name for name in names if not _FILES.fullmatch(name)]
        if strange or len(set(names)) != len(names):
            raise _refused("other files than those of a network")
        for name in names:
            if name.endswith("_config.json"):
                for entry in json.loads(archive.read_bytes(name))["config"].values():
                    if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                        raise _refused("a pickled tensor")
        sample = archive.read_bytes("data/sample_inputs/model.pt")
        if sample and not isinstance(torch.load(io.BytesIO(sample), weights_only=True), (tuple, dict)):
            raise _refused("sample inputs of another kind")
        for key, value in _walk(json.loads(archive.read_bytes("models/model.json"))):
            _check_entry(key, value)


def _check_entry(key: str, value: Any) -> None:
    if key in ("target", "as_operator") and not (isinstance(value, str) and _OPERATOR.fullmatch(value)):
        raise _refused("an operator outside of ATen")
    if key == "expr_str":
        words = set(re.findall(r"[A-Za-z_]\w*", str(value)))
        if not _EXPRESSION.fullmatch(str(value)) or any(
            w not in _WORDS and not re.fullmatch(r"[su]\d+", w) for w in words
        ):
            raise _refused("an expression that is no arithmetic")
    if key in ("in_spec", "out_spec"):
        for inner, item in _walk(json.loads(value)):
            if inner == "type" and item not in _TREES:
                raise _refused("a tree of another kind")
            if inner == "context" and item is not None and not _plain(json.loads(item)):
                raise _refused("a tree with a context")
    if key in ("as_custom_obj", "custom_obj") or (key in ("guards_code", "custom_obj_values") and value):
        raise _refused("code or objects of its own")


def _plain(context: Any) -> bool:
    return context is None or (isinstance(context, list) and all(isinstance(item, str) for item in context))


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a tree of JSON with its value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from _walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)


def _refused(what: str) -> ModelError:
    return ModelError(f"a .pt2 file with {what}", "a network of ATen operators and raw tensors", "It was not loaded.")


def onnx(folder: Path, name: str) -> tuple[Run, list[Path]]:
    """An ONNX network for the CPU, and the files that it lies in; raises ModelError or LimitError.

    External data must lie in the folder. Operators outside of the ONNX standard are refused by the runtime.
    """
    try:
        import onnx as library
        import onnxruntime
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise ModelError("an ONNX file without onnx and onnxruntime", remedy="Install fovea[onnx].") from error
    path = inside(folder, name, LIMIT)
    try:
        model = library.load(path, load_external_data=False)
        outside = sorted({
            entry.value for tensor in _tensors(model) for entry in tensor.external_data if entry.key == "location"
        })  # fmt: skip
        files = [path, *(inside(path.parent, location, LIMIT) for location in outside)]
        if any(not file.resolve().is_relative_to(folder.resolve()) for file in files):
            raise ModelError("external tensors outside of the folder", "all files inside it")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except (DecodeError, ValueError, RuntimeError, *_faults(onnxruntime)) as error:
        raise ModelError(
            f"an ONNX file that cannot be opened ({type(error).__name__})", "a valid ONNX model"
        ) from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
        raise ModelError(f"an ONNX model with {len(inputs)} inputs", "one of float32, (batch, channel, height, width)")

    def run(pixels: Tensor) -> Tensor:
        try:
            answer = session.run(None, {inputs[0].name: pixels.numpy().astype(np.float32)})
        except _faults(onnxruntime) as error:
            raise RuntimeError("ONNX Runtime failed") from error
        return torch.from_numpy(np.asarray(answer[0], np.float32))

    return run, files


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor of a model that may lie in another file: of its graph, the graphs within, and its functions."""
    todo = [model.graph, *model.functions]
    while todo:
        graph = todo.pop()
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                todo += [attribute.g, *attribute.graphs]


def _faults(runtime: Any) -> tuple[type[Exception], ...]:
    """The errors of ONNX Runtime, which have no common base."""
    state = runtime.capi.onnxruntime_pybind11_state
    return tuple(v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception))
