"""What learning on LoRAs adds."""

from coset.core.domains import Domain, System

DOMAIN = Domain(
    name="lora",
    package="coset.weights.lora",
    kinds={
        "lora": "coset.weights.lora.experiments:LoraRecipe",
        "lora-zoo": "coset.weights.lora.zoo_experiment:LoraZooRecipe",
    },
    commands=("coset.weights.lora.commands",),
    adds={
        "data set": ("coset.weights.data_sets",),
        "LoRA model": ("coset.weights.lora.models",),
        "data of adapters": ("coset.weights.lora.collections",),
        "source of adapters": ("coset.weights.lora.finetuning",),
    },
    needs="coset.weights.data_sets:needed",
    systems=(
        System(
            "Learning on LoRAs",
            "Putterman, Lim, Gelberg, Bronstein, Jegelka, Maron: GL equivariant metanetworks for learning on low rank "
            "weight spaces, arXiv 2410.04207",
            module="coset.weights.lora.models.glnet",
            page="lol",
            recipes="lol/",
            words="LoL LoRA adapter GL-net low rank weight space metanetwork diffusion language model",
        ),
    ),
)
