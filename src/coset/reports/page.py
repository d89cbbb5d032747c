"""Self-contained HTML pages of one run, or of several side by side."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from coset.reports.molecules import drawing

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #fff; --faint: #8883; --good: #0a7d4f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --paper: #15181b; --good: #4ccf98; --bad: #ff8a80; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem;
  margin: auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .75rem .25rem 0; text-align: left; }
td { border-top: 1px solid var(--faint); font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } .plot { background: #fff; border-radius: 8px; margin: .5rem 0; }
.molecules { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
.molecules figure { margin: 0; padding: .5rem; border: 1px solid var(--faint); border-radius: 8px; }
.molecules svg { width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; } .good { color: var(--good); } .bad { color: var(--bad); }
pre { overflow-x: auto; padding: 1rem; background: var(--faint); border-radius: 8px; font-size: .85rem; }
"""


def _plot(figure: go.Figure, name: str) -> str:
    figure.update_layout(template="plotly_white", margin={"l": 50, "r": 20, "t": 40, "b": 45}, height=380)
    body = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config={"responsive": True})
    return f'<div class="plot">{body}</div>'


def _table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    return f'<div class="scroll"><table>{line(head, "th")}{"".join(line(row, "td") for row in rows)}</table></div>'


def _page(title: str, parts: Sequence[str]) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f"<h1>{escape(title)}</h1>{''.join(parts)}</body></html>"
    )


def _headline(metrics: dict[str, Any]) -> str:
    splits = [name for name in ("train", "val", "test") if name in metrics]
    last = splits[-1]
    rows = []
    for name in metrics[last]:
        values = [f"{metrics[split].get(name, float('nan')):.4f}" for split in splits]
        rows.append([escape(name), *values, f"{metrics['baseline'][last].get(name, float('nan')):.4f}"])
    note = "".join(f"<p>{escape(text)}</p>" for text in metrics.get("notes", []))
    facts = f"{metrics['params']:,} parameters · {metrics['seconds']} s · best epoch {metrics['best_epoch']}"
    table = _table(rows, ["metric", *splits, f"predicting the mean ({last})"])
    return f"<p>{facts} · seed {metrics['seed']}</p>{table}{note}"


def _curves(folder: Path) -> str:
    history = pd.read_csv(folder / "history.csv")
    figure = go.Figure()
    for column in history.columns:
        if column == "train_loss" or column.startswith("val_"):
            figure.add_scatter(x=history["epoch"], y=history[column], name=column)
    figure.update_layout(xaxis_title="epoch")
    return "<h2>Training</h2>" + _plot(figure, "curves")


def _targets(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Name, target column and prediction column of every target."""
    names = [column.removeprefix("prediction") for column in frame.columns if column.startswith("prediction")]
    return [(name.removeprefix("_") or "target", f"target{name}", f"prediction{name}") for name in names]


def _scatter(frame: pd.DataFrame) -> str:
    parts = ["<h2>Predicted against measured</h2>"]
    for number, (name, target, prediction) in enumerate(_targets(frame)):
        figure = go.Figure()
        for split, rows in frame.groupby("split"):
            text = rows["id"].map(lambda value: escape(str(value)))
            figure.add_scatter(
                x=rows[target], y=rows[prediction], mode="markers", name=str(split), text=text, opacity=0.7
            )
        ends = [frame[target].min(), frame[target].max()]
        figure.add_scatter(x=ends, y=ends, mode="lines", name="equal", line={"dash": "dot", "color": "#888"})
        figure.update_layout(xaxis_title=f"measured {escape(name)}", yaxis_title="predicted")
        parts.append(_plot(figure, f"scatter{number}"))
    return "".join(parts)


def _worst(frame: pd.DataFrame, count: int = 8) -> str:
    last = "test" if (frame["split"] == "test").any() else "val"
    _, target, prediction = _targets(frame)[0]
    rows = frame[frame["split"] == last].copy()
    rows["error"] = (rows[prediction] - rows[target]).abs()
    figures = [
        f"<figure>{drawing(str(row['smiles']))}<figcaption><b>{escape(str(row['id']))}</b><br>"
        f"{escape(str(row['smiles']))}<br>measured {row[target]:.3g}, predicted {row[prediction]:.3g}"
        "</figcaption></figure>"
        for _, row in rows.nlargest(count, "error").iterrows()
    ]
    return f'<h2>Worst of the {last} molecules</h2><div class="molecules">{"".join(figures)}</div>'


def _certificate(folder: Path) -> str:
    reports = json.loads((folder / "certificate.json").read_text(encoding="utf-8"))
    rows = []
    for report in reports:
        verdict = '<span class="good">holds</span>' if report["passed"] else '<span class="bad">BROKEN</span>'
        error = report["max_relative_error"]
        shown = "infinite" if error is None else f"{error:.1e}"
        rows.append([escape(str(report.get("statement") or report["group"])), str(report["trials"]), shown, verdict])
    return "<h2>Symmetry, measured in float64</h2>" + _table(rows, ["claim", "trials", "relative error", "verdict"])


def _reproduce(folder: Path, metrics: dict[str, Any]) -> str:
    recipe = escape((folder / "recipe.yaml").read_text(encoding="utf-8"))
    versions = escape(", ".join(f"{name} {version}" for name, version in metrics.get("versions", {}).items()))
    how = f"<p>Save as recipe.yaml, then <code>coset run recipe.yaml</code>. {versions}</p>"
    return f"<h2>How to repeat this</h2>{how}<pre>{recipe}</pre>"


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a finished run."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    frame = pd.read_csv(folder / "predictions.csv")
    parts = [_headline(metrics), _curves(folder), _scatter(frame), _worst(frame), _certificate(folder)]
    parts.append(_reproduce(folder, metrics))
    return _write(folder / "report.html", _page(str(metrics["recipe"]), parts))


def write_comparison(folders: Sequence[Path], output: Path) -> Path:
    """Write one page that sets runs side by side; runs of one recipe are averaged over their seeds."""
    all_metrics = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in folders]
    last = "test" if all("test" in metrics for metrics in all_metrics) else "val"
    frame = pd.DataFrame(
        [{"recipe": m["recipe"], "params": m["params"], "seconds": m["seconds"], **m[last]} for m in all_metrics]
    )
    rows = []
    for name, group in frame.groupby("recipe", sort=False):
        cells = [escape(str(name)), str(len(group))]
        for column in frame.columns[1:]:
            spread = f" ± {group[column].std():.3g}" if len(group) > 1 else ""
            cells.append(f"{group[column].mean():.4g}{spread}")
        rows.append(cells)
    figure = go.Figure()
    for folder, metrics in zip(folders, all_metrics):
        history = pd.read_csv(folder / "history.csv")
        column = next(name for name in history.columns if name.startswith("val_"))
        figure.add_scatter(
            x=history["seconds"], y=history[column], name=f"{metrics['recipe']} (seed {metrics['seed']})"
        )
    figure.update_layout(xaxis_title="seconds")
    head = ["recipe", "runs", *frame.columns[1:]]
    parts = [f"<p>Metrics on the {last} molecules.</p>", _table(rows, head), _plot(figure, "curves")]
    return _write(output, _page("Runs compared", parts))


def _write(path: Path, text: str) -> Path:
    from coset.training.run_directory import write_text

    write_text(path, text)
    return path
