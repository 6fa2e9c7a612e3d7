"""Which source to start from: modality analysis, RoI analysis, transferability metrics."""
