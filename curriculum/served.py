"""The script that MLflow stores with a model and runs to load it."""

from curriculum.tracking import served

served()
