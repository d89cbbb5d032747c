"""The script that measures cost against size: rows of two systems, and what it makes of a file of rows."""

import json
from xml.etree import ElementTree

import pytest

from benchmark_scripts import FOLDER, script

SMALL = {("Reconstruction", "shifts of 256 entries"), ("Asymmetric networks", "training step")}


@pytest.fixture
def growth(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return script("growth")


def made_up(case, time, memory):
    """Rows that grow as said."""
    for size in case.sizes:
        times = size / case.sizes[-1]
        yield {"system": case.system, "what": case.what, "unit": case.unit, "size": size, "cpu_s": 2 * times**time,
               "mb": 600 * times**memory, "cpu": "a CPU", "torch": "2"}  # fmt: skip


def test_the_smallest_size_is_measured(growth, tmp_path):
    measured = [case for case in growth.CASES if case.key in SMALL]
    assert len(measured) == len(SMALL)
    file = tmp_path / "rows.jsonl"
    for case in measured:
        growth.keep(case, case.sizes[0], file)
    rows = growth.rows_of(file)
    assert {growth.key_of(row) for row in rows} == SMALL
    for row, case in zip(rows, measured, strict=True):
        assert row["size"] == case.sizes[0]
        assert 0 < row["cpu_s"] < 5
        assert 0 < row["mb"] < 100
    before = file.read_text()
    growth.run([case._replace(sizes=case.sizes[:1]) for case in measured], file)
    assert file.read_text() == before  # what is there is not measured again


def test_figure_and_table_of_a_file(growth, tmp_path, capsys):
    file, drawn = tmp_path / "rows.jsonl", tmp_path / "growth.svg"
    rows = [row for k, case in enumerate(growth.CASES) for row in made_up(case, 1 + k % 3, 1.5)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    growth.main([f"--file={file}", f"--draw={drawn}", "--table"])
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 + len(growth.CASES) + 2
    for k, (case, line) in enumerate(zip(growth.CASES, told[2:], strict=False)):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:2] == list(case.key)
        assert cells[3:9] == ["2", "600", f"{1 + k % 3:.2f}", f"{case.time:g}", "1.50", f"{case.memory:g}"]
    picture = ElementTree.fromstring(drawn.read_text())
    dots = picture.iter("{http://www.w3.org/2000/svg}circle")
    assert len(list(dots)) == 2 * len(rows)  # seconds and memory
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {case.system for case in growth.CASES} <= set(texts)


def test_memory_below_what_can_be_told_has_no_exponent(growth):
    case = growth.CASES[0]
    assert growth.exponent(list(made_up(case, 2, 1)), "mb") == pytest.approx(1)
    assert growth.exponent([row | {"mb": 0.4} for row in made_up(case, 2, 1)], "mb") is None
    assert growth.exponent(list(made_up(case, 2, 1))[:2], "cpu_s") is None
