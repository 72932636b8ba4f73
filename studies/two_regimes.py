"""Naive Bayes and logistic regression on digits: which is ahead at how many labels, and where they cross."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ground import digits
from margins.compare import fit_logistic_regression, fit_naive_bayes, learning_curve
from margins.diagnose import two_regimes
from margins.evidence import Effect, Study

SIZES = (20, 30, 40, 50, 60, 80, 100, 130, 160, 200, 500, 800)
HEADS = {"naive_bayes": fit_naive_bayes, "logistic_regression": fit_logistic_regression}
USUAL = {"naive_bayes": {"shrink": 0.5}, "logistic_regression": {"regularisation": 10.0}}


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Errors of one head at every size; or, with both, where their curves cross."""
    division = digits(seed)
    train, test = tuple(division.train), tuple(division.test)
    if arm == "both":
        heads = {name: partial(HEADS[name], **USUAL[name]) for name in HEADS}
        curve = learning_curve(heads, train, test, sizes=SIZES, num_repeats=20, seed=seed)
        found = two_regimes(curve, "naive_bayes", "logistic_regression")
        return {
            "two regimes": float(found.regimes == "two regimes"),
            "after": (found.after or 0) / 10,
            "crossing": (found.crossing or 0) / 10,
            "before": (found.before or 1000) / 10,
        }
    heads = {arm: partial(HEADS[arm], **settings)}
    curve = learning_curve(heads, train, test, sizes=SIZES, num_repeats=20, seed=seed)
    chooses = learning_curve(heads, train, tuple(division.select), sizes=SIZES, num_repeats=4, seed=seed + 1)
    found = {f"error at {size}": float(e) for size, e in zip(SIZES, curve.means(arm), strict=True)}
    return {**found, "select": 1 - float(chooses.means(arm).mean())}


def ahead(f: Mapping[str, Mapping[str, float]], size: int) -> float:
    """Error of logistic regression minus that of naive Bayes."""
    return f["logistic_regression"][f"error at {size}"] - f["naive_bayes"][f"error at {size}"]


STUDY = Study(
    name="two_regimes",
    cards=("margins.diagnose.two_regimes", "margins.compare.learning_curve", "margins.heads.NaiveBayesHead"),
    claim="on features that depend on each other there are two regimes: with few labels naive Bayes is "
    "ahead, with many logistic regression",
    source="Zheng et al. 2023, arXiv 2302.02334, experiments with pre-trained supervised models",
    data="scikit-learn digits, pixels in [0, 1]",
    protocol="divided anew for each seed (50 % train, 10 % select, 40 % test); at each size twenty draws of "
    "training rows, the same for both; the regularisation of logistic regression and the shrinking of naive "
    "Bayes are chosen by accuracy on select rows over all sizes; the crossing is that of shrink 0.5, C = 10",
    arms={
        "naive_bayes": {"shrink": (0.0, 0.1, 0.5, 1.0)},
        "logistic_regression": {"regularisation": (0.1, 1.0, 10.0, 100.0)},
        "both": {},
    },
    budget=4,
    trial=trial,
    effects=(
        Effect(
            "the smaller of the gains: of naive Bayes at 2 and 3 rows a class, of logistic regression at 50",
            lambda f: min((ahead(f, 20) + ahead(f, 30)) / 2, -ahead(f, 500)),
        ),
        Effect("3 rows a class: error of logistic regression - naive Bayes", lambda f: ahead(f, 30)),
        Effect("50 rows a class: error of naive Bayes - logistic regression", lambda f: -ahead(f, 500)),
        Effect("rows a class at the crossing, above 3", lambda f: f["both"]["crossing"], above=3.0),
        Effect(
            "minus the rows a class at the crossing, above -50", lambda f: -f["both"]["crossing"], above=-50.0
        ),
    ),
    num_seeds=8,
    test_to_train=0.8,
)
