"""The looks in a data set, as `balance.AppearanceEquity` finds them: how common each is, with examples."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from margins.balance.appearance import Appearance
from margins.cards import Card, carded
from margins.diagnose.checking import as_rows, check_count
from margins.errors import MarginsError


@dataclass(frozen=True, kw_only=True)
class AppearanceCluster:
    """Rows that look alike.

    Args:
        cluster: its number, the largest is 0; -1 for rows that are like few others.
        num_rows: in it.
        share: of all rows.
        weight: mean over its rows.
        examples: rows nearest to its centre, nearest first; of -1 those farthest from the centre of all.
    """

    cluster: int
    num_rows: int
    share: float
    weight: float
    examples: tuple[int, ...]


@carded(
    Card(
        name="Appearance clusters",
        summary="before rows are weighed by their looks: which looks there are, and what rare ones are",
        paper="Shrivastava et al., Are All Samples Created Equal? In the Quest for Equity within Datasets, "
        "2023, arXiv 2308.09878",
        kind="diagnostic",
        stations=("before training",),
        targets=("none",),
        entry=21,
        tests=("tests/test_appearance.py::test_the_table_lists_rare_looks_first_with_their_rows",),
    )
)
def appearance_clusters(
    appearance: Appearance, embeddings: Float[Tensor, "N d"], *, num_examples: int = 5
) -> list[AppearanceCluster]:
    """A line for each look, the rarest first, with rows to look at.

    Use it before training with `AppearanceEquity`: a rare look may be worth learning, or may be broken rows
    that are better removed. Clusters that are classes say that the embeddings show classes, not looks.

    Args:
        appearance: what `AppearanceEquity.fit` gave; not of the clusterer "knn", which makes no clusters.
        embeddings: [N, d], those that it was fitted on.
        num_examples: of each look.

    Raises:
        MarginsError: no clusters, or embeddings of other rows.

    Example:
        >>> import torch
        >>> from margins.balance import AppearanceEquity
        >>> looks = torch.cat([torch.zeros(90, 2), torch.ones(10, 2)])
        >>> found = AppearanceEquity(clusterer="kmeans", num_clusters=2).fit(looks)
        >>> [(line.num_rows, line.examples) for line in appearance_clusters(found, looks, num_examples=2)]
        [(10, (90, 91)), (90, (0, 1))]
    """
    rows = as_rows("embeddings", embeddings)
    clusters = appearance.clusters
    if clusters is None or len(clusters) != len(rows):
        raise MarginsError(
            "appearance", expected=f"clusters of these {len(rows)} rows",
            received="none" if clusters is None else f"those of {len(clusters)}",
            fix="fit with another clusterer than knn, on the same embeddings",
        )  # fmt: skip
    check_count("num_examples", num_examples)
    found = [_line(int(k), clusters, rows, appearance.weight, num_examples) for k in clusters.unique()]
    # Rows that are alone are the rarest of all, however many there are.
    return sorted(found, key=lambda line: (line.cluster >= 0, line.num_rows, -line.cluster))


def _line(
    cluster: int, clusters: Tensor, rows: Tensor, weight: Tensor, num_examples: int
) -> AppearanceCluster:
    members = (clusters == cluster).nonzero().flatten().to(rows.device)
    if cluster >= 0:
        away = (rows[members] - rows[members].mean(0)).norm(dim=1)
    else:
        away = -(rows[members] - rows.mean(0)).norm(dim=1)
    nearest = members[away.argsort(stable=True)[:num_examples]]
    return AppearanceCluster(
        cluster=cluster,
        num_rows=len(members),
        share=len(members) / len(rows),
        weight=float(weight[members.to(weight.device)].mean()),
        examples=tuple(nearest.tolist()),
    )
