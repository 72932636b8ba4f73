"""The recipes that can take part by name, by task, the baseline of each task first."""

from __future__ import annotations

from collections.abc import Sequence

from margins.compare.candidates.candidate import DECISIONS, Candidate
from margins.compare.candidates.spaces import Choice, Span
from margins.data.nearest import suggestion
from margins.errors import MarginsError
from margins.training.recipe import Task

BASELINES: dict[Task, str] = {
    "classes": "cross_entropy", "label_sets": "binary_cross_entropy", "values": "squared_error",
    "matches": "sup_con",
}  # fmt: skip


def all_candidates(task: Task | None = None) -> list[Candidate]:
    """Every candidate, or those of a task, its baseline first."""
    return [c for c in _KNOWN.values() if task is None or task in c.tasks]


def baseline_of(task: Task) -> Candidate:
    """The plain recipe that the others are compared with."""
    return _KNOWN[BASELINES[task]]


def find_candidate(name: str, task: Task) -> Candidate:
    """The candidate of this name.

    Raises:
        MarginsError: no such candidate, or not of this task; the nearest name is suggested.

    Example:
        >>> find_candidate("focal", "classes").title
        'Focal loss (gamma = 2)'
    """
    known = [c.name for c in all_candidates(task)]
    if name not in known:
        raise MarginsError(
            "candidates", expected=f"the name of a recipe for {task.replace('_', ' ')}", received=repr(name),
            fix=suggestion(name, known),
        )  # fmt: skip
    return _KNOWN[name]


_PLAIN_CUT = {"thresholds": None}
_TUNED_CUT = {"thresholds": "per_label"}


def _of_classes() -> Sequence[Candidate]:
    return (
        Candidate(
            name="cross_entropy",
            title="Cross-entropy",
            why="The plain baseline without tricks; on many data sets nothing beats it.",
        ),
        Candidate(
            name="cross_entropy_tuned",
            title="Cross-entropy with a tuned cut",
            why="The same training; only where classes are cut is chosen on the select rows, for the metric.",
            changes={"decisions": {"cut": "tuned"}},
            metrics=DECISIONS,
        ),
        Candidate(
            name="logit_adjusted",
            title="Logit adjustment (tau = 1)",
            why="Takes class frequencies out of the scores: for rare classes, at a cost to frequent ones.",
            changes={"objective": {"targets": {"logit_adjustment": 1.0}}},
            space={"objective.targets.logit_adjustment": Span(low=0.25, high=2.0)},
        ),
        Candidate(
            name="class_weights",
            title="Class weights (effective number)",
            why="Weighs rows of rare classes up: the usual answer to imbalance, noisy for tiny ones.",
            changes={"objective": {"targets": {"class_weight": "effective_number"}}},
            space={"objective.targets.class_weight": Choice(options=("balanced", "effective_number"))},
        ),
        Candidate(
            name="balanced_draw",
            title="Class-balanced draws",
            why="Shows every class as often: rare rows are seen many times and may be learned by heart.",
            changes={"draw": {"name": "class_balanced"}},
        ),
        Candidate(
            name="class_margins",
            title="Class-dependent margins (up to 1)",
            why="Asks for more distance the rarer the class, as LDAM does, here on plain logits.",
            changes={"objective": {"targets": {"class_margins": 1.0}}},
            space={"objective.targets.class_margins": Span(low=0.1, high=4.0, log=True)},
        ),
        Candidate(
            name="label_smoothing",
            title="Label smoothing (0.1)",
            why="Keeps the model from over-confidence; helps a little with many classes or wrong labels.",
            changes={"objective": {"targets": {"smooth": 0.1}}},
            space={"objective.targets.smooth": Span(low=0.02, high=0.3, log=True)},
        ),
        Candidate(
            name="mixup",
            title="Mixup of embeddings (alpha = 0.2)",
            why="Trains between rows: smoother decisions where rows are few, blurred fine ones.",
            changes={"mix": {"name": "feature_mixup", "alpha": 0.2}},
            space={"mix.alpha": Span(low=0.05, high=2.0, log=True)},
        ),
        Candidate(
            name="focal",
            title="Focal loss (gamma = 2)",
            why="Turns attention to rows that are still wrong; wrong labels get that attention too.",
            changes={"objective": {"loss": "focal", "settings": {"gamma": 2.0}}},
            space={"objective.settings.gamma": Span(low=0.5, high=5.0)},
        ),
        Candidate(
            name="generalized_cross_entropy",
            title="Generalised cross-entropy (q = 0.7)",
            why="Gives rows that never fit less weight, for wrong labels; may take a rare class for noise.",
            changes={"objective": {"loss": "comp_sum", "settings": {"tau": 1.7}}},
            space={"objective.settings.tau": Span(low=1.1, high=1.9)},
        ),
        Candidate(
            name="aldr_kl",
            title="ALDR-KL (lambda0 = 1, alpha = 2)",
            why="Gives each row a temperature of its own, for wrong labels without knowing their share.",
            # Scores divided by their mean size do not learn with tens of classes: no normalisation.
            changes={
                "objective": {
                    "loss": "aldrkl",
                    "settings": {
                        "lam0": 1.0, "alpha": 2.0, "margin": 0.1, "normalise": None, "iterations": 10,
                    },
                }
            },
            space={"objective.settings.lam0": Span(low=0.3, high=3.0, log=True)},
        ),
        Candidate(
            name="mann_whitney",
            title="Mann-Whitney pairs",
            why="Trains the order of rows that the metric judges; probabilities need not be calibrated.",
            # The metric ranks rows by probability, so the pairs compare log-probabilities, not raw logits.
            changes={
                "objective": {
                    "loss": "mann_whitney", "settings": {"scope": "column"}, "link": "log_softmax",
                }
            },
            metrics=("ranking",),
        ),
        Candidate(
            name="any_f1",
            title="AnyLoss (macro F1)",
            why="Trains a smooth F1 of the batch; needs several rows of a class in a batch to work well.",
            changes={
                "objective": {
                    "loss": "any_loss",
                    "settings": {"metric": "f1", "link": "softmax", "average": "macro"},
                }
            },
            space={"objective.settings.amplify": Span(low=3.0, high=30.0, log=True)},
            metrics=("f1",),
        ),
        Candidate(
            name="nested_levels",
            title="Nested head (cumulative loss)",
            why="One number a row and rising thresholds, so that levels never contradict each other.",
            changes={
                "head": {"name": "nested", "steepness": 10.0, "thresholds": "learned"},
                "objective": {"loss": "cumulative"},
            },
            space={"head.steepness": Span(low=2.0, high=20.0, log=True)},
        ),
        Candidate(
            name="cumulative",
            title="Cumulative cross-entropy",
            why="A mistake costs more the further it is off, with a head that scores every level by itself.",
            changes={"objective": {"loss": "cumulative"}},
        ),
        Candidate(
            name="z_loss",
            title="Z-loss with the spherical head",
            why="Costs the same for any number of classes; its own rate and settings want tuning.",
            changes={"objective": {"loss": "z_loss"}, "head": {"name": "spherical"}},
            space={
                "objective.settings.a": Span(low=0.03, high=1.0, log=True),
                "objective.settings.b": Span(low=1.0, high=30.0, log=True),
            },
        ),
        Candidate(
            name="ens_loss",
            title="EnsLoss (a random convex loss a step)",
            why="Against over-fitting of few rows by large networks; no gain where training is not perfect.",
            changes={"objective": {"loss": "ens_loss"}, "schedule": {"name": "cosine"}},
        ),
        Candidate(
            name="naive_bayes_start",
            title="Head that starts at naive Bayes",
            why="Begins where one pass leaves a linear head; with many rows the start is soon forgotten.",
            changes={"refresh": [{"name": "naive_bayes_start"}]},
        ),
        Candidate(
            name="symmetric_cross_entropy",
            title="Symmetric cross-entropy",
            why="Adds a bounded part that wrong labels pull less; slower where labels are right.",
            changes={"objective": {"loss": "symmetric_cross_entropy"}},
        ),
        Candidate(
            name="cosine_head",
            title="Cosine head (temperature 0.05)",
            why="Scores directions alone: no class wins by the length of its vector; new ones can be added.",
            changes={"head": {"name": "cosine", "temperature": 0.05}},
            space={"head.temperature": Span(low=0.02, high=0.3, log=True)},
        ),
        Candidate(
            name="orthogonal_projection",
            title="Orthogonal projection beside cross-entropy",
            why="Sets the features of classes at right angles; hurts the transfer to new classes.",
            changes={"objective": {"penalties": [{"loss": "orthogonal_projection", "weight": 1.0}]}},
        ),
    )  # fmt: skip


def _of_label_sets() -> Sequence[Candidate]:
    tasks: tuple[Task, ...] = ("label_sets",)
    return (
        Candidate(
            name="binary_cross_entropy",
            title="Binary cross-entropy",
            why="The plain baseline: every label by itself, given where its probability is above a half.",
            changes={"decisions": _PLAIN_CUT},
            tasks=tasks,
        ),
        Candidate(
            name="binary_cross_entropy_tuned",
            title="Binary cross-entropy with tuned thresholds",
            why="The same training; only the threshold of each label is chosen on the select rows.",
            changes={"decisions": _TUNED_CUT},
            tasks=tasks,
            metrics=DECISIONS,
        ),
        Candidate(
            name="labels_adjusted",
            title="Logit adjustment of labels (tau = 1)",
            why="Takes label frequencies out of the scores: gives rare labels, at a cost in precision.",
            changes={"objective": {"targets": {"logit_adjustment": 1.0}}, "decisions": _PLAIN_CUT},
            space={"objective.targets.logit_adjustment": Span(low=0.1, high=1.0)},
            tasks=tasks,
        ),
        Candidate(
            name="binary_focal",
            title="Binary focal loss (gamma = 2), tuned thresholds",
            why="Turns attention to entries that are still wrong, away from the many easy negatives.",
            changes={
                "objective": {"loss": "binary_focal", "settings": {"gamma": 2.0}}, "decisions": _TUNED_CUT,
            },
            space={"objective.settings.gamma": Span(low=0.5, high=5.0)},
            tasks=tasks,
        ),
        Candidate(
            name="labels_any_f1",
            title="AnyLoss (macro F1), tuned thresholds",
            why="Trains a smooth F1 of the batch; labels without a row in a batch learn nothing from it.",
            changes={
                "objective": {"loss": "any_loss", "settings": {"metric": "f1", "average": "macro"}},
                "decisions": _TUNED_CUT,
            },
            space={"objective.settings.amplify": Span(low=3.0, high=30.0, log=True)},
            tasks=tasks,
            metrics=("f1",),
        ),
        Candidate(
            name="labels_dice",
            title="Dice of the batch, tuned thresholds",
            why="Trains the overlap of each label: few positives among many negatives, large batches.",
            changes={"objective": {"loss": "dice"}, "decisions": _TUNED_CUT},
            space={"objective.settings.smoothing": Span(low=0.01, high=10.0, log=True)},
            tasks=tasks,
            metrics=("f1",),
        ),
        Candidate(
            name="labels_margins",
            title="Margins by label frequency (up to 3), tuned thresholds",
            why="Asks for more distance the rarer the label, as LDAM does; its scores are no probabilities.",
            changes={"objective": {"targets": {"class_margins": 3.0}}, "decisions": _TUNED_CUT},
            space={"objective.targets.class_margins": Span(low=0.5, high=6.0, log=True)},
            tasks=tasks,
        ),
        Candidate(
            name="label_attention",
            title="Label attention, tuned thresholds",
            why="Each label looks for its own words; it costs a score for every label and word.",
            changes={"head": {"name": "label_attention"}, "decisions": _TUNED_CUT},
            tasks=tasks,
        ),
        Candidate(
            name="labels_smoothed",
            title="Smoothed labels (0.05), tuned thresholds",
            why="Keeps the model from certainty about labels that people would not agree on.",
            changes={"objective": {"targets": {"smooth": 0.05}}, "decisions": _TUNED_CUT},
            space={"objective.targets.smooth": Span(low=0.01, high=0.2, log=True)},
            tasks=tasks,
        ),
        Candidate(
            name="labels_mann_whitney",
            title="Mann-Whitney pairs of each label, tuned thresholds",
            why="Trains the order of rows within each label; its scores are no probabilities.",
            changes={
                "objective": {"loss": "mann_whitney", "settings": {"scope": "column"}},
                "decisions": _TUNED_CUT,
            },
            tasks=tasks,
            metrics=("ranking",),
        ),
        Candidate(
            name="labels_softmax",
            title="Softmax over labels, tuned thresholds",
            why="Lets the labels of a row compete with those it lacks: for the order of labels in a row.",
            changes={
                "objective": {"loss": "cross_entropy"},
                "decisions": _TUNED_CUT,
            },
            tasks=tasks,
            metrics=("candidates",),
        ),
    )  # fmt: skip


def _of_values() -> Sequence[Candidate]:
    return (
        Candidate(
            name="squared_error",
            title="Squared error",
            why="The plain baseline for numbers.",
            tasks=("values",),
        ),
    )


def _of_matches() -> Sequence[Candidate]:
    tasks: tuple[Task, ...] = ("matches",)
    return (
        Candidate(
            name="sup_con",
            title="Supervised contrastive (temperature 0.1)",
            why="The plain baseline of embeddings: all rows of a class attract, all others repel.",
            space={"objective.settings.temperature": Span(low=0.03, high=0.3, log=True)},
            tasks=tasks,
        ),
        Candidate(
            name="multi_similarity",
            title="Multi-similarity",
            why="Weighs pairs by how hard they are for both sides, and drops the easy ones.",
            changes={"objective": {"loss": "multi_similarity"}},
            space={"objective.settings.beta": Span(low=10.0, high=80.0, log=True)},
            tasks=tasks,
        ),
        Candidate(
            name="semi_hard_triplet",
            title="Triplets with semi-hard negatives",
            why="Compares one negative a pair; cheap, and it stops learning when all are far enough.",
            changes={"objective": {"loss": "semi_hard_triplet"}},
            space={"objective.settings.margin": Span(low=0.05, high=0.5, log=True)},
            tasks=tasks,
        ),
        Candidate(
            name="disposable_head",
            title="Supervised contrastive behind a disposable head",
            why="Compares what a head makes of the embeddings and keeps these: for other classes and tasks.",
            changes={"head": {"name": "disposable", "kind": "mlp", "then": None}},
            tasks=tasks,
        ),
    )


_KNOWN = {
    candidate.name: candidate
    for candidate in (*_of_classes(), *_of_label_sets(), *_of_values(), *_of_matches())
}
