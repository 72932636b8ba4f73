"""The registry of methods, and studies that put their claims to a test.

for method in all_methods(): print(method.name, method.studies)
run_study(Path("studies/aldr_kl.py"), root=Path("."), develop=True)
"""

from margins.evidence.code import changed
from margins.evidence.declaring import Effect, Study
from margins.evidence.methods import Method, all_methods
from margins.evidence.outcomes import Outcome, outcome_of
from margins.evidence.records import (
    EffectRecord,
    StudyRecord,
    add_record,
    known_results,
    latest,
    read_records,
)
from margins.evidence.running import run_study
from margins.evidence.trials import Measured, Trial, load_study
from margins.evidence.tuning import settings_to_try

__all__ = [
    "Effect",
    "EffectRecord",
    "Measured",
    "Method",
    "Outcome",
    "Study",
    "StudyRecord",
    "Trial",
    "add_record",
    "all_methods",
    "changed",
    "known_results",
    "latest",
    "load_study",
    "outcome_of",
    "read_records",
    "run_study",
    "settings_to_try",
]
