"""Faults planted in a table of molecules: each is told, by an error or a note that says where."""

import gzip
import re

import numpy as np
import pytest
import torch

from coset import CosetError
from coset.graphs.data import datasets
from coset.graphs.data.targets import as_targets

HEAD = "smiles,y\n"
ROWS = "CCO,1\nCCC,2\nCCN,3\n"
ERRORS = {
    # cells per row
    "a decimal comma in one row": (HEAD + "CCO,1,5\n", r"row 2 has 3 cells, the header 2; a decimal comma\?"),
    "decimal commas in all rows": (HEAD + "CCO,1,5\nCCC,2,5\n", r"row 2 has 3 cells.*decimal comma"),
    "a decimal comma in quotes": (HEAD + 'CCO,"1,5"\n', r"row 2, column 'y': '1,5' is not a finite.*write 1.5 for 1,5"),
    "a row cut short": (HEAD + "CCO,1\nCCC\n", r"row 3 has 1 cells, the header 2"),
    "a comment in a row of its own": (HEAD + "# measured in 2020\nCCO,1\n", r"row 2 has 1 cells"),
    "two tables in one file": (HEAD + ROWS + "id,smiles,y\na,CCO,1\n", r"row 5 has 3 cells"),
    "a quote that stays open": (HEAD + 'CCO,1\n"CCC,2\nCCN,3\n', r"row 3: unexpected end of data"),
    "a letter after a quote": (HEAD + '"CCO"x,1\n', r"row 2"),
    "semicolons": ("smiles;y\nCCO;1\n", r"own\.csv has semicolons between its cells; save it with commas"),
    "tabs in a .csv": ("smiles\ty\nCCO\t1\n", r"has tabs between its cells; call it own\.tsv"),
    "an unpaired quote in a name": ('smiles,"y\nCCO,1\n', r"row 1"),
    # encodings
    "UTF-16 with a mark": ((HEAD + ROWS).encode("utf-16"), r"is in UTF-16"),
    "UTF-16 without a mark": ((HEAD + ROWS).encode("utf-16-le"), r"is in UTF-16"),
    "UTF-16, the other end first": ((HEAD + ROWS).encode("utf-16-be"), r"is in UTF-16"),
    "UTF-32": ((HEAD + ROWS).encode("utf-32"), r"is in UTF-16 \(or UTF-32\)"),
    "Latin-1": ("smiles,y,name\nCCO,1,éthanol\n".encode("latin-1"), r"the byte 0xe9 is not UTF-8"),
    "a zero byte": (b"smiles,y\nCCO,\x001\n", r"holds zero bytes"),
    "a packed file without its name": (gzip.compress((HEAD + ROWS).encode()), r"own\.csv"),
    # columns
    "a target column twice": ("smiles,y,y\nCCO,1,2\n", r"two columns are called 'y'"),
    "a SMILES column twice": ("smiles,smiles,y\nCCO,CC,2\n", r"two columns are called 'smiles'"),
    "columns that differ by a space": ("smiles,y, y\nCCO,1,2\n", r"two columns are called 'y'"),
    "no header": ("CCO,1\nCCC,2\n", r"no column 'smiles'"),
    "two spellings": ("Smiles,SMILES,y\nCCO,CCO,1\n", r"no column 'smiles'.*did you mean 'S"),
    "a target that is missing": ("smiles,x\nCCO,1\n", r"no column 'y'"),
    "an empty header": (",\nCCO,1\n", r"is empty: the first row must name the columns"),
    "nothing": ("", r"is empty"),
    "a header alone": (HEAD, r"has no rows below its header"),
    "blank rows alone": (HEAD + "\n,\n\n", r"has no rows below its header"),
    # numbers
    "a word": (HEAD + "CCC,2\nCCO,high\n", r"row 3, column 'y': 'high' is not a finite number"),
    "a number with its unit": (HEAD + "CCO,1.5 kcal\n", r"row 2, column 'y': '1.5 kcal'"),
    "a censored number": (HEAD + "CCO,1\nCCC,>10\n", r"row 3, column 'y': '>10'"),
    "a range": (HEAD + "CCO,1-2\n", r"row 2, column 'y': '1-2'"),
    "a plus-minus": (HEAD + "CCO,1±0.2\n", r"row 2, column 'y': '1±0.2'"),
    "two points": (HEAD + "CCO,1.2.3\n", r"row 2, column 'y': '1.2.3'"),
    "infinity": (HEAD + "CCO,inf\n", r"row 2, column 'y': 'inf' is not a finite number"),
    "minus infinity": (HEAD + "CCO,-Infinity\n", r"row 2, column 'y': '-Infinity' is not a finite number"),
    "beyond float64": (HEAD + "CCO,1e999\n", r"row 2, column 'y': '1e999' is not a finite number"),
    "squares beyond float64": (HEAD + "CCO,1\nCCC,-1e200\n", r"row 3, column 'y': -1e200 is beyond 1e\+100"),
    "a date": (HEAD + "CCO,2020-01-01\n", r"row 2, column 'y': '2020-01-01'"),
    "a spreadsheet's error": (HEAD + "CCO,#DIV/0!\n", r"row 2, column 'y': '#DIV/0!'"),
    "a missing target": (HEAD + "CCO,1\nCCC,\n", r"row 3: target 'y' is missing"),
    "NA for a target": (HEAD + "CCO,NA\n", r"row 2: target 'y' is missing"),
    "a dash for a target": (HEAD + "CCO,-\n", r"row 2, column 'y': '-'"),
    # molecules
    "an empty SMILES": (HEAD + "CCO,1\n,2\n", r"row 3: .*SMILES"),
    "an open ring": (HEAD + "C1CC,1\n", r"row 2: unparsable SMILES 'C1CC'"),
    "a valence too many": (HEAD + "CCO,1\nC(C)(C)(C)(C)C,2\n", r"row 3: unparsable SMILES"),
    "an unknown element": (HEAD + "[Qq],1\n", r"row 2: unparsable SMILES"),
    "a name for a SMILES": (HEAD + "ethanol,1\n", r"row 2: unparsable SMILES 'ethanol'"),
    "an InChI": (HEAD + "InChI=1S/CH4/h1H4,1\n", r"row 2"),
    "an aromatic ring that is none": (HEAD + "c1cccc1,1\n", r"row 2: unparsable SMILES"),
    "columns exchanged": ("smiles,y\n1,CCO\n", r"row 2: unparsable SMILES '1'"),
}  # fmt: skip


@pytest.fixture
def table(tmp_path):
    def read(content, **options):
        (tmp_path / "own.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        return datasets.csv(tmp_path / "own.csv", "smiles", "y", **{"split": None, **options})

    return read


@pytest.mark.parametrize("fault", ERRORS)
def test_faults_are_told(table, fault):
    content, said = ERRORS[fault]
    with pytest.raises(CosetError, match=said) as error:
        table(content)
    assert "\n" not in str(error.value)


SPLIT = "smiles,y,split\n"
NOTES = {
    "a molecule twice": (SPLIT + "CCO,1,train\nCCO,2,train\nCCC,1,test\n", r"is there more than once \(row"),
    "written otherwise": (SPLIT + "CCO,1,train\nOCC,2,train\nCCC,1,test\n", r"more than once \(rows 2, 3\)"),
    "in test, too": (SPLIT + "CCO,1,train\nCCC,2,train\nOCC,1,test\n", r"1 molecule of test is in train, too"),
    "in val, too": (SPLIT + "CCO,1,train\nCCC,2,train\nOCC,1,val\nN,1,test\n", r"1 molecule of val is in train, too"),
    "a constant target": (SPLIT + "CCO,2,train\nCCC,2,train\nCCN,1,test\n", r"the target 'y' is 2 in all of 2 rows"),
}  # fmt: skip


@pytest.mark.parametrize("fault", NOTES)
def test_doubtful_data_are_noted(table, fault):
    content, said = NOTES[fault]
    notes = table(content, split="column").notes
    assert any(re.search(said, note) for note in notes), notes


def test_sound_data_have_no_notes(table):
    assert table(SPLIT + "CCO,1,train\nCCC,2,train\nCCN,1,test\n", split="column").notes == ()


def test_targets_keep_what_tells_them_apart(table):
    energies = table(HEAD + "CCO,-1000000.123\nCCC,-1000000.124\n").targets
    assert energies.dtype == torch.float64
    assert energies.flatten().tolist() == [-1000000.123, -1000000.124]
    large = table(HEAD + "CCO,1e39\nCCC,2e39\n").targets
    assert bool(large.isfinite().all())
    assert table(HEAD + "CCO,0.1\nCCC,0.7\n").targets.dtype == torch.float32
    assert as_targets(np.array([[16777217.0]])).dtype == torch.float64
    assert as_targets(np.array([[np.nan], [1.5]])).dtype == torch.float32
