"""Errors of classifiers on embeddings by the number of rows that they learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from margins.cards import Card, carded
from margins.data.extras import extra
from margins.diagnose import LearningCurve
from margins.errors import MarginsError, describe
from margins.heads import NaiveBayesHead
from margins.targets.checks import check_labels

Rows = tuple[Tensor, Tensor]
"""Embeddings [N, d] and class ids [N]."""

Fitting = Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]
"""Embeddings [m, d] and class ids [m] to a function from embeddings [n, d] to predicted class ids [n]."""

_TRIES = 1000


@carded(
    Card(
        name="Learning curve of heads",
        summary="which classifier on frozen embeddings for how many labels, before more are bought",
        paper="Zheng et al., Revisiting Discriminative vs. Generative Classifiers, 2023, arXiv 2302.02334",
        kind="protocol",
        stations=("protocol",),
        targets=("classes",),
        entry=16,
        tests=(
            "tests/test_two_regimes.py::test_all_classifiers_see_the_same_rows_with_every_class_among_them",
        ),
        study="two_regimes",
    )
)
def learning_curve(
    heads: Mapping[str, Fitting],
    train: Rows,
    test: Rows,
    *,
    sizes: Sequence[int],
    num_repeats: int = 5,
    seed: int,
) -> LearningCurve:
    """Errors of each classifier on the test rows, by the number of training rows.

    Use it on embeddings of a frozen encoder to choose a head for the labels at hand, with
    `margins.diagnose.two_regimes`, and to see whether more labels would help. Do not choose settings of a
    head on the test rows.

    For each size and repeat, rows are drawn without replacement until every class is among them; all
    classifiers learn from the same ones.

    Args:
        heads: by name, how each is fitted, as `fit_naive_bayes` and `fit_logistic_regression`.
        train: embeddings [N, d] and class ids [N] to draw from.
        test: embeddings [n, d] and class ids [n].
        sizes: numbers of rows, growing, at least as many as classes and at most N.
        num_repeats: draws at each size.
        seed: of the draws.

    Raises:
        MarginsError: other shapes, a size that is too small or too large, or classes so rare that no draw of
            that size holds all of them.

    References:
        Zheng et al. 2023, arXiv 2302.02334, sec. 5.

    Example:
        >>> from margins.diagnose import GaussianClasses
        >>> generator = torch.Generator().manual_seed(0)
        >>> classes = GaussianClasses(8, generator=generator)
        >>> train, test = (classes.draw(n, generator=generator) for n in (100, 50))
        >>> curve = learning_curve({"nb": fit_naive_bayes}, train, test, sizes=(4, 100), seed=0)
        >>> curve.errors["nb"].shape
        (2, 5)
    """
    for name, (features, labels) in (("train", train), ("test", test)):
        check_labels(f"{name} labels", labels)
        if features.ndim != 2 or len(features) != len(labels) or not len(labels):
            raise MarginsError(name, expected="[N, d] floats and [N] class ids", received=describe(features))
    if num_repeats < 1:
        raise MarginsError("num_repeats", expected="at least 1", received=str(num_repeats))
    draws, (features, labels) = torch.Generator().manual_seed(seed), train
    errors = {name: np.zeros((len(sizes), num_repeats)) for name in heads}
    for at, size in enumerate(sizes):
        for repeat in range(num_repeats):
            rows = _drawn(labels, size, draws)
            for name, fit in heads.items():
                predict = fit(features[rows], labels[rows])
                wrong = predict(test[0]) != test[1]
                errors[name][at, repeat] = float(wrong.double().mean())
    return LearningCurve(sizes=tuple(sizes), errors=errors)


def fit_naive_bayes(features: Tensor, labels: Tensor, *, shrink: float = 0.0) -> Callable[[Tensor], Tensor]:
    """A shared-variance `NaiveBayesHead` of class ids from 0, for `learning_curve`."""
    num_classes = int(labels.max()) + 1
    head = NaiveBayesHead(features.shape[1], num_classes, shrink=shrink).partial_fit(features, labels)
    return lambda new: head(new).argmax(1)


def fit_logistic_regression(
    features: Tensor, labels: Tensor, *, regularisation: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """scikit-learn's logistic regression, each feature in [0, 1] by its training rows, for `learning_curve`.

    Args:
        features: [m, d].
        labels: [m] class ids.
        regularisation: inverse strength of the penalty on the weights, > 0.
    """
    with extra("tool"):
        from sklearn.linear_model import LogisticRegression
    low, high = features.amin(0), features.amax(0)
    factor = torch.where(high > low, 1 / (high - low).clamp(min=1e-30), 0.0)
    model = LogisticRegression(C=regularisation, max_iter=1000)
    model.fit(((features - low) * factor).cpu().numpy(), labels.cpu().numpy())
    return lambda new: torch.from_numpy(model.predict(((new - low) * factor).cpu().numpy())).to(labels)


def _drawn(labels: Tensor, size: int, draws: torch.Generator) -> Tensor:
    num_classes = len(labels.unique())
    if not num_classes <= size <= len(labels):
        raise MarginsError(
            "sizes", expected=f"from {num_classes}, one a class, to {len(labels)}", received=str(size)
        )
    for _ in range(_TRIES):
        rows = torch.randperm(len(labels), generator=draws)[:size]
        if len(labels[rows].unique()) == num_classes:
            return rows
    raise MarginsError(
        "sizes", expected=f"sizes at which a draw holds all {num_classes} classes",
        received=f"{size}: not in {_TRIES} draws", fix="take larger sizes, or leave rare classes out",
    )  # fmt: skip
