"""Reports: one self-contained HTML page about a run, or about several.

:func:`write_report` reads a run's folder, :func:`write_comparison` several. Where a model looks is handed over as
plain arrays: :func:`attention_record` packs them, :func:`skeleton` says where the atoms of a molecule are drawn, and
:func:`write_attention` puts the records where the report finds them.
"""

from coset.reports.attention import AttentionRecord, attention_record, write_attention
from coset.reports.comparison import write_comparison
from coset.reports.molecules import skeleton
from coset.reports.run_report import write_report

__all__ = [
    "AttentionRecord",
    "attention_record",
    "skeleton",
    "write_attention",
    "write_comparison",
    "write_report",
]
