"""Real scans: white-matter hyperintensities on FLAIR at one hospital (WMH challenge 2017).

Download the data of the WMH Segmentation Challenge (DataverseNL, doi:10.34894/AECRSD, CC BY-NC 4.0)
and unpack them to data/WMH, so that data/WMH/training is there, or name the folder:

    python -m jaxfer.launch --config=configs/wmh.py --config.data.root=DIR

The target is the GE3T scanner of Amsterdam; the sources are networks of Utrecht and Singapore, and
of the semi-synthetic collection. Voxels of other pathology are ignored: in training, in the scores
and in the measures. Other transfers:

    --config=configs/wmh.py:modalities   FLAIR from T1 within a hospital
    --config=configs/wmh.py:rois         from other RoIs, of the semi-synthetic collection
    --config=configs/wmh.py:sites        from the other hospitals alone
"""

from jaxfer.config import default_config, finish

TRANSFERS = {
    "modalities": ("wmh/Utrecht/flair/WMH", ("wmh/Utrecht/t1/WMH",)),
    "rois": (
        "wmh/GE3T/flair/WMH",
        ("phantom/ageing/flair/WMH", "phantom/ageing/flair/tissue", "phantom/glioma/flair/tumour"),
    ),
    "sites": ("wmh/GE3T/flair/WMH", ("wmh/Utrecht/flair/WMH", "wmh/Singapore/flair/WMH")),
}


def get_config(preset=""):
    config = default_config()
    config.name = "wmh"
    config.target = "wmh/GE3T/flair/WMH"
    config.sources = (
        "wmh/Utrecht/flair/WMH",
        "wmh/Singapore/flair/WMH",
        "wmh/Utrecht/t1/WMH",
        "wmh/Singapore/t1/WMH",
        "phantom/ageing/flair/WMH",
        "phantom/ageing/flair/tissue",
        "phantom/glioma/flair/tumour",
    )
    config.datasets.wmh = {"layout": "wmh", "folder": "WMH", "images": "pre"}
    config.datasets.phantom = {
        "layout": "phantom",
        "folder": "phantom",
        "seed": 0,
        "sites": ("ageing", "glioma"),
        "subjects": (6, 6),  # per site
    }
    config.data.spacing = (1.0, 1.0, 3.0)
    config.data.train_subjects = 5
    config.data.test_subjects = 10  # sources never see them: the others are left to train on
    config.model.widths = (16, 32, 64)
    config.model.patch = (128, 128)
    config.pretrain.steps = 600
    config.finetune.steps = 400
    return finish(config, preset, TRANSFERS)
