import io

import networkx as nx
import pytest

from coset import CosetError
from coset.topology.commands import wl


def line(graph):
    return nx.to_graph6_bytes(graph, header=False).decode().strip()


@pytest.mark.parametrize("nodes", [40, 56, 70, 200])
def test_graphs_longer_than_a_name_of_a_file(nodes, capsys):
    wl(line(nx.cycle_graph(nodes)), line(nx.path_graph(nodes)), tests="1-WL")
    assert "yes" in capsys.readouterr().out


def test_graphs_from_standard_input(capsys, monkeypatch):
    six = nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(line, six)) + "\n"))
    wl("-", "-", tests="1-WL")
    assert "no" in capsys.readouterr().out
    with pytest.raises(CosetError, match="there is none left"):
        wl("-", "EhEG", tests="1-WL")
