"""Does weighting the loss by the risk map help, where, and with how many shots?

Needs Task04_Hippocampus and open_ms in data/ (docs/datasets.md), or in DIR:

    launch/study.sh --launches=2 --config=configs/study_risk.py --config.data.root=DIR

Every method has the same subjects, seeds, steps and learning rate.
"""

from jaxfer.config import default_config, finish


def get_config(preset=""):
    config = default_config()
    config.name = "study_risk"
    config.stages = ("study",)
    config.study.targets = ("phantom/clinic/flair/WMH", "hippocampus/all/t1/hippocampus")
    config.target = config.study.targets[0]
    config.sources = (
        "phantom/ageing/flair/tissue",
        "phantom/ageing/t1/WMH",
        "phantom/glioma/flair/tumour",
        "phantom/ageing/t1/tissue",
        "open_ms/all/flair/lesion",
        "open_ms/all/t1/lesion",
    )
    config.study.methods = ("scratch", "plain", "weighted")
    config.study.shots = (3, 5, 10)
    config.study.subsets = (0, 1, 2, 3, 4, 5)
    config.study.pretrainings = (0,)
    config.datasets.phantom = {
        "layout": "phantom",
        "folder": "phantom",
        "seed": 0,
        "sites": ("ageing", "glioma", "clinic"),
        "subjects": (8, 8, 26),  # per site
    }
    config.datasets.hippocampus = {
        "layout": "msd",
        "folder": "Task04_Hippocampus",
        "modality": "t1",  # its dataset.json says "MRI"
        "skull_stripped": False,
    }
    config.datasets.open_ms = {"layout": "open_ms", "folder": "open_ms", "optional": True}
    config.data.spacing = (3.0, 3.0, 3.0)
    config.data.test_subjects = 12
    config.model.widths = (8, 16, 32)
    config.model.patch = (56, 64)
    config.pretrain.steps = 300
    config.pretrain.learning_rate = 1e-2
    config.finetune.steps = 800
    config.finetune.learning_rate = 1e-2
    config.finetune.denominator = "pixels"
    config.run.checkpoint_every = 1000  # a cell takes seconds: only a signal has it saved
    config.run.log_every = 50
    config.evaluate.overlap = 0.25
    config.study.overrides = (
        "hippocampus/all/t1/hippocampus data.spacing=(1.0, 1.0, 1.0)",
        "hippocampus/all/t1/hippocampus model.patch=(40, 56)",
    )
    return finish(config, preset)
