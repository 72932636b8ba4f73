"""Contrastive losses: anchors against candidates, each anchor with its positives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.evaluators import Dense, Evaluator, Rows
from margins.engine.score_rules import Cosine, ScoreRule
from margins.engine.statistics import (
    Affine,
    Entries,
    Phi,
    Program,
    RowValues,
    Stage,
    Statistic,
    above,
    below,
    detached,
    logsumexp,
    maximum,
    minimum,
    total,
)
from margins.errors import MarginsError, values_are_readable
from margins.losses.forms.base import in_range, refuse_entry_weights, refuse_shares, refuse_smoothing
from margins.losses.forms.statistics import EmbeddingLoss
from margins.losses.softplus import softplus
from margins.losses.temperature import LearnedTemperature, Temperature, checked_temperature, divided_by
from margins.targets import Targets


class _Tempered(EmbeddingLoss):
    """Cosine scores over a temperature, fixed or learned."""

    score_rule: ClassVar[ScoreRule] = Cosine()
    needs = frozenset({"positives"})

    def __init__(self, temperature: Temperature, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.temperature = checked_temperature(temperature)

    def scaled(self, e: Entries) -> Tensor:
        """Scores over the temperature."""
        return divided_by(e.s, self.temperature)

    def tempered(self) -> Phi:
        """The phi of scores over the temperature."""
        fixed = self.temperature
        return self.scaled if isinstance(fixed, LearnedTemperature) else Affine(1 / fixed)


class _PositivesAgainstAll(_Tempered):
    """The mean over positives of the log-partition minus the positive's score."""

    def statistics(self) -> Mapping[str, Statistic]:
        """Log-partition over all, and the positives' scores by grade."""
        tempered = self.tempered()
        return {"log_partition": logsumexp("all", tempered), "own": total("targets", tempered)}

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """Averaged over the positives by grade."""
        return z.log_partition - z.own / z.mass.clamp(min=1e-12)


@carded(
    LossCard(
        name="InfoNCE",
        summary="query against its document among the batch's others; the baseline for retrieval",
        paper="van den Oord, Li, Vinyals, Contrastive Predictive Coding, 2018, arXiv 1807.03748",
        entry=8,
        targets=("pairs", "matches", "classes", "label sets", "scores"),
        distributed="gathered",
        comparable=False,
        collapse="log C: all embeddings equal",
        limits=("temperature = 1, one positive: CrossEntropy", "one positive: SupCon"),
    )
)
class InfoNCE(_PositivesAgainstAll):
    r"""Softmax of the positive among all candidates, at a temperature.

    $L_i = \log \sum_k e^{s_{ik} / \tau} - \frac{1}{|P_i|} \sum_{p \in P_i} s_{ip} / \tau$. Its value
    depends on the number of candidates: compare it only at equal batch size.

    Args:
        temperature: > 0, or a `LearnedTemperature`.
        reduction: see `margins.engine.reduction`.

    References:
        van den Oord, Li, Vinyals 2018, arXiv 1807.03748, eq. 4.

    Example:
        >>> import torch
        >>> queries, documents = torch.eye(2), torch.eye(2)
        >>> InfoNCE(temperature=0.5).on_pairs(queries, documents)
        tensor(0.1269)
    """

    def __init__(self, temperature: Temperature = 0.05, *, reduction: str = "mean") -> None:
        super().__init__(temperature, reduction=reduction)

    def on_pairs(
        self,
        queries: Float[Tensor, "anchors dim"],
        documents: Float[Tensor, "candidates dim"],
        *,
        item_ids: Int[Tensor, " candidates"] | None = None,
        rule: ScoreRule | None = None,
        evaluator: Evaluator | None = None,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """Query i belongs to document i; documents beyond the queries are extra negatives.

        On several ranks it sees the local documents only, unless `evaluator=Sharded()`: then each rank brings
        its part of both, and every rank gets the loss of all queries among the documents of all ranks.

        Args:
            queries: [B, d].
            documents: [B + extra, d].
            item_ids: [B + extra]; documents with an anchor's own id are unknown to it, not negatives.
            rule: another score rule than the cosine.
            evaluator: `Dense()` (default), `Blockwise()` or `Sharded()`.
            denominator: divisor to use instead of this batch's own.
        """
        evaluator = evaluator or Dense()
        with evaluator.guarded():
            extra = documents.shape[0] - queries.shape[0]
            if extra < 0:
                raise MarginsError(
                    "documents",
                    expected=f"[B + extra, d] with B = {queries.shape[0]}",
                    received=str(list(documents.shape)),
                )
            own = Targets.of_pairs(
                queries.shape[0], extra=extra, item_ids=item_ids, device=queries.device
            )  # fmt: skip
            anchors, targets = evaluator.whole_batch(queries, documents, own)
        return self.on_candidates(
            anchors, documents, targets, rule=rule, evaluator=evaluator, denominator=denominator
        )


@carded(
    LossCard(
        name="Supervised contrastive loss",
        summary="items of a class are each other's positives; embeddings that cluster by class",
        paper="Khosla et al., Supervised Contrastive Learning, 2020, arXiv 2004.11362",
        targets=("matches", "label sets", "scores"),
        distributed="gathered",
        comparable=False,
        collapse="log(C - 1): all embeddings equal",
        limits=("one positive: InfoNCE",),
    )
)
class SupCon(_PositivesAgainstAll):
    r"""Mean over the anchor's positives of the softmax loss among all other items.

    $L_i = \frac{-1}{|P_i|} \sum_{p \in P_i} \log \frac{e^{s_{ip} / \tau}}{\sum_{k \ne i} e^{s_{ik} / \tau}}$

    A batch needs at least two items of most classes: an anchor without a positive does not count.

    Args:
        temperature: > 0, or a `LearnedTemperature`.
        reduction: see `margins.engine.reduction`.

    References:
        Khosla et al. 2020, arXiv 2004.11362, eq. 2 (the mean outside the logarithm).
    """

    def __init__(self, temperature: Temperature = 0.1, *, reduction: str = "mean") -> None:
        super().__init__(temperature, reduction=reduction)


@carded(
    LossCard(
        name="Decoupled softmax",
        summary="several positives a row that must not compete with each other; extreme multi-label",
        paper="Gupta et al., Dual-Encoders for Extreme Multi-Label Classification, 2024, arXiv 2310.10636",
        entry=2,
        targets=("label sets", "matches", "pairs", "classes"),
        distributed="gathered",
        comparable=False,
        collapse="log(1 + negatives): all embeddings equal",
        limits=("one positive: InfoNCE",),
    )
)
class DecoupledSoftmax(_Tempered):
    r"""Each positive against the negatives alone: other positives leave the denominator.

    $L_i = \frac{1}{|P_i|} \sum_{p \in P_i} \mathrm{softplus}(\log \sum_{k \in N_i} e^{s_{ik} / \tau}
    - s_{ip} / \tau)$

    Args:
        temperature: > 0, or a `LearnedTemperature`.
        reduction: see `margins.engine.reduction`.

    References:
        Gupta et al. 2024, arXiv 2310.10636.
    """

    needs = frozenset({"positives", "negatives"})

    def __init__(self, temperature: Temperature = 0.05, *, reduction: str = "mean") -> None:
        super().__init__(temperature, reduction=reduction)

    def check_targets(self, targets: Targets) -> None:
        """No smoothing."""
        super().check_targets(targets)
        refuse_smoothing(targets)

    def stages(self) -> Program:
        """The negatives first; then each positive against them."""
        negatives = Stage({"rivals": logsumexp("negatives", self.tempered())})
        return negatives, Stage({"loss": total("targets", self._phi)})

    def _phi(self, e: Entries) -> Tensor:
        return softplus(e.row.rivals - self.scaled(e))

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """Mean over the positives by grade."""
        return z.loss / z.mass.clamp(min=1e-12)


@carded(
    LossCard(
        name="Soft-InfoNCE",
        summary="negatives that resemble the query's answer push less; batches with near-duplicates",
        paper="Li et al., Rethinking Negative Pairs in Code Search, 2023, arXiv 2310.08069",
        entry=124,
        targets=("pairs", "label sets", "matches"),
        distributed="gathered",
        comparable=False,
        collapse="log C: all embeddings equal",
        limits=("alpha = 0: InfoNCE",),
    )
)
class SoftInfoNCE(_Tempered):
    r"""InfoNCE whose negatives are weighed down by an estimate of their similarity.

    `side["similarity"]` is a [B, C] block $r$. With $\lambda_{ij}$ the softmax of $r_{ij} / t$ over the
    row's $n$ negatives, $w_{ij} = \max(floor, (\beta - \alpha \lambda_{ij}) / (\beta - \alpha / n))$ and
    $L_i = -\log \frac{e^{s_{ip} / \tau}}{e^{s_{ip} / \tau} + \sum_{j \in N_i} w_{ij} e^{s_{ij} / \tau}}$,
    averaged over the positives. The weights pass no gradient.

    Args:
        temperature: > 0, or a `LearnedTemperature`; the authors use raw dot products at 1.
        alpha: >= 0; how much similarity counts.
        beta: > 0, and above alpha / n.
        similarity_temperature: t > 0.
        floor: smallest weight, > 0.
        reduction: see `margins.engine.reduction`.

    References:
        Li et al. 2023, arXiv 2310.08069.
    """

    needs = frozenset({"positives", "negatives"})
    side_names = ("similarity",)

    def __init__(
        self,
        temperature: Temperature = 0.05,
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        similarity_temperature: float = 1.0,
        floor: float = 0.1,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature, reduction=reduction)
        self.alpha = in_range("alpha", alpha, low=0)
        self.beta = in_range("beta", beta, low=0, open_low=True)
        self.similarity_temperature = in_range(
            "similarity_temperature", similarity_temperature, low=0, open_low=True
        )
        self.floor = in_range("floor", floor, low=0, open_low=True)

    def check_targets(self, targets: Targets) -> None:
        """No entry weights: the loss makes its own."""
        super().check_targets(targets)
        refuse_smoothing(targets)
        refuse_entry_weights(targets)

    def stages(self) -> Program:
        """Normalise the similarities, weigh the negatives, then each positive against them."""
        likeness = Stage(
            {"likeness": logsumexp("negatives", self._likeness)},
            {
                "likeness": detached(lambda z: z.likeness),
                "num_rivals": detached(lambda z: z.num_known - z.num_positives),
                "mean_weight": detached(self._mean_weight),
            },
        )
        negatives = Stage({"rivals": logsumexp("negatives", self._weighed)})
        loss = total("targets", lambda e: softplus(e.row.rivals - self.scaled(e)))
        return likeness, negatives, Stage({"loss": loss})

    def _likeness(self, e: Entries) -> Tensor:
        return e.side("similarity").detach().to(e.s.dtype) / self.similarity_temperature

    def _mean_weight(self, z: RowValues) -> Tensor:
        # A single negative has share 1 and so weight 1, whatever alpha and beta are.
        num_negatives = z.num_known - z.num_positives
        mean = self.beta - self.alpha / num_negatives.clamp(min=1.0)
        if values_are_readable(mean) and bool(((mean <= 0) & (num_negatives > 1)).any()):
            fewest = int(num_negatives[num_negatives > 1].min())
            raise MarginsError(
                "alpha",
                expected=f"below beta times the number of negatives ({self.beta:g} * {fewest})",
                received=f"{self.alpha:g}",
            )
        return mean

    def _weighed(self, e: Entries) -> Tensor:
        share = (self._likeness(e) - e.row.likeness).clamp(max=0.0).exp()
        usable = e.row.mean_weight > 0
        ratio = (self.beta - self.alpha * share) / torch.where(usable, e.row.mean_weight, 1.0)
        weight = torch.where(usable & (e.row.num_rivals > 1), ratio, 1.0).clamp(min=self.floor)
        return self.scaled(e) + weight.log()

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """Mean over the positives by grade."""
        return z.loss / z.mass.clamp(min=1e-12)


@carded(
    LossCard(
        name="Multi-similarity loss",
        summary="metric learning from class labels with mining of informative pairs in the batch",
        paper="Wang et al., Multi-Similarity Loss with General Pair Weighting, 2019, arXiv 1904.06627",
        entry=97,
        targets=("matches", "label sets"),
        distributed="gathered",
        comparable=False,
        collapse="all pairs kept, at similarity 1: near log(|N|) / beta + 1 - base",
        limits=("epsilon = None: no mining", "epsilon large: the same as no mining"),
    )
)
class MultiSimilarity(EmbeddingLoss):
    r"""Soft-weighted pairs, the hard ones of each anchor only.

    Kept positives have $s < \max_N s + \epsilon$, kept negatives $s > \min_P s - \epsilon$;
    $L_i = \frac{1}{\alpha} \log(1 + \sum_P e^{-\alpha (s - base)})
    + \frac{1}{\beta} \log(1 + \sum_N e^{\beta (s - base)})$. An anchor whose pairs are all easy gives 0 and
    counts.

    Args:
        alpha: > 0, weight of the positives' spread.
        beta: > 0, sharpness on negatives.
        base: the similarity that separates.
        epsilon: mining margin >= 0; None keeps every pair.
        reduction: see `margins.engine.reduction`.

    References:
        Wang et al. 2019, arXiv 1904.06627; base 0.5 as in the authors' code.
    """

    score_rule: ClassVar[ScoreRule] = Cosine()
    needs = frozenset({"positives", "negatives"})

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        *,
        base: float = 0.5,
        epsilon: float | None = 0.1,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.alpha = in_range("alpha", alpha, low=0, open_low=True)
        self.beta = in_range("beta", beta, low=0, open_low=True)
        self.base = in_range("base", base, low=-float("inf"))
        self.epsilon = None if epsilon is None else in_range("epsilon", epsilon, low=0)

    def check_targets(self, targets: Targets) -> None:
        """No mixtures, no smoothing: a pair is positive or not."""
        super().check_targets(targets)
        refuse_shares(targets)

    def stages(self) -> Program:
        """The thresholds of mining, as constants; then the two sides."""
        pull = logsumexp("positives", Affine(-self.alpha, self.alpha * self.base))
        push = logsumexp("negatives", Affine(self.beta, -self.beta * self.base))
        if self.epsilon is None:
            return (Stage({"pull": pull, "push": push}),)
        epsilon = self.epsilon
        pull = replace(pull, keep=below(lambda row: row.high + epsilon))
        push = replace(push, keep=above(lambda row: row.low - epsilon))
        extremes = {"least": minimum("positives"), "most": maximum("negatives")}
        rows = {"low": detached(lambda z: z.least), "high": detached(lambda z: z.most)}
        return Stage(extremes, rows), Stage({"pull": pull, "push": push})

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """Pull plus push."""
        return softplus(z.pull) / self.alpha + softplus(z.push) / self.beta
