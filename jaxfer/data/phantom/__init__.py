"""A semi-synthetic collection of brain scans, made from the MNI ICBM152 2009 templates."""

from jaxfer.data.phantom.generate import write_collection
from jaxfer.data.phantom.labels import LABEL_NAMES
from jaxfer.data.phantom.sites import SITES, Site

__all__ = ["LABEL_NAMES", "SITES", "Site", "write_collection"]
