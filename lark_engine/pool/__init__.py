"""Pools of candidate trajectories: import from every format, checks of every line, correctness labels, the reader."""
