"""Units in which maps give speed limits."""

MPH, KMH = 0.44704, 1 / 3.6
"""[m/s]."""
