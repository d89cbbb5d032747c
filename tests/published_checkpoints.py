"""Checkpoints of TracksTo4D in the form of its authors' code, made of networks of ours by inverting every change."""

import torch

# Spelled out, not made from the tables of the converter.
THEIRS = [
    ("embed.0.weight", "transformer_my.to_patch_embedding.0.weight"),
    ("embed.0.bias", "transformer_my.to_patch_embedding.0.bias"),
    ("embed.1.weight", "transformer_my.to_patch_embedding.1.weight"),
    ("embed.1.bias", "transformer_my.to_patch_embedding.1.bias"),
    ("embed.2.weight", "transformer_my.to_patch_embedding.2.weight"),
    ("embed.2.bias", "transformer_my.to_patch_embedding.2.bias"),
    ("camera_head.weight", "conv_final.weight"),
    ("camera_head.bias", "conv_final.bias"),
    ("point_head.weight", "fc1.weight"),
    ("point_head.bias", "fc1.bias"),
    ("over_frames.N.before_attention.weight", "transformer_my.transformer_frames.N.layers.0.0.norm.weight"),
    ("over_frames.N.before_attention.bias", "transformer_my.transformer_frames.N.layers.0.0.norm.bias"),
    ("over_frames.N.qkv.weight", "transformer_my.transformer_frames.N.layers.0.0.to_qkv.weight"),
    ("over_frames.N.out.weight", "transformer_my.transformer_frames.N.layers.0.0.to_out.weight"),
    ("over_frames.N.before_mlp.weight", "transformer_my.transformer_frames.N.layers.0.1.net.0.weight"),
    ("over_frames.N.before_mlp.bias", "transformer_my.transformer_frames.N.layers.0.1.net.0.bias"),
    ("over_frames.N.mlp.0.weight", "transformer_my.transformer_frames.N.layers.0.1.net.1.weight"),
    ("over_frames.N.mlp.0.bias", "transformer_my.transformer_frames.N.layers.0.1.net.1.bias"),
    ("over_frames.N.mlp.2.weight", "transformer_my.transformer_frames.N.layers.0.1.net.3.weight"),
    ("over_frames.N.mlp.2.bias", "transformer_my.transformer_frames.N.layers.0.1.net.3.bias"),
    ("over_frames.N.after.weight", "transformer_my.transformer_frames.N.norm.weight"),
    ("over_frames.N.after.bias", "transformer_my.transformer_frames.N.norm.bias"),
]


def in_their_form(state, octaves, basis):
    """Our state dict as their code would hold it: features one by one, axes before clouds, two rows more, no bias."""
    theirs = {}
    for ours, name in THEIRS:
        for number in range(9):
            for kind in ("frames", "points"):
                key = ours.replace("N", str(number)).replace("frames", kind)
                if key in state and ("N" in ours or (number, kind) == (0, "frames")):
                    theirs[name.replace("N", str(number)).replace("frames", kind)] = state[key].clone()
    place = {}  # of a feature of ours, by what it is
    for channel in range(3):
        for octave in range(octaves):
            place["sin", octave, channel] = channel * octaves + octave
            place["cos", octave, channel] = (3 + channel) * octaves + octave
        place["value", channel] = 6 * octaves + channel
    order = [place["value", channel] for channel in range(3)]
    order += [place[wave, o, channel] for o in range(octaves) for wave in ("sin", "cos") for channel in range(3)]
    order += [6 * octaves + 3]
    for kind in ("weight", "bias"):
        theirs[f"transformer_my.to_patch_embedding.0.{kind}"] = state[f"embed.0.{kind}"][order]
        rows = [3 * k + axis for axis in range(3) for k in range(basis)] + [3 * basis]
        theirs[f"fc1.{kind}"] = state[f"point_head.{kind}"][rows]
        conv = state[f"camera_head.{kind}"]
        theirs[f"conv_final.{kind}"] = torch.cat((conv, torch.randn_like(conv[:2])))
    theirs["transformer_my.to_patch_embedding.1.weight"] = state["embed.1.weight"][:, order]
    return theirs
