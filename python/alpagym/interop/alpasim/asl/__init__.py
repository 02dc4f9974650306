"""AlpaSim's logs of rollouts, `rollout.asl`: written of our sessions, read from anywhere."""
