"""The report of a comparison, one HTML page that needs no network; and what a model looked at."""

from margins.report.attending import Attended, attended, concept_shares
from margins.report.render import write_report

__all__ = ["Attended", "attended", "concept_shares", "write_report"]
