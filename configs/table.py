"""Your own scans, listed in a table: a lesion on FLAIR, with sources that need no download.

Make a folder, data/mine or another, with your NIfTI files and cases.csv: a row for each case, its
paths from that folder on, an empty cell for what a case lacks:

    case,subject,site,t1,flair,label
    p01-day1,p01,north,scans/p01_t1.nii.gz,scans/p01_flair.nii.gz,masks/p01.nii.gz

    python -m jaxfer.launch --config=configs/table.py --config.data.root=DIR

Copy this file and correct the data set's entry and the tasks for your columns and labels, or:

    --config.datasets.mine.folder=FOLDER --config.datasets.mine.skull_stripped=False
    --config.target=mine/north/t1/lesion

The licence is yours. Other transfers: --config=configs/table.py:modalities (FLAIR from T1),
--config=configs/table.py:rois (from the RoIs of the semi-synthetic collection) and
--config=configs/table.py:sites (south from north).
"""

from jaxfer.config import default_config, finish

TRANSFERS = {
    "modalities": ("mine/all/flair/lesion", ("mine/all/t1/lesion",)),
    "rois": (
        "mine/all/flair/lesion",
        ("phantom/ageing/flair/WMH", "phantom/ageing/flair/tissue", "phantom/glioma/flair/tumour"),
    ),
    "sites": ("mine/south/flair/lesion", ("mine/north/flair/lesion",)),
}


def get_config(preset=""):
    config = default_config()
    config.name = "table"
    config.target = "mine/all/flair/lesion"
    config.sources = (
        "mine/all/t1/lesion",
        "phantom/ageing/flair/WMH",
        "phantom/ageing/t1/WMH",
        "phantom/ageing/flair/tissue",
        "phantom/glioma/flair/tumour",
    )
    config.datasets.mine = {
        "layout": "table",
        "folder": "mine",
        "file": "cases.csv",
        "modality": ("t1", "flair"),  # the columns to read
        "labels": {"lesion": 1},  # name → value; 0 is the background
        "ignore": (),  # names of labels that are neither background nor to be learnt
        "skull_stripped": True,
    }
    config.datasets.phantom = {
        "layout": "phantom",
        "folder": "phantom",
        "seed": 0,
        "sites": ("ageing", "glioma"),
        "subjects": (6, 6),  # per site
    }
    config.data.spacing = (1.0, 1.0, 1.0)
    config.data.train_subjects = 3
    config.data.test_subjects = 5
    config.model.widths = (16, 32, 64)
    config.model.patch = (96, 96)
    config.pretrain.steps = 400
    config.finetune.steps = 400
    return finish(config, preset, TRANSFERS)
