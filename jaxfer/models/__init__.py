"""Networks, and the shelf of source models."""
