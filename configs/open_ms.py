"""Real scans: white-matter lesions of multiple sclerosis on FLAIR (Ljubljana patients, MNI space).

Download '3D MR image database of multiple sclerosis patients with white matter lesion
segmentations' (University of Ljubljana, CC BY) in its MNI-space version, open_ms_data
(cross_sectional/MNI), and put the folders patientNN into data/open_ms, or name the folder:

    python -m jaxfer.launch --config=configs/open_ms.py --config.data.root=DIR

The sources are tasks of the semi-synthetic collection and, where DIR/Task04_Hippocampus is there,
the hippocampus of the Medical Segmentation Decathlon, all trained at this target's spacing of 1 mm.
"""

from jaxfer.config import default_config, finish


def get_config(preset=""):
    config = default_config()
    config.name = "open_ms"
    config.target = "open_ms/all/flair/lesion"
    config.sources = (
        "phantom/ageing/flair/WMH",
        "phantom/ageing/flair/tissue",
        "phantom/ageing/t2/WMH",
        "phantom/ageing/t1/WMH",
        "phantom/glioma/flair/tumour",
        "phantom/glioma/t2/tumour",
        "hippocampus/all/t1/hippocampus",
    )
    config.datasets.open_ms = {"layout": "open_ms", "folder": "open_ms"}
    config.datasets.hippocampus = {
        "layout": "msd",
        "folder": "Task04_Hippocampus",
        "modality": "t1",  # its dataset.json says "MRI"
        "skull_stripped": False,
        "optional": True,
    }
    config.datasets.phantom = {
        "layout": "phantom",
        "folder": "phantom",
        "seed": 0,
        "sites": ("ageing", "glioma"),
        "subjects": (6, 6),  # per site
    }
    config.data.spacing = (1.0, 1.0, 1.0)
    config.data.train_subjects = 1  # the folder may hold the images of no more than two
    config.model.widths = (16, 32, 64)
    config.model.patch = (96, 96)
    config.pretrain.steps = 250
    config.finetune.steps = 400
    config.evaluate.overlap = 0.25
    return finish(config, preset)
