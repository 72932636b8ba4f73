"""The sentence a user came for."""

from __future__ import annotations

from collections.abc import Sequence

from margins.compare.results import ComparisonResult, RecipeResult
from margins.evaluation import Metric


def answer_of(result: ComparisonResult, metric: Metric) -> str:
    """What the comparison says, in a few sentences; "nothing beat the baseline" is a full answer.

    Args:
        result: a comparison, its own `answer` not looked at.
        metric: that its recipes were scored by.
    """
    baseline = next(r for r in result.recipes if r.name == result.baseline)
    others = [r for r in result.recipes if r is not baseline]
    winners = [r for r in others if _verdict(result, r, baseline) == "better"]
    base = f"{baseline.title} ({metric.title} {baseline.mean:.4f})"
    said = _won(result, winners, baseline, base, metric) if winners else _lost(result, baseline, base, metric)
    return " ".join(part for part in (said, _confirmed(result), _withdrawn(result)) if part)


def _lost(result: ComparisonResult, baseline: RecipeResult, base: str, metric: Metric) -> str:
    """That nothing beat the baseline, and by how much it could be beaten at most."""
    others = [r for r in result.recipes if r is not baseline]
    which = (
        "the next is"
        if result.recipes[0] is baseline
        else "the highest mean is that of"
        if metric.higher_is_better
        else "the lowest mean is that of"
    )
    text = (
        f"Nothing was shown to beat {base} on these data: {which} {others[0].title}, "
        f"{_difference(result, others[0], baseline)}."
    )
    same = [r for r in others if _verdict(result, r, baseline) == "practically the same"]
    if same:
        text += f" Practically the same, within {result.rope:g}: {_listed(same)}."
    losers = [r for r in others if _verdict(result, r, baseline) == "worse"]
    if losers:
        text += f" It beat {_listed(losers)}."
    if result.detectable_difference:
        text += (
            f" A true difference of {result.detectable_difference:.4f} between two would be found four times "
            "in five."
        )
    return text


def _confirmed(result: ComparisonResult) -> str:
    """What the rows kept to report say of the winner."""
    left = result.left
    if left is None or left.difference is None:
        return ""
    return (
        f"On the rows kept to report, opened once, the difference to the baseline is "
        f"{_signed(left.difference)} ({100 * result.confidence:g} % interval {_signed(left.low or 0.0)} to "
        f"{_signed(left.high or 0.0)})."
    )


def _withdrawn(result: ComparisonResult) -> str:
    return (
        "Folds, repeats, seeds or the rope were changed after results had been seen, so no recipe is called "
        "better."
        if result.looked
        else ""
    )


def _won(
    result: ComparisonResult,
    winners: Sequence[RecipeResult],
    baseline: RecipeResult,
    base: str,
    metric: Metric,
) -> str:
    best = winners[0]
    text = f"{best.title} beat {base}: {metric.title} {best.mean:.4f}, {_difference(result, best, baseline)}."
    if len(winners) > 1:
        text += f" So did {_listed(winners[1:])}."
    rivals = [r for r in result.recipes if r is not best and r is not baseline]
    top = result.recipes[0]
    if top is not best:
        text += f" The best mean is that of {top.title} ({top.mean:.4f}), which was not shown to beat it."
    alike = [r for r in rivals if _verdict(result, best, r) in ("undecided", "practically the same")]
    if alike:
        text += f" These data do not tell it apart from {_listed(alike)}."
    return text


def _verdict(result: ComparisonResult, first: RecipeResult, second: RecipeResult) -> str:
    return result.difference(first.name, second.name).verdict


def _difference(result: ComparisonResult, first: RecipeResult, second: RecipeResult) -> str:
    d = result.difference(first.name, second.name)
    interval = f"{100 * result.confidence:g} % interval of this pair alone"
    return f"a difference of {_signed(d.mean)} ({interval} {_signed(d.low)} to {_signed(d.high)})"


def _listed(recipes: Sequence[RecipeResult]) -> str:
    titles = [r.title for r in recipes]
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def _signed(value: float) -> str:
    return f"{round(value, 4) + 0.0:+.4f}".replace("-", "\u2212")
