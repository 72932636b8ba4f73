"""Classes by example: a prototype from a few rows of each, and no training."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.engine.score_rules import unit
from margins.errors import MarginsError, describe
from margins.targets.checks import check_finite, check_labels


@carded(
    Card(
        name="Cosine prototypes",
        summary="classes that were not there in training, from one or a few rows of each",
        paper="Pereira et al., Hyperspherical Embedding for Novel Class Classification, 2021, "
        "arXiv 2102.03243",
        kind="head",
        stations=("score", "after training"),
        targets=("classes",),
        entry=33,
        tests=(
            "tests/test_prototypes.py::test_prototypes_of_all_rows_are_the_classifier_of_class_means",
            "tests/test_prototypes.py::test_classes_may_be_added_one_by_one",
        ),
        study="cosine_novel_classes",
    )
)
class PrototypeHead(nn.Module):
    r"""The cosine of embedding and class prototype.

    Use it to add classes to a trained encoder without training, from one row of each upwards; the encoder
    should have been trained with cosines (`CosineHead`, `SupCon`). With many rows a class a fitted linear
    head is better.

    $c_k$ is the mean of the class's embeddings, each at length 1, brought to length 1 itself;
    $s_{ik} = \cos(x_i, c_k)$.

    Args:
        prototypes: [K, d], of any length; one of zeros scores 0.
        classes: [K] integers, the class that each stands for, no two alike.

    Raises:
        MarginsError: other shapes, a class twice, no class, or numbers that are not finite.

    References:
        Pereira et al. 2021, arXiv 2102.03243; Snell, Swersky, Zemel, Prototypical Networks, 2017, arXiv
        1703.05175 (with Euclidean distances).

    Example:
        >>> support = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> head = PrototypeHead.from_support(support, torch.tensor([7, 9, 9]))
        >>> head.predict(torch.tensor([[1.0, 0.2], [0.1, 5.0]])).tolist()
        [7, 9]
    """

    prototypes: Tensor
    classes: Tensor

    def __init__(self, prototypes: Tensor, classes: Tensor) -> None:
        super().__init__()
        _refuse_other_rows("prototypes", prototypes, "classes", classes)
        if len(classes.unique()) != len(classes):
            raise MarginsError("classes", expected="no class twice", received=str(classes.tolist()[:20]))
        self.register_buffer("prototypes", unit(prototypes.detach()))
        self.register_buffer("classes", classes.detach().long().clone())

    @classmethod
    def from_support(cls, embeddings: Tensor, labels: Tensor) -> Self:
        """Prototypes of the classes that are among the labels, in their order as numbers.

        Args:
            embeddings: [M, d] of the support rows.
            labels: [M] integers, not necessarily from 0.

        Raises:
            MarginsError: other shapes, no row, or numbers that are not finite.
        """
        _refuse_other_rows("embeddings", embeddings, "labels", labels)
        classes, place = labels.long().unique(return_inverse=True)
        directions = unit(embeddings.detach())
        sums = directions.new_zeros(len(classes), directions.shape[1]).index_add_(0, place, directions)
        return cls(sums, classes)

    def joined(self, other: PrototypeHead) -> PrototypeHead:
        """The classes of this head and then those of another, for the same embeddings."""
        if self.prototypes.shape[1] != other.prototypes.shape[1]:
            raise MarginsError(
                "other", expected=f"prototypes of width {self.prototypes.shape[1]}",
                received=describe(other.prototypes),
            )  # fmt: skip
        return PrototypeHead(
            torch.cat([self.prototypes, other.prototypes.to(self.prototypes)]),
            torch.cat([self.classes, other.classes.to(self.classes.device)]),
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """Cosines [B, K] of embeddings [B, d], in the order of `classes`."""
        return unit(embeddings) @ self.prototypes.to(embeddings.dtype).T

    def predict(self, embeddings: Tensor) -> Tensor:
        """The class [B] of the nearest prototype; of two that are as near, the first."""
        return self.classes[self(embeddings).argmax(1)]


def _refuse_other_rows(name: str, rows: Tensor, label_name: str, labels: Tensor) -> None:
    if rows.ndim != 2 or not rows.is_floating_point() or not rows.shape[0]:
        raise MarginsError(name, expected="[M, d] floats with M >= 1", received=describe(rows))
    check_labels(label_name, labels, dims="[M]")
    if labels.shape[0] != rows.shape[0]:
        raise MarginsError(label_name, expected=f"[M] = [{rows.shape[0]}]", received=describe(labels))
    check_finite(name, rows)
