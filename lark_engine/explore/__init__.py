"""Aggregates of a scored pool for people who look at it: bins, quantiles and shares, never 165,000 points."""
