import numpy as np
import pandas as pd
import pytest
import yaml

from coset.reports.calibration import coverage_panel, coverages, reliability, reliability_panel, spread_panel
from coset.runs.ensembles import ensemble_section

RNG = np.random.default_rng(0)


def test_coverage_is_nominal_where_errors_are_alike():
    levels = [0.1, 0.5, 0.9]
    found = np.mean([coverages(*np.abs(RNG.normal(size=(2, 199))), levels) for _ in range(100)], axis=0)
    assert found == pytest.approx(levels, abs=0.015)


def test_too_few_rows_have_no_margin_of_a_high_level():
    assert np.isnan(coverages(np.ones(5), np.ones(5), [0.9])).all()
    assert "90 %" not in coverage_panel(np.ones(5), np.ones(5), "y", "test").note.split(".")[0]


def test_errors_as_large_as_spreads_lie_on_the_line():
    spread = RNG.uniform(0.1, 2, 4000)
    drawn = spread_panel(spread, RNG.normal(size=4000) * spread, "y", "test").figure.data[1]
    assert np.asarray(drawn.y) == pytest.approx(np.asarray(drawn.x), rel=0.2)
    flat = spread_panel(spread, RNG.normal(size=4000), "y", "test")
    assert abs(float(flat.note.split(": ")[1].split(". ")[0])) < 0.1


def test_reliability_and_its_error():
    p = RNG.uniform(size=20000)
    assert reliability(p, (RNG.uniform(size=20000) < p).astype(float))[3] < 0.02
    x, y, counts, error = reliability(np.array([0.05, 0.05, 0.95, 0.95]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert (x.tolist(), y.tolist(), counts.tolist()) == (pytest.approx([0.05, 0.95]), [0.5, 1.0], [2, 2])
    assert error == pytest.approx(0.25)
    assert (
        "error 0.250"
        in reliability_panel(np.array([0.05, 0.05, 0.95, 0.95]), np.array([0.0, 1, 1, 1]), "y", "test").note
    )


def _run(folder, seed, split, noise):
    folder.mkdir(parents=True)
    true = np.linspace(0, 1, 60)
    frame = pd.DataFrame({"id": range(60), "split": split, "target": true, "prediction": true + noise})
    frame.to_csv(folder / "predictions.csv", index=False)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"training": {"task": "regression"}, "seed": seed}))
    (folder / "metrics.json").write_text('{"test": {"rmse": 1.0}}')
    return folder


def test_an_ensemble_is_made_of_runs_that_were_tested_on_the_same_rows(tmp_path):
    split = ["val"] * 30 + ["test"] * 30
    runs = [_run(tmp_path / str(seed), seed, split, RNG.normal(size=60)) for seed in range(4)]
    section = ensemble_section(runs)
    count, alone, together, rows = section.tables[0].rows[0]
    assert (count, rows) == (4, 30)
    assert float(together) < 0.7 * float(alone)
    assert [panel.title.split(" of ")[0] for panel in section.panels] == ["Coverage", "Error against spread"]
    other = _run(tmp_path / "other", 9, split[::-1], 0.0)
    assert ensemble_section([runs[0], other]) is None
