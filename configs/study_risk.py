"""Does weighting the loss by the risk map help, where, and with how many shots?

Needs Task04_Hippocampus, open_ms and head_label_maps in data/ (docs/datasets.md), or in DIR:

    launch/study.sh --launches=2 --config=configs/study_risk.py --config.data.root=DIR

Twelve pairs: every target has a source of its modality or its RoI, or both, and far ones. Ten shots
are all that the semi-synthetic sites have beside the test subjects. Every method has the same
subjects, seeds, steps, learning rate and perturbation: the defaults, which did best on average over
methods and targets on subjects that this study does not test on (the part "The settings" of
docs/results/risk.md). Other uses of the map are tried by naming them, in a workdir of their own or
the same one:

    --config.study.methods="('plain','plain_where_nats')" --config.study.shots="(3,)"
"""

from jaxfer.config import default_config, finish


def get_config(preset=""):
    config = default_config()
    config.name = "study_risk"
    config.stages = ("study",)
    config.study.targets = (
        "phantom/clinic/flair/WMH",
        "phantom/hospital/t2/tumour",
        "hippocampus/all/t1/hippocampus",
    )
    config.target = config.study.targets[0]
    config.sources = (
        "phantom/ageing/flair/tissue",
        "phantom/glioma/t1/tumour",
        "heads/all/t1/hippocampus",
        "open_ms/all/flair/lesion",
    )
    config.study.methods = (
        *("scratch", "plain", "plain_ce", "weighted", "weighted_shuffled"),
        *("plain_where", "plain_where_shuffled"),
    )
    config.study.shots = (3, 5, 10)
    config.study.subsets = (0, 1, 2, 3, 4, 5)
    config.study.pretrainings = (0,)
    config.select.metrics = ("leep",)
    config.datasets.phantom = {
        "layout": "phantom",
        "folder": "phantom",
        "seed": 0,
        "sites": ("ageing", "glioma", "clinic", "hospital"),
        "subjects": (8, 8, 22, 22),  # per site
    }
    config.datasets.hippocampus = {
        "layout": "msd",
        "folder": "Task04_Hippocampus",
        "modality": "t1",  # its dataset.json says "MRI"
        "skull_stripped": False,
    }
    config.datasets.heads = {
        "layout": "heads",
        "folder": "head_label_maps",
        "seed": 0,
        "skull_stripped": True,
        "optional": True,
    }
    config.datasets.open_ms = {"layout": "open_ms", "folder": "open_ms", "optional": True}
    config.data.spacing = (3.0, 3.0, 3.0)
    config.data.test_subjects = 12
    config.model.widths = (8, 16, 32)
    config.model.patch = (48, 48)
    config.pretrain.steps = 400
    config.pretrain.learning_rate = 1e-2
    config.finetune.steps = 800
    config.finetune.batch_size = 4
    config.run.checkpoint_every = 1000  # a cell takes seconds: only a signal has it saved
    config.run.log_every = 100
    config.evaluate.overlap = 0.25
    config.study.overrides = (
        "hippocampus/all/t1/hippocampus data.spacing=(1.0, 1.0, 1.0)",
        "hippocampus/all/t1/hippocampus model.patch=(40, 56)",
    )
    return finish(config, preset)
