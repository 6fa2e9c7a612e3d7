"""The configuration of a run: its defaults, their meaning, and their validation."""

from jaxfer.config.defaults import ALONE, METHODS, STAGES, default_config, finish
from jaxfer.config.plain import fingerprint, plain
from jaxfer.config.scores import chosen_metrics, chosen_scores
from jaxfer.config.validate import validate

__all__ = [
    "ALONE",
    "METHODS",
    "STAGES",
    "chosen_metrics",
    "chosen_scores",
    "default_config",
    "fingerprint",
    "finish",
    "plain",
    "validate",
]
