"""Weights & Biases: what it knows, a run's mirror there, uploads, the agents that are watched."""
