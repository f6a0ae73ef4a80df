"""A scan before any network: its inspection, orientation, and iterative fit."""
