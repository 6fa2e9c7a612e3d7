"""Real scans: glioma on FLAIR (BraTS 2021), with networks for other modalities and regions.

Register for a BraTS challenge at synapse.org, whose terms apply, download the training data of 2021
and unpack them to data/BraTS2021, or name the folder that holds that:

    python -m jaxfer.launch --config=configs/brats.py --config.data.root=DIR

Of another year (2019, 2020, 2023, 2024) name the folder and the year, which decides how the files
are called and what the label values mean:

    --config.datasets.brats.folder=BraTS2023 --config.datasets.brats.year=2023

Other transfers: --config=configs/brats.py:modalities and --config=configs/brats.py:rois.
"""

from jaxfer.config import default_config, finish

TRANSFERS = {
    "modalities": (
        "brats/all/flair/WT",
        tuple(f"brats/all/{m}/WT" for m in ("t1", "t1ce", "t2")),
    ),
    "rois": ("brats/all/t1ce/ET", ("brats/all/t1ce/TC", "brats/all/t1ce/WT")),
}


def get_config(preset=""):
    config = default_config()
    config.name = "brats"
    config.target = "brats/all/flair/WT"
    config.sources = (
        "brats/all/flair/TC",
        "brats/all/flair/ET",
        "brats/all/t2/WT",
        "brats/all/t2/TC",
        "brats/all/t1ce/WT",
        "brats/all/t1ce/TC",
        "brats/all/t1/WT",
    )
    config.datasets.brats = {"layout": "brats", "folder": "BraTS2021", "year": 2021}
    config.data.spacing = (1.0, 1.0, 1.0)
    config.data.train_subjects = 5
    config.data.test_subjects = 50  # sources never see them: the others are left to train on
    config.model.widths = (16, 32, 64)
    config.model.patch = (128, 128)
    config.pretrain.steps = 1000
    config.finetune.steps = 600
    return finish(config, preset, TRANSFERS)
