"""The references obey the laws of their inputs: unknown entries, entry weights, margins and empty rows."""

from functools import partial

import numpy as np
import pytest

from reference import binary, contrastive, counts, ranking, robust, softmax, spherical


def soft_info_nce(*inputs, **options):
    return contrastive.soft_info_nce(*inputs[:5], inputs[0], alpha=1.0, beta=1.0, t=1.0, floor=0.1, **options)


def random_case(seed, num_rows=6, num_candidates=7, *, single=False):
    """Scores, targets, known, weight and margin with every kind of entry in every row."""
    rng = np.random.default_rng(seed)
    shape = (num_rows, num_candidates)
    scores, margin = rng.normal(size=shape), rng.normal(size=shape)
    target = np.zeros(shape)
    target[:, 0] = 1.0
    if not single:
        target[:, 1] = rng.uniform(0.2, 1.0, size=num_rows)
    known = np.ones(shape, dtype=bool)
    known[:, -1] = False
    return scores, target, known, rng.uniform(0.5, 2.0, size=shape), margin


SINGLE = {
    "ldr": partial(robust.ldr_kl, lam=0.7, margin_c=0.1),
    "aldr": partial(robust.aldr_kl, lam0=1.0, alpha=2.0, margin_c=0.1, normalise="l1"),
    "aldr, softplus": partial(robust.aldr_kl, lam0=1.0, alpha=2.0, normalise="softplus"),
}
SEVERAL = {
    "cross-entropy": partial(softmax.cross_entropy, smoothing=0.1),
    "focal": partial(softmax.focal, gamma=2.0),
    "comp-sum": partial(softmax.comp_sum, tau=1.5),
    "binary": binary.binary_cross_entropy,
    "binary focal": partial(binary.binary_focal, gamma=2.0),
    "z-loss": partial(spherical.z_loss, a=0.7, b=1.0),
    "squared error": spherical.squared_error,
    "spherical softmax": partial(spherical.spherical_softmax, eps=0.1),
    "taylor softmax": spherical.taylor_softmax,
    "infonce": partial(contrastive.info_nce, temperature=0.5),
    "supcon": partial(contrastive.sup_con, temperature=0.5),
    "decoupled": partial(contrastive.decoupled_softmax, temperature=0.5),
    "multi-similarity": partial(contrastive.multi_similarity, alpha=2.0, beta=5.0, base=0.5, epsilon=1.0),
    "soft infonce": partial(soft_info_nce, temperature=0.5),
    "listnet": ranking.list_net,
}
ROW_WISE = SINGLE | SEVERAL


@pytest.mark.parametrize("name", ROW_WISE)
def test_an_unknown_entry_is_a_candidate_that_is_not_there(name):
    loss, case = ROW_WISE[name], random_case(1, single=name in SINGLE)
    case[0][:, -1] = 1e3  # what is unknown must not matter, however large
    values = loss(*case)
    assert values == pytest.approx(loss(*(x[:, :-1] for x in case)), rel=1e-13)
    assert values != pytest.approx(loss(*(x[:, :-2] for x in case)), rel=1e-3)
    assert loss(*case[:2], np.zeros_like(case[2]), *case[3:]) == [0.0] * 6


# Not in this law: smoothing (divided by the count of entries), K of LDR and ALDR, the plain number of
# positives of the decoupled losses, and the similarities' softmax of Soft-InfoNCE.
DOUBLES = SEVERAL | {"cross-entropy": softmax.cross_entropy}


@pytest.mark.parametrize("name", sorted(DOUBLES.keys() - {"decoupled", "soft infonce"}))
def test_an_entry_of_weight_two_is_the_candidate_twice(name):
    scores, target, known, weight, margin = random_case(2)
    weight[:] = 1.0
    loss = DOUBLES[name]
    once = loss(scores, target, known, weight, margin)
    for column in (0, 3):
        heavy = weight.copy()
        heavy[:, column] = 2.0
        twice = [np.concatenate([x, x[:, [column]]], axis=1) for x in (scores, target, known, weight, margin)]
        assert loss(scores, target, known, heavy, margin) == pytest.approx(loss(*twice), rel=1e-12)
        assert loss(*twice) != pytest.approx(once, rel=1e-9)


@pytest.mark.parametrize("name", ROW_WISE)
def test_none_for_weight_and_margin_is_ones_and_zeros_and_a_margin_is_a_lower_score(name):
    loss, (scores, target, known, weight, margin) = ROW_WISE[name], random_case(3, single=name in SINGLE)
    plain = loss(scores, target, known, None, None)
    assert plain == loss(scores, target, known, np.ones_like(scores), np.zeros_like(scores))
    if name != "soft infonce":  # there the scores stand in for the similarities, which have no margin
        lowered = loss(scores - margin, target, known, weight, None)
        assert loss(scores, target, known, weight, margin) == pytest.approx(lowered, rel=1e-13)
        assert plain != pytest.approx(lowered, rel=1e-3)


@pytest.mark.parametrize(
    "name", sorted(ROW_WISE.keys() - {"binary", "binary focal", "squared error", "listnet"})
)
def test_a_row_without_a_positive_is_exactly_zero(name):
    scores, _, known, weight, margin = random_case(4)
    assert ROW_WISE[name](scores, np.zeros_like(scores), known, weight, margin) == [0.0] * 6


@pytest.mark.parametrize("name", ["decoupled", "multi-similarity", "soft infonce"])
def test_a_row_without_a_negative_is_exactly_zero(name):
    scores, _, known, weight, margin = random_case(4)
    assert ROW_WISE[name](scores, np.ones_like(scores), known, weight, margin) == [0.0] * 6


TARGETED = {
    "row": partial(ranking.mann_whitney, scope="row"),
    "column": partial(ranking.mann_whitney, scope="column"),
    "global": ranking.mann_whitney,
    "any loss": partial(counts.any_loss, metric="mcc", link="softmax"),
    "any loss, micro": partial(counts.any_loss, metric="f1", average="micro"),
    "dice": counts.dice,
    "lambda rank": lambda *inputs: ranking.lambda_rank(*inputs[:3], top=4),
}


@pytest.mark.parametrize("name", TARGETED)
def test_an_unknown_entry_is_not_there_for_pairs_counts_and_lists_either(name):
    loss, (scores, target, known, weight, _) = TARGETED[name], random_case(5)
    target[0, :2] = 0.0  # so that columns have a negative too
    scores[:, -1] = 1e3
    target[:, -1] = [0, 1, 0, 1, 0, 1]
    inputs = (scores, target, known, weight)
    assert loss(*inputs) == pytest.approx(loss(*(x[:, :-1] for x in inputs)), rel=1e-13)
    assert loss(*inputs) != pytest.approx(loss(scores, target, np.ones_like(known), weight), rel=1e-3)
    assert np.all(np.asarray(loss(scores, target, np.zeros_like(known), weight)) == 0.0)


@pytest.mark.parametrize("name", sorted(TARGETED.keys() - {"row", "lambda rank"}))
def test_a_row_of_weight_two_is_the_row_twice_where_rows_share_a_group(name):
    loss, (scores, target, known, weight, _) = TARGETED[name], random_case(6)
    target[0, :2] = 0.0
    target[1, 2:4] = 1.0
    heavy = weight.copy()
    heavy[1] *= 2.0
    twice = [np.concatenate([x, x[[1]]]) for x in (scores, target, known, weight)]
    assert loss(scores, target, known, heavy) == pytest.approx(loss(*twice), rel=1e-12)
    assert loss(*twice) != pytest.approx(loss(scores, target, known, weight), rel=1e-4)
