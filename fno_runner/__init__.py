"""Train and score ONE network configuration on ptychographic data.

Knows nothing of sweeps or of Weights & Biases: that is what `agent` is for.
"""
