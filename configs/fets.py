"""Real scans: the enhancing tumour of glioma patients at one institution (FeTS 2021).

Register for the FeTS challenge 2021 at synapse.org, whose terms apply, download its training data
and unpack them to data/MICCAI_FeTS2021_TrainingData, or name the folder that holds that:

    python -m jaxfer.launch --config=configs/fets.py --config.data.root=DIR

The target is institution 16, of which 5 subjects are labelled; the sources are institution 01's
networks for three regions (whole tumour WT, tumour core TC, enhancing tumour ET) on four
modalities. Other transfers:

    --config=configs/fets.py:modalities   from the other modalities of the same institution
    --config=configs/fets.py:rois         from other regions of the same institution
    --config=configs/fets.py:sites        from the same region at other institutions

FeTS 2022 loads alike; its numbers are other institutions. Of a download in
DIR/MICCAI_FeTS2022_TrainingData:

    --config.datasets.fets2021.folder=MICCAI_FeTS2022_TrainingData
"""

from jaxfer.config import default_config, finish

MODALITIES = ("t1ce", "flair", "t2", "t1")
TRANSFERS = {
    "modalities": (
        "fets2021/01/t1ce/TC",
        tuple(f"fets2021/01/{m}/TC" for m in ("t1", "t2", "flair")),
    ),
    "rois": (
        "fets2021/01/t1ce/ET",
        tuple(f"fets2021/01/t1ce/{r}" for r in ("TC", "WT", "NCR", "ED")),
    ),
    "sites": (
        "fets2021/16/flair/WT",
        tuple(f"fets2021/{s}/flair/WT" for s in ("01", "04", "05", "06", "13")),
    ),
}


def get_config(preset=""):
    config = default_config()
    config.name = "fets"
    config.target = "fets2021/16/t1ce/ET"
    config.sources = tuple(f"fets2021/01/{m}/{r}" for m in MODALITIES for r in ("ET", "TC", "WT"))
    config.datasets.fets2021 = {
        "layout": "fets",
        "folder": "MICCAI_FeTS2021_TrainingData",
        "partition": "partitioning_1.csv",
    }
    config.data.spacing = (1.0, 1.0, 1.0)
    config.data.train_subjects = 5
    # Who is tested on is in no source: where both are of one institution, some must be left.
    config.data.test_subjects = 40
    config.model.widths = (16, 32, 64)
    config.model.patch = (128, 128)
    config.pretrain.steps = 1000
    config.finetune.steps = 600
    config.finetune.seeds = (0, 1)
    return finish(config, preset, TRANSFERS)
