import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from coset.core.errors import CosetError
from coset.runs.comparison import group_runs, paired_differences, subjects_of, write_comparison
from coset.runs.results import RunResults


def text(html: str) -> str:
    """What is read, without tags and scripts."""
    html = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_seeds_are_averaged_and_the_best_is_first(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run("poor", recipe="gin/made-up", error=2.0)]
    runs += [make_run(f"good{seed}", seed=seed, error=error) for seed, error in enumerate((0.4, 0.6))]
    page = write_comparison(runs, tmp_path / "all.html")
    shown = text(page.read_text())
    assert "2 recipes, 3 runs" in shown
    # Test MAE is 0.8 * 3 * error: 0.96 and 1.44, mean 1.2, sample deviation 0.339.
    assert "subgraphormer/made-up 2 1.200 ± 0.34" in shown
    assert "gin/made-up 1 4.800 6 0.750" in shown
    assert shown.index("subgraphormer/made-up") < shown.index("gin/made-up")


def test_the_best_is_first_by_scores_of_classes_and_links_too(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run("poor", recipe="gin/made-up"), make_run("good")]
    for metric in ("macro_f1", "mrr", "hits@10"):
        for run, value in zip(runs, (0.2, 1.0), strict=True):
            (run / "metrics.json").write_text(json.dumps({"test": {metric: value}}))
        assert "Best: good, " in text(write_comparison(runs, tmp_path / "all.html").read_text())


def test_runs_of_one_name_are_told_apart_by_what_differs(make_run: Callable[..., Path]) -> None:
    runs = [make_run("a"), make_run("b", seed=1), make_run("c", layers=6)]
    groups = group_runs([RunResults(run) for run in runs])
    names = [group.name for group in groups]
    assert names == ["subgraphormer/made-up, model.layers=3", "subgraphormer/made-up, model.layers=6"]
    assert [len(group.runs) for group in groups] == [2, 1]


def of_other_data(run: Path, name: str) -> Path:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["data"] = {**recipe.get("data", {}), "name": name, "split_seed": 3}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return run


def test_runs_of_different_data_are_not_ranked_against_each_other(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    runs = [make_run("a"), of_other_data(make_run("b", error=0.1), "esol"), make_run("c", seed=1)]
    subjects = subjects_of([RunResults(run) for run in runs])
    assert [[len(group.runs) for group in subject.groups] for subject in subjects] == [[2], [1]]
    assert subjects[1].name.startswith("esol")
    shown = text(write_comparison(runs, tmp_path / "all.html").read_text())
    assert "about 2 different things, which are not ranked against one another" in shown
    assert f"Summary: {subjects[0].name}" in shown
    assert "Summary: esol" in shown


def test_differences_are_paired_by_seed(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run(f"a{seed}", seed=seed, error=error) for seed, error in enumerate((0.4, 0.6, 0.5))]
    worse = [(0, 0.5), (1, 0.7), (2, 0.61), (9, 9.0)]
    runs += [make_run(f"b{seed}", recipe="gin/made-up", seed=seed, error=error) for seed, error in worse]
    (subject,) = subjects_of([RunResults(run) for run in runs])
    table = paired_differences(subject)
    assert table is not None
    # Test MAE is 2.4 * error: differences 0.24, 0.24, 0.264; t(0.975, 2) = 4.3027, half = 4.3027 * 0.013856 / 3 ** 0.5.
    assert table.rows == [["gin/made-up", "3", "+0.248", "+0.2136 to +0.2824", "differs"]]
    shown = text(write_comparison(runs, tmp_path / "all.html").read_text())
    assert "95 % interval" in shown


def of_split(run: Path, identity: str, split_seed: int) -> Path:
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, "data_identity": identity}))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "data": {"name": "esol", "split_seed": split_seed}}))
    return run


def test_runs_of_several_splits_are_one_group_and_their_differences_are_known_to_be_dependent(
    make_run: Callable[..., Path],
) -> None:
    runs = [of_split(make_run(f"a{k}", error=error), f"s{k}", k) for k, error in enumerate((0.4, 0.6, 0.5))]
    worse = (0.5, 0.7, 0.61)
    runs += [of_split(make_run(f"b{k}", recipe="gin/x", error=error), f"s{k}", k) for k, error in enumerate(worse)]
    (subject,) = subjects_of([RunResults(run) for run in runs])
    assert [len(group.runs) for group in subject.groups] == [3, 3]
    assert subject.same_splits
    table = paired_differences(subject)
    assert table is not None
    # As above; 10 of 40 rows are of the test, 20 of training: half = 4.3027 * 0.013856 * (1 / 3 + 10 / 20) ** 0.5.
    assert table.rows == [["gin/x", "3", "+0.248", "+0.1936 to +0.3024", "differs"]]


def test_means_over_different_splits_are_not_ranked(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [of_split(make_run("a", error=0.4), "s0", 0), of_split(make_run("b", error=0.6), "s1", 1)]
    runs += [of_split(make_run("c", recipe="gin/x", error=0.5), "s0", 0)]
    (subject,) = subjects_of([RunResults(run) for run in runs])
    assert not subject.same_splits
    assert paired_differences(subject) is None
    shown = text(write_comparison(runs, tmp_path / "all.html").read_text())
    assert "were not tested on the same splits: their means cannot be ranked" in shown


def test_one_folder_named_twice_is_one_run(run_dir: Path, tmp_path: Path) -> None:
    html = write_comparison([run_dir, f"{run_dir}/"], tmp_path / "all.html").read_text()
    assert "1 recipe, 1 run" in text(html)


def test_names_are_escaped(make_run: Callable[..., Path], tmp_path: Path) -> None:
    html = write_comparison([make_run("x", recipe="<i>x</i>")], tmp_path / "all.html").read_text()
    assert "<i>" not in html
    assert "&lt;i&gt;x" in html


def test_runs_without_metrics_are_listed(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("a")
    (run / "metrics.json").unlink()
    assert "Runs recipe seed" in text(write_comparison([run], tmp_path / "all.html").read_text())


def test_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(CosetError, match="nothing to compare"):
        write_comparison([], tmp_path / "all.html")


def test_a_missing_folder_of_the_output_is_named(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CosetError, match="cannot write"):
        write_comparison([run_dir], tmp_path / "nowhere" / "all.html")
