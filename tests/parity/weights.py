"""Networks of LoRA factors, asymmetric networks, and FS-Merge's SuperNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from coset.weights.asymmetric.asymmetrize import asymmetrize, trainable_parameters
from coset.weights.asymmetric.networks import ResNet, mlp
from coset.weights.layers.fixed_entries import FixedEntries
from coset.weights.lora.data.factors import Factors, Layout
from coset.weights.lora.models import features
from coset.weights.lora.models.equivariant import GLNorm
from coset.weights.lora.models.glnet import GLNet
from coset.weights.merging import FoldedSuperNet
from coset.weights.merging.fitting import own_loss
from coset.weights.merging.transformer_encoders import TransformerEncoder

from .differences import Differences, absolute_error
from .reading import ParityFile, literal

INDEX = ".parametrizations.weight.0.index"  # of the fixed entries of a W network, in its state dict


def gl_net(file: ParityFile, found: Differences) -> None:
    """GL-net: factors after the equivariant layers, output, gradients."""
    a, given = file.arguments, factors(file)
    layout = Layout.of(a["layers"])
    model = file.load(GLNet(layout, given, a["width"], a["depth"], a["hidden"], a["outputs"], head=a["head"]))
    u, v = model.first(given)
    for gate, layer in zip(model.gates, model.more, strict=True):
        u, v = layer(*gate(u, v))
    found.compare("layers", u, file.official("equivariant_u"))
    found.compare("layers", v, file.official("equivariant_v"))
    _output_and_gradients(file, found, model, given)


def lora_features(file: ParityFile, found: Differences) -> None:
    """O-Align, singular values and products of factors, and the dense network on the products."""
    a, given = file.arguments, factors(file)
    template = tuple((u[:1], v[:1]) for u, v in given)
    for i, (u, v) in enumerate(features.Alignment(template).align(given)):
        found.compare("aligned factors", u, file.official(f"aligned_u_{i}"))
        found.compare("aligned factors", v, file.official(f"aligned_v_{i}"))
    found.compare("singular values", features.spectra(given), file.official("spectra"))
    found.compare("products", features.products(given), file.official("products"))
    unbounded = 10.0  # standardised features are cut there: none is as large
    model = file.load(features.FeatureModel(features.products, given, a["hidden"], a["outputs"], unbounded))
    _output_and_gradients(file, found, model, given)


def gl_norm(file: ParityFile, found: Differences) -> None:
    model = file.load(GLNorm(**file.arguments))
    for ours, side in zip(model(file.input("u"), file.input("v")), "uv", strict=True):
        found.compare("output", ours, file.official(side))


def factors(file: ParityFile) -> Factors:
    """(U, V) of every group of layers of one shape."""
    given = []
    while f"input/u_{len(given)}" in file:
        given.append((file.input(f"u_{len(given)}"), file.input(f"v_{len(given)}")))
    return tuple(given)


def asymmetric_network(file: ParityFile, found: Differences) -> None:
    """W and sigma networks: output and gradients, and 20 steps of AdamW where the file has them."""
    model, x = _asymmetric(file), file.input("x")
    _output_and_gradients(file, found, model, x)
    if "official/trainable" in file:
        count = torch.tensor(trainable_parameters(model))
        found.compare("trainable parameters", count, file.official("trainable"))
    if "official/losses" in file:
        found.compare("training losses", _train(model, file), file.official("losses"))
        for name, value in file.below("official/trained").items():
            module, _, parameter = name.rpartition(".")
            found.compare("trained weights", getattr(model.get_submodule(module), parameter), value)
        found.compare("trained output", model(x), file.official("trained_output"))


def _asymmetric(file: ParityFile) -> nn.Module:
    a, kind = file.arguments, file.options["kind"]
    model = ResNet(a["width"], a["blocks"], a["classes"]) if kind == "resnet" else mlp(a["sizes"])
    if kind == "sigma-mlp":
        model = asymmetrize(model.double(), "sigma", std=1.0, example=(file.input("x"),))
    state = file.below("state")
    for name in [key.removesuffix(INDEX) for key in state if key.endswith(INDEX)]:
        entries = FixedEntries(state[name + INDEX], state[name + INDEX.replace("index", "values")])
        parametrize.register_parametrization(model.double().get_submodule(name), "weight", entries)
    return file.load(model)


def _train(model: nn.Module, file: ParityFile) -> Tensor:
    """Loss ahead of every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.03)
    x, labels, losses = file.input("x"), file.input("y"), []
    for _ in range(file.official("losses").numel()):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def super_net(file: ParityFile, found: Differences) -> None:
    """FS-Merge: outputs at the start and with the file's maps in all forms, losses, gradients, folded weights."""
    teachers = [_teacher(file, i) for i in range(int(file.options["teachers"]))]
    x, task = file.input("x"), file.input("task")
    net = FoldedSuperNet(teachers, **file.arguments)

    def outputs(student: nn.Module) -> Tensor:
        merged = student(x)
        return torch.cat([student.project(i, merged) for i in range(len(teachers))], -1)

    found.compare("output at the start", outputs(net), file.official("initial_output"))
    file.load(net)
    y = outputs(net)
    found.compare("output", y, file.official("output"))
    for form in ("dense", "implicit", "folded"):
        found.compare(f"output, {form}", outputs(net.explicit(form)), file.official("output"))
    _own_teacher_loss(file, found, net, teachers, [x[task == i] for i in range(len(teachers))])
    net.zero_grad()
    loss = absolute_error(y, file.input("t"))
    found.compare("loss", loss, file.official("loss"))
    loss.backward()
    found.gradients(net)
    encoder, maps = net.finished()
    for name, value in file.below("official/folded").items():
        found.compare("folded weights", encoder.state_dict()[name], value)
    found.compare("last unmerge map", torch.stack(maps), file.official("unmerge_output"))


def _own_teacher_loss(file: ParityFile, found: Differences, net: nn.Module, teachers: list, x: list[Tensor]) -> None:
    """The official loss, and the length of its gradient: parameters are ordered and joined otherwise there."""
    count = range(len(teachers))
    wanted = [[teachers[i](x[t]).detach() if i == t else None for i in count] for t in count]
    loss = own_loss(net, [net(x[i]) for i in count], wanted)
    found.compare("own-teacher loss", loss, file.official("own_loss"))
    loss.backward()
    length = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm()
    found.compare("its gradient", length, file.official("own_gradient_norms").norm())


def _teacher(file: ParityFile, i: int) -> TransformerEncoder:
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**literal(file.options["config"]))).double().eval()
    wrong = model.load_state_dict(file.below(f"input/teacher_{i}"), strict=False)
    assert not wrong.unexpected_keys
    assert not set(wrong.missing_keys) & {name for name, _ in model.named_parameters()}
    return TransformerEncoder(model)


def _output_and_gradients(file: ParityFile, found: Differences, model: nn.Module, given: object) -> None:
    y = model(given)
    found.compare("output", y, file.official("output"))
    loss = absolute_error(y, file.input("t"))
    found.compare("loss", loss, file.official("loss"))
    loss.backward()
    found.gradients(model)


FAMILIES = {
    "glnet": gl_net, "lora_features": lora_features, "glnorm": gl_norm,
    "asymmetric": asymmetric_network, "fs_merge": super_net,
}  # fmt: skip
