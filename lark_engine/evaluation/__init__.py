"""Benchmarks, generation, extraction, grading and metrics."""
