"""Real scans: brain tumours in 4-D images (Medical Segmentation Decathlon, Task 01).

Download Task01_BrainTumour from medicaldecathlon.com (CC BY-SA 4.0) and unpack it to
data/Task01_BrainTumour, or name the folder that holds it:

    python -m jaxfer.launch --config=configs/msd.py --config.data.root=DIR

Of another task name the folder and the modality of each channel, in order, or the only one:

    --config.datasets.msd.folder=Task04_Hippocampus --config.datasets.msd.modality="('t1',)"

Other transfers: --config=configs/msd.py:modalities and --config=configs/msd.py:rois.
"""

from jaxfer.config import default_config, finish

TRANSFERS = {
    "modalities": (
        "msd/all/flair/edema",
        tuple(f"msd/all/{m}/edema" for m in ("t1", "t1ce", "t2")),
    ),
    "rois": (
        "msd/all/t1ce/enhancing tumour",
        ("msd/all/t1ce/non-enhancing tumor", "msd/all/t1ce/edema", "msd/all/t1ce/tumour"),
    ),
}


def get_config(preset=""):
    config = default_config()
    config.name = "msd"
    config.target = "msd/all/flair/tumour"
    config.sources = (
        "msd/all/flair/edema",
        "msd/all/flair/non-enhancing tumor",
        "msd/all/t2/tumour",
        "msd/all/t1ce/tumour",
        "msd/all/t1/tumour",
    )
    config.datasets.msd = {
        "layout": "msd",
        "folder": "Task01_BrainTumour",
        "modality": ("flair", "t1", "t1ce", "t2"),  # of each channel
        "skull_stripped": True,
        "roi": "tumour",  # name of the RoI that has every label as a class
    }
    config.data.spacing = (1.0, 1.0, 1.0)
    config.data.train_subjects = 5
    config.data.test_subjects = 50  # sources never see them: the others are left to train on
    config.model.widths = (16, 32, 64)
    config.model.patch = (128, 128)
    config.pretrain.steps = 1000
    config.finetune.steps = 600
    return finish(config, preset, TRANSFERS)
