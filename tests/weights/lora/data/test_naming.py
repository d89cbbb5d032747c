"""Names of layers: as diffusers' own converters have them, and back again."""

from types import SimpleNamespace

import pytest
import torch

from coset.core.errors import CosetError
from coset.weights.lora import LoraAdapter, LoraPair, load_lora
from coset.weights.lora.data.naming import canonical, module_name, native, of_model
from coset.weights.lora.data.writing import WRITERS, only, save_kohya, save_lossy, save_peft

converters = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
save_file = pytest.importorskip("safetensors.torch").save_file


def kohya(names, size=4, rank=2):
    generator, state = torch.Generator().manual_seed(0), {}
    for name in names:
        rows = {"qkv": 3 * size, "linear1": 7 * 3072}.get(name.replace(".", "_").rpartition("_")[2], size)
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

HUNYUAN = [f"double_blocks.1.{name}" for name in (
    "img_attn_qkv", "img_attn_proj", "img_mlp.fc1", "img_mlp.fc2", "img_mod.linear", "txt_attn_qkv", "txt_attn_proj",
    "txt_mlp.fc1", "txt_mlp.fc2", "txt_mod.linear",
)] + ["single_blocks.2.linear1", "single_blocks.2.linear2", "single_blocks.2.modulation.linear", "img_in.proj",
      "time_in.mlp.0", "guidance_in.mlp.2", "vector_in.in_layer", "txt_in.input_embedder", "txt_in.t_embedder.mlp.0",
      "txt_in.c_embedder.linear_2", "final_layer.linear"]  # fmt: skip
HUNYUAN += [
    f"txt_in.individual_token_refiner.blocks.0.{name}"
    for name in ("self_attn_proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
]
"""Without ``self_attn_qkv`` of the refiner, whose A diffusers 0.42.1 cuts into three as if it were B."""
LTX = [f"transformer_blocks.3.{name}" for name in (
    "attn1.to_q", "attn1.to_out.0", "attn2.to_k", "ff.net.0.proj", "ff.net.2")]  # fmt: skip


def by_diffusers(kind, state):
    if kind == "hunyuan":
        return converters._convert_hunyuan_video_lora_to_diffusers(state)
    if kind == "ltx":
        return converters._convert_non_diffusers_ltxv_lora_to_diffusers(state)
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
    "hunyuan": [f"diffusion_model.{n}" for n in HUNYUAN], "ltx": [f"diffusion_model.{n}" for n in LTX],
}  # fmt: skip


def in_peft_names(state):
    """What two of diffusers' converters want: ``lora_A``, and no alpha."""
    renamed = {k.replace("lora_down", "lora_A").replace("lora_up", "lora_B"): v for k, v in state.items()}
    return {k: v for k, v in renamed.items() if not k.endswith(".alpha")}


@pytest.mark.parametrize("kind", FILES)
def test_modules_are_those_of_diffusers_own_converter(kind):
    state = kohya(FILES[kind])
    state = in_peft_names(state) if kind in ("hunyuan", "ltx") else state
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


def test_queries_keys_and_values_of_the_refiner_share_their_a():
    state = kohya(["lora_unet_txt_in_individual_token_refiner_blocks_1_self_attn_qkv"])
    (pair,) = load_lora(state).layers.values()
    found = canonical(load_lora(state)).layers
    block = "transformer.context_embedder.token_refiner.refiner_blocks.1.attn.to_"
    assert set(found) == {block + x for x in "qkv"}
    torch.testing.assert_close(torch.cat([found[block + x].delta() for x in "qkv"]), pair.delta())


def test_the_last_modulation_has_its_halves_exchanged(tmp_path):
    """As diffusers' converter of Hunyuan does, whose blocks are ``[scale, shift]``."""
    state = kohya(["diffusion_model.final_layer.adaLN_modulation.1", "diffusion_model.final_layer.linear"])
    read = load_lora(state)
    found = canonical(read).layers["transformer.norm_out.linear"]
    delta = read.layers["diffusion_model.final_layer.adaLN_modulation.1"].delta()
    torch.testing.assert_close(found.delta(), torch.cat(delta.chunk(2)[::-1]))
    again = load_lora(WRITERS["comfyui"](canonical(read), tmp_path / "x.safetensors"))
    torch.testing.assert_close(again.layers["diffusion_model.final_layer.adaLN_modulation.1"].delta(), delta)


def test_whole_differences_are_written_where_the_naming_has_a_place(tmp_path):
    state = kohya(["diffusion_model.blocks.0.self_attn.q"])
    state |= {
        "diffusion_model.blocks.0.norm3.diff": torch.randn(4),
        "diffusion_model.blocks.0.ffn.0.diff": torch.ones(5, 4),
    }
    state |= {"diffusion_model.blocks.0.ffn.0.diff_b": torch.ones(5)}
    read = load_lora(state)
    with pytest.raises(CosetError, match=r"blocks\.0\.norm3 is in none of the tables"):
        WRITERS["kohya"](read, tmp_path / "x.safetensors")
    del state["diffusion_model.blocks.0.norm3.diff"]
    for form in ("kohya", "comfyui"):
        again = canonical(load_lora(WRITERS[form](load_lora(state), tmp_path / f"{form}.safetensors")))
        assert torch.equal(again.dense["transformer.blocks.0.ffn.net.0.proj.weight"], torch.ones(5, 4))
        assert torch.equal(again.dense["transformer.blocks.0.ffn.net.0.proj.bias"], torch.ones(5))
    with pytest.raises(CosetError, match="PEFT has no place for a whole difference"):
        save_peft(load_lora(state), tmp_path / "p")


def test_parts_of_one_matrix_are_joined_where_their_inputs_differ_and_where_one_is_missing(tmp_path):
    generator = torch.Generator().manual_seed(1)

    def pair(n=4, rank=2):
        return LoraPair(torch.randn(n, rank, generator=generator), torch.randn(6, rank, generator=generator), -1.5)

    names = [f"transformer.transformer_blocks.0.attn.to_{x}" for x in "qk"]
    adapter = LoraAdapter({names[0]: pair(), names[1]: pair(rank=3)}, models=("flux",))
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
    assert module_name("lora_te3_encoder_block_0_layer_0_SelfAttention_q") is None
    assert module_name("diffusion_model.double_blocks.0.img_attn.gate") is None
    assert module_name("lycoris_model_layers_3_mlp_gate_proj") == "model.layers.3.mlp.gate_proj"
    assert module_name("lora_unet_double_blocks_0_img_attn_qkv") is None
    assert module_name("text_encoder.text_model.encoder.layers.0.self_attn.to_q").endswith("self_attn.q_proj")


@pytest.mark.parametrize("layer", [
    "transformer.h.0.attn.c_attn", "transformer.wte", "transformer.layer.1.attention.q_lin",
    "transformer.word_embeddings",
    "transformer.encoder.layers.0.mlp.dense_h_to_4h", "transformer.blocks.0.attn.Wqkv",
    "transformer.layers.0.ffn.proj_1",
])  # fmt: skip
def test_the_transformer_of_a_language_model_is_no_network_of_a_pipeline(layer, tmp_path):
    """GPT-2, DistilBERT, Bloom, ChatGLM, MPT, OpenELM: PEFT needs the whole path."""
    adapter = LoraAdapter({layer: LoraPair(torch.ones(3, 1), torch.ones(3, 1))})
    assert set(canonical(adapter).layers) == {layer}
    assert set(load_lora(save_peft(adapter, tmp_path / "x")).layers) == {layer}
    with pytest.raises(CosetError, match="a layer of no diffusion model"):
        save_kohya(adapter, tmp_path / "x.safetensors")
    assert module_name("transformer.blocks.0.attn1.to_q") == "transformer.blocks.0.attn1.to_q"
    assert only(canonical(LoraAdapter({"transformer.blocks.0.attn1.to_q": adapter.layers[layer]})), "transformer")


def test_a_layer_of_two_models_is_not_guessed(tmp_path):
    pair = LoraPair(torch.ones(3, 1), torch.ones(3, 1))
    names = [f"transformer.transformer_blocks.0.{x}" for x in ("ff.net.2", "attn.to_q", "attn1.to_q")]
    with pytest.raises(CosetError, match="a layer of Flux and of LTX"):
        save_kohya(LoraAdapter({names[0]: pair}), tmp_path / "x.safetensors")
    flux, ltx = (native(LoraAdapter(dict.fromkeys((names[0], other), pair), models=("flux",))) for other in names[1:])
    assert set(flux.layers) == {"double_blocks.0.img_mlp.2", "double_blocks.0.img_attn.qkv"}
    assert set(ltx.layers) == {"transformer_blocks.0.ff.net.2", "transformer_blocks.0.attn1.to_q"}


def blocks(double, single=0, width=8, mark="transformer.", **options):
    """An adapter of ``double`` blocks of two streams and ``single`` of one, as diffusers names them."""
    pair = LoraPair(torch.ones(3, 1), torch.ones(width, 1))
    names = [f"{mark}transformer_blocks.{i}.{x}" for i in range(double) for x in ("attn.to_q", "ff.net.2")]
    names += [f"{mark}single_transformer_blocks.{i}.norm.linear" for i in range(single)]
    return LoraAdapter(dict.fromkeys(names, pair), **options)


@pytest.mark.parametrize(
    ("adapter", "model"),
    [
        (blocks(20), "hunyuan"), (blocks(2, 39), "hunyuan"), (blocks(1, 40), "hunyuan"), (blocks(19), "flux"),
        (blocks(19, 38), "flux"), (blocks(1, 38), "flux"), (blocks(2, models=("hunyuan",)), "hunyuan"),
    ],
)  # fmt: skip
def test_flux_and_hunyuan_are_told_by_their_blocks_or_their_base(adapter, model):
    wanted = {"flux": {"img_mlp.2", "modulation.lin"}, "hunyuan": {"img_mlp.fc2", "modulation.linear"}}
    found = {".".join(name.split(".")[2:]) for name in native(adapter).layers} - {"img_attn.qkv", "img_attn_qkv"}
    assert found <= wanted[model]
    assert found


def test_where_layers_do_not_tell_the_model_it_has_to_be_said(tmp_path):
    adapter = blocks(2, 3)
    with pytest.raises(
        CosetError, match=r"a layer of flux and of hunyuan, which have two names for it; --model flux or"
    ):
        save_kohya(adapter, tmp_path / "x.safetensors")
    read = load_lora(save_kohya(of_model(adapter, "hunyuan"), tmp_path / "x.safetensors"))
    assert "lora_unet_double_blocks_1_img_mlp_fc2" in read.layers
    assert set(canonical(read).layers) == set(adapter.layers) | {f"{n[:-1]}{x}" for n in adapter.layers
                                                                  if n.endswith("to_q") for x in "kv"}  # fmt: skip
    dotted = load_lora(WRITERS["comfyui"](adapter, tmp_path / "y.safetensors"))  # it has Flux's names for both
    assert "diffusion_model.double_blocks.1.img_mlp.2" in dotted.layers
    with pytest.raises(CosetError, match="--model 'sdxl' is unknown; choose from flux, hunyuan"):
        of_model(adapter, "sdxl")


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (blocks(2, width=1536), "but of sd3"), (blocks(24), "but of sd3"),
        (blocks(2, models=("qwen-image",)), "but of qwen-image"), (blocks(50, 2), "but of one with other widths"),
    ],
)  # fmt: skip
def test_layers_of_models_without_a_table_are_not_written_under_the_names_of_flux(adapter, said):
    with pytest.raises(CosetError, match=f"are not those of Flux or HunyuanVideo, but {said}|{said}"):
        native(adapter)


def test_what_a_file_says_of_its_base_tells_the_model(tmp_path):
    state = kohya([f"transformer.transformer_blocks.0.{x}" for x in ("attn.to_q", "ff.net.2")])
    assert load_lora(state, {"base_model_name_or_path": "tencent/HunyuanVideo"}).models == ("hunyuan",)
    save_file(state, tmp_path / "x.safetensors", metadata={"modelspec.architecture": "flux-1-dev/lora"})
    assert load_lora(tmp_path / "x.safetensors").models == ("flux",)
    assert load_lora(state).models == ()


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


def test_qwen_image_keeps_its_names(tmp_path):
    layers = ("attn.to_q", "attn.add_k_proj", "attn.to_out.0", "img_mlp.net.0.proj", "txt_mod.1")
    pairs = {f"transformer.transformer_blocks.7.{n}": LoraPair(torch.randn(8, 2), torch.randn(8, 2)) for n in layers}
    written = native(LoraAdapter(pairs, "qwen"))
    assert set(written.layers) == {f"transformer_blocks.7.{n}" for n in layers}
    save_kohya(LoraAdapter(pairs, "qwen"), tmp_path / "qwen.safetensors")
    read = canonical(load_lora(tmp_path / "qwen.safetensors"))
    assert set(read.layers) == set(pairs)
    for name, pair in pairs.items():
        torch.testing.assert_close(read.layers[name].weight_update(), pair.weight_update())
