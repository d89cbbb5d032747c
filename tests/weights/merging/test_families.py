"""Every family of transformers: what commutes with its blocks, found again by matching; folding; folders in and out."""

import copy

import pytest
import torch
from torch import nn

from coset.core.errors import CosetError
from coset.weights.merging import compatibility, merge_file
from coset.weights.merging.checkpoints import Checkpoint, load_teacher
from coset.weights.merging.encoders import features
from coset.weights.merging.families import FAMILIES
from coset.weights.merging.matched import matched_average
from coset.weights.merging.merge_options import load
from coset.weights.merging.regression import regmean
from coset.weights.merging.supernet import FoldedSuperNet
from coset.weights.merging.teachers import Teacher
from coset.weights.merging.transformer_encoders import TransformerEncoder, build, restored
from coset.weights.merging.zipping import zipit
from coset.weights.permutations.spec import permute

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
WORDS = {"vocab_size": 20, "max_position_embeddings": 16, "pad_token_id": 0}
IMAGES = {"image_size": 8, "patch_size": 4, "num_channels": 1}
DECODERS = ("llama", "mistral", "qwen2")
CONFIGS = {
    "vit": ("ViTConfig", SIZES | IMAGES), "deit": ("DeiTConfig", SIZES | IMAGES),
    "dinov2": ("Dinov2Config", IMAGES | {k: v for k, v in SIZES.items() if "inter" not in k}
               | {"mlp_ratio": 2, "layerscale_value": 0.5}),
    "bert": ("BertConfig", SIZES | WORDS), "bert, no pooler": ("BertConfig", SIZES | WORDS),
    "roberta": ("RobertaConfig", SIZES | WORDS | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}),
    "distilbert": ("DistilBertConfig", WORDS | {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 4}),
    "clip_vision_model": ("CLIPVisionConfig", SIZES | IMAGES | {"projection_dim": 6}),
    "clip_vision_model without projection": ("CLIPVisionConfig", SIZES | IMAGES),
    "gpt2": ("GPT2Config", {"n_layer": 2, "n_head": 4, "n_embd": 16, "vocab_size": 20, "n_positions": 16,
                            "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}),
} | {name: (f"{name.title()}Config", SIZES | WORDS | {"num_key_value_heads": 2, "hidden_size": 32})
     for name in DECODERS}  # fmt: skip


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch):
    """RMSNorm of the package computes in float32, whatever it is given."""

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    for name in DECODERS:
        module = __import__(f"transformers.models.{name}.modeling_{name}", fromlist=["x"])
        monkeypatch.setattr(getattr(module, f"{name.title()}RMSNorm"), "forward", forward)


def encoder(name, seed, top=False):
    kind, options = CONFIGS[name]
    config = getattr(transformers, kind)(**options)
    made = build(config, pooled="no pooler" not in name, projected="without" not in name, seed=seed)
    torch.manual_seed(seed)
    for parameter in made.parameters():  # as many begin at one, or at nought
        parameter.data += 0.2 * torch.randn_like(parameter)
    width = config.hidden_size
    return TransformerEncoder(made, nn.Linear(width, width) if top else None).double().eval()


def inputs(name, samples=40):
    generator = torch.Generator().manual_seed(9)
    if FAMILIES[name.partition(",")[0]].patch is not None:
        return torch.randn(samples, 1, 8, 8, generator=generator).double()
    ids = torch.randint(3, 20, (samples, 10), generator=generator)
    mask = torch.ones_like(ids)
    mask[: samples // 2, 7:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def head(width, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(width, 3, bias=False).double()


def moved(net, seed=0):
    """A copy with everything permuted that may be, and the new order of what its head reads."""
    wiring, generator = net.wiring(), torch.Generator().manual_seed(seed)
    state, order = dict(net.named_parameters()), torch.arange(net.wiring().widths[net.wiring().output])
    for spec in wiring.permutations():
        orders = {g.name: torch.randperm(g.size, generator=generator) for g in spec.groups}
        state = permute(spec, {n: p.detach() for n, p in state.items()}, orders)
        order = order[orders.get(wiring.output, torch.arange(len(order)))]
    made = copy.deepcopy(net)
    made.load_state_dict(state, strict=False)
    return made, order


def relative(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", CONFIGS)
def test_what_may_be_permuted_leaves_the_function_alone(name):
    net = encoder(name, 0, top=name in ("roberta", "distilbert"))
    twin, order = moved(net)
    changed = [n for n, p in net.named_parameters() if not torch.equal(p, dict(twin.named_parameters())[n])]
    assert len(changed) > len(list(net.parameters())) * 0.8
    x = inputs(name)
    assert relative(features(twin, x), features(net, x)[:, order]) < 1e-9


@pytest.mark.parametrize("by", ["weights", "activations"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_and_its_permuted_twin_merge_into_that_network(name, by):
    net = encoder(name, 0, top=name in ("roberta", "distilbert"))
    twin, order = moved(net)
    one = head(len(order))
    other = copy.deepcopy(one)
    other.weight.data = one.weight.data[:, order]
    x = inputs(name)
    pair = [Teacher("a", net, one), Teacher("b", twin, other)]
    found = matched_average(pair, [x, x] if by == "activations" else None).logits(x)
    with torch.no_grad():
        wanted = one(features(net, x))
    assert max(relative(logits, wanted) for logits in found.values()) < 1e-9


@pytest.mark.parametrize("name", CONFIGS)
def test_the_supernet_and_what_it_folds_to_are_one_function(name):
    nets = [encoder(name, s, top=name in ("roberta", "distilbert")) for s in range(2)]
    net = FoldedSuperNet(nets, rank=2, init="average")
    torch.manual_seed(0)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = inputs(name, 5)
    with torch.no_grad():
        found = net(x)
        for mode in ("dense", "implicit", "folded"):
            assert relative(net.explicit(mode)(x), found) < 1e-9
        assert relative(features(net.encoder(), x), found) < 1e-9


@pytest.mark.parametrize("method", [regmean, zipit])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_and_itself_are_merged_to_that_network(name, method):
    net = encoder(name, 0, top=name in ("roberta", "distilbert"))
    width = net.wiring().widths[net.wiring().output]
    x = inputs(name)
    pair = [Teacher(n, net, head(width)) for n in "ab"]
    wanted = pair[0].head(features(net, x)).detach()
    for logits in method(pair, [x, x]).logits(x).values():
        assert relative(logits, wanted) < (1e-9 if method is zipit else 1e-6)


def pairs_of_channels(a, size, generator):
    """Turns and sizes of each pair of rotary channels, and their inverse transpose."""
    angle, scale = (torch.rand(size // 2, generator=generator).double() for _ in range(2))
    scale = 0.5 + scale
    cosine, sine = (angle * 6).cos().diag(), (angle * 6).sin().diag()
    turn = torch.cat([torch.cat([cosine, -sine], 1), torch.cat([sine, cosine], 1)])
    return turn @ torch.cat([scale, scale]).diag(), turn @ torch.cat([1 / scale, 1 / scale]).diag()


@pytest.mark.parametrize("name", DECODERS)
def test_what_else_commutes_with_a_decoder(name):
    """Pairs of rotary channels turn and stretch; value channels are mixed by any invertible map; the stream, gains
    folded, by any orthogonal one."""
    net, generator = encoder(name, 0), torch.Generator().manual_seed(1)
    x, twin = inputs(name), copy.deepcopy(net)
    stream, _ = torch.linalg.qr(torch.randn(32, 32, generator=generator).double())
    model = twin.model
    for layer, a in zip(model.layers, net.wiring().attention, strict=True):
        size = 32 // a.heads
        attention, mlp = layer.self_attn, layer.mlp
        for g in range(a.groups):
            forth, back = pairs_of_channels(a, size, generator)
            mix = torch.eye(size) + 0.3 * torch.randn(size, size, generator=generator)
            mix = mix.double()
            rows = slice(g * size, (g + 1) * size)
            for projection, way in ((attention.k_proj, back), (attention.v_proj, mix)):
                projection.weight.data[rows] = way @ projection.weight.data[rows]
                if projection.bias is not None:
                    projection.bias.data[rows] = way @ projection.bias.data[rows]
            per = a.heads // a.groups
            for h in range(g * per, (g + 1) * per):
                own = slice(h * size, (h + 1) * size)
                attention.q_proj.weight.data[own] = forth @ attention.q_proj.weight.data[own]
                if attention.q_proj.bias is not None:
                    attention.q_proj.bias.data[own] = forth @ attention.q_proj.bias.data[own]
                columns = attention.o_proj.weight.data[:, own]
                attention.o_proj.weight.data[:, own] = columns @ torch.linalg.inv(mix)
        for norm, readers in (
            (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
            (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
        ):
            for reader in readers:
                reader.weight.data = reader.weight.data * norm.weight.data @ stream.mT
            norm.weight.data.fill_(1.0)
        for writer in (attention.o_proj, mlp.down_proj):
            writer.weight.data = stream @ writer.weight.data
    model.embed_tokens.weight.data = model.embed_tokens.weight.data @ stream.mT
    last = model.norm.weight.data.clone()
    model.norm.weight.data.fill_(1.0)
    assert relative(features(twin, x) @ stream * last, features(net, x)) < 1e-9


@pytest.mark.parametrize("name", ["gpt2", "dinov2"])
def test_what_is_brought_into_linear_maps_is_brought_back(name):
    kind, options = CONFIGS[name]
    made = build(getattr(transformers, kind)(**options), seed=3).double().eval()
    x = inputs(name)
    given = x if isinstance(x, dict) else {"pixel_values": x}
    with torch.no_grad():
        wanted = made(**given).last_hidden_state
        back = restored(TransformerEncoder(made).double().eval().model)
        assert set(back.state_dict()) == set(made.state_dict())
        torch.testing.assert_close(back.eval()(**given).last_hidden_state, wanted, rtol=1e-9, atol=1e-9)


HEADED = [name for name in CONFIGS if FAMILIES[name.partition(",")[0]].headed and "no pooler" not in name]


@pytest.mark.parametrize("name", HEADED)
def test_folders_in_and_a_folder_out(name, tmp_path):
    from safetensors.torch import save_file

    kind, options = CONFIGS[name]
    family = FAMILIES[name]
    for i, n in enumerate("ab"):
        torch.manual_seed(i)
        config = getattr(transformers, kind)(**options, num_labels=2 + i)
        getattr(transformers, family.headed)(config).save_pretrained(tmp_path / n)
    x = inputs(name, 8)
    x = x if isinstance(x, dict) else {"pixel_values": x.float()}
    save_file(x, tmp_path / "x.safetensors")
    (tmp_path / "merge.yaml").write_text(
        "merge_method: fs_merge\nmodels: [{model: a, inputs: x.safetensors}, {model: b, inputs: x.safetensors}]\n"
        "parameters: {rank: 2, steps: 2, init: first, learning_rate: 1.0e-9}\noutput: out\n"
    )
    facts = merge_file.run(load(tmp_path / "merge.yaml"))
    assert facts["difference_from_supernet"] < 1e-3
    assert facts["scores"]["a"]["agreement"] == 1.0  # it begins as the first model
    merged = getattr(transformers, family.headed).from_pretrained(tmp_path / "out").eval()
    first = getattr(transformers, family.headed).from_pretrained(tmp_path / "a").eval()
    with torch.no_grad():
        torch.testing.assert_close(merged(**x).logits[:, :2], first(**x).logits, rtol=1e-3, atol=1e-4)
    assert merged.config.num_labels == 5


def test_models_without_heads(tmp_path):
    config = transformers.BertConfig(**SIZES, **WORDS)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "bare")
    assert load_teacher(Checkpoint(tmp_path / "bare"), "x").encoder.model.pooler is None
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SIZES, **IMAGES)).save_pretrained(tmp_path / "clip")
    assert load_teacher(Checkpoint(tmp_path / "clip"), "x").head.weight.shape == (16, 16)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **WORDS)).save_pretrained(tmp_path / "llm")
    with pytest.raises(CosetError, match=r"holds lm_head\.weight, which LlamaModel has not"):
        load_teacher(Checkpoint(tmp_path / "llm"), "x")


def test_an_unknown_family_is_named():
    made = transformers.AlbertModel(transformers.AlbertConfig(**SIZES, **WORDS, embedding_size=8))
    with pytest.raises(CosetError, match="AlbertModel cannot be merged; known are vit, deit"):
        TransformerEncoder(made)
    assert "albert" not in compatibility.KNOWN
