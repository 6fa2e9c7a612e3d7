"""Which source to start from, where the transfer will hurt, and the fine-tuning that heeds it."""

__version__ = "0.1.0"
