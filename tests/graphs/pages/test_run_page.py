import json
import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coset.core.errors import CosetError
from coset.graphs.pages.run_report import write_report

Frames = Callable[[int], pd.DataFrame]


def embedded(html: str, name: str) -> Any:
    """The JSON that a page carries under a name."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found.group(1))


class Tags(HTMLParser):
    """Every tag with its attributes, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_everything_is_there(run_dir: Path) -> None:
    page = write_report(run_dir)
    assert page == run_dir / "report.html"
    html = page.read_text()
    for section in ("result", "training", "predictions", "worst", "attention", "symmetry", "table", "reproduce"):
        assert f'<section id="{section}"' in html
    assert "60% lower" in html  # mae 1.2 against 3.0: the recipe's monitor comes first
    assert html.index("MAE <span>test") < html.index("RMSE <span>test")
    assert "1 min 15 s" in html
    assert "12 345" in html
    assert "coset run recipe.yaml" in html
    assert "✗ broken" in html
    assert "✓ holds" in html
    assert not list(run_dir.glob(".report*"))
    assert "<title>subgraphormer/made-up: training run · Coset</title>" in html
    verdict = "Test MAE 1.200 on 10 molecules, 60% lower than always predicting the mean. Its symmetry is broken."
    assert html.index(verdict) < html.index('<dl class="facts">')
    assert page.stat().st_size < 1.5e6


def test_nothing_is_fetched(run_dir: Path) -> None:
    tags = Tags(write_report(run_dir).read_text()).found
    links = [attrs.get(key) for _, attrs in tags for key in ("src", "href", "srcset", "action") if attrs.get(key)]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "url(" not in re.sub(r"<script>.*?</script>", "", (run_dir / "report.html").read_text(), flags=re.DOTALL)


def test_names_cannot_become_markup(run_dir: Path, nasty: str) -> None:
    html = write_report(run_dir).read_text()
    assert nasty not in html
    assert escape(nasty, quote=False) in html.replace("&#34;", '"')
    tags = [tag for tag, _ in Tags(html).found]
    assert "img" not in tags
    assert tags.count("b") == 0
    # In the data it is itself again, for scripts that write it as text.
    assert embedded(html, "attention-data")[0]["id"] == nasty
    assert nasty in [row[0] for row in embedded(html, "table-data")["rows"]]
    # Plotly reads markup in hover texts, so there it is escaped once more.
    texts = [text for f in embedded(html, "figures").values() for trace in f["data"] for text in trace.get("text", [])]
    assert escape(nasty) in texts


def test_worst_come_first_and_those_that_cannot_be_drawn_are_named(run_dir: Path) -> None:
    html = write_report(run_dir).read_text()
    worst = html[html.index('<section id="worst"') : html.index('<section id="attention"')]
    assert worst.count('<li class="molecule">') == 10
    assert worst.count("no drawing") == 2  # "no smiles" at 9, 19, 29, 39, of which 19 and 39 are of the test split
    assert worst.count("<svg") == 8
    assert worst.index("molecule 35") < worst.index("molecule 31")


def test_test_rows_come_first_and_missing_values_are_null(run_dir: Path) -> None:
    table = embedded(write_report(run_dir).read_text(), "table-data")
    assert [row[2] for row in table["rows"]] == ["test"] * 10 + ["val"] * 10 + ["train"] * 20
    assert next(row for row in table["rows"] if row[0] == "molecule 0")[3:] == [None, 0.1]


@pytest.mark.parametrize("kept", ["metrics.json", "history.csv", "predictions.csv", "recipe.yaml"])
def test_any_one_file_is_enough(run_dir: Path, kept: str) -> None:
    for file in run_dir.iterdir():
        if file.name != kept:
            file.unlink()
    html = write_report(run_dir).read_text()
    assert '<section id="reproduce"' in html
    assert ('<section id="training"' in html) == (kept == "history.csv")
    assert ('<section id="worst"' in html) == (kept == "predictions.csv")


def test_a_run_without_test_rows_shows_validation(run_dir: Path, report_frame: Frames) -> None:
    frame = report_frame(40)
    frame[frame["split"] != "test"].to_csv(run_dir / "predictions.csv", index=False)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    del metrics["test"]
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    html = write_report(run_dir).read_text()
    assert "MAE <span>val" in html
    assert "on val." in html


def test_predictions_without_true_values_are_a_table_only(run_dir: Path, report_frame: Frames) -> None:
    report_frame(8).drop(columns="target").to_csv(run_dir / "predictions.csv", index=False)
    html = write_report(run_dir).read_text()
    assert '<section id="worst"' not in html
    assert len(embedded(html, "table-data")["rows"]) == 8


def test_many_targets_have_a_selector_and_a_table(run_dir: Path, report_frame: Frames, nasty: str) -> None:
    frame = report_frame(40).rename(columns={"target": "target_a", "prediction": "prediction_a"})
    frame[f"target_{nasty}"], frame[f"prediction_{nasty}"] = 1.0, 2.0
    frame.to_csv(run_dir / "predictions.csv", index=False)
    html = write_report(run_dir).read_text()
    assert embedded(html, "table-data")["targets"] == ["a", nasty]
    assert '<option value="1">' in html
    assert "Every target, on test." in html
    assert html.count('class="by-target"') == 4


def test_classification_has_roc_and_probabilities(run_dir: Path, report_frame: Frames) -> None:
    (run_dir / "recipe.yaml").write_text("training: {task: classification, monitor: auroc}\n")
    scores = {"accuracy": 0.9, "auroc": 0.8}
    (run_dir / "metrics.json").write_text(json.dumps({"test": scores, "baseline": {"test": {"auroc": 0.5}}}))
    frame = report_frame(40)
    frame["target"], frame["prediction"] = np.arange(40) // 4 % 2, np.linspace(0, 1, 40)
    frame.to_csv(run_dir / "predictions.csv", index=False)
    html = write_report(run_dir).read_text()
    assert "ROC of target" in html
    assert "+0.300" in html
    assert "the prior" in html
    assert html.index("AUROC <span>test") < html.index("Accuracy <span>test")


def test_a_name_that_pandas_takes_for_missing_stays_a_name(run_dir: Path, report_frame: Frames) -> None:
    report_frame(4).assign(id=["NA", "nan", "007", ""]).to_csv(run_dir / "predictions.csv", index=False)
    assert {row[0] for row in embedded(write_report(run_dir).read_text(), "table-data")["rows"]} == {
        "NA",
        "nan",
        "007",
        "",
    }


def test_large_tables_are_cut_and_say_so(run_dir: Path, report_frame: Frames) -> None:
    report_frame(9000).to_csv(run_dir / "predictions.csv", index=False)
    html = write_report(run_dir).read_text()
    assert "The first 1 000 of 9 000 rows" in html
    assert "of 8 999 molecules are drawn" in html
    assert len(html) < 6.5e6


def test_without_rdkit_molecules_are_text(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(smiles: str) -> Any:
        raise CosetError("rdkit is not installed")

    monkeypatch.setattr("coset.graphs.data.molecules.parse_smiles", missing)
    assert write_report(run_dir).read_text().count("no drawing") == 10


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.json", "{", r"metrics.json is not valid JSON: line 1"),
        ("metrics.json", "[]", r"metrics.json must hold a JSON dict"),
        ("recipe.yaml", "a: [", r"recipe.yaml is no YAML that can be read"),
        ("predictions.csv", "name\n1\n", r"predictions.csv has no column 'id'"),
        ("attention.json", '[{"id": 1}]', r"attention.json: record 0 is no attention record"),
        ("history.csv", "a,b\n1,2\n1,2,3\n", r"history.csv, row 3 has 3 cells, the header 2"),
    ],
)
def test_a_broken_file_is_named(run_dir: Path, file: str, content: str, message: str) -> None:
    (run_dir / file).write_text(content)
    with pytest.raises(CosetError, match=message) as caught:
        write_report(run_dir)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(CosetError, match="holds no run"):
        write_report(tmp_path)


def test_a_page_that_cannot_be_written(run_dir: Path) -> None:
    (run_dir / "report.html").mkdir()
    with pytest.raises(CosetError, match=r"cannot write .*report.html"):
        write_report(run_dir)


def test_the_same_run_gives_the_same_page(run_dir: Path) -> None:
    assert write_report(run_dir).read_bytes() == write_report(run_dir).read_bytes()


def test_history_with_gaps(make_run: Callable[..., Path]) -> None:
    folder = make_run("gaps")
    pd.DataFrame({"epoch": [0], "train_loss": [np.nan], "val_mae": [1.0]}).to_csv(folder / "history.csv", index=False)
    figures = embedded(write_report(folder).read_text(), "figures")
    assert not any("Loss" in json.dumps(figure) for figure in figures.values())
