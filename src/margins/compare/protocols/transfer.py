"""What trained encoders are worth on another task than their own: linear probes on source and target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.cards import Card, carded
from margins.data.extras import extra
from margins.errors import MarginsError, describe
from margins.targets.checks import check_labels

Labelled = tuple[Any, Tensor]
"""Inputs of rows, as the encoders take them, and class ids [N]."""

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class ProbedTask:
    """A task that frozen embeddings are probed on.

    Args:
        train: rows that the probe learns on.
        select: rows that choose how strongly it is regularised.
        test: rows that judge it.
    """

    train: Labelled
    select: Labelled
    test: Labelled


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """How a linear probe did.

    Args:
        accuracy: on the test rows.
        train_loss: mean cross-entropy on the training rows.
        strength: inverse strength of the penalty on the weights that the select rows chose.
    """

    accuracy: float
    train_loss: float
    strength: float


@dataclass(frozen=True, kw_only=True)
class TransferScore:
    """Of one encoder.

    Args:
        name: of the encoder.
        source: on the task that it was trained for.
        target: on the other one.
    """

    name: str
    source: ProbeScore
    target: ProbeScore


@carded(
    Card(
        name="Transfer by linear probes",
        summary="an encoder must serve a task to come: features that its own did not need show there only",
        paper="Zhang and Bottou, Learning useful representations for shifting tasks and distributions, 2023, "
        "arXiv 2212.07346",
        kind="protocol",
        stations=("protocol",),
        targets=("classes",),
        entry=60,
        tests=(
            "tests/test_concatenated.py::test_transfer_tells_features_apart_that_the_source_task_does_not",
            "tests/test_concatenated.py::test_a_probe_of_all_blocks_fits_at_least_as_well_as_that_of_each",
        ),
    )
)
def transfer(
    encoders: Mapping[str, Callable[[Any], Tensor]],
    *,
    source: ProbedTask,
    target: ProbedTask,
    strengths: Sequence[float] = STRENGTHS,
) -> list[TransferScore]:
    """Accuracy of linear probes on the frozen embeddings of each encoder, on its own task and on another.

    Use it to choose an encoder for tasks to come, with a target task like those. Compare encoders of equal
    width, or beside them one of the same total width: more features fit better by their number alone. The
    source score alone does not predict the target score.

    Args:
        encoders: by name; inputs of rows to embeddings [N, d], trained already.
        source: the task that they were trained for.
        target: the other one.
        strengths: inverse strengths of the penalty that are tried, each > 0.

    Returns:
        one an encoder, in their order.

    Raises:
        MarginsError: no encoder, embeddings or labels that do not fit, or one class only.

    Example:
        >>> labels = torch.arange(40) % 2
        >>> rows = torch.stack([labels, torch.arange(40) // 2 % 2], 1).float()
        >>> parity, half = ((rows, labels),) * 3, ((rows, rows[:, 1].long()),) * 3
        >>> first, second = (ProbedTask(train=a, select=b, test=c) for a, b, c in (parity, half))
        >>> kept = {"one column": lambda x: x[:, :1], "both": lambda x: x}
        >>> found = transfer(kept, source=first, target=second)
        >>> [(score.source.accuracy, score.target.accuracy) for score in found]
        [(1.0, 0.5), (1.0, 1.0)]

    References:
        Zhang and Bottou 2023, arXiv 2212.07346.
    """
    if not encoders:
        raise MarginsError("encoders", expected="at least one", received="none")
    return [
        TransferScore(
            name=name, source=_probed(encode, source, strengths), target=_probed(encode, target, strengths)
        )
        for name, encode in encoders.items()
    ]


def linear_probe(
    train: tuple[Float[Tensor, "N d"], Int[Tensor, "N"]],
    select: tuple[Float[Tensor, "M d"], Int[Tensor, "M"]],
    test: tuple[Float[Tensor, "K d"], Int[Tensor, "K"]],
    *,
    strengths: Sequence[float] = STRENGTHS,
) -> ProbeScore:
    """A logistic regression on standardised features, its penalty chosen on the select rows.

    Args:
        train: embeddings and class ids that it learns on.
        select: that choose the penalty; of equal ones the strongest.
        test: that judge it.
        strengths: inverse strengths of the penalty that are tried.

    Raises:
        MarginsError: embeddings or labels that do not fit, or one class only.
    """
    width = train[0].shape[-1]
    for name, (embeddings, labels) in (("train", train), ("select", select), ("test", test)):
        if embeddings.ndim != 2 or embeddings.shape[1] != width or not len(embeddings):
            raise MarginsError(name, expected=f"embeddings [N, {width}]", received=describe(embeddings))
        check_labels(f"labels of {name}", labels)
        if len(labels) != len(embeddings):
            raise MarginsError(
                f"labels of {name}", expected=f"[N] = [{len(embeddings)}]", received=describe(labels)
            )
    if len(train[1].unique()) < 2:
        raise MarginsError("labels of train", expected="two classes or more", received="one")
    if not strengths or not all(0 < strength < float("inf") for strength in strengths):
        raise MarginsError("strengths", expected="positive numbers, at least one", received=str(strengths))
    mean, deviation = train[0].double().mean(0), train[0].double().std(0, correction=0)
    factor = torch.where(deviation > 1e-9 * (1 + mean.abs()), 1 / deviation.clamp(min=1e-300), 0.0)
    x_train, x_select, x_test = (
        ((rows.detach().double() - mean) * factor).cpu().numpy() for rows, _ in (train, select, test)
    )
    y_train, y_select, y_test = (labels.cpu().numpy() for _, labels in (train, select, test))
    with extra("tool"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import log_loss
    best: tuple[float, float, Any] | None = None
    for strength in sorted(strengths):
        probe = LogisticRegression(C=strength, max_iter=5000).fit(x_train, y_train)
        score = float(probe.score(x_select, y_select))
        if best is None or score > best[0]:
            best = score, strength, probe
    assert best is not None  # noqa: S101 - there is a strength
    _, strength, probe = best
    return ProbeScore(
        accuracy=float(probe.score(x_test, y_test)),
        train_loss=float(log_loss(y_train, probe.predict_proba(x_train), labels=probe.classes_)),
        strength=strength,
    )


@torch.no_grad()
def _probed(encode: Callable[[Any], Tensor], task: ProbedTask, strengths: Sequence[float]) -> ProbeScore:
    parts = [(encode(inputs), labels) for inputs, labels in (task.train, task.select, task.test)]
    return linear_probe(*parts, strengths=strengths)
