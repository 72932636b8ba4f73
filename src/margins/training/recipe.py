"""A recipe: everything that makes a training run what it is, but for the data and the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from margins.data.extras import extra
from margins.data.settings import Settings, validated
from margins.encoders.choosing import AnyEncoder
from margins.errors import MarginsError
from margins.heads.choosing import AnyHead
from margins.heads.disposable import DisposableSettings
from margins.heads.linear import LinearSettings
from margins.training.objective_settings import ObjectiveSettings, loss_named, snake_case
from margins.training.of_bags import refuse_what_bags_cannot_have
from margins.training.of_no_prop import refuse_what_no_prop_cannot_have
from margins.training.of_tokens import refuse_what_tokens_cannot_have
from margins.training.parts.averaging import AnyAveraging, NoAveraging
from margins.training.parts.drawing import AnyDraw, Shuffled
from margins.training.parts.mixing import AnyMix, NoMix
from margins.training.parts.optimizers import AdamW, AnyOptimizer
from margins.training.parts.refreshing import AnyRefresh, HeadStart, Relabelling
from margins.training.parts.schedules import AnySchedule, Constant
from margins.training.parts.steps import AnyStep, StandardStep
from margins.training.predicting import metric_of
from margins.training.without_scores import refuse_what_needs_scores

Task = Literal["classes", "label_sets", "values", "matches"]
"""One class a row; several labels a row; a number a row; embeddings in which rows of a class match."""

Precision = Literal["32", "bf16", "fp16"]

_TASK_OF_HEAD: dict[str, Task] = {"projection": "matches", "nested": "classes", "no_prop": "classes"}
_ADJUSTED_BY_LABEL = ("binary_cross_entropy", "binary_focal")


class DecisionSettings(Settings):
    """What is fitted on the select rows when training is done, for probabilities and decisions.

    Args:
        calibration: of class probabilities: "temperature" keeps every decision; None leaves them.
        cut: of classes: "largest" decides for the class of the largest score. "tuned" moves the decision to
            where the recipe's metric is best: of two classes a threshold of the log-odds, of more one number
            tau; tau times the log class shares is taken off the scores. Probabilities do not change.
        thresholds: of label sets: one a label, one for all, or 0.5 without.
        goal: what the thresholds maximise.
    """

    calibration: Literal["temperature", "vector", "isotonic"] | None = "temperature"
    cut: Literal["largest", "tuned"] = "largest"
    thresholds: Literal["per_label", "global"] | None = "per_label"
    goal: Literal["f1", "f2", "balanced_accuracy"] = "f1"


class Phase(Settings):
    """A further training of a plan, which takes over the network.

    Args:
        changes: parts of the recipe that are other than in the first phase.
        frozen: parts of the network that keep their weights.
        fresh_head: whether the head starts anew.
    """

    changes: dict[str, Any] = Field(default_factory=dict)
    frozen: tuple[Literal["encoder", "head"], ...] = ()
    fresh_head: bool = False


class Recipe(Settings):
    """How a model is trained: the part at each station, and the larger kinds.

    The way of a batch: draw, encode, mix features, score, set targets, loss and penalties, update, observe.
    A recipe reads and writes YAML; with the data's fingerprint and the seed it repeats a run.

    Args:
        task: what is predicted.
        encoder: inputs to embeddings.
        head: embeddings to scores, or for "matches" to the embeddings that are compared.
        objective: the loss, how targets are set for it, penalties.
        evaluator: "blockwise" never holds the scores of all classes at once, for a linear head of very many;
            a spherical head has its own.
        draw: which rows a step sees.
        mix: how rows of a batch are mixed.
        step: owns forward, backward and update.
        refresh: passes over the training rows between epochs.
        plan: further phases, e.g. a new head on balanced draws over a frozen encoder (Kang et al. 2020, arXiv
            1910.09217).
        optimizer: AdamW or SGD.
        schedule: of the learning rate.
        averaging: of the weights that are judged and kept.
        max_epochs: passes over the training rows at most.
        patience: epochs without a better select score before training stops; None never stops early.
        batch_size: rows a step at most, over all ranks and micro-batches.
        min_steps: steps an epoch that small data are to have; their batches are made smaller for it, but not
            smaller than 16 rows.
        accumulate: micro-batches a step; the result is that of one big batch.
        clip_norm: largest norm of the gradient; None does not clip.
        precision: of the forward pass; losses and weights stay in float32.
        metric: chooses the epoch that is kept, on the select rows.
        decisions: what is fitted on the select rows at the end.
        accept_double_correction: several parts may make rare classes count more; their effects multiply.
        seed: where all random choices start from.
    """

    version: Literal[1] = 1
    task: Task
    encoder: AnyEncoder
    head: AnyHead = LinearSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    evaluator: Literal["dense", "blockwise"] = "dense"
    draw: AnyDraw = Shuffled()
    mix: AnyMix = NoMix()
    step: AnyStep = StandardStep()
    refresh: tuple[AnyRefresh, ...] = ()
    plan: tuple[Phase, ...] = ()
    optimizer: AnyOptimizer = AdamW()
    schedule: AnySchedule = Constant()
    averaging: AnyAveraging = NoAveraging()
    max_epochs: Annotated[int, Field(ge=1)] = 30
    patience: Annotated[int, Field(ge=1)] | None = 6
    batch_size: Annotated[int, Field(ge=1)] = 128
    min_steps: Annotated[int, Field(ge=1)] = 20
    accumulate: Annotated[int, Field(ge=1)] = 1
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    precision: Precision = "32"
    metric: str
    decisions: DecisionSettings = DecisionSettings()
    accept_double_correction: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        metric_of(self.task, self.metric)
        _refuse_wrong_form(self)
        _refuse_class_targets(self)
        _refuse_tuned_cut(self)
        refuse_what_bags_cannot_have(self)
        refuse_what_tokens_cannot_have(self)
        refuse_what_no_prop_cannot_have(self)
        refuse_what_needs_scores(self)
        self.phases()
        return self

    def phases(self) -> list[Recipe]:
        """The recipe of every phase of the plan, the first one first; none of them has a plan itself.

        Raises:
            MarginsError: a phase changes what one network cannot change, or does not fit together.
        """
        if not self.plan:
            return [self]
        first = {key: value for key, value in self.model_dump().items() if key != "plan"}
        return [_phase(first, phase, number) for number, phase in enumerate([Phase(), *self.plan])]

    def rows_a_step(self, num_rows: int) -> int:
        """The batch size for this many training rows.

        Example:
            >>> recipe = Recipe(task="classes", encoder={"name": "tabular"}, metric="accuracy")
            >>> [recipe.rows_a_step(n) for n in (100, 1000, 10000)]
            [16, 50, 128]
        """
        return min(self.batch_size, max(16, num_rows // self.min_steps))

    def changed(self, **changes: Any) -> Recipe:
        """The recipe with some parts replaced, checked as a whole.

        Raises:
            MarginsError: an unknown part, or parts that do not fit together.
        """
        plain = {k: v.model_dump() if isinstance(v, Settings) else v for k, v in changes.items()}
        return validated(Recipe, {**self.model_dump(), **plain}, what="recipe")

    def to_yaml(self) -> str:
        """The recipe as YAML, every part written out."""
        with extra("tool"):
            import yaml
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_recipe(path: Path) -> dict[str, Any]:
    """What a YAML file says, to be laid over a default recipe or checked as a whole.

    Raises:
        MarginsError: no such file, not YAML, a tag that would make objects, or not a mapping.
    """
    with extra("tool"):
        import yaml
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MarginsError(
            str(path), expected="a recipe file that can be read", received=error.strerror or str(error)
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise MarginsError(
            path.name, expected="plain YAML without tags that make objects", received=reason[:200]
        ) from None
    if not isinstance(content, dict):
        raise MarginsError(
            path.name, expected="keys of a recipe with their values", received=type(content).__name__
        )
    return {str(key): value for key, value in content.items()}


def _phase(first: dict[str, Any], phase: Phase, number: int) -> Recipe:
    for key in ("task", "encoder", "head", "plan", "seed"):
        if key in phase.changes:
            raise MarginsError(
                f"plan.{number - 1}.changes", expected="parts that may change over one network", received=key,
                fix="the encoder and the head stay the same; the seed differs by itself",
            )  # fmt: skip
    laid = {**first, **phase.changes, "seed": first["seed"] + number}
    return validated(Recipe, laid, what=f"plan.{number - 1}.changes")


def _refuse_wrong_form(recipe: Recipe) -> None:
    form = loss_named(recipe.objective.loss).form
    takes = getattr(loss_named(recipe.objective.loss), "on_embeddings", None) is not None
    if (recipe.task == "matches") != takes or form in ("outputs", "features"):
        kind = "of embeddings and labels" if recipe.task == "matches" else "of scores and targets"
        raise MarginsError(
            "objective.loss",
            expected=f"a loss {kind} for the task {recipe.task}",
            received=recipe.objective.loss,
            fix="sup_con is one" if recipe.task == "matches" else "embedding losses go with task: matches",
        )
    kind = {"values": "values", "label_sets": "label sets"}.get(recipe.task)
    meant = loss_named(recipe.objective.loss).card.targets
    if kind is not None and kind not in meant:
        raise MarginsError(
            "objective.loss", expected=f"a loss for {kind}",
            received=f"{recipe.objective.loss}, which is for {', '.join(meant)}",
            fix=f"`margins methods --target '{kind}'` lists those that are",
        )  # fmt: skip
    if recipe.head.name == "multi" or _TASK_OF_HEAD.get(recipe.head.name, recipe.task) != recipe.task:
        raise MarginsError(
            "head", expected=f"one head with the outputs of the task {recipe.task}",
            received=recipe.head.name, fix="linear and cosine are some",
        )  # fmt: skip
    _refuse_disposable_head(recipe)
    starts = [part.name for part in recipe.refresh if isinstance(part, HeadStart)]
    if starts and recipe.head.name != "linear":
        raise MarginsError("refresh", expected=f"the head linear with {starts[0]}", received=recipe.head.name)
    if recipe.accumulate > 1 and recipe.step.name != "standard":
        raise MarginsError(
            "accumulate", expected=f"1 with the step {recipe.step.name}", received=str(recipe.accumulate)
        )


def _refuse_disposable_head(recipe: Recipe) -> None:
    head = recipe.head
    if isinstance(head, DisposableSettings) and (head.then is None) != (recipe.task == "matches"):
        raise MarginsError(
            "head.then",
            expected="null, for embeddings are compared" if head.then else "a head of scores behind it",
            received="null" if head.then is None else head.then.name,
            fix="set head.then to null" if head.then else "linear and cosine are some",
        )


def _refuse_class_targets(recipe: Recipe) -> None:
    targets = recipe.objective.targets
    parts: list[tuple[str, bool, tuple[Task, ...]]] = [
        ("draw", recipe.draw.name not in ("shuffled", "bags"), ("classes", "matches")),
        ("mix", recipe.mix.name != "none", ("classes", "label_sets", "values")),
        ("step", recipe.step.name in ("smooth_adversarial", "error_normalized"), ("classes",)),
        ("objective.penalties", bool(recipe.objective.penalties), ("classes", "matches")),
        ("objective.link", recipe.objective.link != "none", ("classes", "label_sets")),
        ("objective.targets.smooth", targets.smooth > 0, ("classes", "label_sets")),
    ]
    for part, is_on, tasks in parts:
        if is_on and recipe.task not in tasks:
            raise MarginsError(
                part, expected=f"the task {' or '.join(tasks)} with it", received=recipe.task,
                fix="take it out",
            )  # fmt: skip
    named = [*targets.changes_prior, *(["class_margins"] if targets.class_margins else [])]
    named += [part.name for part in recipe.refresh if isinstance(part, (Relabelling, HeadStart))]
    if recipe.task == "label_sets" and targets.logit_adjustment:
        _refuse_adjustment_of(recipe.objective.loss)
        named.remove("logit_adjustment")
    if recipe.task == "label_sets" and targets.class_margins:
        _refuse_margins_of(recipe.objective.loss)
        named.remove("class_margins")
    if named and recipe.task != "classes":
        raise MarginsError(
            named[0], expected="the task classes with it", received=recipe.task, fix="take it out"
        )


def _refuse_adjustment_of(loss: str) -> None:
    if snake_case(loss) not in _ADJUSTED_BY_LABEL:
        raise MarginsError(
            "objective.targets.logit_adjustment",
            expected=f"the loss {' or '.join(_ADJUSTED_BY_LABEL)} with it, for label sets",
            received=loss, fix="take it out, or change the loss",
        )  # fmt: skip


def _refuse_margins_of(loss: str) -> None:
    if snake_case(loss) != "binary_cross_entropy":
        raise MarginsError(
            "objective.targets.class_margins",
            expected="the loss binary_cross_entropy with it, for label sets",
            received=loss, fix="take it out, or change the loss",
        )  # fmt: skip


def _refuse_tuned_cut(recipe: Recipe) -> None:
    if recipe.decisions.cut == "largest":
        return
    if recipe.task != "classes":
        raise MarginsError(
            "decisions.cut", expected=f"largest with the task {recipe.task}", received=recipe.decisions.cut,
            fix="decisions.thresholds are for label sets" if recipe.task == "label_sets" else "take it out",
        )  # fmt: skip
    if metric_of(recipe.task, recipe.metric).kind not in ("f1", "accuracy"):
        raise MarginsError(
            "metric", expected="a metric of decisions with decisions.cut: tuned", received=recipe.metric,
            fix="macro_f1, mcc and balanced_accuracy are some; or take the cut out",
        )  # fmt: skip
