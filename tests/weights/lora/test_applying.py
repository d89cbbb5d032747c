"""Adapters of odd kinds in their base models: logits beside those of PEFT with the adapter apart."""

import json
import warnings
from dataclasses import replace

import pytest
import torch

from coset.core.errors import CosetError

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from coset.weights.lora import LoraAdapter, LoraPair, load_lora  # noqa: E402
from coset.weights.lora.applying import apply, left_behind  # noqa: E402
from coset.weights.lora.data.naming import canonical  # noqa: E402
from coset.weights.lora.data.writing import WRITERS, alone, check_whole, save_peft  # noqa: E402

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40}


def llama(**options):
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2, max_position_embeddings=16, **options)
    return transformers.LlamaForCausalLM(config)


def tied():
    return llama(tie_word_embeddings=True)


def gpt2():
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=40, n_positions=16)
    return transformers.GPT2LMHeadModel(config)


def resnet():
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return transformers.ResNetForImageClassification(config)


def t5():
    config = transformers.T5Config(d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=4, vocab_size=40,
                                   decoder_start_token_id=0)  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def vit():
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
                                    image_size=8, patch_size=4)  # fmt: skip
    return transformers.ViTForImageClassification(config)


def mixtral():
    config = transformers.MixtralConfig(**{**SIZES, "num_hidden_layers": 1}, num_key_value_heads=2, num_local_experts=3)
    return transformers.MixtralForCausalLM(config)


def lora(**options):
    return {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"], **options}


PATTERNS = lora(
    rank_pattern={r"layers\.1\..*q_proj": 2, "v_proj": 4}, use_rslora=True,
    alpha_pattern={r".*layers\.[0]\.self_attn\..*": 9, r"^model\.layers\.1\.self_attn\.v_proj": 1},
)  # fmt: skip
FLAT = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
CASES = {
    "one parameter for two, LoRA of the last map": (tied, lora(target_modules=["lm_head"])),
    "one parameter for two, LoRA of the embedding": (tied, lora(target_modules=["embed_tokens", "q_proj"])),
    "one parameter for two, GPT-2": (gpt2, lora(target_modules=["wte", "c_fc"], fan_in_fan_out=True)),
    "one parameter for two, both with one LoRA": (
        tied, lora(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True),
    ),
    "one parameter for two, the embedding in full": (tied, lora(modules_to_save=["embed_tokens"])),
    "one parameter for two, the last map in full": (tied, lora(modules_to_save=["lm_head"])),
    "one parameter for two, left alone": (tied, lora()),
    "embedding and last map": (llama, lora(target_modules=["embed_tokens", "lm_head"])),
    "DoRA of an embedding": (llama, lora(target_modules=["embed_tokens", "q_proj"], use_dora=True)),
    "DoRA with rsLoRA": (llama, lora(use_dora=True, use_rslora=True)),
    "patterns that are expressions": (llama, PATTERNS),
    "lora_bias": (lambda: llama(attention_bias=True), lora(lora_bias=True)),
    "biases trained": (lambda: llama(attention_bias=True), lora(bias="all")),
    "some layers alone": (llama, lora(layers_to_transform=[1], layers_pattern="layers")),
    "orthogonal start": (llama, lora(r=4, init_lora_weights="orthogonal")),
    "a parameter by its name": (llama, lora(target_modules=[], target_parameters=["self_attn.q_proj.weight"])),
    "DoRA of Conv1D": (gpt2, lora(**FLAT, use_dora=True)),
    "lora_bias of Conv1D": (gpt2, lora(**FLAT, lora_bias=True)),
    "Conv1D with the wrong flag": (gpt2, lora(target_modules=["c_attn", "attn.c_proj"], fan_in_fan_out=False)),
    "positions": (gpt2, lora(target_modules=["wpe"])),
    "layers that are stored under other names": (vit, lora(lora_bias=True, modules_to_save=["classifier"])),
    "experts' neighbours, whose experts are stored apart": (mixtral, lora(target_modules=["q_proj", "gate"])),
    "DoRA of convolutions, a head in full": (
        resnet, lora(target_modules=["convolution"], use_dora=True, modules_to_save=["classifier"]),
    ),
}  # fmt: skip
REFUSED = {
    "a changed base": (
        llama,
        lora(init_lora_weights="pissa"),
        "initialised with pissa, which changed the base weights",
    ),
    "rows of the embedding": (llama, lora(trainable_token_indices=[3, 5]), "rows of the embedding were trained, too"),
    "a base of other depth": (llama, lora(layer_replication=[[0, 2], [1, 2]]), "a base model of other depth"),
    "biases that the base lacks": (llama, lora(lora_bias=True), r"q_proj\.bias; the base has no such parameter"),
    "experts": (mixtral, lora(target_modules=[], target_parameters=["experts.down_proj"]), "experts of one parameter"),
    "the embedding of T5": (
        t5,
        lora(target_modules=["shared"]),
        "T5ForConditionalGeneration has one parameter for its",
    ),
}


def inputs(model):
    generator = torch.Generator().manual_seed(1)
    if isinstance(model, transformers.ResNetForImageClassification):
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator)}
    if isinstance(model, transformers.ViTForImageClassification):
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
    return {"input_ids": torch.randint(1, 40, (2, 6), generator=generator)}


def written(make, options, folder, **saving):
    """A base model, an adapter of it, and its logits."""
    torch.manual_seed(0)
    base = make().eval()
    base.save_pretrained(folder / "base", **saving)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of embeddings that are tied, and of flags that it sets itself
        model = peft.get_peft_model(base, peft.LoraConfig(**options))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                drawn = 0.3 * torch.randn_like(parameter)
                with torch.no_grad():
                    parameter.copy_(drawn.abs() + 0.5 if "magnitude" in name else parameter + drawn)
        model.save_pretrained(folder / "adapter")
    return model.eval()


def applied(folder, adapter=None):
    read = load_lora(folder / "adapter", adapter=adapter)
    check_whole(read)
    apply(alone(canonical(read)), folder / "base", folder / "made")


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_adapter_apart(case, tmp_path):
    make, options = CASES[case]
    model = written(make, options, tmp_path)
    applied(tmp_path)
    x = inputs(model.base_model.model)
    with torch.no_grad():
        wanted = model(**x).logits
        found = type(model.base_model.model).from_pretrained(tmp_path / "made").eval()(**x).logits
        before = type(model.base_model.model).from_pretrained(tmp_path / "base").eval()(**x).logits
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 5e-6
    assert float((before - wanted).abs().max() / wanted.abs().max()) > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_peft_reads_what_is_written_for_it(case, tmp_path):
    make, options = CASES[case]
    model = written(make, options, tmp_path)
    read = load_lora(tmp_path / "adapter")
    check_whole(read)
    save_peft(read, tmp_path / "again")
    x = inputs(model.base_model.model)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        base = type(model.base_model.model).from_pretrained(tmp_path / "base")
        found = peft.PeftModel.from_pretrained(base, tmp_path / "again").eval()(**x).logits
        torch.testing.assert_close(found, model(**x).logits, rtol=1e-4, atol=1e-5)


def bert_and_gpt2():
    encoder = transformers.BertConfig(**{**SIZES, "num_hidden_layers": 1}, max_position_embeddings=16)
    decoder = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=4, vocab_size=40, n_positions=16, add_cross_attention=True
    )
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    return transformers.EncoderDecoderModel(config=config)


def test_pytorch_s_own_attention_is_refused_for_peft_merges_it_by_its_version(tmp_path):
    """Its last map is trained with W + 2 s B A by PEFT 0.21, with W + s B A once that is mended."""
    base = torch.nn.ModuleDict({"attention": torch.nn.MultiheadAttention(16, 4)})
    save_file(base.state_dict(), tmp_path / "base.safetensors")
    model = peft.get_peft_model(base, peft.LoraConfig(r=3, target_modules=["attention"]))
    model.save_pretrained(tmp_path / "adapter")
    adapter = load_lora(tmp_path / "adapter")
    with pytest.raises(CosetError, match="MultiheadAttention, whose last map PEFT"):
        apply(adapter, tmp_path / "base.safetensors", tmp_path / "made.safetensors")
    assert not (tmp_path / "made.safetensors").exists()


@pytest.mark.parametrize("flag", [True, False])
def test_square_matrices_are_turned_where_their_neighbours_are(flag, tmp_path):
    """PEFT's one flag is that of the last layer: of BERT and GPT-2 together it is wrong for one of them."""
    model = written(bert_and_gpt2, lora(target_modules=["query", "attn.c_proj", "q_attn"]), tmp_path)
    read = replace(load_lora(tmp_path / "adapter"), transposed=flag)
    apply(alone(canonical(read)), tmp_path / "base", tmp_path / "made")
    found = load_file(tmp_path / "made" / "model.safetensors")
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight"):
            wanted = module.base_layer.weight + module.get_delta_weight("default")
            torch.testing.assert_close(found[f"{name}.weight"], wanted, rtol=1e-5, atol=1e-6)


def single_file(path, **tensors):
    save_file(tensors, path)
    return path


def square(*layers):
    generator = torch.Generator().manual_seed(0)
    pairs = {
        layer: LoraPair(torch.randn(4, 2, generator=generator), torch.randn(4, 2, generator=generator))
        for layer in layers
    }
    return LoraAdapter(pairs, "square")


def test_a_square_matrix_between_both_kinds_is_refused(tmp_path):
    both = {"a.weight": torch.zeros(4, 6), "a.bias": torch.zeros(6), "b.weight": torch.zeros(6, 4),
            "b.bias": torch.zeros(6), "c.weight": torch.zeros(4, 4), "c.bias": torch.zeros(4)}  # fmt: skip
    base = single_file(tmp_path / "base.safetensors", **both)
    with pytest.raises(CosetError, match=r"c.weight is square, and the layers nearest to it are stored as \[in, out\]"):
        apply(square("c"), base, tmp_path / "made.safetensors")
    assert not (tmp_path / "made.safetensors").exists()


@pytest.mark.parametrize("flag", [True, False])
def test_where_no_layer_tells_how_squares_are_stored_the_flag_does(flag, tmp_path):
    base = single_file(tmp_path / "base.safetensors", **{"c.weight": torch.zeros(4, 4), "c.bias": torch.zeros(4)})
    adapter = replace(square("c"), transposed=flag)
    apply(adapter, base, tmp_path / "made.safetensors")
    delta = adapter.layers["c"].delta()
    torch.testing.assert_close(
        load_file(tmp_path / "made.safetensors")["c.weight"], delta.mT if flag else delta, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("value", "dtype", "strength", "text"),
    [
        (0.0, torch.float32, float("nan"), "--strength nan"),
        (0.0, torch.float32, float("inf"), "--strength inf"),
        (0.0, torch.float32, 1e300, r"c.weight: numbers that are too large for torch.float32"),
        (6e4, torch.float16, 1e4, r"c.weight: numbers that are too large for torch.float16"),
        (float("nan"), torch.float32, 1.0, r"c.weight: numbers that are NaN or infinite in the base"),
    ],
)
def test_numbers_that_are_not_finite_are_not_written(value, dtype, strength, text, tmp_path):
    base = single_file(tmp_path / "base.safetensors", **{"c.weight": torch.full((4, 4), value, dtype=dtype)})
    with pytest.raises(CosetError, match=text):
        apply(square("c"), base, tmp_path / "made.safetensors", strength)
    assert [path.name for path in tmp_path.iterdir()] == ["base.safetensors"]


def test_two_layers_that_lead_to_one_parameter_are_refused(tmp_path):
    base = single_file(tmp_path / "base.safetensors", **{"layer.0.query.weight": torch.zeros(4, 4)})
    with pytest.raises(
        CosetError, match=r"changes encoder.layer.0.query.weight and decoder.layer.0.query.weight; the base has layer"
    ):
        apply(square("encoder.layer.0.query", "decoder.layer.0.query"), base, tmp_path / "made.safetensors")
    assert not (tmp_path / "made.safetensors").exists()


def test_layers_of_two_models_are_not_put_into_one(tmp_path):
    """Two halves whose layers are numbered on: each name ends as one of the base does."""
    base = single_file(tmp_path / "base.safetensors", **{f"layer.{i}.q.weight": torch.zeros(4, 4) for i in range(2)})
    with pytest.raises(
        CosetError,
        match=r"changes encoder.layer.0.q.weight, which the base has without its encoder., and decoder.layer.1.q.weight"
        r", which it has without its decoder.: another base\?",
    ):
        apply(square("encoder.layer.0.q", "decoder.layer.1.q"), base, tmp_path / "made.safetensors")
    apply(square("encoder.layer.0.q", "encoder.layer.1.q"), base, tmp_path / "made.safetensors")


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_base_has_no_place_for_is_refused(case, tmp_path):
    make, options, said = REFUSED[case]
    written(make, options, tmp_path)
    with pytest.raises(CosetError, match=said):
        applied(tmp_path)
    assert not (tmp_path / "made").exists()


def test_shards_of_a_base_with_one_parameter_for_two(tmp_path):
    model = written(tied, lora(target_modules=["embed_tokens"]), tmp_path, max_shard_size="4KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 2
    applied(tmp_path)
    x = inputs(model)
    with torch.no_grad():
        found = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "made").eval()(**x).logits
        torch.testing.assert_close(found, model(**x).logits, rtol=1e-5, atol=1e-5)


def test_what_loaders_read_beside_the_weights_goes_along_and_the_rest_is_told(tmp_path, coset):
    written(llama, lora(), tmp_path)
    base = tmp_path / "base"
    files = [
        "qwen.tiktoken", "source.spm", "bpe.codes", "prophetnet.tokenizer", "LICENSE", "1_Pooling/config.json",
        "2_Dense/model.safetensors", "additional_chat_templates/tools.jinja",
    ]  # fmt: skip
    rest = ["original/params.json", "onnx/model.onnx", "pytorch_model.bin", "modeling_x.py", ".git/config"]
    for name in [*files, *rest, "2_Dense/code.py"]:
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(name)
    steps = [{"idx": i, "path": path} for i, path in enumerate(["", "1_Pooling", "2_Dense"])]
    (base / "modules.json").write_text(json.dumps(steps))
    code, _, err = coset("lora", "apply", base, tmp_path / "adapter", tmp_path / "made")
    assert code == 0, err
    left = "modeling_x.py, onnx, original, pytorch_model.bin"
    assert f"not copied from {base}, as code or what no loader reads: {left}\n" in err
    made = tmp_path / "made"
    assert [name for name in files if not (made / name).is_file()] == []
    assert not [name for name in [*rest, "2_Dense/code.py"] if (made / name).exists()]


def test_a_folder_of_modules_outside_the_base_is_refused(tmp_path):
    written(llama, lora(), tmp_path)
    (tmp_path / "base" / "modules.json").write_text('[{"path": "../adapter"}]')
    with pytest.raises(CosetError, match=r"names the file '../adapter', which is not in"):
        applied(tmp_path)
    assert not (tmp_path / "made").exists()


def test_shards_in_folders_stay_in_them(tmp_path):
    """Two of one name among them."""
    tensors = {"one": {"a.weight": torch.ones(4, 4)}, "two": {"b.weight": torch.zeros(4, 4)}}
    for name, held in tensors.items():
        (tmp_path / "base" / name).mkdir(parents=True)
        save_file(held, tmp_path / "base" / name / "x.safetensors")
    index = {"weight_map": {"a.weight": "one/x.safetensors", "b.weight": "two/x.safetensors"}}
    (tmp_path / "base" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert apply(square("b"), tmp_path / "base", tmp_path / "made") == 1
    assert left_behind(tmp_path / "base") == []
    assert load_file(tmp_path / "made" / "one" / "x.safetensors")["a.weight"].equal(torch.ones(4, 4))
    assert load_file(tmp_path / "made" / "two" / "x.safetensors")["b.weight"].any()
    assert json.loads((tmp_path / "made" / "model.safetensors.index.json").read_text()) == index


def test_a_base_of_shards_and_a_whole_file_is_refused(tmp_path):
    """Transformers reads the whole file, diffusers the shards."""
    written(tied, lora(), tmp_path, max_shard_size="4KB")
    save_file({"x": torch.ones(2)}, tmp_path / "base" / "model.safetensors")
    with pytest.raises(CosetError, match=r"holds model.safetensors and shards by model.safetensors.index.json: two mo"):
        applied(tmp_path)


def test_words_that_were_added_before_training_have_to_be_in_the_base(tmp_path):
    torch.manual_seed(0)
    base = llama()
    base.save_pretrained(tmp_path / "base")
    base.resize_token_embeddings(42)
    model = peft.get_peft_model(base, peft.LoraConfig(**lora()))
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    with pytest.raises(
        CosetError, match=r"has 40 words in the base, 42 in the adapter: words were added before it was"
    ):
        applied(tmp_path)
    model.unload().save_pretrained(tmp_path / "larger")
    (tmp_path / "base").rename(tmp_path / "smaller")
    (tmp_path / "larger").rename(tmp_path / "base")
    applied(tmp_path)


def pipeline(make, options, folder):
    """A network of a pipeline with a LoRA as diffusers saves it, and what it gives."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    if make == "unet":
        net = diffusers.UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=4,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        x = {"sample": torch.randn(1, 4, 8, 8), "timestep": torch.tensor([3]),
             "encoder_hidden_states": torch.randn(1, 5, 8)}  # fmt: skip
        saver, key = diffusers.StableDiffusionPipeline, "unet"
    else:
        net = diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8],
        )  # fmt: skip
        x = {"hidden_states": torch.randn(1, 16, 4), "encoder_hidden_states": torch.randn(1, 6, 32),
             "pooled_projections": torch.randn(1, 32), "timestep": torch.tensor([0.5]),
             "img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(6, 3)}  # fmt: skip
        saver, key = diffusers.FluxPipeline, "transformer"
    net.eval().save_pretrained(folder / "base")
    net.add_adapter(peft.LoraConfig(**options))
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            drawn = 0.3 * torch.randn_like(parameter)
            with torch.no_grad():
                parameter.copy_(drawn.abs() + 0.5 if "magnitude" in name else drawn)
    about = {f"{key}_lora_layers": peft.get_peft_model_state_dict(net)}
    about[f"{key}_lora_adapter_metadata"] = net.peft_config["default"].to_dict()
    saver.save_lora_weights(folder / "adapter", **about)
    return net, x


PIPELINES = {
    "U-Net, DoRA of convolutions": ("unet", lora(target_modules=["conv1", "proj_in", "to_q"], use_dora=True), None),
    "U-Net, patterns with rsLoRA": (
        "unet", lora(target_modules=["to_q", "to_k"], rank_pattern={"mid_block.*to_q": 2}, alpha_pattern={"to_k": 1},
                     use_rslora=True), None,
    ),
    "U-Net, by way of kohya": ("unet", lora(target_modules=["conv1", "conv_in", "to_q", "time_emb_proj"]), "kohya"),
    "Flux, by way of kohya": (
        "flux", lora(target_modules=["to_q", "to_v", "x_embedder", "norm1.linear", "norm_out.linear", "proj_mlp"]),
        "kohya",
    ),
    "Flux, by way of ComfyUI": ("flux", lora(target_modules=["to_q", "add_q_proj", "ff.net.0.proj"]), "comfyui"),
}  # fmt: skip


@pytest.mark.parametrize("case", PIPELINES)
def test_networks_of_pipelines(case, tmp_path):
    make, options, form = PIPELINES[case]
    net, x = pipeline(make, options, tmp_path)
    read = canonical(load_lora(tmp_path / "adapter"))
    check_whole(read)
    if form is not None:
        read = canonical(load_lora(WRITERS[form](read, tmp_path / "x.safetensors")))
    apply(alone(read), tmp_path / "base", tmp_path / "made")
    with torch.no_grad():
        wanted = net(**x).sample
        found = type(net).from_pretrained(tmp_path / "made").eval()(**x).sample
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 5e-6


def test_one_of_two_adapters_of_a_folder(tmp_path):
    model = written(llama, lora(), tmp_path)
    model.add_adapter("other", peft.LoraConfig(**lora(r=2)))
    for name, parameter in model.named_parameters():
        if ".other." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    applied(tmp_path, "other")
    model.set_adapter("other")
    x = inputs(model)
    with torch.no_grad():
        found = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "made").eval()(**x).logits
        torch.testing.assert_close(found, model(**x).logits, rtol=1e-5, atol=1e-5)
