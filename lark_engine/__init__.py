"""LARK Studio's engine: a pool of candidate trajectories becomes scores, a selection, a checkpoint, a table."""

__version__ = "0.1.0"
