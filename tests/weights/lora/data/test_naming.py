"""Names of layers: as diffusers' own converters have them, and back again."""

from types import SimpleNamespace

import pytest
import torch

from coset.core.errors import CosetError
from coset.weights.lora import LoraAdapter, LoraPair, load_lora
from coset.weights.lora.data.naming import canonical, module_name, native
from coset.weights.lora.data.writing import WRITERS, only, save_kohya, save_lossy, save_peft

converters = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
pytest.importorskip("safetensors")


def kohya(names, size=4, rank=2):
    generator, state = torch.Generator().manual_seed(0), {}
    for name in names:
        rows = {"qkv": 3 * size, "linear1": 7 * 3072}.get(name.rpartition("_")[2], size)
        state[f"{name}.lora_down.weight"] = torch.randn(rank, size, generator=generator)
        state[f"{name}.lora_up.weight"] = torch.randn(rows, rank, generator=generator)
        state[f"{name}.alpha"] = torch.tensor(2.0)
    return state


SDXL = [f"lora_unet_{name}" for name in (
    "input_blocks_4_1_transformer_blocks_0_attn1_to_q", "input_blocks_5_1_transformer_blocks_1_ff_net_0_proj",
    "input_blocks_7_1_proj_in", "middle_block_1_transformer_blocks_3_attn2_to_out_0", "input_blocks_1_0_in_layers_2",
    "output_blocks_5_1_transformer_blocks_0_attn2_to_k", "input_blocks_3_0_op", "output_blocks_2_2_conv",
    "output_blocks_0_0_skip_connection", "middle_block_0_out_layers_3", "input_blocks_4_0_emb_layers_1",
)]  # fmt: skip
SDXL += ["lora_te1_text_model_encoder_layers_0_self_attn_q_proj", "lora_te2_text_model_encoder_layers_3_mlp_fc1"]
SD15 = [f"lora_unet_{name}" for name in (
    "down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q", "up_blocks_3_attentions_2_proj_out",
    "mid_block_attentions_0_transformer_blocks_0_ff_net_2", "down_blocks_0_resnets_0_time_emb_proj",
)] + ["lora_te_text_model_encoder_layers_11_self_attn_out_proj"]  # fmt: skip
FLUX = [f"lora_unet_double_blocks_1_{name}" for name in (
    "img_attn_qkv", "img_attn_proj", "img_mlp_0", "img_mlp_2", "img_mod_lin", "txt_attn_qkv", "txt_attn_proj",
    "txt_mlp_0", "txt_mlp_2", "txt_mod_lin",
)] + [f"lora_unet_single_blocks_2_{name}" for name in ("linear1", "linear2", "modulation_lin")]  # fmt: skip
WAN = [f"blocks.0.{name}" for name in (
    "self_attn.q", "self_attn.k", "self_attn.v",
    "self_attn.o", "cross_attn.q", "cross_attn.k", "cross_attn.v", "cross_attn.k_img", "cross_attn.v_img",
    "cross_attn.o", "ffn.0", "ffn.2",
)]  # fmt: skip


def by_diffusers(kind, state):
    if kind == "wan":
        return converters._convert_non_diffusers_wan_lora_to_diffusers(state)
    if kind == "musubi":
        return converters._convert_musubi_wan_lora_to_diffusers(state)
    if kind == "flux":
        return converters._convert_kohya_flux_lora_to_diffusers(state)
    blocks = SimpleNamespace(layers_per_block=2)
    state = converters._maybe_map_sgm_blocks_to_diffusers(state, blocks) if kind == "sdxl" else state
    return converters._convert_non_diffusers_lora_to_diffusers(state)[0]


FILES = {
    "sdxl": SDXL, "sd15": SD15, "flux": FLUX, "wan": [f"diffusion_model.{n}" for n in WAN],
    "musubi": [f"lora_unet_{n.replace('.', '_')}" for n in WAN],
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_modules_are_those_of_diffusers_own_converter(kind):
    state = kohya(FILES[kind])
    ours, theirs = canonical(load_lora(state)), canonical(load_lora(by_diffusers(kind, dict(state))))
    assert set(ours.layers) == set(theirs.layers)
    for name, pair in theirs.layers.items():
        torch.testing.assert_close(ours.layers[name].delta(), pair.delta(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("form", ["kohya", "comfyui", "diffusers"])
def test_written_in_another_naming_it_is_the_same(kind, form, tmp_path):
    read = load_lora(kohya(FILES[kind]))
    if form == "comfyui" and kind in ("sdxl", "sd15"):
        with pytest.raises(CosetError, match="ComfyUI reads those in kohya's naming"):
            WRITERS[form](read, tmp_path / "x.safetensors")
        return
    again = load_lora(WRITERS[form](read, tmp_path / "x.safetensors"))
    assert not again.obstacles
    if form == "kohya":
        flat = {name.removeprefix("diffusion_model.").replace(".", "_") for name in FILES[kind]}
        assert {n.removeprefix("lora_unet_") for n in again.layers} == {n.removeprefix("lora_unet_") for n in flat}
    elif form == "comfyui":
        assert all(name.startswith("diffusion_model.") for name in again.layers)
    wanted, found = canonical(read), canonical(again)
    assert set(wanted.layers) == set(found.layers)
    for name, pair in wanted.layers.items():
        torch.testing.assert_close(found.layers[name].delta(), pair.delta(), rtol=1e-5, atol=1e-5)


def test_parts_of_one_matrix_are_joined_where_their_inputs_differ_and_where_one_is_missing(tmp_path):
    generator = torch.Generator().manual_seed(1)

    def pair(n=4, rank=2):
        return LoraPair(torch.randn(n, rank, generator=generator), torch.randn(6, rank, generator=generator), -1.5)

    names = [f"transformer.transformer_blocks.0.attn.to_{x}" for x in "qk"]
    adapter = LoraAdapter({names[0]: pair(), names[1]: pair(rank=3)})
    (joined,) = native(adapter).layers.values()
    assert joined.shape == (12, 6)
    assert joined.rank == 5
    wanted = torch.cat([adapter.layers[n].delta() for n in names] + [torch.zeros(4, 6)])
    torch.testing.assert_close(joined.delta(), wanted)
    back = canonical(load_lora(save_kohya(adapter, tmp_path / "x.safetensors")))
    torch.testing.assert_close(back.layers[names[1]].delta(), adapter.layers[names[1]].delta())


def test_names_of_modules():
    assert module_name("lora_unet_" + "blocks_3_ffn_0") == "transformer.blocks.3.ffn.net.0.proj"
    assert module_name("model.layers.0.self_attn.q_proj") == "model.layers.0.self_attn.q_proj"
    assert module_name("lora_unet_a_b") is None
    assert module_name("lora_unet_double_blocks_0_img_attn_qkv") is None
    assert module_name("text_encoder.text_model.encoder.layers.0.self_attn.to_q").endswith("self_attn.q_proj")


def test_what_no_table_knows_is_refused(tmp_path):
    adapter = load_lora(kohya(["lora_unet_a_b"]))
    with pytest.raises(CosetError, match="lora_unet_a_b is in none of the tables of names"):
        save_peft(adapter, tmp_path / "x")
    llm = LoraAdapter({"model.layers.0.self_attn.q_proj": LoraPair(torch.ones(3, 1), torch.ones(3, 1))})
    with pytest.raises(CosetError, match="a layer of no diffusion model"):
        save_kohya(llm, tmp_path / "x.safetensors")
    assert not (tmp_path / "x").exists()


def test_one_network_of_a_pipeline_goes_to_peft(tmp_path):
    adapter = canonical(load_lora(kohya(SDXL)))
    with pytest.raises(CosetError, match="text_encoder and text_encoder_2 and unet: PEFT keeps one network a folder"):
        save_peft(adapter, tmp_path / "x")
    with pytest.raises(CosetError, match="has no layers of transformer; it has text_encoder, text_encoder_2, unet"):
        only(adapter, "transformer")
    save_peft(only(adapter, "unet"), tmp_path / "x")
    assert "mid_block.resnets.0.conv2" in load_lora(tmp_path / "x").layers


def test_what_has_no_place_is_refused_or_left_out_on_request(tmp_path):
    pair = LoraPair(torch.ones(4, 1), torch.ones(4, 1), bias=torch.ones(4))
    adapter = LoraAdapter({"unet.mid_block.attentions.0.proj_in": pair})
    with pytest.raises(CosetError, match="diffusers has no place for the difference of a bias"):
        WRITERS["diffusers"](adapter, tmp_path / "x.safetensors")
    read = load_lora(save_lossy(adapter, tmp_path / "x.safetensors", "diffusers"))
    assert read.layers["unet.mid_block.attentions.0.proj_in"].bias is None
    kept = load_lora(save_kohya(adapter, tmp_path / "y.safetensors"))
    assert torch.equal(next(iter(kept.layers.values())).bias, torch.ones(4))
