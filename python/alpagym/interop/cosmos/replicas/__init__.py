"""What Cosmos-RL is given: the modules in here import it, and are imported in functions only."""
