"""Laws of regression with two teachers, and of smoothed shapes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from margins.distill import TOLERANT, TOUGH, Assistance, AssistiveRegression, shape_smooth
from margins.errors import MarginsError
from reference import assistive as reference


def _batch(seed: int = 0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    draws = torch.Generator().manual_seed(seed)
    student, truth, tough, tolerant = torch.randn(4, 6, 8, generator=draws, dtype=torch.float64)
    return student, truth, {"tough": truth + 0.5 * tough, "tolerant": truth + tolerant}


def _slope(student: float, teacher: float, how: Assistance) -> float:
    """Of one number's assistance, the truth being 0; the main part is left out."""
    x = torch.tensor([[student]], dtype=torch.float64, requires_grad=True)
    loss = AssistiveRegression({"one": how}, tolerant="one", main=0.0)
    value = loss(x, torch.zeros_like(x), {"one": torch.full_like(x, teacher)})
    return float(torch.autograd.grad(value, x)[0])


def test_assistive_regression_equals_the_reference():
    student, truth, teachers = _batch()
    found = AssistiveRegression()(student, truth, teachers)
    arrays = (student.numpy(), truth.numpy(), teachers["tough"].numpy(), teachers["tolerant"].numpy())
    np.testing.assert_allclose(float(found), np.mean(reference.assistive_loss(*arrays)), rtol=1e-9)
    own = {"tough": Assistance(beyond=1.0, between=-0.1), "tolerant": Assistance(beyond=2.0, between=-0.3)}
    found = AssistiveRegression(own, band=0.4, main=0.5)(student, truth, teachers)
    expected = reference.assistive_loss(*arrays, alphas=((1.0, -0.1), (2.0, -0.3)), band=0.4, main=0.5)
    np.testing.assert_allclose(float(found), np.mean(expected), rtol=1e-9)


def test_the_three_regions_all_occur_in_the_reference_batch():
    student, truth, teachers = _batch()
    own, away = (student - truth).abs(), (teachers["tough"] - truth).abs()
    shares = [(own > away), (own < away) & (own > 0.15 * away), (own < 0.15 * away)]
    assert min(float(s.double().mean()) for s in shares) > 0.02


def test_teachers_equal_to_the_truth_do_not_assist():
    student, truth, _ = _batch()
    same = {"tough": truth, "tolerant": truth}
    found = AssistiveRegression()(student, truth, same)
    torch.testing.assert_close(found, 2 * (student - truth).square().mean())
    assert found > 0.1, "vacuous"


def test_the_main_loss_is_continuous_where_it_changes():
    reach = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
    alone = AssistiveRegression({"one": Assistance(beyond=0.0, between=0.0)}, tolerant="one", main=1.0)

    def main(own: Tensor) -> Tensor:
        return torch.stack(
            [
                alone(d[None, None], torch.zeros(1, 1), {"one": r[None, None]})
                for d, r in zip(own, reach, strict=True)
            ]
        )

    below, above = main(reach * (1 - 1e-9)), main(reach * (1 + 1e-9))
    torch.testing.assert_close(below, above, rtol=1e-8, atol=0)
    torch.testing.assert_close(main(reach / 2), 1.5 * reach)
    torch.testing.assert_close(main(2 * reach), 3 * reach.square() + 3 * reach)


@pytest.mark.parametrize("how", [TOUGH, TOLERANT], ids=["tough", "tolerant"])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_beyond_the_teacher_the_student_is_drawn_to_it(how, side):
    # The teacher errs to one side; it is mirrored to that of the student.
    for teacher in (0.5, -0.5):
        assert _slope(side * 0.9, teacher, how) == pytest.approx(side * how.beyond)
    # Stronger than the main part alone: both point the same way.
    x = torch.tensor([[side * 0.9]], dtype=torch.float64, requires_grad=True)
    given = {"one": torch.full_like(x, 0.5)}
    slopes = [
        float(
            torch.autograd.grad(
                AssistiveRegression({"one": h}, tolerant="one")(x, torch.zeros_like(x), given), x
            )[0]
        )
        for h in (how, Assistance(beyond=0.0, between=0.0))
    ]
    assert slopes[0] * side > slopes[1] * side > 0


@pytest.mark.parametrize("how", [TOUGH, TOLERANT], ids=["tough", "tolerant"])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_between_band_and_teacher_the_student_is_pushed_to_the_truth(how, side):
    for teacher in (0.5, -0.5):
        assert _slope(side * 0.3, teacher, how) == pytest.approx(-side * how.between)
        assert _slope(side * 0.3, teacher, how) * side > 0
        assert _slope(side * 0.05, teacher, how) == 0, "inside the band it is left alone"


def test_no_gradient_reaches_teachers_or_truth():
    student, truth, teachers = _batch()
    given = {name: t.requires_grad_() for name, t in teachers.items()}
    leaves = (student.requires_grad_(), truth.requires_grad_(), *given.values())
    grads = torch.autograd.grad(AssistiveRegression()(student, truth, given), leaves, allow_unused=True)
    assert all(g is None for g in grads[1:])
    assert grads[0].abs().max() > 1e-3
    assert torch.autograd.gradcheck(
        lambda x: AssistiveRegression()(x, truth.detach(), {n: t.detach() for n, t in given.items()}),
        (student,),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_assistive_regression_computes_half_precision_in_float32(dtype):
    student, truth, teachers = _batch()
    half = (30 * student).to(dtype).requires_grad_()
    found = AssistiveRegression()(half, truth, teachers)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, AssistiveRegression()(half.detach().float(), truth, teachers))
    assert bool(torch.isfinite(torch.autograd.grad(found, half)[0]).all())


def _shapes(num: int = 40, seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    strong = torch.tensor([3.0, 2.0, 0.5, 0.3, 0.1, 0.05], dtype=torch.float64)
    turned = torch.linalg.qr(torch.randn(6, 6, generator=draws, dtype=torch.float64))[0]
    return (torch.randn(num, 6, generator=draws, dtype=torch.float64) * strong) @ turned + 1


def test_smoothed_shapes_equal_the_reference():
    shapes = _shapes()
    for variance, limit in ((0.9, 3.0), (0.6, 1.0), (0.99, 2.0)):
        found = shape_smooth(shapes, variance=variance, limit=limit).smooth(shapes)
        np.testing.assert_allclose(
            found, reference.shape_smooth(shapes.numpy(), variance=variance, clip=limit)
        )
    assert (found - shapes).abs().max() > 0.05, "vacuous: nothing is smoothed"


def test_all_of_the_variance_and_no_limit_change_nothing():
    shapes = _shapes()
    torch.testing.assert_close(shape_smooth(shapes, variance=1.0, limit=float("inf")).smooth(shapes), shapes)
    new = _shapes(5, seed=1)
    torch.testing.assert_close(shape_smooth(shapes, variance=1.0, limit=float("inf")).smooth(new), new)


def test_smoothing_keeps_the_fewest_modes_and_holds_shapes_within_their_limit():
    shapes = _shapes()
    model = shape_smooth(shapes, variance=0.9)
    variances = (shapes - shapes.mean(0)).pow(2).sum() / (len(shapes) - 1)
    kept = model.deviations.square().sum() / variances
    assert kept >= 0.9
    assert kept - model.deviations[-1].square() / variances < 0.9
    far = model.mean + 100 * model.modes[:1]
    torch.testing.assert_close(model.smooth(far), model.mean + 3 * model.deviations[0] * model.modes[:1])
    torch.testing.assert_close(model.smooth(model.smooth(shapes)), model.smooth(shapes))


def test_what_does_not_fit_is_refused():
    student, truth, teachers = _batch()
    wrong = {
        "beyond": lambda: Assistance(beyond=-1.0, between=0.0),
        "between": lambda: Assistance(beyond=1.0, between=0.4),
        "tolerant": lambda: AssistiveRegression({"one": TOUGH}),
        "band": lambda: AssistiveRegression(band=1.0),
        "main": lambda: AssistiveRegression(main=-1.0),
        "teachers.*tough": lambda: AssistiveRegression()(student, truth, {"tough": truth}),
        "targets": lambda: AssistiveRegression()(student, truth[:, :2], teachers),
        r"teachers\['tolerant'\]": lambda: AssistiveRegression()(
            student, truth, {**teachers, "tolerant": truth[0]}
        ),
        "variance": lambda: shape_smooth(truth, variance=0.0),
        "limit": lambda: shape_smooth(truth, limit=0.0),
        "rows that differ": lambda: shape_smooth(torch.ones(3, 2)),
        "N >= 2": lambda: shape_smooth(truth[:1]),
        r"\[B, 8\]": lambda: shape_smooth(truth).smooth(truth[:, :3]),
    }
    for words, call in wrong.items():
        with pytest.raises(MarginsError, match=words):
            call()
