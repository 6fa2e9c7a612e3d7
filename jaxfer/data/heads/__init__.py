"""Scans rendered from label maps of real heads: real anatomy, synthetic contrast."""
