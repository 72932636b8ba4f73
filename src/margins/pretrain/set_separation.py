"""Whether labels of sets tell fine classes apart: what an encoder trained on them can be expected to keep."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from margins.cards import Card, carded
from margins.data.extras import extra
from margins.errors import MarginsError, describe
from margins.evaluation.statistics import holm
from margins.labels.sets import SetDataset
from margins.losses.forms.base import in_range
from margins.targets.checks import check_labels

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FineClass:
    """What labels of sets say of one fine class.

    Args:
        number: of the class.
        num_sets: that hold an item of it.
        confused_with: classes from which labels of sets do not tell it.
        nearest: the class whose sets have the most similar labels; None without another.
        distance: total variation between the labels of its sets and of those of the nearest, in [0, 1].
    """

    number: int
    num_sets: int
    confused_with: tuple[int, ...]
    nearest: int | None
    distance: float

    @property
    def is_separated(self) -> bool:
        """Whether labels of sets tell it from every other class."""
        return not self.confused_with

    @property
    def sentence(self) -> str:
        """The finding in words."""
        sets = f"class {self.number} ({self.num_sets} sets)"
        if self.is_separated:
            return f"{sets}: set labels tell it from every other class"
        others = ", ".join(map(str, self.confused_with))
        return (
            f"{sets}: set labels do not tell it from {others}; an encoder trained on them alone may lose "
            "what does: add reconstruction, or keep the encoder that there was"
        )


@carded(
    Card(
        name="Separation of fine classes by set labels",
        summary="before pretraining on labels of sets: which fine classes these labels can teach at all",
        paper="Zhang et al., Enhancing Instance-Level Image Classification with Set-Level Labels, 2024, "
        "arXiv 2311.05659",
        kind="diagnostic",
        stations=("before training",),
        targets=("bags", "classes"),
        entry=100,
        tests=("tests/test_sets.py::test_classes_that_set_labels_do_not_separate_are_named",),
        study="set_labels",
    )
)
def coarse_separation(
    data: SetDataset, item_classes: Tensor, *, level: float = 0.01, least_distance: float = 0.1
) -> list[FineClass]:
    r"""For each fine class, which others have the same labels of sets as far as one can tell.

    For classes $c$, $c'$: the labels of the sets that hold an item of $c$ against those of $c'$, by a
    chi-squared test of homogeneity (Holm's correction over all pairs) and their total variation
    $\frac{1}{2} \sum_l |P(l \mid c) - P(l \mid c')|$. A pair is told apart when the test rejects and the
    distance is at least `least_distance`. A set that holds both counts for both, which makes the test
    cautious. Few known items tell nothing apart: that is a warning, not a proof.

    Args:
        data: sets with labels.
        item_classes: [N] the fine class of each item of the sets, negative where it is not known.
        level: of the test, in (0, 1).
        least_distance: in [0, 1].

    Raises:
        MarginsError: shapes that do not fit, or no item whose class is known.

    Example:
        >>> sets, labels = torch.arange(400) // 2, torch.arange(200) % 2
        >>> classes = torch.where(torch.arange(400) % 2 == 0, labels[sets], 2)  # 2 is in every set
        >>> for found in coarse_separation(SetDataset(torch.zeros(400, 1), sets, labels), classes):
        ...     print(found.number, found.is_separated, round(found.distance, 2))
        0 True 0.5
        1 True 0.5
        2 True 0.5
    """
    check_labels("item_classes", item_classes, dims="[N]")
    if len(item_classes) != len(data.set_index):
        raise MarginsError(
            "item_classes", expected=f"[N] = [{len(data.set_index)}]", received=describe(item_classes)
        )
    in_range("level", level, low=0, high=1)
    in_range("least_distance", least_distance, low=0, high=1)
    known = item_classes >= 0
    if not bool(known.any()):
        raise MarginsError("item_classes", expected="a class that is known", received="none")
    classes, place = torch.unique(item_classes[known].long(), return_inverse=True)
    holds = torch.zeros(len(data), len(classes), dtype=torch.bool)
    holds[data.set_index[known], place] = True
    by_label = torch.nn.functional.one_hot(data.set_labels, data.num_labels)
    counts = (holds.T.long() @ by_label).double().numpy()
    pairs = list(combinations(range(len(classes)), 2))
    adjusted = holm([_p_value(counts[list(pair)]) for pair in pairs]) if pairs else []
    shares = counts / counts.sum(1, keepdims=True)
    distances = np.abs(shares[:, None] - shares[None]).sum(2) / 2
    alike = np.zeros_like(distances, dtype=bool)
    for (a, b), p in zip(pairs, adjusted, strict=True):
        alike[a, b] = alike[b, a] = p > level or distances[a, b] < least_distance
    numbers: list[int] = classes.tolist()
    return [_described(c, numbers, counts, distances, alike) for c in range(len(numbers))]


def _described(
    c: int, numbers: list[int], counts: Floats, distances: Floats, alike: npt.NDArray[np.bool_]
) -> FineClass:
    others = [k for k in range(len(numbers)) if k != c]
    nearest = min(others, key=lambda k: float(distances[c, k]), default=None)
    return FineClass(
        number=numbers[c], num_sets=int(counts[c].sum()),
        confused_with=tuple(numbers[k] for k in others if alike[c, k]),
        nearest=None if nearest is None else numbers[nearest],
        distance=1.0 if nearest is None else float(distances[c, nearest]),
    )  # fmt: skip


def _p_value(table: Floats) -> float:
    """Of the hypothesis that both rows of counts come from the same shares."""
    with extra("tool"):
        from scipy.special import chdtrc
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    return float(chdtrc(table.shape[1] - 1, ((table - expected) ** 2 / expected).sum()))
