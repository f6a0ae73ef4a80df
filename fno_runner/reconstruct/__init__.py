"""A trained network at work: its weights on disk, inference in slices, stitching."""
