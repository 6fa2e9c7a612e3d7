"""Writes docs/metrics.md from the registry: ``python docs/make_metrics.py``."""

from pathlib import Path

from jaxfer.metrics.catalogue import catalogue

Path(__file__).with_name("metrics.md").write_text(catalogue(), encoding="utf-8")
