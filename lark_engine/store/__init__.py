"""The workspace on disk: fingerprints, manifests, atomic writes, keyed rows, locks."""
