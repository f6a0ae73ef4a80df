"""Sweeps over `fno_runner` configurations: run, record, track, export, recommend."""
