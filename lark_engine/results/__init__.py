"""Results: lineage of an artifact, and the table of all graded evaluations."""
