"""Cosmos-RL runs the training: `docs/cosmos.md`. Only `entry` and what it imports need it."""
