"""Where scores come from: a matrix that is there, or embeddings and candidates under a score rule."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.engine.score_rules import ScoreRule, pairs_are_finer
from margins.errors import MarginsError, describe, values_are_readable


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it is that: no loss computes in half precision."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def accumulator(tensor: Tensor) -> Tensor:
    """Zeros of a tensor's shape, in which what is like it is added up: in float32 at least."""
    return torch.zeros_like(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A context without autocast: no loss computes in half precision, whatever surrounds it."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


@dataclass(frozen=True)
class ScoreMatrix:
    """Scores that are there already."""

    scores: Float[Tensor, "anchors candidates"]

    @property
    def shape(self) -> tuple[int, int]:
        """(anchors, candidates)."""
        return self.scores.shape[0], self.scores.shape[1]

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and device of the scores."""
        return self.scores

    def matrix(self) -> Float[Tensor, "anchors candidates"]:
        """All scores."""
        return self.scores

    def listed(
        self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"], *, in_order: bool
    ) -> Float[Tensor, " n"]:
        """Scores of single entries; `in_order` says that there is one a row, row by row."""
        if in_order:
            return self.scores.gather(1, columns[:, None])[:, 0]
        return self.scores.reshape(-1).gather(0, rows * self.scores.shape[1] + columns)


@dataclass(frozen=True)
class Factored:
    """Scores of embeddings against candidates under a score rule, plus a bias a candidate.

    Vectors may come in half precision; scores are made from them in float32.
    """

    rule: ScoreRule
    embeddings: Float[Tensor, "anchors dim"]
    candidates: Float[Tensor, "candidates dim"]
    bias: Float[Tensor, " candidates"] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(anchors, candidates)."""
        return self.embeddings.shape[0], self.candidates.shape[0]

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and device of the scores."""
        return at_least_float32(self.embeddings[:0])

    def matrix(self) -> Float[Tensor, "anchors candidates"]:
        """All scores."""
        scores = self.rule(at_least_float32(self.embeddings), at_least_float32(self.candidates))
        return scores if self.bias is None else scores + self.bias

    def listed(
        self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"], *, in_order: bool
    ) -> Float[Tensor, " n"]:
        """Scores of single entries, made from their embeddings and candidates alone."""
        embeddings = self.embeddings if in_order else self.embeddings[rows]
        scores = self.rule.pairs(at_least_float32(embeddings), at_least_float32(self.candidates[columns]))
        return scores if self.bias is None else scores + self.bias[columns]

    def widened(self) -> Factored:
        """With vectors in float32 at least: their gradient is rounded once, not use by use."""
        own, others = self.embeddings, self.candidates
        if own.dtype == self.like.dtype:
            return self
        wide = at_least_float32(own)
        return replace(self, embeddings=wide, candidates=wide if others is own else at_least_float32(others))

    def materialised(self) -> Materialised:
        """The same source with all its scores made, once."""
        return Materialised(checked("scores", self.matrix()), self)


@dataclass(frozen=True)
class Materialised(ScoreMatrix):
    """A matrix of scores that remembers what it was made of."""

    origin: Factored

    def listed(
        self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"], *, in_order: bool
    ) -> Float[Tensor, " n"]:
        """Scores of single entries, from the matrix or, where that is finer, as pairs."""
        if pairs_are_finer(self.origin.rule):
            return self.origin.listed(rows, columns, in_order=in_order)
        return super().listed(rows, columns, in_order=in_order)


@runtime_checkable
class Source(Protocol):
    """Where an evaluator finds scores."""

    @property
    def shape(self) -> tuple[int, int]:
        """(anchors, candidates)."""
        ...

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and device of the scores."""
        ...

    def matrix(self) -> Float[Tensor, "anchors candidates"]:
        """All scores."""
        ...

    def listed(
        self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"], *, in_order: bool
    ) -> Float[Tensor, " n"]:
        """Scores of single entries; `in_order` says that there is one a row, row by row."""
        ...


def matrix_of(scores: Tensor) -> ScoreMatrix:
    """Checked scores, in float32 at least."""
    if scores.ndim != 2 or not scores.is_floating_point():
        raise MarginsError(
            "scores",
            expected="[B, C] floats",
            received=describe(scores),
            fix="one score an item: scores[:, None]" if scores.ndim == 1 else "",
        )
    return ScoreMatrix(checked("scores", at_least_float32(scores)))


def factored(rule: ScoreRule, embeddings: Tensor, candidates: Tensor, bias: Tensor | None = None) -> Factored:
    """Checked embeddings and candidates, of one dtype."""
    for name, tensor, letters in (("embeddings", embeddings, "[B, d]"), ("candidates", candidates, "[C, d]")):
        if tensor.ndim != 2 or not tensor.is_floating_point():
            raise MarginsError(name, expected=f"{letters} floats", received=describe(tensor))
    if embeddings.shape[1] != candidates.shape[1]:
        raise MarginsError(
            "candidates", expected=f"[C, d] with d = {embeddings.shape[1]}", received=describe(candidates)
        )
    if bias is not None and tuple(bias.shape) != (candidates.shape[0],):
        raise MarginsError("bias", expected=f"[C] = [{candidates.shape[0]}]", received=describe(bias))
    dtype = torch.promote_types(embeddings.dtype, candidates.dtype)
    of_scores = torch.promote_types(dtype, torch.float32)
    return Factored(
        rule,
        checked("embeddings", embeddings.to(dtype)),
        checked("candidates", candidates.to(dtype)),
        None if bias is None else checked("bias", bias.to(of_scores)),
    )


def checked(name: str, tensor: Tensor) -> Tensor:
    """The tensor, or an error that says where it is not finite. The sum finds it in one fast pass."""
    wide = torch.promote_types(tensor.dtype, torch.float32)
    if values_are_readable(tensor) and not bool(torch.isfinite(tensor.detach().sum(dtype=wide))):
        wrong = torch.isfinite(tensor).logical_not().nonzero()
        if wrong.shape[0]:
            where = wrong[0].tolist()
            raise MarginsError(
                name,
                expected="finite numbers",
                received=f"{float(tensor.detach()[tuple(where)])} at {where} ({wrong.shape[0]} in all)",
                fix="to leave out entries use Targets.ignore; otherwise look at the model's inputs and rate",
            )
    return tensor
