"""A recipe on a problem whose rows have their roles already: in memory, without a run folder."""

from __future__ import annotations

from margins.training.finishing import described_model, scores_of
from margins.training.job import Job
from margins.training.machine import Device, machine, threads, threads_for
from margins.training.model import Model
from margins.training.problem import Problem
from margins.training.recipe import Recipe
from margins.training.trainer import Fitted


def train_problem(problem: Problem, recipe: Recipe, *, device: Device = "auto") -> tuple[Model, list[Fitted]]:
    """Trains a recipe and decides with it, as `margins.train` does once rows have roles and targets.

    Use it where the division, the weights or the coding come from elsewhere; otherwise use `margins.train`.

    Args:
        problem: rows with roles and targets. Without select rows every phase trains for all its epochs, and
            nothing is calibrated.
        recipe: with its plan.
        device: "auto" takes a GPU if there is one.

    Returns:
        the model on the CPU, and how each phase went.

    Raises:
        MarginsError: cells that the encoder cannot use, or a number that is not finite.
    """
    with machine(recipe.precision, device=device) as fabric, threads(threads_for(recipe.encoder.name)):
        job = Job(problem, recipe)
        fitted = job.run(fabric)
        model = job.decided(fabric)
        return described_model(model, problem.frame, scores_of(fabric, model, job.prepared)), fitted
