"""Where one classifier stops being better than another as labels grow in number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from margins.cards import Card, carded
from margins.errors import MarginsError
from margins.evaluation.statistics import PairedTest, corrected_t

Floats = npt.NDArray[np.float64]
Regimes = Literal["two regimes", "reversed", "first throughout", "second throughout", "undecided"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningCurve:
    """Errors by number of training rows; at each size and repeat all classifiers saw the same rows.

    Args:
        sizes: [S] numbers of training rows, growing.
        errors: by name of the classifier, [S, R] error of each of R repeats.

    Raises:
        MarginsError: sizes that do not grow, errors of another shape, or numbers that are not finite.
    """

    sizes: tuple[int, ...]
    errors: Mapping[str, Floats]

    def __post_init__(self) -> None:
        if not self.sizes or any(b <= a for a, b in zip(self.sizes, self.sizes[1:], strict=False)):
            raise MarginsError("sizes", expected="numbers that grow", received=str(self.sizes))
        shapes = {errors.shape for errors in self.errors.values()}
        shape = next(iter(shapes), ())
        if len(shapes) != 1 or len(shape) != 2 or shape[0] != len(self.sizes) or not shape[1]:
            raise MarginsError(
                "errors", expected=f"[S, R] = [{len(self.sizes)}, R] of each classifier",
                received=str({name: list(errors.shape) for name, errors in self.errors.items()}),
            )  # fmt: skip
        for name, errors in self.errors.items():
            if not np.isfinite(errors).all():
                raise MarginsError(f"errors[{name!r}]", expected="finite numbers", received="others too")

    def means(self, name: str) -> Floats:
        """[S] mean error over repeats of a classifier."""
        if name not in self.errors:
            raise MarginsError("name", expected=f"one of {sorted(self.errors)}", received=repr(name))
        return self.errors[name].mean(1)

    def sufficient_size(self, name: str, *, within: float) -> int:
        """The smallest size at which the mean error is within this of that at the largest size.

        The theory of naive Bayes says that it grows with the logarithm of the number of features, and for
        logistic regression in proportion to it.

        Args:
            name: of the classifier.
            within: >= 0, in the unit of the error.

        Example:
            >>> curve = LearningCurve(sizes=(10, 20, 40), errors={"a": np.array([[0.4], [0.22], [0.2]])})
            >>> curve.sufficient_size("a", within=0.05)
            20
        """
        if not within >= 0:
            raise MarginsError("within", expected="a number >= 0", received=repr(within))
        means = self.means(name)
        return self.sizes[int(np.argmax(means <= means[-1] + within))]


@dataclass(frozen=True, kw_only=True)
class TwoRegimes:
    """What `two_regimes` finds.

    Args:
        regimes: "two regimes" when the first is better beyond doubt at some size, and the second at a larger
            one; "reversed" when it is the other way round; "first throughout" or "second throughout" when one
            of them is so somewhere, and the other nowhere; else "undecided".
        crossing: the smallest size at which the second has the lower mean error, after sizes at which it had
            not; None when there is none.
        after: the largest size below which the crossing cannot be: there the first is better beyond doubt.
        before: the smallest size from which on the second is better beyond doubt at every size.
        differences: error of the first minus that of the second, paired over repeats, by size.
    """

    regimes: Regimes
    crossing: int | None
    after: int | None
    before: int | None
    differences: Mapping[int, PairedTest]


@carded(
    Card(
        name="Two regimes of classifiers",
        summary="which linear head for how many labels: where logistic regression passes naive Bayes",
        paper="Zheng et al., Revisiting Discriminative vs. Generative Classifiers, 2023, arXiv 2302.02334; "
        "Ng, Jordan, On Discriminative vs. Generative Classifiers, NIPS 2001",
        kind="diagnostic",
        stations=("after training",),
        targets=("classes",),
        entry=16,
        tests=(
            "tests/test_two_regimes.py::test_a_crossing_is_found_with_sizes_on_both_sides_of_it",
            "tests/test_two_regimes.py::test_curves_that_do_not_cross_have_one_regime",
        ),
        study="two_regimes",
    )
)
def two_regimes(curve: LearningCurve, first: str, second: str, *, confidence: float = 0.95) -> TwoRegimes:
    """Where the second of two classifiers passes the first as training rows grow in number.

    Use it on a curve of naive Bayes and logistic regression over one's own embeddings, to choose between them
    by the number of labels. Do not read a crossing without its ends `after` and `before`: a few repeats leave
    it open by a factor of two or more.

    At each size the errors of both are compared by a paired t interval over repeats. The intervals hold
    together, by Bonferroni, for the draw of training rows given the test rows.

    Args:
        curve: of both, with at least two repeats.
        first: the one that is expected to be better with few rows.
        second: the other.
        confidence: of all intervals together, in (0, 1).

    Raises:
        MarginsError: an unknown name, one repeat only, or a confidence out of range.

    References:
        Zheng et al. 2023, arXiv 2302.02334, sec. 5; Ng, Jordan 2001.

    Example:
        >>> errors = {"nb": np.array([[0.2, 0.21], [0.2, 0.2]]), "lr": np.array([[0.4, 0.4], [0.1, 0.102]])}
        >>> found = two_regimes(LearningCurve(sizes=(20, 200), errors=errors), "nb", "lr")
        >>> found.regimes, found.after, found.crossing, found.before
        ('two regimes', 20, 200, 200)
    """
    if not 0 < confidence < 1:
        raise MarginsError("confidence", expected="a number in (0, 1)", received=repr(confidence))
    means = curve.means(first) - curve.means(second)
    of_each = 1 - (1 - confidence) / len(curve.sizes)
    differences = {
        size: corrected_t(a - b, test_to_train=0.0, confidence=of_each)
        for size, a, b in zip(curve.sizes, curve.errors[first], curve.errors[second], strict=True)
    }
    first_better = [size for size, test in differences.items() if test.has_basis and test.high < 0]
    second_better = [size for size, test in differences.items() if test.has_basis and test.low > 0]
    at = int(np.argmax(means > 0))  # 0 when there is none, and when the second is ahead from the start
    crossing = curve.sizes[at] if at else None
    after = max((s for s in first_better if crossing is None or s < crossing), default=None)
    return TwoRegimes(
        regimes=_regimes(first_better, second_better),
        crossing=crossing,
        after=after,
        before=_from_which_on(curve.sizes, second_better),
        differences=differences,
    )


def _regimes(first_better: list[int], second_better: list[int]) -> Regimes:
    if first_better and second_better:
        return "two regimes" if min(first_better) < max(second_better) else "reversed"
    if first_better or second_better:
        return "first throughout" if first_better else "second throughout"
    return "undecided"


def _from_which_on(sizes: tuple[int, ...], better: list[int]) -> int | None:
    found = None
    for size in reversed(sizes):
        if size not in better:
            break
        found = size
    return found
