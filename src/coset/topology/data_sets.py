"""Data sets of complexes: most are made where they are used. Light: nothing heavy is imported."""

from coset.core.data_sets import DataSet, register

register(
    DataSet("ring-property", "molecules with a topological property of their rings", "that of the molecules",
            generated=True),
    DataSet("surfaces", "triangulated surfaces at random, with their invariants", "none needed", generated=True),
    DataSet("complexes", "your own complexes or meshes", "yours", otherwise="data.path=FOLDER data.target=COLUMN"),
)  # fmt: skip
