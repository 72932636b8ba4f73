"""Naive Bayes against logistic regression on a mixture of Gaussians, by the number of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from margins.compare import fit_logistic_regression, fit_naive_bayes, learning_curve
from margins.diagnose import GaussianClasses
from margins.evidence import Effect, Study

SIZES = (40, 80, 160, 320, 640, 1280, 2560, 5120, 10_000)
WIDTH = 200


def as_it_comes(features: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """scikit-learn's logistic regression as it comes, on features as they are."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(features.numpy(), labels.numpy())
    return lambda new: torch.from_numpy(model.predict(new.numpy()))


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Errors of one head at every size; heads of one seed see the same rows."""
    draws = torch.Generator().manual_seed(seed)
    classes = GaussianClasses(WIDTH, mean_scale=0.15, generator=draws)
    train, select, test = (classes.draw(num, generator=draws) for num in (10_000, 5_000, 20_000))
    fits = {"naive_bayes": fit_naive_bayes, "logistic_regression": fit_logistic_regression}
    heads = {arm: partial(fits[arm], **settings) if arm in fits else as_it_comes}
    curve = learning_curve(heads, train, test, sizes=SIZES, num_repeats=4, seed=seed)
    found = {f"error at {size}": float(e) for size, e in zip(SIZES, curve.means(arm), strict=True)}
    chooses = learning_curve(heads, train, select, sizes=SIZES, num_repeats=2, seed=seed + 1)
    return {
        **found,
        "best error": classes.best_error(),
        "log2 of the rows needed": float(np.log2(curve.sufficient_size(arm, within=0.02))),
        "select": 1 - float(chooses.means(arm).mean()),
    }


def ahead(size: int, peer: str = "logistic_regression") -> Any:
    """Error of the peer minus that of naive Bayes, at this size."""
    return lambda f: f[peer][f"error at {size}"] - f["naive_bayes"][f"error at {size}"]


STUDY = Study(
    name="naive_bayes",
    cards=("margins.heads.NaiveBayesHead", "margins.diagnose.GaussianClasses"),
    claim="where features are independent given the class, naive Bayes comes near the best error with far "
    "fewer labels than logistic regression, and with many labels the two meet",
    source="Zheng et al. 2023, arXiv 2302.02334, simulation",
    data="a mixture of two Gaussians in 200 features (class means -0.15 and 0.15, variances 200 and 1), "
    "drawn anew for each seed",
    protocol="at each size four draws of training rows, the same for all heads, judged on 20,000 rows; "
    "logistic regression by L-BFGS on features in [0, 1]; its regularisation and the shrinking of naive "
    "Bayes are chosen by accuracy on other rows over all sizes; as it comes: C = 1, features as they are",
    arms={
        "naive_bayes": {"shrink": (0.0, 0.01, 0.1, 1.0)},
        "logistic_regression": {"regularisation": (0.1, 1.0, 10.0, 100.0)},
        "as_it_comes": {},
    },
    budget=4,
    trial=trial,
    effects=(
        Effect("40 rows: error of logistic regression - naive Bayes", ahead(40)),
        Effect("160 rows: error of logistic regression - naive Bayes", ahead(160)),
        Effect(
            "40 rows: error of logistic regression as it comes - naive Bayes",
            ahead(40, "as_it_comes"),
            reaches=0.2,
        ),
        Effect("10,000 rows: naive Bayes is not worse", ahead(10_000), above=-0.005),
        Effect(
            "doublings of rows that logistic regression needs more, to come within 0.02 of its own best",
            lambda f: (
                f["logistic_regression"]["log2 of the rows needed"]
                - f["naive_bayes"]["log2 of the rows needed"]
            ),
            reaches=1.0,
        ),
        Effect(
            "10,000 rows: naive Bayes is within 0.01 of the smallest possible error",
            lambda f: f["naive_bayes"]["best error"] - f["naive_bayes"]["error at 10000"],
            above=-0.01,
        ),
    ),
    num_seeds=8,
)
