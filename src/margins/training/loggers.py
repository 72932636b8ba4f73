"""Where training curves go beside the run's own log: loggers of Lightning Fabric, by name."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from margins.data.extras import extra
from margins.errors import MarginsError

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger


def logger_named(name: str, folder: Path) -> Logger:
    """A logger; "csv" and "tensorboard" write below the folder of the run.

    Args:
        name: "csv", "tensorboard", or "mlflow", which talks to the server or store that the environment
            variable MLFLOW_TRACKING_URI names.
        folder: of the run.

    Raises:
        MarginsError: an unknown name, a package that is not installed, or no store for MLflow.
    """
    if name == "csv":
        with extra("tool"):
            from lightning_fabric.loggers import CSVLogger
        return CSVLogger(root_dir=folder, name="csv", version="")
    if name == "tensorboard":
        with extra("loggers"):
            importlib.import_module("tensorboard")  # fabric asks for it only when it writes
            from lightning_fabric.loggers import TensorBoardLogger
        return TensorBoardLogger(root_dir=folder, name="tensorboard", version="")
    if name == "mlflow":
        return _mlflow(folder)
    raise MarginsError("logger", expected="csv, tensorboard or mlflow", received=repr(name))


def _mlflow(folder: Path) -> Logger:
    with extra("loggers"):
        from lightning_fabric.loggers.logger import Logger
        from mlflow import MlflowClient
    store = os.environ.get("MLFLOW_TRACKING_URI")
    if not store:
        raise MarginsError(
            "logger", expected="MLFLOW_TRACKING_URI in the environment, for mlflow", received="none",
            fix="set it to your server, or to sqlite:///mlflow.db with the full mlflow package",
        )  # fmt: skip
    client = MlflowClient(tracking_uri=store)
    found = client.get_experiment_by_name("margins")
    experiment: str = client.create_experiment("margins") if found is None else found.experiment_id
    run = client.create_run(experiment, run_name=folder.name).info.run_id

    class MLflowLogger(Logger):
        """Numbers of every epoch as metrics of one run."""

        @property
        def name(self) -> str:
            return "margins"

        @property
        def version(self) -> str:
            return run

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            for key, value in metrics.items():
                client.log_metric(run, key, value, step=step)

        def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
            for key, value in dict(params).items():
                client.log_param(run, key, value)

        def finalize(self, status: str) -> None:
            client.set_terminated(run)

    return MLflowLogger()
