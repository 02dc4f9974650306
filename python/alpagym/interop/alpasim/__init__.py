"""AlpaSim: what its drivers are told, by its own definitions."""
