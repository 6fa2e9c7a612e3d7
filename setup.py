"""Packaging; the tools' settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="jaxfer",
    version="0.1.0",
    description="Transferability of segmentation tasks between brain scans: choose the source, "
    "map the risk, fine-tune with it",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "jaxfer/data/phantom/MNI-COPYING.txt"],
    python_requires=">=3.11",
    packages=find_packages(include=["jaxfer", "jaxfer.*"]),
    package_data={
        "jaxfer.data.phantom": ["*.nii.gz", "*.txt"],
        "jaxfer.report": ["*.html"],
    },
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.25",
        "numpy>=2.0",
        "scipy>=1.14",
        "nibabel>=5.3",
        "scikit-image>=0.25",
        "ml-collections>=1.1",
        "absl-py>=2.1",
        "grain>=0.2.12",
        "jaxtyping>=0.3",
        "rich>=13.9",
        "matplotlib>=3.10",
        "jinja2>=3.1",
    ],
    extras_require={
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "test": [
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.120",
            "beartype>=0.20",
            "ruff==0.17.6",
            "mypy==2.4.1",
            "setuptools>=68",
            "wheel>=0.43",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
