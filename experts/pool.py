"""Loaded experts that stay warm, within a limit of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from fovea import registry
from fovea.contracts import Expert
from fovea.errors import ExpertError
from fovea.types import Finding, Study

Open = Callable[[str, Path | None], Expert]
"""Opens an expert of a kind that lies in a folder."""


def open_expert(kind: str, folder: Path | None) -> Expert:
    """The expert of a kind, by its entry point, in a folder; raises PluginError and ModelError."""
    return registry.expert_kind(kind).open(folder)


def size(expert: Expert) -> int:
    """Bytes of the parameters and buffers of an expert's network; 0 where it has none that is known."""
    network = getattr(expert, "network", None)
    tensors = [*network.parameters(), *network.buffers()] if network is not None else []
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass
class _Place:
    """An expert, or where it will be; its lock is held while it is opened."""

    lock: Lock = field(default_factory=Lock)
    expert: Expert | None = None
    bytes: int = 0
    stamp: tuple[int, int] = (0, 0)


class Pool:
    """Experts that are opened at their first use and kept, as long as all fit into `limit` bytes.

    The least recently used goes first; who still works with it keeps it until then. What counts are parameters and
    buffers. An expert whose card has changed on disk is opened anew. Threads may share a pool: each expert is opened
    once, and different ones at the same time.
    """

    def __init__(self, limit: int, opener: Open = open_expert) -> None:
        self.limit, self._open = limit, opener
        self._places: OrderedDict[tuple[str, Path | None], _Place] = OrderedDict()
        self._lock = Lock()

    @property
    def bytes(self) -> int:
        """What the experts that are held take."""
        with self._lock:
            return sum(place.bytes for place in self._places.values())

    def __len__(self) -> int:
        with self._lock:
            return sum(place.expert is not None for place in self._places.values())

    def get(self, kind: str, folder: Path | None) -> Expert:
        """The expert, warm or opened now; raises ExpertError for one larger than the limit, and what opening raises."""
        key = kind, folder and folder.resolve()
        with self._lock:
            place = self._places.setdefault(key, _Place())
            self._places.move_to_end(key)
        with place.lock:
            stamp = _stamp(folder)
            if place.expert is None or place.stamp != stamp:
                expert = self._open(kind, folder)
                taken = size(expert)
                if taken > self.limit:
                    raise ExpertError(
                        f"{expert.card.name} takes {taken / 2**20:.1f} MiB",
                        f"at most {self.limit / 2**20:.1f} MiB, the limit of the pool",
                        "Raise the limit.",
                    )
                with self._lock:
                    self._make_room(key, taken)
                    place.expert, place.bytes, place.stamp = expert, taken, stamp
                    self._places[key] = place  # which others may have let go
            return place.expert

    def _make_room(self, key: tuple[str, Path | None], wanted: int) -> None:
        """Let go of others until so many bytes fit, under the pool's lock."""
        others = [other for other, place in self._places.items() if place.bytes and other != key]
        held = sum(self._places[other].bytes for other in others)
        for other in others:
            if held + wanted <= self.limit:
                return
            held -= self._places.pop(other).bytes


class Pooled:
    """An expert of a pool: one that had to make room for others is opened anew when it is asked.

    Raises what opening raises, now and then.
    """

    def __init__(self, pool: Pool, kind: str, folder: Path | None) -> None:
        self._pool, self._key = pool, (kind, folder)
        self.card = self.opened().card

    def opened(self) -> Expert:
        """The expert itself."""
        return self._pool.get(*self._key)

    def accepts(self, study: Study) -> bool:
        return self.opened().accepts(study)

    def run(self, study: Study, argument: str) -> tuple[Finding, ...]:
        return self.opened().run(study, argument)


def _stamp(folder: Path | None) -> tuple[int, int]:
    """What changes when an expert is trained again into the same folder."""
    card = folder / "card.json" if folder else None
    if card is None or not card.is_file():
        return 0, 0
    state = card.stat()
    return state.st_mtime_ns, state.st_size
