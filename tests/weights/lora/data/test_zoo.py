import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from coset.core.errors import CosetError
from coset.weights.lora import LoraAdapter, LoraPair, cosine, gauge, load_lora, save_peft
from coset.weights.lora.collections import opened
from coset.weights.lora.data.factors import Layout, stack
from coset.weights.lora.data.finding import adapters_below
from coset.weights.lora.data.inspection import adapters_beside
from coset.weights.lora.data.zoo import build_zoo, find_adapters, open_zoo
from coset.weights.lora.neighbours import duplicates, map_of, search


def adapter(seed, rank=2, layers=("x.q", "x.v"), n=6):
    g = torch.Generator().manual_seed(seed)
    pairs = {name: LoraPair(torch.randn(n, rank, generator=g), torch.randn(5, rank, generator=g)) for name in layers}
    return LoraAdapter(pairs, f"a{seed}")


@pytest.fixture
def folder(tmp_path):
    for seed in range(6):
        save_peft(adapter(seed, rank=1 + seed % 3), tmp_path / "in" / f"a{seed}")
    return tmp_path / "in"


def test_a_collection_holds_the_updates_of_its_adapters_whatever_their_rank(folder, tmp_path):
    sources = find_adapters(folder)
    zoo = build_zoo(sources, tmp_path / "zoo", root=folder)
    assert zoo.names == tuple(f"a{i}" for i in range(6))
    assert zoo.rank == 3
    u, v = zoo.factors([4])[0]
    for i, name in enumerate(zoo.layout.names):
        torch.testing.assert_close(u[0, i] @ v[0, i].mT, load_lora(folder / "a4").layers[name].delta())
    open_zoo(tmp_path / "zoo").verify()


def test_factors_that_the_type_on_disk_cannot_hold_are_refused(folder, tmp_path):
    large = adapter(3)
    large = replace(large, layers={name: replace(pair, scale=1e12) for name, pair in large.layers.items()})
    save_peft(large, folder / "large")
    with pytest.raises(CosetError, match=r"large: its factors go up to .*, which is no float16"):
        build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder, dtype="float16")
    assert not (tmp_path / "zoo").exists()
    assert len(build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder, dtype="float16", skip_bad=True)) == 6
    assert len(build_zoo(find_adapters(folder), tmp_path / "whole", root=folder)) == 7


def test_a_misshapen_adapter_is_left_out_like_any_other_bad_one(folder, tmp_path):
    state = {"x.q.lora_A.weight": torch.ones(4), "x.q.lora_B.weight": torch.ones(4)}
    (folder / "odd").mkdir()
    save_file(state, folder / "odd" / "adapter_model.safetensors")
    zoo = build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder, skip_bad=True)
    assert (len(zoo), [name for name, _ in zoo.skipped]) == (6, ["odd"])


def test_every_form_of_adapter_is_found_once_and_nothing_hidden(folder):
    save_peft(adapter(7), folder / ".trash" / "old")
    state = load_file(folder / "a0" / "adapter_model.safetensors")
    for name in ("bin", "mlx"):
        (folder / name).mkdir()
    torch.save({f"unet.{key}": value for key, value in state.items()}, folder / "bin" / "pytorch_lora_weights.bin")
    save_file(state, folder / "mlx" / "adapters.safetensors")
    (folder / "mlx" / "adapter_config.json").write_text("{}")
    assert [path.name for path in find_adapters(folder)] == [*(f"a{i}" for i in range(6)), "bin", "mlx"]


def test_links_to_adapters_are_followed_and_two_ways_to_one_are_one_adapter(folder, tmp_path):
    save_peft(adapter(7), tmp_path / "elsewhere" / "b0")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere" / "b0")
    (folder / "a").symlink_to("a0")  # before a0 in the order of names
    (folder / "c.safetensors").symlink_to("a1/adapter_model.safetensors")
    (folder / "a5" / "up").symlink_to("..")
    (folder / "lost").symlink_to("gone")
    found = adapters_below(folder)
    assert [str(path.relative_to(folder)) for path in found.paths] == [*(f"a{i}" for i in range(6)), "again"]
    assert found.notes == [
        "links to what has another path, too, are left out: a (is a0), more/b0 (is again), a5/up (is .), "
        "c.safetensors (is a1)",
        "links that lead nowhere: lost",
    ]
    zoo = opened(folder)
    assert (len(zoo), zoo.notes[:2]) == (7, tuple(found.notes))
    assert opened(folder).notes == zoo.notes, "told again when the collection is there already"
    beside = adapters_beside(folder, None)
    assert (len(beside.names), beside.notes) == (7, tuple(found.notes))


def test_a_folder_that_holds_nothing_but_a_link_to_adapters_is_one_of_adapters(folder, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "mine").symlink_to(folder)
    assert [str(path.relative_to(tmp_path)) for path in find_adapters(tmp_path / "links")] == [
        f"links/mine/a{i}" for i in range(6)
    ]
    assert len(adapters_beside(tmp_path / "links", None).names) == 6


def test_adapters_beside_a_folder_called_adapters_are_not_lost(tmp_path):
    for name in ("adapters/a0", "adapters/a1", "more/b0"):
        save_peft(adapter(len(name)), tmp_path / name)
    (tmp_path / "base").mkdir()
    save_file({"x": torch.ones(2)}, tmp_path / "base" / "model.safetensors")
    assert opened(tmp_path).names == ("adapters/a0", "adapters/a1", "more/b0")


def test_what_a_collection_has_no_place_for_is_told(folder, tmp_path):
    some = adapter(7)
    layers = {name: replace(pair, bias=torch.ones(6)) for name, pair in some.layers.items()}
    save_peft(replace(some, layers=layers), folder / "a7")
    save_peft(replace(some, saved={"head.weight": torch.ones(2, 6)}), folder / "a8")
    zoo = build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder)
    assert zoo.notes == tuple(
        f"1 of 8 adapters hold {what}, too: they are left out" for what in ("differences of biases", "whole parameters")
    )


def test_copies_of_one_adapter_are_told(folder, tmp_path):
    shutil.copytree(folder / "a1", folder / "b" / "again")
    zoo = build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder)
    assert (len(zoo), zoo.notes) == (7, ("copies of one adapter, each counted: a1 and b/again",))


def test_damage_on_disk_is_noticed(folder, tmp_path):
    zoo = build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder)
    array = np.load(tmp_path / "zoo" / "u_0.npy", mmap_mode="r+")
    array[0, 0, 0, 0] += 1
    array.flush()
    with pytest.raises(CosetError, match="checksum"):
        zoo.verify()


def test_bad_adapters_are_named_or_skipped(folder, tmp_path):
    (folder / "a1" / "adapter_model.safetensors").write_bytes(b"short")
    save_peft(adapter(9, n=8), folder / "a9")
    with pytest.raises(CosetError, match=r"2 of 7 adapters cannot be used.*a1.*a9.*--skip-bad"):
        build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder)
    zoo = build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder, skip_bad=True)
    assert len(zoo) == 5
    assert [name for name, _ in zoo.skipped] == ["a1", "a9"]
    assert "another base model" in zoo.skipped[1][1]


def test_layers_that_differ_need_a_decision(folder, tmp_path):
    save_peft(adapter(9, layers=("x.q",)), folder / "a9")
    with pytest.raises(CosetError, match=r"different layers \(a9 lacks x\.v\)"):
        build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder)
    common = build_zoo(find_adapters(folder), tmp_path / "i", root=folder, layers="intersection")
    assert common.layout.names == ("x.q",)
    full = build_zoo(find_adapters(folder), tmp_path / "u", root=folder, layers="union")
    u, v = full.factors([6])[0]
    assert full.layout.names == ("x.q", "x.v")
    assert not (u[0, 1] @ v[0, 1].mT).any()


def test_an_interrupted_collection_goes_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("coset.weights.lora.data.zoo.STRIDE", 2)
    sources, zoo = find_adapters(folder), tmp_path / "zoo"
    whole = build_zoo(sources, tmp_path / "whole", root=folder)

    def stops(items, what):
        for i, item in enumerate(items):
            if what.startswith("writing") and i == 3:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        build_zoo(sources, zoo, root=folder, progress=stops)
    with pytest.raises(CosetError, match="not finished"):
        open_zoo(zoo)
    read = []
    monkeypatch.setattr("coset.weights.lora.data.zoo.load_lora", lambda path: read.append(path) or load_lora(path))
    again = build_zoo(sources, zoo, root=folder)
    assert read == sources[2:]
    for a, b in zip(again.factors()[0], whole.factors()[0], strict=True):
        assert torch.equal(a, b)


def test_a_collection_stays_whole_while_it_is_built_again(folder, tmp_path):
    before = build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder)
    held = np.load(tmp_path / "zoo" / "u_0.npy", mmap_mode="r")
    kept = held.copy()
    save_peft(adapter(99), folder / "a3")

    def watched(items, what):
        for item in items:
            assert open_zoo(tmp_path / "zoo").names == before.names
            yield item

    after = build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder, progress=watched)
    assert np.array_equal(held, kept)
    assert not torch.equal(after.factors([3])[0][0], torch.from_numpy(kept[3:4]))
    after.verify()


def test_of_two_that_build_at_once_one_does_and_the_other_waits(folder, tmp_path):
    sources, writing, waiting = find_adapters(folder), threading.Event(), threading.Event()

    def first(items, what):
        for item in items:
            if what.startswith("writing"):
                writing.set()
                assert waiting.wait(30)
            yield item

    def second(items, what):
        assert not what.startswith("writing")
        yield from items
        waiting.set()

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(build_zoo, sources, tmp_path / "zoo", root=folder, progress=first)
        assert writing.wait(30)
        other = pool.submit(build_zoo, sources, tmp_path / "zoo", root=folder, progress=second)
        assert other.result().names == one.result().names
    open_zoo(tmp_path / "zoo").verify()


def test_files_that_do_not_fit_their_index_are_refused(folder, tmp_path):
    build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder)
    index = json.loads((tmp_path / "zoo" / "zoo.json").read_text())
    (tmp_path / "zoo" / "zoo.json").write_text(json.dumps({**index, "rank": 9}))
    with pytest.raises(CosetError, match=r"zoo\.json says"):
        open_zoo(tmp_path / "zoo")
    with pytest.raises(CosetError, match="no adapters"):
        find_adapters(tmp_path / "zoo")


def test_a_refactorised_copy_is_the_nearest_and_a_duplicate():
    some = [adapter(seed) for seed in range(5)]
    copied = gauge(some[2], torch.Generator().manual_seed(0))
    layout = Layout.of((name, pair.shape) for name, pair in some[0].layers.items())
    collection, names = stack([*some, copied], layout), (*"abcde", "copy")
    assert [n.name for n in search(stack([some[2]], layout), collection, names, top=2)[0]] in (
        ["c", "copy"],
        ["copy", "c"],
    )
    found = duplicates(collection, names)
    assert [pair[:2] for pair in found] == [("c", "copy")]
    assert found[0][2] == pytest.approx(cosine(some[2], copied), abs=1e-4)
    places = map_of(collection)
    torch.testing.assert_close(places[2], places[5], atol=1e-3, rtol=0)
    with pytest.raises(CosetError, match="threshold"):
        duplicates(collection, names, 1.5)


def test_a_changed_number_is_noticed_when_a_collection_is_opened(folder, tmp_path):
    build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder)
    content = bytearray((tmp_path / "zoo" / "u_0.npy").read_bytes())
    content[-4:] = bytes(4)
    (tmp_path / "zoo" / "u_0.npy").write_bytes(content)
    with pytest.raises(CosetError, match=r"u_0\.npy is not what was written: its checksum differs"):
        open_zoo(tmp_path / "zoo")


def test_an_adapter_put_in_with_its_old_time_is_noticed(folder):
    before = opened(folder).factors([2])[0][0]
    assert torch.equal(opened(folder).factors([2])[0][0], before)
    file = folder / "a2" / "adapter_model.safetensors"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    save_peft(adapter(77, rank=3), folder / "a2")
    os.utime(file, ns=times)
    assert file.stat().st_mtime_ns == times[1]
    assert not torch.equal(opened(folder).factors([2])[0][0], before)


def test_a_collection_is_renewed_by_content_alone(folder):
    opened(folder)
    made = (folder / ".zoo" / "zoo.json").stat().st_mtime_ns
    for file in folder.glob("a*/*"):
        os.utime(file)
    assert len(opened(folder)) == 6
    assert (folder / ".zoo" / "zoo.json").stat().st_mtime_ns == made
    assert opened(folder, "union").layout == opened(folder).layout  # of equal layers: the same collection
    assert (folder / ".zoo" / "zoo.json").stat().st_mtime_ns == made
    moved = folder.with_name("moved")
    folder.rename(moved)
    opened(moved)
    assert (moved / ".zoo" / "zoo.json").stat().st_mtime_ns == made


def test_what_was_written_of_an_adapter_that_changed_is_written_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("coset.weights.lora.data.zoo.STRIDE", 2)

    def stops(items, what):
        for i, item in enumerate(items):
            if what.startswith("writing") and i == 3:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder, progress=stops)
    save_peft(adapter(77), folder / "a0")
    zoo = build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder)
    u, v = zoo.factors([0])[0]
    torch.testing.assert_close(u[0, 0] @ v[0, 0].mT, adapter(77).layers["x.q"].delta())


@pytest.mark.parametrize("key", ["names", "groups", "rank", "checksums"])
def test_an_index_that_says_something_else_is_named(folder, tmp_path, key):
    build_zoo(find_adapters(folder), tmp_path / "zoo", root=folder)
    index = json.loads((tmp_path / "zoo" / "zoo.json").read_text())
    wrong = {"checksums": {"../../secret": "0"}}.get(key, [[{}]])
    (tmp_path / "zoo" / "zoo.json").write_text(json.dumps(index | {key: wrong}))
    with pytest.raises(CosetError, match=r"zoo\.json"):
        open_zoo(tmp_path / "zoo")
