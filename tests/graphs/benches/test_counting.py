import json

import pytest
import torch

from coset import CosetError
from coset.graphs.benches.counting import LAYERS, WIDTH, counters, main, trained_error
from coset.graphs.benches.substructures import counting_graphs
from coset.graphs.transforms import ShortestPathDistances, precompute


def test_a_network_that_sees_triangles_learns_to_count_them_and_message_passing_does_not():
    graphs = precompute(counting_graphs(90, ("cycle3",), 0, sizes=((8, 4), (10, 3))), ShortestPathDistances())
    errors = {}
    for name in ("gin", "uL"):
        torch.manual_seed(0)
        network = counters()[name].build(1, WIDTH, LAYERS, "node")
        errors[name] = trained_error(network, graphs[:64], graphs[64:], 25, 0)
    assert errors["uL"] < 0.6 * errors["gin"]


def test_the_table_as_json(capsys):
    main(json=True, target="cycle3", networks="gin,csgnn", seeds=1, epochs=1, graphs=8)
    found = json.loads(capsys.readouterr().out)
    assert [score["network"] for score in found["networks"]] == ["gin", "csgnn"]
    assert all(len(score["errors"]) == 1 for score in found["networks"])


@pytest.mark.parametrize("options", [{"networks": "GAT"}, {"seeds": 0}, {"graphs": 1}])
def test_mistakes(options):
    with pytest.raises(CosetError, match=r"choose from|at least"):
        main(**options)
