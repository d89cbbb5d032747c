import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coset.core.errors import CosetError
from coset.graphs.data.splits import column_split, ordered_split, random_split, scaffold_split, split_sizes


def as_lists(splits):
    return {name: rows.tolist() for name, rows in splits.items()}


@settings(deadline=None)
@given(st.integers(3, 300), st.integers(0, 5))
def test_random_split_is_a_partition(count, seed):
    splits = random_split(count, seed=seed)
    assert sorted(torch.cat(list(splits.values())).tolist()) == list(range(count))
    assert all(len(rows) for rows in splits.values())
    assert as_lists(splits) == as_lists(random_split(count, seed=seed))


def test_random_split_depends_on_the_seed_alone():
    torch.manual_seed(3)
    first = as_lists(random_split(50, seed=7))
    torch.manual_seed(4)
    assert first == as_lists(random_split(50, seed=7))
    assert first != as_lists(random_split(50, seed=8))


def test_sizes():
    assert split_sizes(642, (0.8, 0.1, 0.1)) == [514, 64, 64]
    assert split_sizes(3, (0.8, 0.1, 0.1)) == [1, 1, 1]
    assert split_sizes(10, (0.9, 0.1, 0.0)) == [9, 1, 0]
    assert split_sizes(1, (1, 0, 0)) == [1, 0, 0]


@pytest.mark.parametrize(
    "fractions", [(0.8, 0.1), (0.8, 0.3, 0.1), (1.2, -0.1, -0.1), (0, 0.5, 0.5), (float("nan"), 0, 1)]
)
def test_bad_fractions(fractions):
    with pytest.raises(CosetError, match="three shares"):
        split_sizes(100, fractions)


def test_one_molecule_cannot_be_split():
    with pytest.raises(CosetError, match="1 row cannot be split into 3 parts"):
        random_split(1)


def test_scaffold_split_by_hand():
    # Groups a (5 rows), b (2), c (2), d (1): a fills train to 5 of 8, then c and b (of equals, the later one)
    groups = ["a", "b", "a", "c", "a", "b", "a", "c", "a", "d"]
    assert as_lists(scaffold_split(groups, (0.7, 0.2, 0.1))) == {
        "train": [0, 2, 4, 6, 8, 3, 7],
        "val": [1, 5],
        "test": [9],
    }


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=30, max_size=80))
def test_scaffolds_are_never_torn_apart(groups):
    try:
        splits = scaffold_split(groups, (0.6, 0.2, 0.2))
    except CosetError as error:
        assert "empty" in str(error)  # noqa: PT017
        return
    assert sorted(torch.cat(list(splits.values())).tolist()) == list(range(len(groups)))
    homes = {}
    for name, rows in splits.items():
        for row in rows.tolist():
            assert homes.setdefault(groups[row], name) == name


def test_one_scaffold_only():
    with pytest.raises(
        CosetError, match="leaves train empty: 1 scaffolds for 20 molecules, the largest with 20 of them"
    ):
        scaffold_split(["benzene"] * 20)


def test_column_split_reads_common_spellings():
    splits = column_split(["Train", "valid", "test", " training", "validation"])
    assert as_lists(splits) == {"train": [0, 3], "val": [1, 4], "test": [2]}


def test_column_split_names_the_row():
    with pytest.raises(CosetError, match="row 3, column 'fold': 'holdout' is no split"):
        column_split(["train", "holdout"], rows=[2, 3], column="fold")
    with pytest.raises(CosetError, match="no row in train"):
        column_split(["test"])


def test_the_earliest_rows_are_trained_on_and_the_latest_tested():
    dates = ["2024-03-01", "2021-01-05", "2023-12-31T10:00", "2020-02-29", "2025-01-01"]
    parts = ordered_split(dates, (0.6, 0.2, 0.2))
    assert {name: rows.tolist() for name, rows in parts.items()} == {"train": [1, 2, 3], "val": [0], "test": [4]}
    assert ordered_split(["10", "9", "2.5"], (0.34, 0.33, 0.33))["train"].tolist() == [2]
    with pytest.raises(CosetError, match="'soon' is neither a number nor a date such as 2024-03-31"):
        ordered_split(["2024-01-01", "soon", "2024-01-03"])
    with pytest.raises(CosetError, match="is empty in some rows"):
        ordered_split(["1", None, "3"])
