import threading

import pytest
import torch

from coset.nn.buffers import ALIGNMENT, SMALLEST, Buffers

LIKE = torch.empty(0)
ROWS = SMALLEST // 4 // 16


def test_a_block_is_used_again_only_when_every_tensor_on_it_is_gone():
    pool = Buffers()
    first = pool.empty(ROWS, 16, LIKE)
    address, view = first.data_ptr(), first[3:7]
    del first
    second = pool.empty(ROWS, 16, LIKE)
    assert second.data_ptr() != address  # a view still lives on it
    del view
    assert pool.free_bytes >= SMALLEST
    assert pool.empty(ROWS, 16, LIKE).data_ptr() == address


def test_blocks_start_at_a_cache_line_and_follow_the_precision():
    pool = Buffers()
    for like in (LIKE, LIKE.double()):
        block = pool.empty(ROWS + 3, 16, like)
        assert block.data_ptr() % ALIGNMENT == 0
        assert block.dtype == like.dtype
        assert block.is_contiguous()


def test_a_much_larger_block_is_given_up_for_a_new_one():
    pool = Buffers()
    large = pool.empty(8 * ROWS, 16, LIKE)
    del large
    small = pool.empty(ROWS, 16, LIKE)
    assert pool.free_bytes == 0
    del small
    pool.clear()
    assert pool.free_bytes == 0


def test_small_matrices_come_from_the_ordinary_allocator():
    pool = Buffers()
    small = pool.empty(2, 2, LIKE)
    del small
    assert pool.free_bytes == 0


def test_blocks_given_back_by_another_thread():
    pool = Buffers()
    held = [pool.empty(ROWS, 16, LIKE)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert pool.free_bytes > 0


@pytest.mark.parametrize("sizes", [[1, 2, 3, 2, 1], [5, 1, 5, 1]])
def test_changing_sizes_do_not_pile_up(sizes):
    pool = Buffers()
    for size in sizes * 5:
        held = [pool.empty(size * ROWS, 16, LIKE) for _ in range(3)]
        del held
    assert pool.free_bytes <= 3 * 1.25 * max(sizes) * SMALLEST * 2
