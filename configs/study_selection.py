"""How well sources can be ranked before they are fine-tuned: 4 targets, 5 few-shot subsets each.

Needs Task04_Hippocampus, open_ms and head_label_maps in data/ (docs/datasets.md), or in DIR:

    launch/study.sh --launches=2 --config=configs/study_selection.py --config.data.root=DIR

Every source is pre-trained twice and fine-tuned on five shots of every target, on five choices of
the shots, beside a start from scratch: the truth that the scores of scores.csv are compared with.
A phantom cell took 13 s of one core, one of the hippocampus 8 s; there are 580 of them, and forty
selections beside. The launch tells how long is left.

All methods and sources share the learning rate of the demo and the steps, which were chosen for
the time that they take, without a look at any subject of the study.
"""

from jaxfer.config import default_config, finish


def get_config(preset=""):
    config = default_config()
    config.name = "study_selection"
    config.stages = ("study",)
    config.study.targets = (
        "phantom/clinic/t1/tissue",
        "phantom/clinic/flair/WMH",
        "phantom/hospital/t2/tumour",
        "hippocampus/all/t1/hippocampus",
    )
    config.target = config.study.targets[0]
    config.sources = (
        "phantom/ageing/t1/tissue",
        "phantom/ageing/t2/tissue",
        "phantom/ageing/flair/tissue",
        "phantom/ageing/t1/WMH",
        "phantom/ageing/t2/WMH",
        "phantom/ageing/flair/WMH",
        "phantom/glioma/t1/tumour",
        "phantom/glioma/t2/tumour",
        "phantom/glioma/flair/tumour",
        "phantom/glioma/t1/tissue",
        "heads/all/t1/tissue",
        "heads/all/t1/hippocampus",
        "heads/all/flair/ventricles",
        "open_ms/all/flair/lesion",  # two patients: weak, and far from all but the WMH
    )
    # All that is made of every voxel, and of samples what takes well under a second for a source.
    config.select.metrics = (
        *("leep", "nce", "h_score", "regularized_h_score", "logme", "transrate", "gbc"),
        *("lda", "n_leep", "parc", "knn_accuracy", "etran", "ncti", "sfda"),
    )
    config.select.repetitions = 3
    config.datasets.phantom = {
        "layout": "phantom",
        "folder": "phantom",
        "seed": 0,
        "sites": ("ageing", "glioma", "clinic", "hospital"),
        "subjects": (8, 8, 22, 22),
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
    config.model.patch = (56, 64)
    config.pretrain.steps = 300
    config.pretrain.batch_size = config.finetune.batch_size = 6
    config.pretrain.learning_rate = 1e-2
    config.finetune.steps = 300
    config.finetune.learning_rate = 1e-2
    config.finetune.perturb = 0.0
    config.run.checkpoint_every = 1000  # a cell takes seconds: only a signal has it saved
    config.run.log_every = 50
    config.evaluate.overlap = 0.25
    config.study.overrides = (
        "hippocampus/all/t1/hippocampus data.spacing=(1.0, 1.0, 1.0)",
        "hippocampus/all/t1/hippocampus model.patch=(40, 56)",
    )
    return finish(config, preset)
