"""Conversations in a data set of Hugging Face, as Parquet or as `save_to_disk` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from curriculum.data.importers.base import Entry
from curriculum.data.importers.conversations import said
from curriculum.data.importers.lists import first, folder_of, split_of_path
from curriculum.data.importers.source import Row, SourceFolder, inside
from domains.formats.content import foreign
from fovea.errors import InputError, PluginError, UnsupportedError

_TURNS = ("messages", "conversations")
_IMAGES = ("images", "image")
_BATCH = 64


class HuggingFace:
    """A data set with "messages" (or "conversations") and "images" (or "image"); a record is a row.

    The source holds Parquet files ("data/train-00000-of-00002.parquet") or what `save_to_disk` writes, with
    state.json, or dataset_dict.json above several of these. Images are structs of bytes and path; bytes are stored by
    their content, a path alone names a file of the source. Messages have "role" and "content", a text with "<image>"
    or a list of parts. The group is the first image, or the row where there is none. The split is read off names of
    files and folders. Rows with an empty turn or an image of unknown format are left out and counted.
    """

    name = "huggingface"
    title = "Hugging Face conversations"
    licence = "not stated; that of the set that is imported"
    citation = "the layout: Lhoest et al., Datasets, EMNLP 2021, arXiv:2109.02846"
    url = "https://huggingface.co/docs/datasets"

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The rows of all tables, in the order of the files' names.

        Raises InputError with the number of the row that is malformed, and for a table without those columns.
        """
        for name in _tables(source):
            for row in _rows(source, name):
                try:
                    images = [_image(source, row, value) for value in _values(row)]
                except UnsupportedError:
                    source.leave_out("an image of unknown format")
                    continue
                yield from said(self, source, row, f"{name}/{row.line}", images, split_of_path(name), {})


def _tables(source: SourceFolder) -> list[str]:
    """The tables of the set: those that state.json lists, for caches may lie beside them, or all Parquet files."""
    states = source.find("**/state.json")
    if not states:
        first(source, "**/*.parquet", "**/state.json")
        return source.find("**/*.parquet")
    names = []
    for state in states:
        told = source.json(state)
        files = told.get("_data_files") if isinstance(told, dict) else None
        if not isinstance(files, list) or not all(isinstance(file, Mapping) for file in files):
            raise InputError("a state.json without its data files", "what `save_to_disk` writes", "Save the set again.")
        names += [folder_of(state) + inside(str(file.get("filename"))) for file in files]
    return names


def _rows(source: SourceFolder, name: str) -> Iterator[Row]:
    """Rows with the columns of turns and of images that the table has."""
    arrow = name.endswith(".arrow")
    columns = _columns(source, name, arrow)
    turns = next((column for column in _TURNS if column in columns), None)
    image = next((column for column in _IMAGES if column in columns), None)
    if turns is None:
        raise InputError(
            "a table without messages", f"a column {' or '.join(_TURNS)}", "Convert the set, or write an importer."
        )
    wanted = [turns, *([image] if image else [])]
    return _arrow(source, name, wanted) if arrow else source.parquet(name, wanted)


def _columns(source: SourceFolder, name: str, arrow: bool) -> list[str]:
    try:
        from pyarrow import ipc, parquet
    except ModuleNotFoundError as error:
        raise PluginError("these tables need pyarrow", remedy="Install pyarrow.") from error
    with foreign("a table"):
        if arrow:
            with (source.root / name).open("rb") as file:
                return list(ipc.open_stream(file).schema.names)
        return list(parquet.read_schema(source.root / name).names)


def _arrow(source: SourceFolder, name: str, columns: list[str]) -> Iterator[Row]:
    """Rows of an Arrow stream, in small batches. `line` counts rows from 1."""
    from pyarrow import ipc

    with source.path(name).open("rb") as file:
        with foreign("an Arrow file"):
            batches = iter(ipc.open_stream(file))
        number = 0
        while True:
            with foreign("an Arrow file"):
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)
            for start in range(0, batch.num_rows, _BATCH):
                with foreign("an Arrow file"):
                    rows = batch.slice(start, _BATCH).select(columns).to_pylist()
                for values in rows:
                    number += 1
                    yield Row(values, number, PurePosixPath(name).name, "row")


def _values(row: Row) -> list[Any]:
    value: Any = next((row.values[column] for column in _IMAGES if row.values.get(column) is not None), [])
    return value if isinstance(value, list) else [value]


def _image(source: SourceFolder, row: Row, value: Any) -> str:
    """The key of a struct of bytes and path, or of bytes or a path alone."""
    fields = value if isinstance(value, Mapping) else {"bytes" if isinstance(value, bytes) else "path": value}
    data, path = fields.get("bytes"), fields.get("path")
    if isinstance(data, bytes):
        return source.store(data)
    if isinstance(path, str):
        return source.image(path)
    raise row.error("images with bytes or a path")
