"""Score rules: how a block of scores is made from embeddings and candidates.

A rule gives whole blocks, for the evaluators, and single pairs. Both forms give the same numbers up to
rounding of their squares. Scores of positives that are listed one by one are read from the blocks, but for
distances, which lose their last digits in a block: there they are made as pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class ScoreRule(Protocol):
    """Scores of all pairs, and of given pairs."""

    def __call__(
        self, embeddings: Float[Tensor, "anchors dim"], candidates: Float[Tensor, "block dim"]
    ) -> Float[Tensor, "anchors block"]: ...

    def pairs(
        self, embeddings: Float[Tensor, "n dim"], candidates: Float[Tensor, "n dim"]
    ) -> Float[Tensor, " n"]: ...


def as_product(rule: ScoreRule) -> ProductRule | None:
    """The rule as one of prepared vectors, when it is one of those here; another may read parameters."""
    return cast("ProductRule", rule) if type(rule) in (Dot, Cosine, UnitEuclidean) else None


def as_linked(rule: ProductRule) -> LinkedRule | None:
    """The rule, when scores are a function of the products."""
    return cast("LinkedRule", rule) if type(rule) is UnitEuclidean else None


def pairs_are_finer(rule: ScoreRule) -> bool:
    """Whether pairs are scored more exactly than blocks, so that listed positives are made as pairs."""
    return isinstance(rule, (Euclidean, SquaredEuclidean, UnitEuclidean))


class ProductRule(ScoreRule, Protocol):
    """A rule whose scores are inner products of vectors that are prepared one by one."""

    def prepared(self, vectors: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """The vectors whose inner products the scores are; the same tensor when nothing is to be done."""
        ...


class LinkedRule(ProductRule, Protocol):
    """A product rule whose scores are a function of the inner products."""

    def link_(self, products: Float[Tensor, "anchors block"]) -> Float[Tensor, "anchors block"]:
        """The scores, written over the products."""
        ...

    def slope(self, scores: Float[Tensor, "anchors block"]) -> Float[Tensor, "anchors block"]:
        """The derivative of a score by its product."""
        ...


@dataclass(frozen=True)
class Dot:
    """Inner product."""

    def prepared(self, vectors: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """The vectors as they are."""
        return vectors

    def __call__(
        self, embeddings: Float[Tensor, "anchors dim"], candidates: Float[Tensor, "block dim"]
    ) -> Float[Tensor, "anchors block"]:
        return embeddings @ candidates.T

    def pairs(
        self, embeddings: Float[Tensor, "n dim"], candidates: Float[Tensor, "n dim"]
    ) -> Float[Tensor, " n"]:
        """Inner product of row k with row k."""
        return (embeddings * candidates).sum(1)


@dataclass(frozen=True)
class Cosine:
    """Cosine of the angle; a zero vector scores 0 with everything and gets no gradient."""

    def prepared(self, vectors: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """The vectors at length 1."""
        return unit(vectors)

    def __call__(
        self, embeddings: Float[Tensor, "anchors dim"], candidates: Float[Tensor, "block dim"]
    ) -> Float[Tensor, "anchors block"]:
        return unit(embeddings) @ unit(candidates).T

    def pairs(
        self, embeddings: Float[Tensor, "n dim"], candidates: Float[Tensor, "n dim"]
    ) -> Float[Tensor, " n"]:
        """Cosine of row k with row k."""
        return (unit(embeddings) * unit(candidates)).sum(1)


@dataclass(frozen=True)
class SquaredEuclidean:
    """Minus the squared distance."""

    def __call__(
        self, embeddings: Float[Tensor, "anchors dim"], candidates: Float[Tensor, "block dim"]
    ) -> Float[Tensor, "anchors block"]:
        return -_squared_distances(embeddings, candidates)

    def pairs(
        self, embeddings: Float[Tensor, "n dim"], candidates: Float[Tensor, "n dim"]
    ) -> Float[Tensor, " n"]:
        """Minus the squared distance of row k from row k."""
        return -(embeddings - candidates).square().sum(1)


@dataclass(frozen=True)
class Euclidean:
    """Minus the distance; two equal vectors get no gradient.

    Blocks come from the expanded square, so near 0 a distance is off by about the square root of the
    dtype's grain times the vectors' spread; pairs are exact.
    """

    def __call__(
        self, embeddings: Float[Tensor, "anchors dim"], candidates: Float[Tensor, "block dim"]
    ) -> Float[Tensor, "anchors block"]:
        return -_guarded_root(_squared_distances(embeddings, candidates))

    def pairs(
        self, embeddings: Float[Tensor, "n dim"], candidates: Float[Tensor, "n dim"]
    ) -> Float[Tensor, " n"]:
        """Minus the distance of row k from row k."""
        return -_guarded_root((embeddings - candidates).square().sum(1))


@dataclass(frozen=True)
class UnitEuclidean:
    """Minus the distance of the vectors scaled to length 1, -sqrt(2 - 2 cos); equal ones get no gradient.

    Blocks come from cosines, so near 0 a distance is off by the square root of the dtype's grain.
    """

    def prepared(self, vectors: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """The vectors at length 1."""
        return unit(vectors)

    def link_(self, products: Float[Tensor, "anchors block"]) -> Float[Tensor, "anchors block"]:
        """Minus the distance, from the cosine."""
        squared = torch.add(products.new_tensor(2.0), products, alpha=-2, out=products)
        return squared.clamp_(min=0).sqrt_().neg_()

    def slope(self, scores: Float[Tensor, "anchors block"]) -> Float[Tensor, "anchors block"]:
        """One over the distance; 0 at distance 0."""
        return scores.square().clamp_(min=torch.finfo(scores.dtype).tiny).reciprocal_().mul_(scores).neg_()

    def __call__(
        self, embeddings: Float[Tensor, "anchors dim"], candidates: Float[Tensor, "block dim"]
    ) -> Float[Tensor, "anchors block"]:
        return -_guarded_root(2 - 2 * (unit(embeddings) @ unit(candidates).T))

    def pairs(
        self, embeddings: Float[Tensor, "n dim"], candidates: Float[Tensor, "n dim"]
    ) -> Float[Tensor, " n"]:
        """Minus the distance of row k from row k."""
        return -_guarded_root((unit(embeddings) - unit(candidates)).square().sum(1))


@dataclass(frozen=True)
class Custom:
    """Any function of embeddings [B, d] and candidates [n, d] that returns scores [B, n]."""

    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(
        self, embeddings: Float[Tensor, "anchors dim"], candidates: Float[Tensor, "block dim"]
    ) -> Float[Tensor, "anchors block"]:
        return self.function(embeddings, candidates)

    def pairs(
        self, embeddings: Float[Tensor, "n dim"], candidates: Float[Tensor, "n dim"]
    ) -> Float[Tensor, " n"]:
        """The function of row k alone with row k alone."""

        def one(embedding: Tensor, candidate: Tensor) -> Tensor:
            return self.function(embedding[None], candidate[None])[0, 0]

        return torch.vmap(one)(embeddings, candidates)


def unit(vectors: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Vectors scaled to length 1; a zero vector stays zero and passes no gradient."""
    squared = vectors.square().sum(1, keepdim=True)
    tiny = torch.finfo(vectors.dtype).tiny
    inverse = torch.where(squared > tiny, squared, 1.0).rsqrt()
    return vectors * torch.where(squared > tiny, inverse, 0.0)


def _squared_distances(
    embeddings: Float[Tensor, "anchors dim"], candidates: Float[Tensor, "block dim"]
) -> Float[Tensor, "anchors block"]:
    # Distances do not change when both sides are shifted; near the origin the expansion loses least.
    centre = embeddings.detach().mean(0) if embeddings.shape[0] else embeddings.new_zeros(())
    a, b = embeddings - centre, candidates - centre
    squared = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * (a @ b.T)
    return squared.clamp(min=0)


def _guarded_root(squared: Tensor) -> Tensor:
    tiny = torch.finfo(squared.dtype).tiny
    return torch.where(squared > tiny, torch.where(squared > tiny, squared, 1.0).sqrt(), 0.0)
