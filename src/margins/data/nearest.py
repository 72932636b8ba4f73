"""The known name that a mistyped one most likely meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def suggestion(name: str, known: Sequence[str]) -> str:
    """A fix for an unknown name: the nearest known one if any is near, then all of them.

    Example:
        >>> suggestion("macrof1", ["macro_f1", "accuracy"])
        'did you mean macro_f1? known: macro_f1, accuracy'
        >>> suggestion("zzz", ["macro_f1", "accuracy"])
        'known: macro_f1, accuracy'
    """
    lowered = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    listed = "known: " + ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"did you mean {lowered[near[0]]}? {listed}" if near else listed
