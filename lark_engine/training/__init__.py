"""Training: a weighted training set fine-tunes the student, full-parameter or LoRA, by one objective."""
