"""Made-up features of Gaussian classes, on which it is known how linear classifiers learn."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.cards import Card, carded
from margins.diagnose.checking import check_count, check_positive
from margins.errors import MarginsError


@carded(
    Card(
        name="Mixture of Gaussian classes",
        summary="data on which naive Bayes is right, or nearly so, to try a learning curve on",
        paper="Zheng et al., Revisiting Discriminative vs. Generative Classifiers, 2023, arXiv 2302.02334",
        kind="data",
        stations=("before training",),
        targets=("classes",),
        entry=16,
        tests=("tests/test_two_regimes.py::test_gaussian_classes_have_the_moments_that_they_say",),
        study="naive_bayes",
    )
)
class GaussianClasses:
    r"""Classes of equal shares with the same covariance, as many rows as one likes.

    Use it to see what a learning curve or a head does where the truth is known. It says nothing on data of
    one's own.

    The mean of class 0 is -s in every feature, that of class k > 0 is $2^{k-1} s$; variances are d in the
    first half of the features and 1 in the others. Features are independent given the class, as naive Bayes
    assumes, unless `correlated`: then $A^\top A$ is added to the covariance, A with entries uniform in
    (-1, 1), drawn once.

    Args:
        width: d, number of features.
        num_classes: K >= 2.
        mean_scale: s > 0.
        correlated: whether naive Bayes is wrong here.
        generator: draws A; not used otherwise.

    Raises:
        MarginsError: an argument out of its range.

    References:
        Zheng et al. 2023, arXiv 2302.02334, sec. 5 (simulation; s = 1 there).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> classes = GaussianClasses(4, mean_scale=0.5, generator=generator)
        >>> classes.means.tolist(), classes.variances.tolist()
        ([[-0.5, -0.5, -0.5, -0.5], [0.5, 0.5, 0.5, 0.5]], [4.0, 4.0, 1.0, 1.0])
        >>> features, labels = classes.draw(10, generator=generator)
        >>> features.shape, labels.shape
        (torch.Size([10, 4]), torch.Size([10]))
    """

    def __init__(
        self,
        width: int,
        num_classes: int = 2,
        *,
        mean_scale: float = 1.0,
        correlated: bool = False,
        generator: torch.Generator,
    ) -> None:
        check_count("width", width)
        check_count("num_classes", num_classes, least=2)
        scale = check_positive("mean_scale", mean_scale)
        if not math.isfinite(scale * 2.0 ** (num_classes - 2)):
            raise MarginsError("num_classes", expected="finite means", received=str(num_classes))
        levels = torch.tensor([-1.0, *(2.0**k for k in range(num_classes - 1))])
        self.means = (scale * levels)[:, None].repeat(1, width)
        self.variances = torch.ones(width)
        self.variances[: width // 2] = float(width)
        self.mixing = 2 * torch.rand(width, width, generator=generator) - 1 if correlated else None

    @property
    def covariance(self) -> Float[Tensor, "dim dim"]:
        """Of the features of a class."""
        diagonal = self.variances.diag()
        return diagonal if self.mixing is None else diagonal + self.mixing.T @ self.mixing

    def draw(
        self, num_rows: int, *, generator: torch.Generator
    ) -> tuple[Float[Tensor, "rows dim"], Int[Tensor, " rows"]]:
        """New rows, each of a class drawn at random, and their classes."""
        num_classes, width = self.means.shape
        labels = torch.randint(num_classes, (check_count("num_rows", num_rows),), generator=generator)
        noise = self.variances.sqrt() * torch.randn(num_rows, width, generator=generator)
        if self.mixing is not None:
            noise = noise + torch.randn(num_rows, width, generator=generator) @ self.mixing
        return self.means[labels] + noise, labels

    def best_error(self) -> float:
        """The smallest error any classifier can have, of two classes."""
        if len(self.means) != 2:
            raise MarginsError("best_error", expected="two classes", received=str(len(self.means)))
        gap = (self.means[1] - self.means[0]).double()
        distance = float(gap @ torch.linalg.solve(self.covariance.double(), gap)) ** 0.5
        return math.erfc(distance / 2 / math.sqrt(2)) / 2
