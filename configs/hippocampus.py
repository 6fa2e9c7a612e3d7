"""Real scans: anterior and posterior hippocampus on T1 (Medical Segmentation Decathlon, Task 04).

Download Task04_Hippocampus from medicaldecathlon.com (CC BY-SA 4.0) and unpack it to
data/Task04_Hippocampus, or name the folder that holds it:

    python -m jaxfer.launch --config=configs/hippocampus.py --config.data.root=DIR

The sources are tasks of the semi-synthetic collection and, where DIR/open_ms is there, of the
Ljubljana MS patients, all trained at this target's spacing of 1 mm.
"""

from jaxfer.config import default_config, finish


def get_config(preset=""):
    config = default_config()
    config.name = "hippocampus"
    config.target = "hippocampus/all/t1/hippocampus"
    config.sources = (
        "phantom/ageing/t1/tissue",
        "phantom/ageing/t2/tissue",
        "phantom/ageing/flair/WMH",
        "phantom/ageing/t1/WMH",
        "phantom/glioma/t1/tumour",
        "phantom/glioma/flair/tumour",
        "open_ms/all/t1/lesion",
        "open_ms/all/flair/lesion",
    )
    config.datasets.hippocampus = {
        "layout": "msd",
        "folder": "Task04_Hippocampus",
        "modality": "t1",  # its dataset.json says "MRI"
        "skull_stripped": False,
    }
    config.datasets.open_ms = {"layout": "open_ms", "folder": "open_ms", "optional": True}
    config.datasets.phantom = {
        "layout": "phantom",
        "folder": "phantom",
        "seed": 0,
        "sites": ("ageing", "glioma"),
        "subjects": (6, 6),  # per site
    }
    config.data.spacing = (1.0, 1.0, 1.0)
    config.data.train_subjects = 5
    config.model.widths = (16, 32, 64)
    config.model.patch = (48, 64)
    config.pretrain.steps = 300
    config.finetune.steps = 400
    config.finetune.seeds = (0, 1)
    return finish(config, preset)
