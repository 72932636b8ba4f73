"""The roles of columns: what the user names, and the rest where it is beyond doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from margins.data.cell_kinds import Cells, Look, looked_at
from margins.data.columns import Columns, InputKind, TargetKind
from margins.data.frame import Frame
from margins.data.guessed_target import guessed_kind, guessed_target
from margins.data.input_checks import check_inputs
from margins.data.nearest import suggestion
from margins.data.weights import weights
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl

_GUESSED_ROLES = ("id", "split", "weight", "group")
_LABELLED = {"label": "classes", "label_set": "label sets", "path": "paths", "value": "values"}
_INPUT_NAMES = frozenset(
    "text texts sentence content document comment review title question query description "  # noqa: SIM905
    "message utterance image images img picture photo file embedding embeddings".split()
)
_PAIR: InputKind = "text_pair"
_INPUT_KINDS: tuple[Look, ...] = ("text", "text_pair", "image", "numeric", "categorical", "embedding")
_WHY_NOT: dict[Look, str] = {
    "id": "it names rows: every value is different",
    "empty": "it is empty",
    "list": "it holds lists",
    "time": "it holds times",
    "unclear": "it is neither a few categories nor text",
}


def choose_columns(
    frame: Frame,
    *,
    inputs: Sequence[str] | None = None,
    target: str | None = None,
    kinds: Mapping[str, InputKind] | None = None,
    target_kind: TargetKind | None = None,
    separator: str | None = None,
    class_order: Sequence[str] | None = None,
    weight: str | None = None,
    group: str | None = None,
    domain: str | None = None,
    id: str | None = None,  # noqa: A002 - the name of the role
    split: str | None = None,
    time: str | None = None,
) -> tuple[Columns, list[str]]:
    """What each column is for. Names that are given win; the rest is guessed only where it is unambiguous.

    Guessed are: the target by a name such as "label"; `id`, `split`, `weight` and `group` by exactly these
    names; the inputs when all other columns are numbers and categories, or when one text, image or
    embedding is the only column or is named as one ("text", "image", ...). Domain and time are never
    guessed.

    Args:
        frame: the rows.
        inputs: columns that the model sees, in order; of two texts with kind "text_pair" the first holds
            the queries.
        target: the column to predict.
        kinds: what an input is, where its cells alone would say otherwise; alone, it names the inputs too.
        target_kind: what the target's cells mean.
        separator: between the labels of a set or the steps of a path.
        class_order: all classes, from the lowest to the highest; of a target of the kind "label".
        weight: column of row weights.
        group: column whose rows of one value stay in one role.
        domain: column that says where a row comes from.
        id: column that names the row.
        split: column with the role of each row.
        time: column by whose order rows are divided.

    Returns:
        the roles, and a sentence for every decision.

    Raises:
        MarginsError: a column that is not there, has two roles, or cannot have its role; or a choice that
            the columns leave open, with the candidates and the option that settles it.

    Example:
        >>> import polars as pl
        >>> table = pl.DataFrame({"text": ["good film", "bad film", "so so"], "label": ["p", "n", "n"]})
        >>> columns, told = choose_columns(Frame(table=table, source="data frame", fingerprint=""))
        >>> print("; ".join(told))
        target: column 'label' (2 classes); inputs: column 'text' (text)
    """
    told: list[str] = []
    given = {"weight": weight, "group": group, "domain": domain, "id": id, "split": split, "time": time}
    roles = {role: name for role, name in given.items() if name is not None}
    _check_words(kinds or {}, target_kind)
    named = list(kinds or {}) if inputs is None else list(inputs)
    named = named if inputs is not None or kinds else None
    _check_names(frame, named or [], kinds or {}, target, roles)
    _guess_roles(frame, roles, taken={*(named or []), target}, told=told)
    taken = {*roles.values(), *(named or [])}
    target = target if target is not None else guessed_target(frame.names, taken=taken)
    kind, separator = _target_kind(frame, target, target_kind, separator)
    if target is not None and kind is not None:
        told.append(f"target: column {target!r} ({_described(frame, target, kind)})")
    looks = {n: looked_at(frame.table, n) for n in frame.names if n not in {*roles.values(), target}}
    chosen = _input_kinds(frame, named, kinds or {}, looks, has_target=target is not None, told=told)
    if target is None:
        _check_pair(frame, chosen)
    check_inputs(frame, chosen)
    if class_order is not None and kind != "label":
        raise MarginsError(
            "class_order", expected="a target of the kind label", received=str(kind), fix="leave it out"
        )
    columns = Columns(
        inputs=chosen, target=target, target_kind=kind, separator=separator or "|",
        class_order=None if class_order is None else tuple(class_order), **roles,
    )  # fmt: skip
    weights(frame, columns)
    return columns, told


def _check_names(
    frame: Frame, inputs: list[str], kinds: Mapping[str, Any], target: str | None, roles: Mapping[str, str]
) -> None:
    asked = [("inputs", name) for name in inputs] + [("kinds", name) for name in kinds]
    asked += [("target", target)] if target is not None else []
    for argument, name in [*asked, *roles.items()]:
        if name not in frame.names:
            raise MarginsError(
                argument,
                expected=f"a column of {frame.source}",
                received=repr(name),
                fix=suggestion(name, frame.names),
            )
    if target is not None and target in {*inputs, *kinds}:
        raise MarginsError(
            "inputs",
            expected="columns other than the target",
            received=repr(target),
            fix="take the target out of the inputs: a model would only copy it",
        )
    _check_once(inputs, kinds, target, roles)


def _check_words(kinds: Mapping[str, str], target_kind: str | None) -> None:
    given = [("kinds", kind, get_args(InputKind)) for kind in kinds.values()]
    given += [("target_kind", target_kind, get_args(TargetKind))] if target_kind is not None else []
    for argument, word, known in given:
        if word not in known:
            raise MarginsError(
                argument, expected="a known kind", received=repr(word), fix=suggestion(word, list(known))
            )


def _check_once(
    inputs: list[str], kinds: Mapping[str, Any], target: str | None, roles: Mapping[str, str]
) -> None:
    stray = [name for name in kinds if inputs and name not in inputs]
    if stray:
        raise MarginsError(
            "kinds", expected="columns among the inputs", received=repr(stray[0]), fix="add it to inputs"
        )
    twice = [name for name in dict.fromkeys(inputs) if inputs.count(name) > 1]
    if twice:
        raise MarginsError("inputs", expected="each column once", received=f"{twice[0]!r} twice")
    exclusive = [roles[r] for r in ("weight", "split", "id") if r in roles]
    for name in [*exclusive, *([target] if target is not None else [])]:
        others = [r for r, n in roles.items() if n == name]
        uses = [*(["inputs"] if name in inputs else []), *(["target"] if name == target else []), *others]
        if len(uses) > 1:
            raise MarginsError(
                uses[-1],
                expected="a column with one role",
                received=f"{name!r} for {' and '.join(uses)}",
                fix="name another column for one of them",
            )


def _guess_roles(frame: Frame, roles: dict[str, str], *, taken: set[str | None], told: list[str]) -> None:
    told += [f"{role}: column {name!r}" for role, name in roles.items()]
    for role in _GUESSED_ROLES:
        if role not in roles and role in frame.names and role not in {*taken, *roles.values()}:
            roles[role] = role
            told.append(f"{role}: column {role!r}, by its name")


def _target_kind(
    frame: Frame, target: str | None, kind: TargetKind | None, separator: str | None
) -> tuple[TargetKind | None, str | None]:
    if target is None:
        if kind is not None:
            raise _no_target(frame, f"target_kind={kind!r} without a column")
        return None, separator
    cells = frame.table[target]
    if cells.null_count() == len(cells):
        raise MarginsError(f"target {target!r}", expected="filled cells", received="nothing but empty ones")
    if kind is None:
        guess, sign = guessed_kind(cells, separator)
        return guess, separator or sign
    if kind == "path" and separator is None:
        return kind, ">"
    return kind, separator


def _described(frame: Frame, target: str, kind: TargetKind) -> str:
    if kind != "label":
        return _LABELLED[kind]
    return f"{frame.table[target].drop_nulls().n_unique()} classes"


def _input_kinds(
    frame: Frame,
    named: list[str] | None,
    kinds: Mapping[str, InputKind],
    looks: Mapping[str, Cells],
    *,
    has_target: bool,
    told: list[str],
) -> dict[str, InputKind]:
    if named is None:
        chosen = _guessed_inputs(looks, has_target=has_target, told=told)
    else:
        every = {n: looks[n] if n in looks else looked_at(frame.table, n) for n in named}
        chosen: dict[str, InputKind] = {
            n: kinds[n] if n in kinds else _kind_of_named(frame.table[n], every[n].look) for n in named
        }
        if not has_target and list(chosen.values()) == ["text", "text"]:
            chosen = dict.fromkeys(chosen, _PAIR)
    if not chosen:
        reasons = "; ".join(f"{n!r}: {_WHY_NOT.get(c.look, c.look)}" for n, c in looks.items())
        raise MarginsError(
            "inputs",
            expected="at least one column that a model can learn from",
            received=f"none ({reasons or 'no other column'})",
            fix="name them with inputs=",
        )
    listed = ", ".join(f"{name!r} ({kind})" for name, kind in chosen.items())
    told.append(f"inputs: {'column' if len(chosen) == 1 else 'columns'} {listed}")
    return chosen


def _kind_of_named(cells: pl.Series, look: Look) -> InputKind:
    """A column that was named is an input even if its values differ in every row."""
    if look in _INPUT_KINDS:
        return look  # pyright: ignore[reportReturnType]
    if look in ("id", "unclear"):
        return "numeric" if cells.dtype.is_numeric() else "text"
    raise MarginsError(
        f"inputs: column {cells.name!r}",
        expected="text, numbers, categories, images or embeddings",
        received={"empty": "nothing but empty cells", "list": "lists", "time": "times"}[look],
        fix="choose another column",
    )


def _guessed_inputs(looks: Mapping[str, Cells], *, has_target: bool, told: list[str]) -> dict[str, InputKind]:
    usable: dict[str, InputKind] = {
        n: c.look
        for n, c in looks.items()
        if c.look in _INPUT_KINDS  # pyright: ignore[reportAssignmentType]
    }
    rich = [n for n, kind in usable.items() if kind not in ("numeric", "categorical")]
    left_out = {n: _WHY_NOT[c.look] for n, c in looks.items() if c.look in _WHY_NOT}
    if rich:
        chosen = _main_inputs(usable, rich, has_target=has_target)
        left_out |= {n: "the text, image or embedding comes alone" for n in usable if n not in chosen}
    else:
        chosen = usable
    told += [f"not used: column {n!r}: {why} (name it with inputs= to use it)" for n, why in left_out.items()]
    return chosen


def _main_inputs(
    usable: Mapping[str, InputKind], rich: list[str], *, has_target: bool
) -> dict[str, InputKind]:
    if not has_target and len(usable) == 2 and [usable[n] for n in rich] == ["text", "text"]:
        return dict.fromkeys(rich, _PAIR)
    by_name = [n for n in rich if n.strip().lower() in _INPUT_NAMES]
    main = rich if len(usable) == 1 else by_name
    if len(main) == 1:
        return {main[0]: usable[main[0]]}
    raise MarginsError(
        "inputs",
        expected="columns that leave no choice: one text, image or embedding, or numbers and categories",
        received=", ".join(f"{n!r} ({kind})" for n, kind in usable.items()),
        fix="say which with inputs=",
    )


def _check_pair(frame: Frame, chosen: Mapping[str, InputKind]) -> None:
    """Without a target only a pair can be learned from: its texts belong together."""
    if list(chosen.values()) != ["text_pair", "text_pair"]:
        raise _no_target(frame, "none that is named as one")


def _no_target(frame: Frame, received: str) -> MarginsError:
    return MarginsError(
        "target",
        expected="a column to predict",
        received=received,
        fix=f"say which with target=; columns: {', '.join(frame.names[:20])}",
    )
