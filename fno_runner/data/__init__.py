"""Diffraction patterns: simulated grid lines, experimental scans, their files and their cache."""
