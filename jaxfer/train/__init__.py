"""Risk maps, losses, the training step, prediction, fine-tuning."""
