"""Scoring: one forward pass of the student gives every candidate its token statistics and criteria."""
