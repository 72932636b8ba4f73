"""Rows from files and data frames, what their columns are for, targets, divisions, and the roles of rows."""

from margins.data.choosing import choose_columns
from margins.data.class_coding import ClassCoding, LabelSetCoding
from margins.data.coding import TargetCoding
from margins.data.columns import Columns, InputKind, TargetKind
from margins.data.dividing import Division, divide
from margins.data.fitting_codings import coding_from_data, fit_coding
from margins.data.frame import Frame
from margins.data.images import read_image
from margins.data.overlap import Overlap, compared_how, overlap
from margins.data.path_coding import PathCoding
from margins.data.reading import read_frame
from margins.data.roles import ReportRows, RowInputs, SelectRows, TrainRows
from margins.data.splits import OuterFold, outer_folds, train_and_select
from margins.data.streaming import stream_frames
from margins.data.value_coding import ValueCoding
from margins.data.weights import weights

__all__ = [
    "ClassCoding",
    "Columns",
    "Division",
    "Frame",
    "InputKind",
    "LabelSetCoding",
    "OuterFold",
    "Overlap",
    "PathCoding",
    "ReportRows",
    "RowInputs",
    "SelectRows",
    "TargetCoding",
    "TargetKind",
    "TrainRows",
    "ValueCoding",
    "choose_columns",
    "coding_from_data",
    "compared_how",
    "divide",
    "fit_coding",
    "outer_folds",
    "overlap",
    "read_frame",
    "read_image",
    "stream_frames",
    "train_and_select",
    "weights",
]
