"""Weights of rows by how many others look like them, for imbalance that class labels do not show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.cards import Card, carded
from margins.data.extras import extra
from margins.errors import MarginsError, describe

Clusterer = Literal["dbscan", "hdbscan", "kmeans", "knn"]
Projection = Literal["pca", "tsne"]
Noise = Literal["rare", "cluster"]
Floats = npt.NDArray[np.float64]

_RADIUS_QUANTILE = 0.9
_PERPLEXITY = 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Appearance:
    """How common rows look.

    Args:
        weight: [N], smallest for the most common look.
        likelihood: [N] in (0, 1]: rows that look alike, over those of the most common look.
        clusters: [N] number of the look of each row, the largest first, -1 for noise; None where the
            neighbours were counted instead.
    """

    weight: Float[Tensor, "N"]
    likelihood: Float[Tensor, "N"]
    clusters: Int[Tensor, "N"] | None


@carded(
    Card(
        name="DatasetEquity (generalized focal weighting)",
        summary="rare looks (night, rain, another scanner) that no class label names are learned too little",
        paper="Shrivastava et al., Are All Samples Created Equal? In the Quest for Equity within Datasets, "
        "2023, arXiv 2308.09878",
        kind="weights",
        stations=("before training", "set targets"),
        targets=("classes", "label sets", "values"),
        entry=21,
        recipe={"refresh": [{"name": "appearance_equity"}]},
        tests=(
            "tests/test_appearance.py::test_weights_lie_between_their_floor_and_one",
            "tests/test_appearance.py::test_rarer_looks_weigh_more",
            "tests/test_appearance.py::test_a_large_floor_weighs_all_rows_alike",
            "tests/test_appearance.py::test_the_largest_look_weighs_the_floor",
        ),
        study="appearance_equity",
    )
)
class AppearanceEquity:
    r"""Rows weigh more, the fewer others look like them: $w = (\eta + (1 - p)^\gamma) / (\eta + 1)$.

    The likelihood $p$ of a row is the size of its cluster among the embeddings of all training rows over that
    of the largest cluster.

    Use it when rows of a rare look are predicted worse and no label says which they are. The embeddings must
    show looks more than classes: those of a pretrained encoder, or plain inputs. Not with a floor `eta` of 0:
    the most common look then weighs nothing and is unlearned. Look at `diagnose.appearance_clusters` first:
    weights follow the clusters, whatever they are.

    Args:
        eta: floor $\eta$ >= 0; the larger, the more alike all rows weigh.
        gamma: sharpness $\gamma$ >= 0.
        clusterer: "dbscan" and "hdbscan" find the number of looks themselves, "kmeans" makes `num_clusters`,
            "knn" makes none and counts, for each row, the rows within the radius.
        projection: of the embeddings, before: "pca" to `num_dims` dimensions, "tsne" (as published; slow
            from some ten thousand rows on), or None.
        num_dims: of the projection.
        num_neighbours: that make a place dense, for all but kmeans.
        radius: within which rows look alike, for dbscan and knn; None takes the distance within which 90 % of
            rows have their `num_neighbours`. A fixed one, as published, may leave every row alone.
        num_clusters: of kmeans.
        noise: rows of no cluster are "rare", each one alone, or all together a "cluster", as published.
        rescale: whether weights are divided by their mean. As published they are not, and lie in
            $[\eta / (\eta + 1), 1]$: with SGD most rows then learn at half the rate, and rare looks can lose.
        seed: of the projection and of kmeans.

    Raises:
        MarginsError: arguments out of range.

    Example:
        >>> looks = torch.cat([torch.zeros(90, 2), torch.ones(10, 2)])
        >>> looks += 0.01 * torch.randn(looks.shape, generator=torch.Generator().manual_seed(0))
        >>> found = AppearanceEquity(clusterer="kmeans", num_clusters=2).fit(looks)
        >>> found.weight[[0, 99]].tolist()
        [0.947..., 1.473...]

    For $\eta \to \infty$ all rows weigh 1; for $\eta = 0$ it is a focal weight with the likelihood of the
    look in place of the predicted probability.

    References:
        Shrivastava et al. 2023, arXiv 2308.09878.
    """

    def __init__(
        self,
        *,
        eta: float = 1.0,
        gamma: float = 5.0,
        clusterer: Clusterer = "dbscan",
        projection: Projection | None = "pca",
        num_dims: int = 2,
        num_neighbours: int = 10,
        radius: float | None = None,
        num_clusters: int = 10,
        noise: Noise = "rare",
        rescale: bool = True,
        seed: int = 0,
    ) -> None:
        for name, value, choices in (
            ("clusterer", clusterer, get_args(Clusterer)),
            ("projection", projection, (*get_args(Projection), None)),
            ("noise", noise, get_args(Noise)),
        ):
            if value not in choices:
                raise MarginsError(name, expected=f"one of {choices}", received=repr(value))
        for name, number, low in (
            ("num_dims", num_dims, 1),
            ("num_neighbours", num_neighbours, 1),
            ("num_clusters", num_clusters, 2),
        ):
            if number < low:
                raise MarginsError(name, expected=f"at least {low}", received=str(number))
        if radius is not None and not 0 < radius < math.inf:
            raise MarginsError("radius", expected="a positive number or None", received=str(radius))
        _check_floor(eta, gamma)
        self.eta, self.gamma = eta, gamma
        self.clusterer: Clusterer = clusterer
        self.projection: Projection | None = projection
        self.num_dims, self.num_neighbours, self.num_clusters = num_dims, num_neighbours, num_clusters
        self.radius = radius
        self.noise: Noise = noise
        self.rescale, self.seed = rescale, seed

    def fit(self, embeddings: Float[Tensor, "N d"]) -> Appearance:
        """Weights and clusters of the rows that have these embeddings.

        Args:
            embeddings: [N, d], of training rows.

        Raises:
            MarginsError: embeddings that cannot be used, or fewer rows than neighbours or clusters.
        """
        if embeddings.ndim != 2 or not embeddings.is_floating_point():
            raise MarginsError("embeddings", expected="[N, d] floats", received=describe(embeddings))
        least = max(self.num_neighbours, self.num_clusters if self.clusterer == "kmeans" else 1) + 1
        if len(embeddings) < least or not bool(torch.isfinite(embeddings).all()):
            raise MarginsError(
                "embeddings", expected=f"at least {least} rows of finite numbers",
                received=describe(embeddings),
            )  # fmt: skip
        places = self._projected(embeddings.detach().cpu().double().numpy())
        if self.clusterer == "knn":
            clusters, likelihood = None, self._shares_of_neighbours(places)
        else:
            found = _by_size(self._clusters(places))
            clusters, likelihood = torch.from_numpy(found), self._shares_of_clusters(found)
        likely = torch.from_numpy(likelihood)
        weight = equity_weights(likely, eta=self.eta, gamma=self.gamma)
        if self.rescale and float(weight.sum()) > 0:
            weight = weight / weight.mean()
        return Appearance(weight=weight.float(), likelihood=likely.float(), clusters=clusters)

    def _projected(self, embeddings: Floats) -> Floats:
        if self.projection is None or embeddings.shape[1] <= self.num_dims:
            return embeddings
        with extra("tool"):
            from sklearn.decomposition import PCA
            from sklearn.manifold import TSNE
        if self.projection == "pca":
            return PCA(self.num_dims, svd_solver="full").fit_transform(embeddings)
        perplexity = min(_PERPLEXITY, (len(embeddings) - 1) / 3)
        # Coordinates of any size: t-SNE's start is scaled by their spread.
        return TSNE(
            self.num_dims, perplexity=perplexity, init="pca", max_iter=500, random_state=self.seed,
            method="barnes_hut" if self.num_dims < 4 else "exact",
        ).fit_transform(embeddings).astype(np.float64)  # fmt: skip

    def _clusters(self, places: Floats) -> npt.NDArray[np.int64]:
        with extra("tool"):
            from sklearn.cluster import DBSCAN, HDBSCAN, KMeans
        model: Any
        if self.clusterer == "kmeans":
            model = KMeans(self.num_clusters, n_init="auto", random_state=self.seed)
        elif self.clusterer == "hdbscan":
            options: dict[str, Any] = {"copy": True}
            model = HDBSCAN(min_cluster_size=max(2, self.num_neighbours), **options)
        else:
            model = DBSCAN(eps=self._radius_of(places), min_samples=self.num_neighbours)
        return model.fit_predict(places).astype(np.int64)

    def _radius_of(self, places: Floats) -> float:
        if self.radius is not None:
            return self.radius
        with extra("tool"):
            from sklearn.neighbors import NearestNeighbors
        nearest = NearestNeighbors(n_neighbors=self.num_neighbours).fit(places)
        away = nearest.kneighbors()[0][:, -1]  # of others than the row itself
        # Equal rows are at distance 0, which no clusterer takes for a radius.
        return max(float(np.quantile(away, _RADIUS_QUANTILE)), float(np.finfo(np.float32).tiny))

    def _shares_of_neighbours(self, places: Floats) -> Floats:
        with extra("tool"):
            from sklearn.neighbors import NearestNeighbors
        alike = NearestNeighbors(radius=self._radius_of(places)).fit(places).radius_neighbors(
            places, return_distance=False
        )  # fmt: skip
        counts = np.array([len(rows) for rows in alike], dtype=np.float64)
        return counts / counts.max()

    def _shares_of_clusters(self, clusters: npt.NDArray[np.int64]) -> Floats:
        is_noise = clusters < 0
        sizes = np.bincount(clusters[~is_noise]).astype(np.float64)
        together = float(is_noise.sum()) if self.noise == "cluster" or not len(sizes) else 1.0
        sizes = np.append(sizes, together)  # the place -1
        return sizes[clusters] / sizes.max()


def equity_weights(likelihood: Float[Tensor, "N"], *, eta: float = 1.0, gamma: float = 5.0) -> Tensor:
    r"""$(\eta + (1 - p)^\gamma) / (\eta + 1)$ of likelihoods $p$ in [0, 1].

    Example:
        >>> equity_weights(torch.tensor([1.0, 0.5, 0.0]), eta=1.0, gamma=2.0)
        tensor([0.5000, 0.6250, 1.0000])
    """
    _check_floor(eta, gamma)
    if not bool(((likelihood >= 0) & (likelihood <= 1)).all()):
        raise MarginsError("likelihood", expected="numbers in [0, 1]", received=describe(likelihood))
    return (eta + (1 - likelihood) ** gamma) / (eta + 1)


def _check_floor(eta: float, gamma: float) -> None:
    for name, value in (("eta", eta), ("gamma", gamma)):
        if not 0 <= value < math.inf:
            raise MarginsError(name, expected="a number >= 0", received=str(value))


def _by_size(clusters: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The same clusters numbered by falling size; noise stays -1."""
    sizes = np.bincount(clusters[clusters >= 0])
    order = np.argsort(-sizes, kind="stable")
    number = np.empty(len(sizes) + 1, dtype=np.int64)
    number[order], number[-1] = np.arange(len(sizes)), -1
    return number[clusters]
