"""How close the last layer of a classifier is to its terminal geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.cards import Card, carded
from margins.diagnose.checking import as_rows, check_labels
from margins.errors import MarginsError, describe
from margins.heads import LinearHead

_RANK = 1e-10  # singular values below this share of the largest are rounding


@dataclass(frozen=True, kw_only=True)
class NeuralCollapse:
    """The geometry of features and head; every figure but the norms and counts is 0 at full collapse.

    The simplex frame is where balanced classes end with cross-entropy or with a bias in the head, the
    orthogonal frame where they end with squared error and no bias.

    Args:
        nc1: spread within classes over the spread of their means: tr(Sigma_W pinv(Sigma_B)) / K.
        nc2_simplex: distance of the Gram matrix of centred class means from a simplex frame, both of norm 1.
        nc2_orthogonal: distance of the Gram matrix of class means from an orthogonal frame, both of norm 1.
        nc3_simplex: the same of the products of head rows and centred class means; None without a head.
        nc3_orthogonal: the same of the products of head rows and class means; None without a head.
        nc4: share of rows on which head and nearest class mean disagree; None without a head.
        off_diagonal: share of the energy of the Gram matrix of class means that is off its diagonal: 0 for
            orthogonal means of any lengths, where imbalanced classes end with squared error and no bias.
        counts: rows of each class.
        mean_norms: length of each class mean.
        weight_norms: length of each row of the head; None without a head.
    """

    nc1: float
    nc2_simplex: float
    nc2_orthogonal: float
    nc3_simplex: float | None
    nc3_orthogonal: float | None
    nc4: float | None
    off_diagonal: float
    counts: tuple[int, ...]
    mean_norms: tuple[float, ...]
    weight_norms: tuple[float, ...] | None


@carded(
    Card(
        name="Neural collapse metrics",
        summary="after training: how far features and head are from the geometry in which training ends",
        paper="Dang et al., Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data, 2023, "
        "arXiv 2301.00437; Papyan, Han, Donoho 2020, arXiv 2008.08186",
        kind="diagnostic",
        stations=("after training",),
        targets=("classes",),
        entry=99,
        tests=(
            "tests/test_neural_collapse.py::test_every_figure_is_zero_on_a_simplex_frame",
            "tests/test_neural_collapse.py::test_every_figure_is_zero_on_an_orthogonal_frame",
            "tests/test_neural_collapse.py::test_metrics_equal_their_definitions_in_loops",
        ),
        study="neural_collapse",
    )
)
def neural_collapse(
    features: Float[Tensor, "rows dim"],
    labels: Int[Tensor, " rows"],
    weight: Float[Tensor, "classes dim"] | None = None,
    bias: Float[Tensor, " classes"] | None = None,
) -> NeuralCollapse:
    r"""The neural collapse metrics NC1 to NC4, and the off-diagonal share for imbalanced classes.

    Use it on the training rows, in the last phase of training: that is where the geometry is claimed. It says
    nothing of generalisation, and on rows that were not trained on it need not fall. With imbalanced classes
    the frames of NC2 and NC3 are not where training ends: look at `off_diagonal` and at the norms, beside
    `predict_collapse`.

    With class means $\bar h_k$, the mean $h_G$ over all rows, $M$ of rows $\bar h_k - h_G$:

    $NC1 = \frac{1}{K} tr(\Sigma_W \Sigma_B^+)$;
    $NC2 = \| M M^T / \|M M^T\|_F - (I - 1 1^T / K) / \sqrt{K - 1} \|_F$ (simplex), and with means that are
    not centred against $I / \sqrt{K}$ (orthogonal); NC3 the same with $W M^T$ in place of $M M^T$;
    $NC4$ counts rows whose largest score is not that of the nearest class mean.

    Args:
        features: [N, d] what the head takes.
        labels: [N] class ids; all of 0 to K - 1 occur.
        weight: [K, d] of the head, rows are classes.
        bias: [K] of the head; None for none.

    Raises:
        MarginsError: shapes that do not fit, a class without rows, fewer than two classes.

    Example:
        >>> found = neural_collapse(torch.eye(3)[[0, 0, 1, 2]], torch.tensor([0, 0, 1, 2]), torch.eye(3))
        >>> found.nc1, round(found.nc2_orthogonal, 6), found.nc4
        (0.0, 0.0, 0.0)

    References:
        Papyan, Han, Donoho 2020, arXiv 2008.08186; Dang et al. 2023, arXiv 2301.00437.
    """
    rows = as_rows("features", features, least=2)
    counts = _counts(labels, len(rows))
    num_classes = len(counts)
    means = torch.zeros(num_classes, rows.shape[1], dtype=rows.dtype, device=rows.device)
    means = means.index_add(0, labels, rows) / counts[:, None]
    centred = means - rows.mean(0)
    one = torch.eye(num_classes).to(rows)
    simplex, orthogonal = (one - 1 / num_classes) / math.sqrt(num_classes - 1), one / math.sqrt(num_classes)
    gram = means @ means.T
    head = None if weight is None else _head(weight, bias, means)
    return NeuralCollapse(
        nc1=_within_over_between(rows - means[labels], centred),
        nc2_simplex=_distance(centred @ centred.T, simplex),
        nc2_orthogonal=_distance(gram, orthogonal),
        nc3_simplex=None if head is None else _distance(head[0] @ centred.T, simplex),
        nc3_orthogonal=None if head is None else _distance(head[0] @ means.T, orthogonal),
        nc4=None if head is None else _disagreement(rows, means, *head),
        off_diagonal=_off_diagonal(gram),
        counts=tuple(counts.tolist()),
        mean_norms=tuple(means.norm(dim=1).tolist()),
        weight_norms=None if head is None else tuple(head[0].norm(dim=1).tolist()),
    )


class TrainedClassifier(Protocol):
    """What `collapse_of` needs of a model; `margins.load` and `margins.train` give such ones."""

    @property
    def classes(self) -> list[str]:
        """The name of each output."""
        ...

    @property
    def network(self) -> Any:
        """A module with a `head` that has `weight`, and `bias` or none."""
        ...

    def embed(self, data: Any) -> Any:
        """Embeddings [N, width] of rows."""
        ...


def collapse_of(model: TrainedClassifier, data: Any, labels: Sequence[str]) -> NeuralCollapse:
    """The neural collapse metrics of a trained model with a linear head.

    Use it on the rows that the model was trained on; see `neural_collapse`.

    Args:
        model: of classes, with a linear head.
        data: the rows, as `model.predict` takes them.
        labels: the class of each row by name; every class of the model occurs.

    Raises:
        MarginsError: another head, a label that is no class of the model, a class without rows.
    """
    head = model.network.head
    if not isinstance(head, (LinearHead, torch.nn.Linear)):
        raise MarginsError(
            "model", expected="a linear head", received=type(head).__name__,
            fix="pass features and weights of your own to neural_collapse",
        )  # fmt: skip
    places = {name: place for place, name in enumerate(model.classes)}
    unknown = [label for label in labels if label not in places]
    if unknown:
        raise MarginsError("labels", expected=f"classes of the model: {model.classes[:5]}",
                           received=repr(unknown[0]))  # fmt: skip
    features = torch.as_tensor(model.embed(data))
    ids = torch.tensor([places[label] for label in labels], dtype=torch.int64)
    return neural_collapse(features, ids, head.weight, head.bias)


def _counts(labels: Tensor, num_rows: int) -> Tensor:
    check_labels("labels", labels, num_rows)
    counts = torch.bincount(labels)
    if len(counts) < 2 or bool((counts == 0).any()):
        empty = (counts == 0).nonzero().flatten().tolist()
        raise MarginsError(
            "labels",
            expected="two classes or more, numbered from 0, each with a row",
            received=f"{len(counts)} classes" + (f", {empty[:5]} without rows" if empty else ""),
            fix="number the classes that occur from 0 and take the same rows of the head",
        )
    return counts


def _head(weight: Tensor, bias: Tensor | None, means: Tensor) -> tuple[Tensor, Tensor]:
    if weight.shape != means.shape:
        raise MarginsError("weight", expected=f"[K, d] = {list(means.shape)}", received=describe(weight))
    if bias is not None and bias.shape != means.shape[:1]:
        raise MarginsError("bias", expected=f"[K] = [{len(means)}]", received=describe(bias))
    offset = means.new_zeros(len(means)) if bias is None else bias.detach().to(means)
    return weight.detach().to(means), offset


def _within_over_between(deviations: Tensor, centred: Tensor) -> float:
    # Sigma_B is M'M / K, so its pseudoinverse is K P P' with P the pseudoinverse of M: no d x d matrix.
    # M has rank K - 1 at most: what rounding leaves of the last direction must not be inverted.
    inverse = torch.linalg.pinv(centred, rtol=_RANK)
    return float((deviations @ inverse).square().sum() / len(deviations))


def _distance(found: Tensor, target: Tensor) -> float:
    size = found.norm()
    return float((found / size - target).norm()) if size > 0 else 1.0


def _off_diagonal(gram: Tensor) -> float:
    energy = gram.square().sum()
    return float((gram - gram.diagonal().diag()).square().sum() / energy) if energy > 0 else 0.0


def _disagreement(rows: Tensor, means: Tensor, weight: Tensor, offset: Tensor) -> float:
    nearest = (rows @ means.T - means.square().sum(1) / 2).argmax(1)  # least |h - m|^2
    return float(((rows @ weight.T + offset).argmax(1) != nearest).double().mean())
