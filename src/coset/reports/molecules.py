"""Drawings of molecules as SVG."""

from html import escape


def drawing(smiles: str, width: int = 260, height: int = 180) -> str:
    """An SVG picture of a molecule; the escaped SMILES where it cannot be drawn."""
    try:
        from rdkit import Chem
        from rdkit.Chem.Draw import rdMolDraw2D
    except ImportError:
        return f"<code>{escape(smiles)}</code>"
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return f"<code>{escape(smiles)}</code>"
    canvas = rdMolDraw2D.MolDraw2DSVG(width, height)
    canvas.DrawMolecule(molecule)
    canvas.FinishDrawing()
    return canvas.GetDrawingText().removeprefix("<?xml version='1.0' encoding='iso-8859-1'?>\n")
