"""What all tests share: one thread a worker, nothing from the network, and the folder of real files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

OFFLINE = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
}
os.environ.update(OFFLINE)  # before the first test module imports torch, and inherited by subprocesses
pytest.register_assert_rewrite("fovea.testing")
settings.register_profile("fovea", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("fovea")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs are tracked in a folder of the test session unless a test says otherwise."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real files: FOVEA_DATA, or shared/data beside the repository; skips where there is none."""
    folder = Path(os.environ.get("FOVEA_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip("no real files: set FOVEA_DATA to their folder")
    return folder
