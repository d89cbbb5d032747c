"""Reports: one self-contained HTML page about a run, or about several.

:func:`write_report` reads a run's folder, :func:`write_comparison` several. Where a model looks is handed over as
plain arrays: :func:`attention_record` packs them, :func:`skeleton` says where the atoms of a molecule are drawn, and
:func:`write_attention` puts the records where the report finds them; :func:`cell_record` and :func:`write_cells` do so
for complexes.
Other results make a page of sections: :func:`write_sections`.
"""

from coset.graphs.pages.attention import AttentionRecord, attention_record, write_attention
from coset.graphs.pages.molecules import skeleton
from coset.graphs.pages.run_report import write_report
from coset.reports.plots import Panel
from coset.reports.sections import Picture, Section, Table, write_sections
from coset.runs.comparison import write_comparison
from coset.topology.pages import CellRecord, cell_record, write_cells

__all__ = [
    "AttentionRecord",
    "CellRecord",
    "Panel",
    "Picture",
    "Section",
    "Table",
    "attention_record",
    "cell_record",
    "skeleton",
    "write_attention",
    "write_cells",
    "write_comparison",
    "write_report",
    "write_sections",
]
