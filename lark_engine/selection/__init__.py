"""Selection: energies become weights (chi2 and other rules), weights become train.jsonl."""
