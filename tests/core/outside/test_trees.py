import json
import os
import subprocess
import sys

import pytest

from coset import CosetError
from coset.core.outside import parse_tree, read_settings, read_tree


@pytest.mark.parametrize("unit", ["[", "{a: ", "- ", "? ", "- ? ", "a: [", "? - : "])
def test_deep_yaml_is_refused_before_its_parser_fails(unit):
    # In a process of its own: what is guarded against ends the process.
    code = f"from coset.core.outside import parse_tree; parse_tree({unit!r} * 200_000, 'a.yaml', form='YAML')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == 1
    assert "a.yaml is nested deeper than 64 levels" in done.stderr


def test_deep_json_is_refused_and_brackets_in_texts_are_not():
    with pytest.raises(CosetError, match="nested deeper"):
        parse_tree("[" * 100_000, "a.json")
    assert parse_tree(json.dumps({"a": "[" * 1000 + '\\"['}), "a.json") == {"a": "[" * 1000 + '\\"['}


def test_aliases_are_written_out_within_a_bound():
    assert parse_tree("a: &x [1, 2]\nb: *x\n", "a.yaml", form="YAML") == {"a": [1, 2], "b": [1, 2]}
    levels = [f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(CosetError, match="aliases written out"):
        parse_tree("\n".join(["k0: &k0 [1, 1, 1]", *levels]), "a.yaml", form="YAML")
    with pytest.raises(CosetError, match="stands within what it names"):
        parse_tree("a: &a [*a]", "a.yaml", form="YAML")


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.system ['true']", "!!python/name:os.system", "a: !include b"]
)
def test_tags_call_nothing(text):
    with pytest.raises(CosetError, match=r"a\.yaml is no YAML"):
        parse_tree(text, "a.yaml", form="YAML")


def test_a_key_twice_is_an_error():
    with pytest.raises(CosetError, match="the key 'a' is there twice"):
        parse_tree('{"a": 1, "b": {"a": 2}, "a": 3}', "a.json")
    with pytest.raises(CosetError, match="duplicate key a"):
        parse_tree("a: 1\na: 2", "a.yaml", form="YAML")


def test_schemas_name_the_place(tmp_path):
    (tmp_path / "a.json").write_text('{"cells": {"1": [[0, "x"]]}}')
    with pytest.raises(CosetError, match=r"a\.json: cells\.1\.0\.1: Input should be a valid integer.*not 'x'"):
        read_tree(tmp_path / "a.json", dict[str, dict[str, list[list[int]]]])
    (tmp_path / "a.json").write_text('{"a": 1,\n}')
    with pytest.raises(CosetError, match=r"a\.json is not valid JSON: line [12]"):
        read_tree(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("1" * 10_000)
    with pytest.raises(CosetError, match=r"a\.json is not valid JSON"):
        read_tree(tmp_path / "a.json")


@pytest.mark.parametrize(
    "value", ["${oc.env:SECRET}", "x ${oc.env:SECRET,y}", "${oc.decode:'1'}", "${${a}:SECRET}", "${oc.env:${a}}"]
)
def test_no_resolver_is_called(tmp_path, monkeypatch, value):
    monkeypatch.setenv("SECRET", "told")
    (tmp_path / "a.yaml").write_text(f'a: oc.env\nb:\n  - "{value}"\n')
    with pytest.raises(CosetError, match=r"a\.yaml: b\.0=.* would look something up outside of the file"):
        read_settings(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("a: oc.env\n")
    with pytest.raises(CosetError, match="would look something up"):
        read_settings(tmp_path / "a.yaml", [f"b={value}"])


def test_settings_take_changes_and_name_one_another(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 3\nb: ${a}\nc: {d: 1e-3}\n")
    assert read_settings(tmp_path / "a.yaml", ["c.e=[1,2]"]) == {"a": 3, "b": 3, "c": {"d": 1e-3, "e": [1, 2]}}
    for change in ("b=" + "[" * 200_000, "a." * 3000 + "b=1", "a=" + "x" * (1 << 21)):
        with pytest.raises(CosetError, match="override"):
            read_settings(tmp_path / "a.yaml", [change])
    (tmp_path / "a.yaml").write_text("- a\n")
    with pytest.raises(CosetError, match="must hold keys and values"):
        read_settings(tmp_path / "a.yaml")
