"""The demo: a white-matter-hyperintensity target on a semi-synthetic collection, no download.

The subjects do not exist: they are made from the MNI152 2009 templates by random warps, with
synthetic lesions, contrasts and scanners.

    python -m jaxfer.launch --config=configs/demo.py

Eight source tasks over three modalities and three RoI families; three labelled subjects of the
target, from a scanner that no source has seen.
"""

from jaxfer.config import default_config, finish


def get_config(preset=""):
    config = default_config()
    config.name = "demo"
    config.target = "phantom/clinic/flair/WMH"
    config.sources = (
        "phantom/ageing/flair/tissue",
        "phantom/ageing/t1/tissue",
        "phantom/ageing/t2/tissue",
        "phantom/ageing/t1/WMH",
        "phantom/ageing/t2/WMH",
        "phantom/glioma/flair/tumour",
        "phantom/glioma/t1/tumour",
        "phantom/glioma/t2/tumour",
    )
    config.datasets.phantom = {
        "layout": "phantom",
        "folder": "phantom",
        "seed": 0,
        "sites": ("ageing", "glioma", "clinic"),
        "subjects": (6, 6, 9),  # per site
    }
    config.data.spacing = (2.0, 2.0, 2.0)
    config.data.train_subjects = 3
    config.model.widths = (8, 16, 32)
    config.model.patch = (80, 96)
    config.pretrain.steps = 120
    config.pretrain.learning_rate = 1e-2  # a schedule this short wants large steps
    config.finetune.steps = 160
    config.finetune.learning_rate = 1e-2
    config.evaluate.overlap = 0.25
    return finish(config, preset)
