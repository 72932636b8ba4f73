"""Every carded loss under every law that its form calls for."""

from collections.abc import Callable

import pytest
import torch
from torch.autograd.gradcheck import GradcheckError

import margins.losses
from harness import blockwise, laws, sampled, spherical
from harness.cases import BY_NAME, CASES, Case
from margins.cards import loss_cards
from margins.engine.statistics import Repeat
from margins.losses.forms import StatisticsLoss

Law = Callable[[Case], None]

OF_SCORES: tuple[Law, ...] = (
    laws.equals_the_reference,
    laws.gradient_is_that_of_the_value,
    laws.weights_of_one_change_nothing,
    laws.doubled_weight_equals_a_repeated_row,
    laws.rows_and_candidates_may_be_permuted,
    laws.half_precision_computes_in_float32,
    laws.degenerate_batches_give_an_attached_zero,
    laws.inputs_are_left_alone,
    laws.state_survives_save_and_load,
)
OF_ORDERED_SCORES = tuple(
    laws.rows_may_be_permuted if law is laws.rows_and_candidates_may_be_permuted else law for law in OF_SCORES
)
LAWS_OF_FORM: dict[str, tuple[Law, ...]] = {
    "statistics": (
        *OF_SCORES,
        laws.rows_without_what_is_needed_do_not_count,
        laws.reductions_agree_and_batches_add_up,
        laws.large_offsets_stay_finite,
        blockwise.blockwise_equals_dense,
        blockwise.whole_rows_equal_dense,
        blockwise.half_precision_vectors_are_scored_in_float32,
        blockwise.blockwise_never_holds_the_score_matrix,
        blockwise.blockwise_refuses_a_second_derivative,
        spherical.spherical_equals_dense,
        sampled.sampled_in_full_equals_dense,
    ),
    "list": (*OF_SCORES, laws.reductions_agree_and_batches_add_up, laws.large_offsets_stay_finite),
    "pairs": (*OF_SCORES, laws.large_offsets_stay_finite),
    "counts": (*OF_SCORES, laws.large_offsets_stay_finite),
    "rows": (
        *OF_ORDERED_SCORES,
        laws.reductions_agree_and_batches_add_up,
        laws.large_offsets_stay_finite,
        laws.second_derivative_is_that_of_the_gradient,
    ),
    "ordered counts": (*OF_ORDERED_SCORES, laws.large_offsets_stay_finite),
    "coefficients": (
        laws.coefficients_are_those_of_the_reference,
        laws.half_precision_computes_in_float32,
        laws.degenerate_batches_give_an_attached_zero,
        laws.inputs_are_left_alone,
        laws.state_survives_save_and_load,
    ),
    "features": (),  # test_features_and_outputs.py
    "outputs": (),
    "bags": (),  # test_bags.py
}


def laws_of(case: Case) -> tuple[Law, ...]:
    """The laws of the form; the second derivative too, where nothing in the declaration is detached."""
    chosen = LAWS_OF_FORM[case.form]
    loss = case.make() if case.form == "statistics" else None
    if isinstance(loss, StatisticsLoss) and not _has_detached(loss):
        chosen = (*chosen, laws.second_derivative_is_that_of_the_gradient)
    return chosen


def _has_detached(loss: StatisticsLoss) -> bool:
    stages = [s for step in loss.stages() for s in (step.stages if isinstance(step, Repeat) else (step,))]
    return any(value.kind != "through" for stage in stages for value in stage.rows.values())


MATRIX = [(case.name, law.__name__) for case in CASES for law in laws_of(case)]
LAWS = {law.__name__: law for chosen in LAWS_OF_FORM.values() for law in chosen}
LAWS[laws.second_derivative_is_that_of_the_gradient.__name__] = laws.second_derivative_is_that_of_the_gradient


@pytest.mark.parametrize(("name", "law"), MATRIX, ids=[f"{n}-{w}" for n, w in MATRIX])
def test_law(name: str, law: str) -> None:
    torch.manual_seed(0)
    LAWS[law](BY_NAME[name])


def test_every_card_has_a_case_and_every_case_a_card() -> None:
    assert margins.losses.__all__
    assert {case.component for case in CASES} == set(loss_cards())


def test_the_matrix_of_laws_is_the_one_agreed() -> None:
    by_form: dict[str, set[int]] = {}
    for case in CASES:
        by_form.setdefault(case.form, set()).add(len(laws_of(case)))
    assert by_form == {
        "statistics": {19, 20},
        "pairs": {10},
        "counts": {10},
        "list": {11},
        "rows": {12},
        "ordered counts": {10},
        "coefficients": {5},
        "features": {0},
        "outputs": {0},
        "bags": {0},
    }
    twice = {n for n, law in MATRIX if law == laws.second_derivative_is_that_of_the_gradient.__name__}
    assert {"CrossEntropy", "CompSum", "ZLoss", "BinaryCrossEntropy", "InfoNCE", "DecoupledSoftmax"} <= twice
    assert not {"ALDRKL", "MultiSimilarity"} & twice


@pytest.mark.parametrize("law", [laws.equals_the_reference, laws.gradient_is_that_of_the_value])
def test_a_wrong_loss_breaks_the_law(law: Law) -> None:
    wrong = BY_NAME["Focal[0.5]"].make, BY_NAME["Focal"].reference

    class Doubled(margins.losses.CrossEntropy):
        def row(self, z):
            return super().row(z).detach() * 2 + super().row(z)

    broken = {
        laws.equals_the_reference: Case("Focal", *wrong),
        laws.gradient_is_that_of_the_value: Case("CrossEntropy", Doubled, BY_NAME["CrossEntropy"].reference),
    }[law]
    with pytest.raises((AssertionError, GradcheckError)):
        law(broken)
