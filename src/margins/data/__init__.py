"""Tables read from files, their division into folds, and the three roles that rows can play."""

from margins.data.roles import ReportRows, RowInputs, SelectRows, TrainRows
from margins.data.splits import OuterFold, outer_folds, train_and_select
from margins.data.table import Table, read_table

__all__ = [
    "OuterFold",
    "ReportRows",
    "RowInputs",
    "SelectRows",
    "Table",
    "TrainRows",
    "outer_folds",
    "read_table",
    "train_and_select",
]
