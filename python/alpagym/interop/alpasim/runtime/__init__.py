"""AlpaSim's runtime, as trainers dial it: rollouts on request."""
