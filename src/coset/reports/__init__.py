"""The page that a run leaves for people: one HTML file that opens without a network."""

from coset.reports.page import write_comparison, write_report

__all__ = ["write_comparison", "write_report"]
