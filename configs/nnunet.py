"""Your own scans in nnU-Net's raw format, here as the Decathlon's brain tumours are converted.

With data/Dataset001_BrainTumour (dataset.json, imagesTr, labelsTr) in place, or in the folder that
--config.data.root names ($nnUNet_raw, for instance):

    python -m jaxfer.launch --config=configs/nnunet.py --config.data.root=DIR

Copy this file for another data set, or name folder, modalities (one per channel, in order) and
tasks on the command line; label names and regions of dataset.json are RoIs:

    --config.datasets.nnunet.folder=Dataset007_Lesion
    --config.datasets.nnunet.modality="('t1','t2')"
    --config.target=nnunet/all/t1/LABEL --config.sources="('nnunet/all/t2/LABEL',)"

The licence is that of the data set. Other transfers: --config=configs/nnunet.py:modalities and
--config=configs/nnunet.py:rois.
"""

from jaxfer.config import default_config, finish

TRANSFERS = {
    "modalities": (
        "nnunet/all/flair/tumour",
        tuple(f"nnunet/all/{m}/tumour" for m in ("t1", "t1ce", "t2")),
    ),
    "rois": (
        "nnunet/all/t1ce/enhancing tumour",
        ("nnunet/all/t1ce/non-enhancing tumor", "nnunet/all/t1ce/edema"),
    ),
}


def get_config(preset=""):
    config = default_config()
    config.name = "nnunet"
    config.target = "nnunet/all/flair/tumour"
    config.sources = (
        "nnunet/all/flair/edema",
        "nnunet/all/t2/tumour",
        "nnunet/all/t1ce/tumour",
        "nnunet/all/t1/tumour",
    )
    config.datasets.nnunet = {
        "layout": "nnunet",
        "folder": "Dataset001_BrainTumour",
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
