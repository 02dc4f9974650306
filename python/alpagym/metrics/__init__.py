"""Scores of drives as others define them: AlpaSim, nuPlan, NAVSIM, Waymax.

Each module measures a `Drive`, on the host in float64; each is proven against golden outputs of the
program whose name it bears (docs/parity.md).
"""
