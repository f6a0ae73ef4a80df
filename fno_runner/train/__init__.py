"""The training loop, its step, several networks at once, progress, checkpoints."""
