"""Molecules of ZINC-250k with what RDKit computes of them: to train a network on before others that are measured.

Run: python benchmarks/zinc_properties.py FILE.csv [--rows 60000]. Molecules are drawn (seed 0) from
COSET_DATA/molecules/zinc250k_rest.txt.gz, a SMILES a line; those that ESOL or FreeSolv have are left out. Columns:
`smiles`, the logP and molar refractivity of Crippen's atom contributions, polar and Labute's surface, donors and
acceptors of hydrogen bonds, rotatable bonds, the share of sp3 carbons, and penalised logP. Then

    coset run csv data.path=FILE.csv \\
        data.target=logp,refractivity,polar,surface,donors,acceptors,rotatable,sp3,penalized_logp
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit.Chem import Crippen, Descriptors, rdMolDescriptors

from coset.core.data_files import data_file
from coset.graphs.data import datasets
from coset.graphs.data.molecules import canonical_smiles, parse_smiles, zinc_target

PROPERTIES = {
    "logp": Crippen.MolLogP,
    "refractivity": Crippen.MolMR,
    "polar": rdMolDescriptors.CalcTPSA,
    "surface": rdMolDescriptors.CalcLabuteASA,
    "donors": rdMolDescriptors.CalcNumHBD,
    "acceptors": rdMolDescriptors.CalcNumHBA,
    "rotatable": rdMolDescriptors.CalcNumRotatableBonds,
    "sp3": Descriptors.FractionCSP3,
    "penalized_logp": zinc_target,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the table to write")
    parser.add_argument("--rows", type=int, default=60_000)
    options = parser.parse_args()
    with gzip.open(data_file("molecules/zinc250k_rest.txt.gz"), "rt") as file:
        lines = file.read().split()
    drawn = np.random.default_rng(0).permutation(len(lines))[: options.rows]
    measured = {
        canonical_smiles(parse_smiles(smiles))
        for table in (datasets.esol(split="random"), datasets.freesolv(split="random"))
        for smiles in table.smiles
    }
    molecules = {lines[row]: parse_smiles(lines[row]) for row in drawn}
    molecules = {smiles: each for smiles, each in molecules.items() if canonical_smiles(each) not in measured}
    rows = [{"smiles": smiles, **{name: round(float(of(each)), 5) for name, of in PROPERTIES.items()}}
            for smiles, each in molecules.items()]  # fmt: skip
    pd.DataFrame(rows).to_csv(options.file, index=False)
    print(f"{options.file}: {len(rows)} of {len(drawn)} molecules; the others are in ESOL or FreeSolv")


if __name__ == "__main__":
    main()
