"""Runs, stages, metrics and models in MLflow: the only file that imports it.

One parent run a recipe, a child run a stage. Models are logged from code, so nothing is ever unpickled.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curriculum.recipe import Recipe
from fovea import __version__
from fovea.errors import ModelError

if TYPE_CHECKING:
    from curriculum.assistant import Assistant

ALIAS = "current"


def _mlflow(uri: str | None = None) -> Any:
    """MLflow, told to stay at home: no pickles, no telemetry."""
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    if uri:
        mlflow.set_tracking_uri(uri)
    return mlflow


def ensure(recipe: Recipe) -> None:
    """Make the store and the experiment, so that processes that start together find them."""
    mlflow = _mlflow(recipe.tracking)
    if mlflow.get_experiment_by_name(recipe.experiment) is None:
        mlflow.create_experiment(recipe.experiment)


@dataclass(eq=False)
class Tracker:
    """The parent run of a recipe; a recipe that is run again goes on in the same one."""

    recipe: Recipe
    parent: str
    _waiting: list[tuple[str, float, int]] = field(default_factory=list)

    @classmethod
    def open(cls, recipe: Recipe) -> Tracker:
        ensure(recipe)
        mlflow = _mlflow()
        note = recipe.out / "tracking.json"
        known = json.loads(note.read_text()) if note.exists() else {}
        if known.get("uri") != mlflow.get_tracking_uri() or not _exists(mlflow, known.get("run", "")):
            experiment = mlflow.get_experiment_by_name(recipe.experiment).experiment_id
            run = mlflow.MlflowClient().create_run(experiment, run_name=recipe.domain, tags={"fovea": __version__})
            known = {"uri": mlflow.get_tracking_uri(), "run": run.info.run_id}
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps(known))
        return cls(recipe, known["run"])

    @contextmanager
    def stage(self, name: str, settings: Mapping[str, Any]) -> Iterator[None]:
        """A child run with its settings and system metrics; a failure marks it as failed."""
        mlflow = _mlflow()
        with (
            mlflow.start_run(run_id=self.parent) as parent,
            mlflow.start_run(
                run_name=name, experiment_id=parent.info.experiment_id, nested=True, log_system_metrics=True
            ),
        ):
            mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})
            try:
                yield
            finally:
                self.flush()

    def log(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Metrics of the stage that is open; they are written together, a hundred at a time."""
        self._waiting += [(key, value, step) for key, value in metrics.items()]
        if len(self._waiting) >= 100:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        mlflow = _mlflow()
        if not self._waiting:
            return
        import time

        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(key, value, now, step) for key, value, step in self._waiting]
        mlflow.MlflowClient().log_batch(mlflow.active_run().info.run_id, metrics=metrics)
        self._waiting.clear()

    def dataset(self, digest: str, sizes: Mapping[str, int]) -> None:
        """The digest of the data that the open stage was made from."""
        mlflow = _mlflow()
        mlflow.set_tag("data_digest", digest)
        mlflow.log_params({f"n_{name}": n for name, n in sizes.items()})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file beside the open stage."""
        _mlflow().log_artifact(str(path), folder)

    def register(self, folder: Path, card: str) -> str:
        """Log a model folder with signature and card, register it under the domain's name and move the alias to it."""
        mlflow = _mlflow()
        from mlflow.models import ModelSignature
        from mlflow.types.schema import ColSpec, Schema

        name = f"fovea-{self.recipe.domain}"
        inputs = Schema([ColSpec("string", "path"), ColSpec("string", "question")])
        mlflow.log_text(card, "model_card.md")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(type hint|input example).*", category=UserWarning)
            info = mlflow.pyfunc.log_model(
                name="assistant",
                python_model=str(Path(__file__).with_name("served.py")),
                artifacts={"model": str(folder)},
                signature=ModelSignature(inputs, Schema([ColSpec("string", "answer")])),
                pip_requirements=[f"fovea=={__version__}"],
                registered_model_name=name,
                metadata={"card": card},
            )
        mlflow.MlflowClient().set_registered_model_alias(name, ALIAS, info.registered_model_version)
        return f"models:/{name}@{ALIAS}"


def download(reference: str) -> Path:
    """The model folder behind models:/NAME@ALIAS or models:/NAME/VERSION; raises ModelError."""
    mlflow = _mlflow()
    try:
        place = Path(mlflow.artifacts.download_artifacts(artifact_uri=reference))
    except mlflow.exceptions.MlflowException as error:
        raise ModelError(
            f"{reference} is not in {mlflow.get_tracking_uri()} ({error.message})",
            "a registered model",
            "Set MLFLOW_TRACKING_URI, or give the model's folder.",
        ) from None
    return place / "artifacts" / "assistant"


def served() -> None:
    """Tell MLflow which model `served.py` is: questions about files, answered by the assistant logged with it."""
    mlflow = _mlflow()

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*type hint.*", category=UserWarning)

        class Served(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
            assistant: Assistant

            def load_context(self, context: Any) -> None:
                from curriculum.assistant import Assistant

                self.assistant = Assistant.open(context.artifacts["model"])

            # Without annotations: MLflow would take them for a schema.
            def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG002
                assistant = self.assistant
                return [
                    assistant.ask(assistant.domain.load(Path(row.path)), row.question).text
                    for row in model_input.itertuples()
                ]

        mlflow.models.set_model(Served())


def _exists(mlflow: Any, run: str) -> bool:
    try:
        return bool(run) and mlflow.get_run(run) is not None
    except mlflow.exceptions.MlflowException:
        return False
