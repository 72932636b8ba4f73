"""The sampled evaluator: sums over all negatives are estimated from some that are drawn.

Positives are exact, always. A negative that was drawn c times and was expected E times stands for c / E: that
weighs its term in a sum, and its logarithm is added to its term in a logsumexp. Sums are right on average;
the exponential of a logsumexp is, so the logsumexp itself is low on average, less so with more samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from margins.engine.entries import BlockEntries
from margins.engine.evaluators import Evaluator, Pass
from margins.engine.logsumexp import row_logsumexp
from margins.engine.sampling.proposals import (
    Draw,
    Proposal,
    probabilities,
    with_replacement,
    without_replacement,
)
from margins.engine.sources import Factored, Source, at_least_float32
from margins.engine.statistics import Program, Repeat, Statistic
from margins.errors import MarginsError
from margins.targets import Targets
from margins.targets.chosen import ChosenColumns


@dataclass(frozen=True, eq=False)
class Sampled(Evaluator):
    """Statistics estimated from drawn candidates, the same for all anchors, anew in every call.

    Use it when even one pass over all candidates costs too much and an approximation will do; `Blockwise` is
    exact. Memory is O(anchors x drawn). Losses that need the largest or smallest score (SoftTopK,
    MultiSimilarity with mining) are refused, and so are targets that are not held sparsely. Losses that are
    not linear in their sums are estimated with a bias that falls with the number of samples.

    The gradient by the candidates is as large as the candidates, as autograd makes it, unless
    `sparse_gradients` asks for a sparse tensor that holds the drawn and positive rows alone; that takes
    candidates that are a parameter themselves, and an optimiser that reads it (SparseAdam, SGD).

    Args:
        num_samples: candidates drawn; without replacement at most all of them.
        proposal: "uniform", "zipf" for candidates sorted by falling frequency, or [C] chances > 0.
        replacement: whether a candidate may be drawn more than once. Without, all candidates drawn give
            exactly the dense result.
        generator: what the draws come from.
        sparse_gradients: see above.

    References:
        Bengio and Senecal, Adaptive Importance Sampling, 2008; Jean et al., On Using Very Large Target
        Vocabulary, 2015, arXiv 1412.2007, for the corrected softmax.
    """

    num_samples: int
    proposal: Proposal = "uniform"
    replacement: bool = False
    generator: torch.Generator = field(kw_only=True)
    sparse_gradients: bool = False

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise MarginsError("num_samples", expected="at least 1", received=str(self.num_samples))
        if not isinstance(self.proposal, Tensor) and self.proposal not in ("uniform", "zipf"):
            raise MarginsError(
                "proposal", expected="'uniform', 'zipf' or [C] chances", received=repr(self.proposal)
            )

    def check(self, name: str, program: Program, source: Source, targets: Targets) -> None:
        """Refuses targets that are not sparse, more samples than candidates, and statistics of extremes."""
        if not targets.is_sparse:
            raise MarginsError(
                "targets", expected="class ids, pairs or label sets for the sampled evaluator",
                received=repr(targets), fix="Blockwise takes every kind of targets",
            )  # fmt: skip
        num_candidates = source.shape[1]
        if self.replacement or self.num_samples < num_candidates:
            self._refuse_extremes(name, program)
        elif self.num_samples > num_candidates:
            raise MarginsError(
                "num_samples", expected=f"at most C = {num_candidates} without replacement",
                received=str(self.num_samples),
            )  # fmt: skip

    def _refuse_extremes(self, name: str, program: Program) -> None:
        stages = [s for step in program for s in (step.stages if isinstance(step, Repeat) else (step,))]
        for statistic_name, statistic in [pair for stage in stages for pair in stage.statistics.items()]:
            if statistic.reduce in ("max", "min") and statistic.over in ("all", "negatives"):
                raise MarginsError(
                    "evaluator", expected="a loss of sums and logsumexps for the sampled evaluator",
                    received=f"{name}: its {statistic_name} is a {statistic.reduce}, which no sample tells",
                    fix="draw all candidates without replacement, or use Blockwise()",
                )  # fmt: skip

    def start(self, program: Program, here: Pass) -> Pass:
        """The pass with its draw, which serves every stage."""
        source = here.source
        if self.sparse_gradients and isinstance(source, Factored):
            source = _SparselyRead(source.rule, source.embeddings, source.candidates, source.bias)
        chance = probabilities(self.proposal, source.shape[1], source.like.device)
        draw = with_replacement if self.replacement else without_replacement
        drawn = draw(chance, self.num_samples, self.generator)
        begun = _DrawnPass(source, here.targets, here.side, here.valid, here.rows, draw=drawn)
        return super().start(program, begun)

    def scan(self, statistics: tuple[Statistic, ...], here: Pass) -> list[Float[Tensor, " anchors"]]:
        """Exact sums over positives plus weighted sums over the drawn negatives."""
        assert isinstance(here, _DrawnPass)  # noqa: S101  (made by start)
        draw = here.draw
        scores = _scores(here.source, draw)
        columns = Targets(ChosenColumns(here.targets, draw.candidates))
        side = {n: b if b.shape[1] == 1 else b[:, draw.candidates] for n, b in here.side.items()}
        entries = BlockEntries(scores, columns, 0, scores.shape[1], side=side, rows=here.rows)
        found = [_over_negatives(entries, draw, replace(s, over="negatives")) for s in statistics]
        whole = [i for i, s in enumerate(statistics) if s.over == "all"]
        if whole:
            names = {str(i): replace(statistics[i], over="positives") for i in whole}
            for name, positives in self._listed(names, here):
                place = int(name)
                found[place] = _joined(statistics[place].reduce, found[place], positives)
        return found


@dataclass(kw_only=True)
class _DrawnPass(Pass):
    """A pass with the candidates that were drawn for it."""

    draw: Draw


def _over_negatives(entries: BlockEntries, draw: Draw, statistic: Statistic) -> Float[Tensor, " anchors"]:
    terms, log_weight = entries.terms(statistic), draw.log_weight.to(entries.s.dtype)
    if statistic.reduce == "sum":
        return terms @ log_weight.exp()
    if statistic.reduce == "logsumexp":
        return row_logsumexp(terms + log_weight)
    return terms.amax(1) if statistic.reduce == "max" else terms.amin(1)


def _scores(source: Source, draw: Draw) -> Float[Tensor, "anchors drawn"]:
    if not isinstance(source, Factored):
        return source.matrix().index_select(1, draw.candidates)
    return _some(source, draw.candidates).matrix()


@dataclass(frozen=True, eq=False)
class _SparselyRead(Factored):
    """Candidates whose gradient is a sparse tensor of the rows that were read."""

    def widened(self) -> Factored:
        """The rows that are read come in float32; the whole is not copied."""
        return replace(self, embeddings=at_least_float32(self.embeddings))

    def listed(
        self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"], *, in_order: bool
    ) -> Float[Tensor, " n"]:
        some = _some(self, columns)
        embeddings = self.embeddings if in_order else self.embeddings[rows]
        scores = self.rule.pairs(embeddings, some.candidates)
        return scores if some.bias is None else scores + some.bias


def _some(source: Factored, columns: Int[Tensor, " n"]) -> Factored:
    """The source with some of its candidates only."""
    bias = None if source.bias is None else source.bias[columns]
    if isinstance(source, _SparselyRead):
        return Factored(
            source.rule,
            source.embeddings,
            at_least_float32(functional.embedding(columns, source.candidates, sparse=True)),
            bias,
        )
    return Factored(source.rule, source.embeddings, source.candidates.index_select(0, columns), bias)


def _joined(reduce: str, first: Tensor, second: Tensor) -> Tensor:
    if reduce == "sum":
        return first + second
    if reduce == "logsumexp":
        return row_logsumexp(torch.stack([first, second], 1))
    return torch.maximum(first, second) if reduce == "max" else torch.minimum(first, second)
