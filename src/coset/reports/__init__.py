"""Reports: self-contained HTML pages, and all that draws.

A page is made of sections (:func:`write_sections`), a section of text, tables, pictures, figures and widgets; a figure
of marks on two axes (:func:`figure`). What the pages of a domain show is written in its ``pages``.
"""

from coset.reports.figures import (
    Axis,
    Figure,
    Mark,
    Panel,
    Rule,
    bars,
    box,
    colour,
    colour_of_many,
    contours,
    figure,
    heat_map,
    histogram,
    line,
    points,
    side_by_side,
)
from coset.reports.page import Figures, fragment
from coset.reports.sections import (
    Picture,
    Section,
    Table,
    Widget,
    certificate_section,
    training_section,
    write_sections,
)
from coset.reports.verdicts import counted, sentences, standing, unfinished

__all__ = [
    "Axis",
    "Figure",
    "Figures",
    "Mark",
    "Panel",
    "Picture",
    "Rule",
    "Section",
    "Table",
    "Widget",
    "bars",
    "box",
    "certificate_section",
    "colour",
    "colour_of_many",
    "contours",
    "counted",
    "figure",
    "fragment",
    "heat_map",
    "histogram",
    "line",
    "points",
    "sentences",
    "side_by_side",
    "standing",
    "training_section",
    "unfinished",
    "write_sections",
]
