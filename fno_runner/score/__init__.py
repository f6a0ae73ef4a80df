"""Metrics, scores without a truth, floors, operations, timing."""
