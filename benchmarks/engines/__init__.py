"""What the transformers engine's batcher makes of a model, beside other ways to run it."""
