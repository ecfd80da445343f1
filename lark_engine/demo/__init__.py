"""The embedded demo: a pool and a benchmark made by our own generator, and a real student that comes with a wheel."""
