"""The sentence a user came for."""

from __future__ import annotations

from collections.abc import Sequence

from margins.compare.results import ComparisonResult, RecipeResult
from margins.evaluation import Metric


def answer_of(result: ComparisonResult, metric: Metric) -> str:
    """What the comparison says, in at most three sentences; "nothing beat the baseline" is a full answer.

    Args:
        result: a comparison, its own `answer` not looked at.
        metric: that its recipes were scored by.
    """
    baseline = next(r for r in result.recipes if r.name == result.baseline)
    others = [r for r in result.recipes if r is not baseline]
    winners = [r for r in others if _verdict(result, r, baseline) == "better"]
    base = f"{baseline.title} ({metric.title} {baseline.mean:.4f})"
    if winners:
        return _won(result, winners, baseline, base, metric)
    leads = result.recipes[0] is baseline
    which = (
        "the next is"
        if leads
        else "the highest mean is that of"
        if metric.higher_is_better
        else "the lowest mean is that of"
    )
    losers = [r for r in others if _verdict(result, r, baseline) == "worse"]
    beaten = f"It beat {_listed(losers)}. " if losers else ""
    detectable = (
        f"A true difference of {result.detectable_difference:.4f} between two would be found "
        "four times in five."
        if result.detectable_difference
        else ""
    )
    return (
        f"Nothing was shown to beat {base} on these data: {which} {others[0].title}, "
        f"{_difference(result, others[0], baseline)}. {beaten}{detectable}"
    ).rstrip()


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
    alike = [r for r in rivals if _verdict(result, best, r) == "undecided"]
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
    return f"{value:+.4f}".replace("-", "\u2212")
