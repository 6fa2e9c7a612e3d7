"""From files on disk to batches: layouts, verification, preprocessing, store, sampler."""
