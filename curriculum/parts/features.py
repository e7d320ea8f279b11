"""What a frozen tower sees, computed once: training then skips the tower."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fovea.progress import track
from fovea.types import Bytes
from models.vlm.model import VisionLanguageModel
from models.weights import digest, load_tensors, save_tensors


class FeatureCache(Mapping[str, Tensor]):
    """Features (token, channel) by the name of a picture; on disk they go by the tower's and the picture's content."""

    def __init__(self, folder: Path, model: VisionLanguageModel) -> None:
        self._file = folder / f"{digest(model.tower)[:16]}.safetensors"
        self._known = load_tensors(self._file) if self._file.exists() else {}
        self._names: dict[str, str] = {}
        self._model = model

    def add(self, pictures: Mapping[str, Bytes], batch: int = 32) -> None:
        """Look at every picture that was not seen yet."""
        keys = {name: sha256(picture.tobytes()).hexdigest()[:24] for name, picture in pictures.items()}
        self._names |= keys
        new = list({key: pictures[name] for name, key in keys.items() if key not in self._known}.items())
        for start in track(range(0, len(new), batch), "features of the frozen tower"):
            part = new[start : start + batch]
            seen = self._model.look(torch.from_numpy(np.stack([picture for _, picture in part])))
            self._known |= {key: row.clone() for (key, _), row in zip(part, seen, strict=True)}
        if new:
            save_tensors(self._known, self._file)

    def __getitem__(self, name: str) -> Tensor:
        return self._known[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def as_pixels(pictures: Mapping[str, Bytes]) -> dict[str, Tensor]:
    """Pictures as uint8 tensors (row, column, 3), for steps in which the tower learns."""
    return {name: torch.from_numpy(picture) for name, picture in pictures.items()}
