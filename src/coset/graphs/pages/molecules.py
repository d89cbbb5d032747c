"""Molecules as pictures: an SVG that takes the colours of the page, and the skeleton on which attention is drawn."""

from __future__ import annotations

import re
from typing import Any

from coset.core.errors import CosetError, require

WIDTH, HEIGHT = 260, 190

# RDKit's palette, and the variables of the style sheet that stand in for it: they have a light and a dark value each.
_COLOURS = {
    "#000000": "--atom-c",
    "#0000FF": "--atom-n",
    "#FF0000": "--atom-o",
    "#CCCC00": "--atom-s",
    "#33CCCC": "--atom-f",
    "#00CC00": "--atom-cl",
    "#7F4C19": "--atom-br",
    "#A01EEF": "--atom-i",
    "#FF7F00": "--atom-p",
}


def draw(smiles: str) -> str | None:
    """A drawing as inline SVG markup without any of the user's text; ``None`` if RDKit is missing or cannot read it."""
    from coset.graphs.data.molecules import parse_smiles  # here, because other pages need neither graphs nor PyG

    try:
        mol = parse_smiles(smiles)
        drawing: Any = require("rdkit.Chem.Draw.rdMolDraw2D", "molecules")
    except CosetError:
        return None
    canvas = drawing.MolDraw2DSVG(WIDTH, HEIGHT)
    options = canvas.drawOptions()
    options.clearBackground = False
    options.fixedBondLength = 26
    options.bondLineWidth = 1.4
    options.padding = 0.06
    options.minFontSize = 9
    drawing.PrepareAndDrawMolecule(canvas, mol)
    canvas.FinishDrawing()
    return _themed(canvas.GetDrawingText())


def skeleton(smiles: str) -> dict[str, Any]:
    """Symbols, 2D positions (y upwards) and bonds (Kekulé orders) of a molecule, atoms in the order of the SMILES.

    The keys are arguments of :func:`coset.graphs.pages.attention.attention_record`, whose ``edge_index`` numbers atoms
    in that order.

    Raises:
        CosetError: The string is no molecule, or RDKit is not installed.
    """
    from coset.graphs.data.molecules import parse_smiles

    mol = parse_smiles(smiles)
    require("rdkit.Chem.rdDepictor", "molecules").Compute2DCoords(mol)
    chem = require("rdkit.Chem", "molecules")
    plain = chem.Mol(mol)
    chem.Kekulize(plain, clearAromaticFlags=True)
    place = mol.GetConformer().GetPositions()[:, :2]
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), round(b.GetBondTypeAsDouble()) or 1) for b in plain.GetBonds()]
    return {
        "symbols": [_label(atom) for atom in mol.GetAtoms()],
        "positions": place,
        "bonds": [[min(i, j), max(i, j), order] for i, j, order in bonds],
    }


def _label(atom: Any) -> str:
    charge = atom.GetFormalCharge()
    sign = "+" if charge > 0 else "−"
    return atom.GetSymbol() + (f"{abs(charge) if abs(charge) > 1 else ''}{sign}" if charge else "")


def _themed(svg: str) -> str:
    """Only the element itself, sized by its viewBox, colours by variable."""
    body = svg[svg.index("<svg") :]
    head, rest = body.split(">", 1)
    view = re.search(r"viewBox='([^']*)'", head)
    box = view.group(1) if view else f"0 0 {WIDTH} {HEIGHT}"
    rest = rest.replace("<!-- END OF HEADER -->", "")
    for colour, variable in _COLOURS.items():
        rest = re.sub(rf"(stroke|fill)([:=]'?){colour}", rf"\1\2var({variable})", rest)
    # A presentation attribute does not know var(); a style does.
    rest = re.sub(r"(stroke|fill)='var\((--[a-z-]+)\)'", r"style='\1:var(\2)'", rest)
    return f"<svg viewBox='{box}' aria-hidden='true' focusable='false'>{rest.strip()}"
