"""What once failed is read or refused; so are some hundred broken files, and values that schemas have never seen."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark_scripts import script
from coset import CosetError
from coset.core.outside import parse_tree, read_arrays, read_table, read_text

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)


@pytest.fixture(scope="module")
def fuzz():
    return script("fuzz")


@pytest.fixture(scope="module")
def whole(fuzz, tmp_path_factory):
    return fuzz.seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def readers(fuzz):
    return fuzz.readers()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_what_failed_once_is_refused(fuzz, whole, readers, tmp_path, file):
    kind = file.name.partition(".")[2]
    assert fuzz.tried(kind, file.read_bytes(), readers[kind], tmp_path, fuzz.beside(kind, whole)) == ""


@pytest.mark.filterwarnings("ignore")
def test_broken_files_of_every_format(fuzz, whole, readers, tmp_path):
    failures = {}
    for number in range(20 * len(whole)):
        kind, content = fuzz.case(0, number, whole)
        wrong = fuzz.tried(kind, content, readers[kind], tmp_path, fuzz.beside(kind, whole))
        if wrong:
            failures[number] = f"{kind}: {wrong}"
    assert not failures


@pytest.mark.filterwarnings("ignore")
def test_whole_files_are_read(fuzz, whole, readers, tmp_path):
    """Or fuzzing would only see files that are refused at their door."""
    refused = set()
    for kind, files in whole.items():
        file = fuzz.laid_out(kind, files[0], tmp_path, fuzz.beside(kind, whole))
        try:
            readers[kind](file)
        except CosetError as error:
            refused.add(f"{kind}: {error}")
    assert not refused


def test_a_case_is_the_same_again(fuzz, whole):
    assert [fuzz.case(3, n, whole) for n in range(50)] == [fuzz.case(3, n, whole) for n in range(50)]
    assert [fuzz.case(3, n, whole) for n in range(50)] != [fuzz.case(4, n, whole) for n in range(50)]


def said(read, *given, **options):
    """What a reader refuses with; empty if it reads."""
    try:
        read(*given, **options)
    except CosetError as error:
        return str(error)
    return ""


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["kind", "vertices", "cells", "1", "r", "shards", "rank_pattern"]), inner)
    ),
    max_leaves=12,
)
FORMS = ["complex.json", "adapter_config.json", "shards.json"]


@pytest.mark.parametrize("kind", FORMS)
def test_any_json_is_read_or_refused(fuzz, whole, readers, tmp_path, kind):
    @QUIET
    @given(TREES)
    def check(value):
        content = json.dumps(value).encode()
        assert fuzz.tried(kind, content, readers[kind], tmp_path, fuzz.beside(kind, whole)) == ""

    check()


@QUIET
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path, content):
    file = tmp_path / "a.csv"
    file.write_bytes(content)
    assert all("\n" not in said(read, file) for read in (read_text, read_table, read_arrays))


@QUIET
@given(st.text(max_size=200), st.sampled_from(["JSON", "YAML"]))
def test_any_text_is_a_tree_or_refused(text, form):
    assert "\n" not in said(parse_tree, text, "a", form=form)
