import numpy as np

from coset.reports import Panel, Picture, Section, Table, figure, line, write_sections


def test_page_of_sections_escapes_text_and_leaves_out_what_is_empty(tmp_path):
    page = write_sections(
        tmp_path / "report.html",
        "barriers <b>",
        [
            Section("Table", tables=[Table(["method", "barrier"], [["a<i>", 0.25], ["b", None]], "caption")]),
            Section("Plot", panels=[Panel("curve", figure(line([0, 1], [1, 2])))], notes=["a note"]),
            Section("Picture", pictures=[Picture(np.zeros((2, 3), np.uint8), "black", scale=10)]),
        ],
        lead="lead",
        facts={"seed": "0"},
        command="coset run x",
    )
    text = page.read_text()
    shown = [
        "barriers &lt;b&gt;",
        "a&lt;i&gt;",
        'data-value="0.25"',
        "–",
        "data:image/png;base64,",
        'width="30"',
        "coset run x",
    ]
    assert [part for part in shown if part not in text] == []
    assert "figure-0" in text
    assert 'id="recipe"' not in text
