"""The words for the three roles of rows."""

from __future__ import annotations

ROLE_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("select", "val", "valid", "validation", "dev"), "select"),
    **dict.fromkeys(("report", "test"), "report"),
}
