"""Linear heads in closed form: one pass over embeddings, no optimiser."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.errors import MarginsError, describe
from margins.targets.checks import check_finite, check_labels, check_range

Variance = Literal["shared", "per_class"]
Prior = Literal["counts", "uniform"]

_TINY = torch.finfo(torch.float64).tiny

_PAPER = "Zheng et al., Revisiting Discriminative vs. Generative Classifiers, 2023, arXiv 2302.02334"


class StreamedHead(nn.Module, ABC):
    """What naive-Bayes heads share: blocks of rows come one after the other, and only sums are kept."""

    counts: Tensor

    def __init__(self, width: int, num_classes: int, *, prior: Prior, forgetting: float) -> None:
        super().__init__()
        for name, size in (("width", width), ("num_classes", num_classes)):
            if size < 1:
                raise MarginsError(name, expected="at least 1", received=str(size))
        if prior not in get_args(Prior):
            raise MarginsError("prior", expected=f"one of {get_args(Prior)}", received=repr(prior))
        if not 0 < forgetting <= 1:
            raise MarginsError("forgetting", expected="a number in (0, 1]", received=repr(forgetting))
        self.width, self.num_classes = width, num_classes
        self.prior: Prior = prior
        self.forgetting = forgetting
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.float64))

    @torch.no_grad()
    def partial_fit(self, embeddings: Tensor, labels: Tensor, *, weight: Tensor | None = None) -> Self:
        """Takes in a block of rows. Any division of rows into blocks gives the same head without forgetting.

        Args:
            embeddings: [B, width] floats.
            labels: [B] integers in [0, num_classes); a block need not hold every class.
            weight: [B] >= 0; weight 2 is a row given twice. All 1 when None.

        Raises:
            MarginsError: other shapes, labels out of range, numbers that are not finite.
        """
        self._refuse_other_width(embeddings)
        check_labels("labels", labels)
        check_range("labels", labels, self.num_classes)
        check_finite("embeddings", embeddings)
        for name, given in (("labels", labels), ("weight", weight)):
            if given is not None and given.shape != embeddings.shape[:1]:
                raise MarginsError(
                    name, expected=f"[B] = [{embeddings.shape[0]}]", received=describe(given)
                )  # fmt: skip
        if weight is not None and not bool(((weight >= 0) & weight.isfinite()).all()):
            raise MarginsError("weight", expected="[B] finite numbers >= 0", received="others among them")
        weights = torch.ones_like(labels, dtype=torch.float64) if weight is None else weight.double()
        self.counts *= self.forgetting
        self._take_in(embeddings.double(), labels.long(), weights)
        self.counts += self._summed(weights, labels.long())
        return self

    def as_linear(self, dtype: torch.dtype = torch.float32) -> nn.Linear:
        """The head as a linear layer, whose logits are the scores up to a constant a row.

        Use it to start a trainable head, or to keep the head without its statistics. Its weights do not
        follow later blocks.

        Raises:
            MarginsError: a class without rows, or scores that are not linear.
        """
        if bool((self.counts <= 0).any()):
            unseen = (self.counts <= 0).nonzero()[:, 0].tolist()
            raise MarginsError(
                "as_linear", expected="rows of every class", received=f"none of the classes {unseen[:10]}"
            )
        weight, bias = self._affine()
        # Made without numbers first: a layer's own start would draw from the global generator.
        layer = nn.Linear(self.width, self.num_classes, device="meta", dtype=dtype)
        layer = layer.to_empty(device=weight.device)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias + self.log_prior())
        return layer

    def log_prior(self) -> Tensor:
        """[C] log shares of the classes, or 0 with a uniform prior; -inf for a class without rows."""
        shares = self.counts / self.counts.sum().clamp(min=_TINY)
        return shares.log() if self.prior == "counts" else torch.where(shares > 0, 0.0, -torch.inf)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Scores [B, C] of embeddings [B, width], whose softmax are the class probabilities.

        They come in the embeddings' dtype, float32 at least; a class without rows scores -inf.
        """
        self._refuse_other_width(embeddings)
        if not bool((self.counts > 0).any()):
            raise MarginsError("head", expected="rows to have been given", received="none", fix="partial_fit")
        scores = self._log_density(embeddings.double()) + self.log_prior()
        return scores.to(torch.promote_types(embeddings.dtype, torch.float32))

    def _log_density(self, embeddings: Tensor) -> Tensor:
        """[B, C] log density of each row under each class, up to a constant a row."""
        weight, bias = self._affine()
        return nn.functional.linear(embeddings, weight, bias)

    def _refuse_other_width(self, embeddings: Tensor) -> None:
        shape = (embeddings.ndim, embeddings.shape[-1] if embeddings.ndim else 0)
        if shape != (2, self.width) or not embeddings.is_floating_point():
            raise MarginsError(
                "embeddings", expected=f"[B, {self.width}] floats", received=describe(embeddings)
            )

    def _summed(self, values: Tensor, labels: Tensor) -> Tensor:
        """[C, ...] sums over the rows of each class."""
        start = torch.zeros(self.num_classes, *values.shape[1:], dtype=values.dtype, device=values.device)
        return start.index_add_(0, labels, values)

    @abstractmethod
    def _take_in(self, embeddings: Tensor, labels: Tensor, weight: Tensor) -> None:
        """Adds a block [B, width] in float64, with the weights [B] of its rows.

        The counts are those before the block, what is to be forgotten being off.
        """

    @abstractmethod
    def _affine(self) -> tuple[Tensor, Tensor]:
        """Weights [C, width] and biases [C] of the log density, up to a constant a row."""


@carded(
    Card(
        name="Naive-Bayes linear head",
        summary="few labels on frozen embeddings: a linear classifier in one pass, no optimiser, no tuning",
        paper=_PAPER,
        kind="head",
        stations=("score", "after training"),
        targets=("classes",),
        entry=16,
        tests=(
            "tests/test_naive_bayes.py::test_variances_of_each_class_give_the_gaussian_classifier_of_scikit_learn",
            "tests/test_naive_bayes.py::test_a_shared_variance_gives_the_diagonal_discriminant",
            "tests/test_naive_bayes.py::test_blocks_in_any_division_give_the_head_of_all_rows",
            "tests/test_naive_bayes.py::test_posteriors_sum_to_one_and_are_those_of_bayes_rule",
        ),
        recipe={"refresh": [{"name": "naive_bayes_start"}]},
        study="naive_bayes",
    )
)
class NaiveBayesHead(StreamedHead):
    r"""Gaussian naive Bayes on embeddings: features independent given the class.

    Use it with few labels a class on embeddings of a frozen encoder, where logistic regression has too many
    weights for its rows; to add rows or classes without training; and to start a trainable head. Do not use
    it with many labels: it stops getting better early, and logistic regression passes it
    (`margins.diagnose.two_regimes` finds where). Its probabilities are too sure when features go together.

    With class means $\mu_k$, variances $\sigma_k^2$ and shares $\pi_k$ of the rows, and a shared variance
    $v = \sum_k \pi_k (\sigma_k^2 + \epsilon)$, it is linear:
    $W_k = \mu_k / v$, $b_k = \log \pi_k - \frac12 \sum_j \mu_{kj}^2 / v_j$.

    Args:
        width: of the embedding.
        num_classes: number of scores.
        variance: "shared" by all classes, or "per_class": scores are then quadratic.
        prior: "counts", the classes' shares of the rows, or "uniform".
        shrink: share in [0, 1] of each variance that is replaced by the mean over features; for sparse
            features, such as those after a ReLU, some of which hardly vary in few rows.
        added_variance: epsilon > 0, in the square of the features' unit.
        forgetting: factor in (0, 1] on what earlier blocks weigh, with every block.

    Raises:
        MarginsError: an argument out of its range.

    References:
        Zheng et al. 2023, arXiv 2302.02334, sec. 3; the merging of blocks is that of Chan, Golub, LeVeque
        1979.

    Example:
        >>> embeddings = torch.tensor([[0.0, 1.0], [0.0, 3.0], [4.0, 1.0], [4.0, 3.0]])
        >>> head = NaiveBayesHead(2, 2, shrink=0.5).partial_fit(embeddings, torch.tensor([0, 0, 1, 1]))
        >>> head(torch.tensor([[1.0, 2.0], [3.0, 2.0]])).argmax(1).tolist()
        [0, 1]
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        variance: Variance = "shared",
        prior: Prior = "counts",
        shrink: float = 0.0,
        added_variance: float = 1e-9,
        forgetting: float = 1.0,
    ) -> None:
        super().__init__(width, num_classes, prior=prior, forgetting=forgetting)
        if variance not in get_args(Variance):
            raise MarginsError("variance", expected=f"one of {get_args(Variance)}", received=repr(variance))
        if not 0 <= shrink <= 1:
            raise MarginsError("shrink", expected="a number in [0, 1]", received=repr(shrink))
        if not (added_variance > 0 and math.isfinite(added_variance)):
            raise MarginsError("added_variance", expected="a positive number", received=repr(added_variance))
        self.shares_variance = variance == "shared"
        self.shrink, self.added_variance = shrink, added_variance
        self.register_buffer("mean", torch.zeros(num_classes, width, dtype=torch.float64))
        self.register_buffer("variance", torch.zeros(num_classes, width, dtype=torch.float64))

    def _take_in(self, embeddings: Tensor, labels: Tensor, weight: Tensor) -> None:
        # Variances are kept without what is added to them, or every block would add it again.
        before, block = self.counts[:, None], self._summed(weight, labels)[:, None]
        share = (weight / block[labels, 0].clamp(min=_TINY))[:, None]
        mean = self._summed(share * embeddings, labels)
        variance = self._summed(share * (embeddings - mean[labels]).square(), labels)
        total = (before + block).clamp(min=_TINY)
        old, new = before / total, block / total
        spread = old * new * (self.mean - mean).square()
        self.variance.copy_(old * self.variance + new * variance + spread)
        self.mean.copy_(old * self.mean + new * mean)

    def variances(self) -> Tensor:
        """[C, width] as the scores use them: shared, shrunk, with what is added to them."""
        variance = self.variance + self.added_variance
        if self.shares_variance:
            shares = self.counts / self.counts.sum()
            variance = (shares @ variance).expand_as(variance)
        return (1 - self.shrink) * variance + self.shrink * variance.mean(1, keepdim=True)

    def _affine(self) -> tuple[Tensor, Tensor]:
        if not self.shares_variance:
            raise MarginsError(
                "as_linear", expected="variance='shared'", received="a variance for each class",
                fix="scores are quadratic then; make the head anew with a shared variance",
            )  # fmt: skip
        # Measured from the mean of all rows, which changes scores by a constant a row: a feature that is the
        # same everywhere then has weight 0, rather than a huge one for all classes.
        centre = (self.counts @ self.mean) / self.counts.sum()
        weight = (self.mean - centre) / self.variances()
        return weight, -(weight * (self.mean + centre)).sum(1) / 2

    def _log_density(self, embeddings: Tensor) -> Tensor:
        if self.shares_variance:
            return super()._log_density(embeddings)
        scores = [
            -((embeddings - mean).square() / variance + variance.log()).sum(1) / 2
            for mean, variance in zip(self.mean, self.variances(), strict=True)
        ]
        return torch.stack(scores, 1)


class _CountsHead(StreamedHead):
    """A head that keeps the sum of each feature in each class."""

    sums: Tensor

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        prior: Prior = "counts",
        smoothing: float = 1.0,
        forgetting: float = 1.0,
    ) -> None:
        super().__init__(width, num_classes, prior=prior, forgetting=forgetting)
        if not (smoothing > 0 and math.isfinite(smoothing)):
            raise MarginsError("smoothing", expected="a positive number", received=repr(smoothing))
        self.smoothing = smoothing
        self.register_buffer("sums", torch.zeros(num_classes, width, dtype=torch.float64))

    def _take_in(self, embeddings: Tensor, labels: Tensor, weight: Tensor) -> None:
        self._refuse_other_values(embeddings)
        self.sums.copy_(self.forgetting * self.sums + self._summed(weight[:, None] * embeddings, labels))

    @abstractmethod
    def _refuse_other_values(self, embeddings: Tensor) -> None:
        """Raises MarginsError for values that the head does not count."""


@carded(
    Card(
        name="Bernoulli naive-Bayes head",
        summary="few labels on binary features: which of them are there, and which are not",
        paper=_PAPER,
        kind="head",
        stations=("score", "after training"),
        targets=("classes",),
        entry=16,
        tests=("tests/test_naive_bayes.py::test_heads_of_counts_are_those_of_scikit_learn",),
    )
)
class BernoulliNaiveBayesHead(_CountsHead):
    r"""Naive Bayes on features that are 0 or 1.

    Use it for sets of words or flags with few labels a class. For counts use `MultinomialNaiveBayesHead`, for
    real features `NaiveBayesHead`.

    With $p_{kj} = (n_{kj} + a) / (n_k + 2a)$ the smoothed share of class k's rows that have feature j:
    $W_{kj} = \log p_{kj} - \log(1 - p_{kj})$, $b_k = \log \pi_k + \sum_j \log(1 - p_{kj})$.

    Args:
        width: of the embedding.
        num_classes: number of scores.
        prior: "counts" or "uniform".
        smoothing: a > 0.
        forgetting: factor in (0, 1] on what earlier blocks weigh, with every block.

    Raises:
        MarginsError: an argument out of its range; values other than 0 and 1.

    References:
        Zheng et al. 2023, arXiv 2302.02334 (naive Bayes as a linear classifier).

    Example:
        >>> head = BernoulliNaiveBayesHead(2, 2).partial_fit(torch.eye(2), torch.tensor([0, 1]))
        >>> head(torch.eye(2)).argmax(1).tolist()
        [0, 1]
    """

    def _refuse_other_values(self, embeddings: Tensor) -> None:
        if not bool(((embeddings == 0) | (embeddings == 1)).all()):
            raise MarginsError(
                "embeddings", expected="0 and 1 alone", received="other values",
                fix="(embeddings > threshold).float(), or NaiveBayesHead",
            )  # fmt: skip

    def _affine(self) -> tuple[Tensor, Tensor]:
        rows = (self.counts + 2 * self.smoothing)[:, None]
        present, absent = self.sums + self.smoothing, self.counts[:, None] - self.sums + self.smoothing
        return present.log() - absent.log(), (absent / rows).log().sum(1)


@carded(
    Card(
        name="Multinomial naive-Bayes head",
        summary="few labels on counts, such as words of a text",
        paper=_PAPER,
        kind="head",
        stations=("score", "after training"),
        targets=("classes",),
        entry=16,
        tests=("tests/test_naive_bayes.py::test_heads_of_counts_are_those_of_scikit_learn",),
    )
)
class MultinomialNaiveBayesHead(_CountsHead):
    r"""Naive Bayes on counts.

    Use it for counts of words with few labels a class. For features that are there or not use
    `BernoulliNaiveBayesHead`, for real ones `NaiveBayesHead`.

    $W_{kj} = \log \frac{n_{kj} + a}{\sum_j (n_{kj} + a)}$ with $n_{kj}$ the sum of feature j over class k,
    $b_k = \log \pi_k$.

    Args:
        width: of the embedding.
        num_classes: number of scores.
        prior: "counts" or "uniform".
        smoothing: a > 0.
        forgetting: factor in (0, 1] on what earlier blocks weigh, with every block.

    Raises:
        MarginsError: an argument out of its range; negative values.

    References:
        Zheng et al. 2023, arXiv 2302.02334 (naive Bayes as a linear classifier).

    Example:
        >>> head = MultinomialNaiveBayesHead(2, 2).partial_fit(3 * torch.eye(2), torch.tensor([0, 1]))
        >>> head(torch.eye(2)).argmax(1).tolist()
        [0, 1]
    """

    def _refuse_other_values(self, embeddings: Tensor) -> None:
        if bool((embeddings < 0).any()):
            raise MarginsError(
                "embeddings", expected="counts, 0 or more", received="negative values", fix="NaiveBayesHead"
            )

    def _affine(self) -> tuple[Tensor, Tensor]:
        smoothed = self.sums + self.smoothing
        weight = (smoothed / smoothed.sum(1, keepdim=True)).log()
        return weight, weight.new_zeros(self.num_classes)
