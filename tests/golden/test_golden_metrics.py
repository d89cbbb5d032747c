"""Short runs of every kind of recipe give the numbers that they always gave.

With ``COSET_GOLDEN_EXACT=1`` to the last digit, as a move of code must leave them. Where numbers were meant to change,
``python tests/golden/record.py NAME`` writes them again, and the commit says why.
"""

import json
import os

import pytest
import record
import yaml

EXACT = os.environ.get("COSET_GOLDEN_EXACT") == "1"
TOLERANCE = 0.0 if EXACT else 1e-5
ABSENT = ("COSET_DATA", "is not installed", "pip install")  # what an error says of data or a package that is not here
CASES = record.cases()


@pytest.fixture(scope="module")
def process():
    with record.one_thread() as pool:
        yield pool


@pytest.fixture(scope="module")
def here(process):
    return process.submit(record.machine).result()


@pytest.mark.parametrize("name", CASES)
def test_a_run_gives_the_numbers_it_always_gave(name, process, here, tmp_path):
    if not record.place(name).exists():
        pytest.skip(f"nothing was recorded on a processor of {record.maker() or 'this kind'}")
    kept = json.loads(record.place(name).read_text(encoding="utf-8"))
    if kept["machine"] != here and not EXACT:
        pytest.skip(f"recorded with {kept['machine']}, here is {here}: last digits differ, and training lets them grow")
    code, problem, _ = process.submit(record.run, CASES[name], tmp_path / "run").result()
    if code and any(words in problem for words in ABSENT):
        pytest.skip(problem)
    assert code == 0, problem
    assert record.differences(record.numbers(tmp_path / "run"), kept["numbers"], TOLERANCE) == []


def test_every_kind_of_recipe_is_covered(coset):
    def kind(recipe):
        return yaml.safe_load(coset("show", recipe)[1])["kind"]

    shipped = {row["recipe"] for row in json.loads(coset("list", "--json")[1])}
    assert {kind(case["recipe"]) for case in CASES.values()} == {kind(recipe) for recipe in shipped}


def test_differences_are_found():
    kept = {"test/rmse": 1.0, "test/mae": 0.5, "rounding": 1e-7}
    assert record.differences(kept, kept, 0.0) == []
    found = {"test/rmse": 1.0001, "rounding": 2e-7, "test/r2": 0.1}
    assert record.differences(found, kept, 1e-5) == [
        "test/mae is missing", "test/r2 is new", "test/rmse: 1.0001, was 1.0",
    ]  # fmt: skip
    assert record.differences({**kept, "rounding": 2e-7}, kept, 0.0) == ["rounding: 2e-07, was 1e-07"]
    assert record.differences({**kept, "test/rmse": 1 + 1e-6}, kept, 1e-5) == []
