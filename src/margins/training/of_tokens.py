"""Recipes whose head reads the tokens of a row: what goes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from margins.encoders.base import EncoderSettings
from margins.errors import MarginsError

if TYPE_CHECKING:
    from margins.training.recipe import Recipe

_POOLINGS = (None, "mean")


def reads_tokens(encoder: EncoderSettings) -> bool:
    """Whether a head that reads tokens goes with the encoder as it is set."""
    return encoder.has_tokens and _pooling_of(encoder) in _POOLINGS


def _pooling_of(encoder: EncoderSettings) -> str | None:
    return getattr(encoder, "pooling", None)


def refuse_what_tokens_cannot_have(recipe: Recipe) -> None:
    """Raises MarginsError for parts that do not go with a head that reads tokens, if the recipe has one."""
    head, encoder = recipe.head, recipe.encoder
    if not head.takes_tokens:
        return
    pooling = _pooling_of(encoder)
    parts: list[tuple[str, object, bool, str, str]] = [
        ("encoder", encoder.name, encoder.has_tokens, "one that gives tokens",
         "transformer_text, small_vit, and pretrained_text with mode finetune or lora do"),
        ("encoder.pooling", pooling, pooling in _POOLINGS, "mean, for it takes the place of pooling",
         "take it out"),
        ("mix", recipe.mix.name, recipe.mix.name == "none", "none, for tokens are not mixed", "take it out"),
        ("task", recipe.task, recipe.task != "matches", "classes, label_sets or values",
         "use head projection"),
    ]  # fmt: skip
    for part, value, goes_with_it, wanted, fix in parts:
        if not goes_with_it:
            raise MarginsError(
                part, expected=f"with head {head.name}: {wanted}", received=str(value), fix=fix
            )
