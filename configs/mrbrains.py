"""Real scans: the tissues of ageing brains on thick slices (MRBrainS18, MRBrainS13).

Download MRBrainS18 (DataverseNL, doi:10.34894/E0U32Q; its terms apply) and unpack it to
data/MRBrainS18, or name the folder that holds that:

    python -m jaxfer.launch --config=configs/mrbrains.py --config.data.root=DIR

Seven subjects have labels. Voxels of infarctions and other lesions are ignored: in training, in
the scores and in the measures. Where DIR/MRBrainS13DataNii is there (doi:10.34894/645ZIN), tasks of
MRBrainS13 are sources too. Other transfers:

    --config=configs/mrbrains.py:modalities   T1 from FLAIR and inversion recovery
    --config=configs/mrbrains.py:rois         one tissue from the others
    --config=configs/mrbrains.py:sites        MRBrainS18 from MRBrainS13, both needed
"""

from jaxfer.config import default_config, finish

TRANSFERS = {
    "modalities": (
        "mrbrains18/all/t1/tissue",
        ("mrbrains18/all/flair/tissue", "mrbrains18/all/ir/tissue"),
    ),
    "rois": (
        "mrbrains18/all/t1/ventricles",
        tuple(
            f"mrbrains18/all/t1/{r}"
            for r in ("tissue", "basal ganglia", "cerebellum", "brain stem")
        ),
    ),
    "sites": (
        "mrbrains18/all/t1/tissue",
        tuple(f"mrbrains13/all/{m}/tissue" for m in ("t1", "ir", "flair")),
    ),
}


def get_config(preset=""):
    config = default_config()
    config.name = "mrbrains"
    config.target = "mrbrains18/all/t1/tissue"
    config.sources = (
        "mrbrains18/all/t1/brain_matter",
        "mrbrains18/all/ir/tissue",
        "mrbrains18/all/flair/tissue",
        "mrbrains13/all/t1/tissue",
        "mrbrains13/all/ir/tissue",
        "mrbrains13/all/flair/tissue",
    )
    config.datasets.mrbrains18 = {
        "layout": "mrbrains",
        "folder": "MRBrainS18",
        "year": 2018,
        "label_file": "segm",
        "images": "pre",
    }
    config.datasets.mrbrains13 = {
        "layout": "mrbrains",
        "folder": "MRBrainS13DataNii",
        "year": 2013,
        "label_file": "LabelsForTraining",
        "optional": True,
    }
    config.data.spacing = (0.958, 0.958, 3.0)
    config.data.train_subjects = 2
    config.data.test_subjects = 2
    config.model.widths = (16, 32, 64)
    config.model.patch = (128, 128)
    config.pretrain.steps = 500
    config.finetune.steps = 400
    return finish(config, preset, TRANSFERS)
