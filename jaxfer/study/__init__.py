"""A study: a grid of fine-tunings over sources, targets, methods and few-shot subsets."""
