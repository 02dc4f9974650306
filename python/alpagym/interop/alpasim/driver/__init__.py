"""A policy as a driver of AlpaSim: sessions, batched decisions, plans."""
