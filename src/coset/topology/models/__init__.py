"""Networks on cell complexes: HOMP, MCN, SMCN."""
