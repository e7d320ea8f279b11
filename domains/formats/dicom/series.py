"""Which DICOM files belong together: the slices of one stack, the levels of one slide, the mosaics of one series, every
other file alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from domains.formats.content import file_hash, parallel
from domains.formats.dicom.header import Header, read_header
from fovea.errors import InputError

Place = tuple[float, ...]


def group(paths: Iterable[Path]) -> list[tuple[Path, ...]]:
    """The files as studies, in the order of first mention.

    Files of one SeriesInstanceUID are parted by shape, orientation, kind of image (localisers), echo, phase, b-value
    and kernel; where positions still repeat, by the first element that parts them into stacks without a repetition,
    and at last by their instance numbers. A file that is there twice, byte by byte, counts once.
    """
    found = list(paths)
    series: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    order: list[list[Header] | Path] = []
    for path, header in zip(found, parallel(_header, found), strict=True):
        if header is None or not (len(header.planes) == 1 or header.tiles or header.across):
            order.append(path)
            continue
        if header.series not in series:
            order.append(series[header.series])
        series[header.series].append(header)
    studies: list[tuple[Path, ...]] = []
    for entry in order:
        if isinstance(entry, Path):
            studies.append((entry,))
        else:
            studies += [tuple(header.path for header in stack) for stack in stacks(entry)]
    return studies


def stacks(headers: Sequence[Header]) -> list[list[Header]]:
    """The slices of one series as stacks in which no position repeats, where it can be told; mosaics stay together."""
    if headers[0].across:
        return [_once(headers)]
    if len({_place(header) for header in headers}) == len(headers) or headers[0].tiles:
        return [list(headers)]
    headers = _once(headers)
    if len({_place(header) for header in headers}) == len(headers):
        return [headers]
    for number in range(len(headers[0].within)):
        parts: dict[str, list[Header]] = defaultdict(list)
        for header in headers:
            parts[header.within[number]].append(header)
        if _alike(list(parts.values())):
            return list(parts.values())
    turns = _turns(headers)
    return turns if _alike(turns) else [headers]


def _header(path: Path) -> Header | None:
    try:
        return read_header(path)
    except InputError:
        return None


def _place(header: Header) -> Place:
    return tuple(round(value, 2) for value in header.planes[0].position) if header.planes else (float(id(header)),)


def _once(headers: Sequence[Header]) -> list[Header]:
    """Without copies: same instance, same bytes."""
    repeated = {h.instance for h in headers if sum(other.instance == h.instance for other in headers) > 1}
    seen: set[str] = set()
    kept = []
    for header in headers:
        digest = file_hash(header.path) if header.instance in repeated else ""
        if digest not in seen or not digest:
            kept.append(header)
        seen.add(digest)
    return kept


def _turns(headers: Sequence[Header]) -> list[list[Header]]:
    """The first of each position, the second of each, … in the order of instance numbers."""
    turns: list[list[Header]] = []
    seen: dict[Place, int] = defaultdict(int)
    for header in sorted(headers, key=lambda header: header.number):
        turn = seen[_place(header)]
        seen[_place(header)] += 1
        turns += [[]] if turn == len(turns) else []
        turns[turn].append(header)
    return turns


def _alike(parts: Sequence[Sequence[Header]]) -> bool:
    """Whether there are several stacks at the same positions, none twice in one."""
    places = [sorted(map(_place, part)) for part in parts]
    return len(parts) > 1 and all(place == places[0] and len(set(place)) == len(place) for place in places)
