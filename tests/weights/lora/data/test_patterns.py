import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coset import CosetError
from coset.weights.lora.data.patterns import matches

LAYERS = ["q_proj", "model.layers.1.self_attn.q_proj", "model.layers.11.mlp.up_proj", "a.b", "ab", "", "xq_proj"]
PATTERNS = [
    "q_proj", "layers.1.self_attn.q_proj", r".*\.q_proj", r"layers\.\d+\.mlp\.(up|down)_proj", "^model.*", "a|ab?",
    r"[a-c]+\.[^x]", r"\w{2,}", "(a|b)*", "q_proj$", "(?:up|q)_proj", r"layers\.1{2}.*", "x?q_proj", "[]a]b",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_what_peft_matches(pattern):
    for layer in LAYERS:
        assert matches(pattern, layer) == bool(re.match(rf"(.*\.)?({pattern})$", layer)), layer


ATOMS = st.sampled_from(["a", "b", ".", r"\.", "[ab]", r"\w"])
TREES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["*", "?", "+", "{1,2}"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
    ),
    max_leaves=6,
)


@given(TREES, st.text("ab.", max_size=6))
def test_any_pattern_matches_as_a_regular_expression(pattern, layer):
    assert matches(pattern, layer) == bool(re.match(rf"(.*\.)?({pattern})$", layer))


@pytest.mark.parametrize("pattern", ["(a|a)*b", "(a*)*b", "(a+)+$", "(.*)*x", "((a?){30}){30}b"])
def test_no_pattern_takes_long(pattern):
    began = time.process_time()
    matches(pattern, "a" * 300)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "pattern",
    ["(", "a)", "[a", "*a", r"(a)\1", "(?=a)b", "(?P<n>a)", "a" * 3000, "(((a{99}){99}){99})", "(" * 60, "\\"],
)
def test_what_is_not_understood_is_said(pattern):
    with pytest.raises(CosetError, match="pattern of layers"):
        matches(pattern, "a")
