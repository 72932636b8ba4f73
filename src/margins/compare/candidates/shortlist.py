"""Which recipes are worth comparing on these data: rules from what was found in them, with reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from margins.compare.candidates.candidate import Candidate
from margins.compare.candidates.catalogue import all_candidates, baseline_of, find_candidate
from margins.compare.problem.rows import ComparedRows
from margins.compare.profile import copies_in
from margins.errors import MarginsError
from margins.evaluation import Metric
from margins.training.of_tokens import reads_tokens
from margins.training.recipe import Recipe, Task

IMBALANCED = 3.0  # largest class over smallest
LONG_TAILED = 10.0
MANY = 20  # classes
FEW_ROWS = 200  # a class, on average
CONTRADICTED = 0.1  # of copies
VERY_MANY = 5000  # classes
FEW_IN_ALL = 2000  # rows of two classes
FEW_LABELS = 20  # a class, on average
MOST = 8  # recipes of a shortlist that no one named


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the rules look at.

    Args:
        task: of the comparison.
        num_rows: that are compared on.
        num_classes: classes or labels.
        imbalance: rows of the largest class over those of the smallest.
        rows_a_class: on average.
        num_copies: rows whose inputs stand in an earlier row too.
        contradicted: share of these that have another target there: a sign of wrong labels.
        labels_a_row: on average; 1 for classes.
        has_order: whether the classes are grades or levels.
        has_tokens: whether the encoder gives heads the tokens of a row.
        is_fixed: whether the encoder is not trained.
    """

    task: Task
    num_rows: int
    num_classes: int
    imbalance: float
    rows_a_class: float
    num_copies: int
    contradicted: float
    labels_a_row: float
    has_order: bool = False
    has_tokens: bool = False
    is_fixed: bool = False


@dataclass(frozen=True, kw_only=True)
class Shortlist:
    """Who takes part, and who does not.

    Args:
        candidates: the baseline first, each with the reason that these data give for it.
        left_out: name to reason, of those that the rules left out.
    """

    candidates: list[Candidate]
    left_out: dict[str, str] = field(default_factory=dict)


def findings_of(rows: ComparedRows, shared: Recipe) -> Findings:
    """What the rules look at.

    Args:
        rows: of which those that are compared on are looked at; those kept to report decide nothing.
        shared: what all recipes have in common.
    """
    inside = torch.from_numpy(rows.inside)
    counts = np.zeros(0)
    if rows.targets.storage.has_positives:
        counts = np.bincount(rows.targets.take(inside).positives().columns.numpy()).astype(float)
        counts = counts[counts > 0]
    copies, contradictions = copies_in(rows.frame.take(inside), rows.columns)
    return Findings(
        task=shared.task, num_rows=len(rows.inside), num_classes=len(counts),
        imbalance=float(counts.max() / counts.min()) if len(counts) else 1.0,
        rows_a_class=float(counts.mean()) if len(counts) else float(len(inside)),
        num_copies=copies, contradicted=contradictions / copies if copies else 0.0,
        labels_a_row=float(counts.sum() / len(inside)) if len(counts) else 1.0,
        has_order=rows.columns.class_order is not None and len(counts) > 2,
        has_tokens=reads_tokens(shared.encoder), is_fixed=shared.encoder.is_fixed,
    )  # fmt: skip


def shortlist(found: Findings, metric: Metric, named: Sequence[str | Candidate] | None = None) -> Shortlist:
    """The recipes that take part: those named, or those that the data speak for.

    The ladder always starts with plain cross-entropy (binary for label sets), then the same with a tuned cut
    where the metric judges decisions, then logit adjustment.

    Args:
        found: in the data.
        metric: that judges.
        named: names of candidates, or candidates; None leaves it to the rules.

    Raises:
        MarginsError: an unknown name, two of one name, or nobody to compare with the baseline.

    Example:
        >>> from margins.evaluation import find_metric
        >>> found = Findings(
        ...     task="classes", num_rows=1000, num_classes=2, imbalance=40.0, rows_a_class=500.0,
        ...     num_copies=0, contradicted=0.0, labels_a_row=1.0,
        ... )
        >>> [c.name for c in shortlist(found, find_metric("macro_f1")).candidates][:3]
        ['cross_entropy', 'cross_entropy_tuned', 'logit_adjusted']
    """
    baseline = baseline_of(found.task)
    if named is not None:
        return Shortlist(candidates=_named(baseline, named, found.task))
    chosen, left_out = [baseline], dict[str, str]()
    for candidate in all_candidates(found.task):
        if candidate.name == baseline.name:
            continue
        rule = _RULES[candidate.name]
        reason = rule.reason(found)
        if candidate.metrics and metric.kind not in candidate.metrics:
            left_out[candidate.name] = f"it is for other metrics than {metric.name}"
        elif reason is None:
            left_out[candidate.name] = f"nothing in these data speaks for it: {rule.otherwise}"
        elif len(chosen) == MOST:
            left_out[candidate.name] = f"{MOST} recipes take part already; name it to have it compared"
        else:
            chosen.append(candidate.model_copy(update={"why": f"{candidate.why} Here: {reason}."}))
    if len(chosen) == 1:
        raise MarginsError(
            "candidates", expected=f"at least one recipe to compare with {baseline.name}",
            received="none that these data speak for", fix="name some, or give a file of your own",
        )  # fmt: skip
    return Shortlist(candidates=chosen, left_out=left_out)


def _named(baseline: Candidate, named: Sequence[str | Candidate], task: Task) -> list[Candidate]:
    given: dict[str, Candidate] = {}
    for one in named:
        candidate = find_candidate(one, task) if isinstance(one, str) else one
        if given.setdefault(candidate.name, candidate) != candidate:
            raise MarginsError("candidates", expected="a name for each", received=f"{candidate.name!r} twice")
    found = list(given.values())
    for candidate in found:
        if task not in candidate.tasks:
            raise MarginsError(
                f"candidates: {candidate.name}", expected=f"a recipe for {task}",
                received=f"one for {', '.join(candidate.tasks)}",
            )  # fmt: skip
    others = [c for c in found if c.name != baseline.name]
    if not others:
        raise MarginsError(
            "candidates", expected=f"at least one to compare with {baseline.name}",
            received=", ".join(given) or "none",
        )  # fmt: skip
    return [given.get(baseline.name, baseline), *others]


@dataclass(frozen=True)
class _Rule:
    """When the data speak for a recipe, and what is said when they do not."""

    reason: Callable[[Findings], str | None]
    otherwise: str = ""


def _ratio(found: Findings) -> str:
    times = f"{found.imbalance:.0f}" if found.imbalance >= 10 else f"{found.imbalance:.1f}"
    return f"the largest class has {times} times the rows of the smallest"


def _many_or_few_rows(found: Findings) -> str | None:
    if found.num_classes >= MANY:
        return f"there are {found.num_classes} classes"
    if found.rows_a_class <= FEW_ROWS:
        return f"a class has {found.rows_a_class:.0f} rows on average"
    return None


def _contradicted(found: Findings) -> str | None:
    if found.num_copies and found.contradicted >= CONTRADICTED:
        return f"{found.contradicted:.0%} of {found.num_copies} copied rows have another label"
    return None


def _ordered(found: Findings) -> str | None:
    return "the classes have an order" if found.has_order else None


def _few_of_two(found: Findings) -> str | None:
    if found.num_classes == 2 and found.num_rows <= FEW_IN_ALL:
        return f"there are two classes and {found.num_rows} rows"
    return None


def _very_many(found: Findings) -> str | None:
    return f"there are {found.num_classes} classes" if found.num_classes >= VERY_MANY else None


def _few_labels(found: Findings) -> str | None:
    if found.is_fixed and found.rows_a_class <= FEW_LABELS:
        return f"a class has {found.rows_a_class:.0f} rows on average, and the encoder is not trained"
    return None


_FEW_LABELS = _Rule(_few_labels, f"more than {FEW_LABELS} rows a class, or an encoder that is trained")
_TOKENS = _Rule(
    lambda found: "the encoder gives its tokens" if found.has_tokens else None,
    "the encoder gives no tokens; transformer_text does",
)
_ORDERED = _Rule(_ordered, "their order is not said (--class-order)")
_FEW_OF_TWO = _Rule(_few_of_two, f"not two classes with at most {FEW_IN_ALL} rows")
_VERY_MANY = _Rule(_very_many, f"fewer than {VERY_MANY} classes")
_NEXT = _Rule(lambda _: "the next step after the plain baseline")
_DECIDED = _Rule(lambda _: "the metric judges decisions")
_FOR_METRIC = _Rule(lambda _: "it is made for what the metric judges")
_ADJUSTED = _Rule(_ratio)
_IMBALANCED = _Rule(
    lambda found: _ratio(found) if found.imbalance >= IMBALANCED else None,
    "classes are nearly as large as each other",
)
_LONG_TAILED = _Rule(
    lambda found: _ratio(found) if found.imbalance >= LONG_TAILED else None, "classes have no long tail"
)
_SPARSE = _Rule(_many_or_few_rows, "few classes, with many rows each")
_WRONG = _Rule(_contradicted, "copies of rows do not contradict each other")
_SPARSE_OR_WRONG = _Rule(
    lambda found: _contradicted(found) or _many_or_few_rows(found),
    "few classes with many rows each, and no contradicting copies",
)
_RULES = {
    "cross_entropy_tuned": _DECIDED,
    "logit_adjusted": _ADJUSTED,
    "class_weights": _IMBALANCED,
    "balanced_draw": _LONG_TAILED,
    "class_margins": _LONG_TAILED,
    "label_smoothing": _SPARSE_OR_WRONG,
    "mixup": _SPARSE,
    "focal": _NEXT,
    "generalized_cross_entropy": _WRONG,
    "aldr_kl": _WRONG,
    "mann_whitney": _FOR_METRIC,
    "any_f1": _FOR_METRIC,
    "nested_levels": _ORDERED,
    "cumulative": _ORDERED,
    "symmetric_cross_entropy": _WRONG,
    "cosine_head": _SPARSE,
    "orthogonal_projection": _SPARSE,
    "ens_loss": _FEW_OF_TWO,
    "naive_bayes_start": _FEW_LABELS,
    "z_loss": _VERY_MANY,
    "binary_cross_entropy_tuned": _DECIDED,
    "labels_adjusted": _ADJUSTED,
    "binary_focal": _NEXT,
    "labels_any_f1": _FOR_METRIC,
    "labels_dice": _FOR_METRIC,
    "labels_margins": _LONG_TAILED,
    "label_attention": _TOKENS,
    "labels_smoothed": _WRONG,
    "labels_mann_whitney": _FOR_METRIC,
    "labels_softmax": _FOR_METRIC,
    "multi_similarity": _NEXT,
    "semi_hard_triplet": _NEXT,
    "disposable_head": _NEXT,
}
