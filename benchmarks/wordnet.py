"""WordNet's nouns as one large graph of one's own: which lexicographer's file each of the 82,115 synsets is of.

    apt-get download wordnet-base; dpkg-deb -x wordnet-base_*.deb wordnet
    python benchmarks/wordnet.py wordnet/usr/share/wordnet/data.noun FOLDER

writes ``nodes.csv`` and ``edges.csv`` (Princeton WordNet 3.0), and prints the commands that learn from them. Nodes are
synsets; edges are pointers between nouns (hypernyms, instances, parts, members, domains, antonyms). Features of a node:
how many words it has, how long its gloss is, and how often the words of the gloss fall into each of 32 hashed bins.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

BINS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data.noun of WordNet 3.0")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    nodes = ["node,lexname,words,gloss," + ",".join(f"b{number}" for number in range(BINS))]
    edges: set[tuple[str, str]] = set()
    for line in given.data.read_text().splitlines():
        if line.startswith("  "):
            continue
        entry, _, gloss = line.partition(" | ")
        parts = entry.split()
        name, file, words = parts[0], parts[1], int(parts[3], 16)
        at = 4 + 2 * words
        for start in range(at + 1, at + 1 + 4 * int(parts[at]), 4):
            _, target, kind, _ = parts[start : start + 4]
            if kind == "n" and target != name:
                edges.add((min(name, target), max(name, target)))
        bins = [0] * BINS
        for word in gloss.lower().split():
            bins[zlib.crc32(word.strip('();,."').encode()) % BINS] += 1
        nodes.append(f"s{name},f{file},{words},{len(gloss.split())}," + ",".join(map(str, bins)))
    (given.folder / "nodes.csv").write_text("\n".join(nodes) + "\n")
    rows = [f"s{u},s{v}" for u, v in sorted(edges)]
    (given.folder / "edges.csv").write_text("\n".join(["source,target", *rows]) + "\n")
    print(f"{len(nodes) - 1:,} nodes, {len(rows):,} edges in {given.folder}")
    common = (
        f"coset run graphs data.path={given.folder} data.target=lexname training.task=multiclass data.split=stratified"
    )
    print(f"{common} training.neighbours=[10,10,10] model.layers=3 training.batch_size=1024 training.epochs=10")
    print(f"{common} model.layers=3 training.epochs=30  # the whole graph at every step")


if __name__ == "__main__":
    main()
