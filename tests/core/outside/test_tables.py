import gzip

import pandas as pd
import pytest

from coset import CosetError
from coset.core.outside import escaped, read_table, table_chunks


@pytest.fixture
def table(tmp_path):
    def read(content, name="a.csv", **options):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(tmp_path / name, **options)

    return read


def test_cells_are_text_and_rows_are_counted(table):
    frame = table('a,b\n1,x\n\n,\nNA,"y, ""z""\n2"\n')
    assert frame["b"].tolist() == ["x", 'y, "z"\n2']
    assert list(frame.index) == [2, 5]
    assert frame["a"].isna().tolist() == [False, True]


def test_packed_tables_and_tabs(table):
    assert table(gzip.compress(b"a\tb\n1\t2,3\n"), "a.tsv.gz")["b"].tolist() == ["2,3"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("smiles,y\nCCO,1,5\n", r"a\.csv, row 2 has 3 cells, the header 2; a decimal comma\?"),
        ("a,b\n1,2\n3\n", r"a\.csv, row 3 has 1 cells, the header 2"),
        ("a,a\n1,2\n", r"two columns are called 'a'"),
        ("a, a \n1,2\n", r"two columns are called 'a'"),
        ('a,b\n1,"2\n3,4\n', r"a\.csv, row 2: unexpected end of data"),
        ('a,b\n1,"2"x\n', r"a\.csv, row 2"),
        ("a,b\n1,2\n".encode("utf-16"), r"a\.csv is in UTF-16"),
        ("a,b\n1,2\n".encode("utf-16-le"), r"a\.csv is in UTF-16"),
        (b"a,b\n1,\xe9\n", r"a\.csv, near row \d: the byte 0xe9 is not UTF-8"),
        (b"a,b\n1,\x00\n", r"a\.csv holds zero bytes"),
        ("a,b\n", r"has no rows below its header \(a, b\)"),
        ("smiles;y\nCCO;1,5\n", r"a\.csv has semicolons between its cells; save it with commas, and numbers as in 1.5"),
        ("smiles\ty\nCCO\t1.5\n", r"a\.csv has tabs between its cells; call it a\.tsv"),
        (b"PK\x03\x04\x14", r"a\.csv is a workbook or an archive, no text; save the sheet as CSV in UTF-8"),
        (b"ARROW1\0\0\x10\0", r"a\.csv is a file of Arrow or Feather, no text; save the table as Parquet or as CSV"),
        ('{"smiles":"CCO","y":1.5}\n', r"a\.csv is JSON, no table; save it as CSV"),
        ('[{"smiles":"CCO"}]', r"a\.csv is JSON, no table"),
        ("", r"a\.csv is empty"),
        ("\n\n", r"a\.csv is empty"),
        ("a\n" + "x" * 200_000, r"a\.csv, row 2: field larger than field limit"),
    ],
)
def test_what_is_wrong_is_placed(table, content, said):
    with pytest.raises(CosetError, match=said):
        table(content)


def test_smiles_without_names_of_columns_are_told(tmp_path):
    (tmp_path / "a.smi").write_text("CCO\tethanol\n")
    with pytest.raises(CosetError, match=r"a\.smi has no row with the names of its columns; make it a CSV: smiles"):
        read_table(tmp_path / "a.smi")


def test_commas_at_the_end_of_rows_are_no_cells(table):
    assert list(table("a,b,\n1,2,\n3,4,\n")) == ["a", "b"]
    assert list(table("a,b\n1,2,,\n")) == ["a", "b"]


def test_a_required_column_is_named(table):
    with pytest.raises(CosetError, match=r"has no column 'id'; it has a, b"):
        table("a,b\n1,2\n", required=["id"])


def test_chunks_hold_so_many_rows(tmp_path):
    (tmp_path / "a.csv").write_text("a\n" + "".join(f"{n}\n" for n in range(5)))
    assert [list(chunk.index) for chunk in table_chunks(tmp_path / "a.csv", 2)] == [[2, 3], [4, 5], [6]]


def test_formulas_are_escaped_and_numbers_are_not():
    frame = pd.DataFrame({"=a": ["=1+1", "+1", "-2.5e3", "@x", "-abc", "C-C", "-inf"], "n": range(7)})
    safe = escaped(frame)
    assert list(safe) == ["'=a", "n"]
    assert safe["'=a"].tolist() == ["'=1+1", "+1", "-2.5e3", "'@x", "'-abc", "C-C", "-inf"]


def test_parquet_is_a_table_of_text(tmp_path):
    pytest.importorskip("pyarrow")
    file = tmp_path / "a.parquet"
    pd.DataFrame({"n": [1, 2], "x": [0.5, None], "w": ["a", None], "v": [[0.5, 1.0], None]}).to_parquet(file)
    frame = read_table(file)
    assert frame.index.tolist() == [2, 3]
    assert frame["n"].tolist() == ["1", "2"]
    assert frame["x"].isna().tolist() == [False, True]
    assert frame["w"].isna().tolist() == [False, True]
    assert frame["v"].iloc[0] == "[0.5, 1.0]"
    assert frame["v"].isna().tolist() == [False, True]
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CosetError, match=r"a\.parquet is no Parquet file that can be read"):
        read_table(file)
