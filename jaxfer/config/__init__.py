"""The configuration of a run: its defaults, their meaning, and their validation."""

from jaxfer.config.defaults import ALONE, METHODS, STAGES, STUDY, default_config, finish
from jaxfer.config.overrides import overridden
from jaxfer.config.plain import fingerprint, plain
from jaxfer.config.scores import chosen_metrics, chosen_scores
from jaxfer.config.validate import validate

__all__ = [
    "ALONE",
    "METHODS",
    "STAGES",
    "STUDY",
    "chosen_metrics",
    "chosen_scores",
    "default_config",
    "fingerprint",
    "finish",
    "overridden",
    "plain",
    "validate",
]
