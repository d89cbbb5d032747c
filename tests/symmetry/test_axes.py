"""Permutations of the axes of dense tensors, shifts, reversals and turns: small cases by hand."""

import pytest
import torch

from coset.symmetry import AxisPermutation, CyclicImage, CyclicShift, DihedralImage, PointPermutation, Reversal


def test_an_entry_goes_to_its_image():
    sigma = torch.tensor([1, 2, 0])  # 0 -> 1 -> 2 -> 0
    assert AxisPermutation((0,)).apply((sigma,), torch.tensor([10, 20, 30])).tolist() == [30, 10, 20]


def test_both_axes_of_a_pair_tensor_move_together():
    path = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]])  # 0 - 1 - 2
    swapped = AxisPermutation((0, 1)).apply((torch.tensor([1, 0, 2]),), path)
    assert swapped.tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 0]]  # now 0 is in the middle


def test_axes_move_separately():
    matrix = torch.tensor([[1, 2, 3], [4, 5, 6]])
    element = (torch.tensor([1, 0]), torch.tensor([1, 2, 0]))
    assert AxisPermutation((0, 1), joint=False).apply(element, matrix).tolist() == [[6, 4, 5], [3, 1, 2]]
    columns = AxisPermutation((None, 0), joint=False)  # what happens to a sum over rows
    assert columns.apply(element, matrix.sum(0)).tolist() == [9, 5, 7]
    with pytest.raises(ValueError, match="absent factor"):
        columns.sample(matrix.sum(0), torch.Generator())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"equally long; got \[2, 3\]"):
        AxisPermutation((0, 1)).sample(torch.zeros(2, 3), torch.Generator())
    with pytest.raises(ValueError, match="axis 0 has 2 entries, the permutation 3"):
        PointPermutation().apply((torch.arange(3),), torch.zeros(2))
    with pytest.raises(ValueError, match="joint=False"):
        AxisPermutation((0, None))
    with pytest.raises(ValueError, match="element of 2 permutations"):
        PointPermutation().apply((torch.arange(2), torch.arange(2)), torch.zeros(2))
    with pytest.raises(ValueError, match="square images"):
        DihedralImage().sample(torch.zeros(2, 3), torch.Generator())


def test_shifts_wrap_round():
    image = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert CyclicShift().apply((1, 1), image).tolist() == [[6, 4, 5], [3, 1, 2]]
    assert CyclicShift((0,)).order(image) == 2


def test_reversal_runs_backwards():
    assert Reversal((0,)).apply((True,), torch.tensor([1, 2, 3])).tolist() == [3, 2, 1]
    assert Reversal((0,)).apply((False,), torch.tensor([1, 2, 3])).tolist() == [1, 2, 3]


def test_the_eight_images_of_a_square():
    image = torch.tensor([[1, 2], [3, 4]])
    orbit = {str(DihedralImage().apply(g, image).tolist()) for g in DihedralImage().elements(image)}
    turns = {"[[1, 2], [3, 4]]", "[[2, 4], [1, 3]]", "[[4, 3], [2, 1]]", "[[3, 1], [4, 2]]"}
    mirrors = {"[[2, 1], [4, 3]]", "[[1, 3], [2, 4]]", "[[3, 4], [1, 2]]", "[[4, 2], [3, 1]]"}
    assert orbit == turns | mirrors
    assert {str(CyclicImage().apply(g, image).tolist()) for g in CyclicImage().elements(image)} == turns


def test_the_product_of_two_mirror_images_is_a_turn():
    # In D_4: (turn, mirror) twice is the identity; two different mirrors make a turn.
    assert DihedralImage().compose((1, 1), (1, 1)) == (0, 0)
    assert DihedralImage().compose((1, 1), (0, 1)) == (1, 0)
