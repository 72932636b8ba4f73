"""The report of a comparison: one HTML page that needs no network."""

from margins.report.render import write_report

__all__ = ["write_report"]
