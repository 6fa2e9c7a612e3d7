"""Real scans: the tissues of infant brains at six months (iSeg-2019 or iSeg-2017).

Register at iseg2019.web.unc.edu or iseg2017.web.unc.edu; their rules restrict what the data may be
used for. Unpack the training data to data/iSeg-2019-Training, or name the folder that holds that:

    python -m jaxfer.launch --config=configs/iseg.py --config.data.root=DIR

Ten subjects have labels. The target has three of them, two are tested on, and the sources learn on
all that are not tested on. Of iSeg-2017:

    --config.datasets.iseg.folder=iSeg-2017-Training

Other transfers: --config=configs/iseg.py:modalities and --config=configs/iseg.py:rois.
"""

from jaxfer.config import default_config, finish

TRANSFERS = {
    "modalities": ("iseg/all/t1/tissue", ("iseg/all/t2/tissue",)),
    "rois": ("iseg/all/t1/WM", ("iseg/all/t1/GM", "iseg/all/t1/CSF", "iseg/all/t1/brain_matter")),
}


def get_config(preset=""):
    config = default_config()
    config.name = "iseg"
    config.target = "iseg/all/t1/tissue"
    config.sources = (
        "iseg/all/t2/tissue",
        "iseg/all/t1/WM",
        "iseg/all/t1/GM",
        "iseg/all/t1/CSF",
        "phantom/ageing/t1/tissue",
        "phantom/ageing/t2/tissue",
    )
    config.datasets.iseg = {"layout": "iseg", "folder": "iSeg-2019-Training"}
    config.datasets.phantom = {
        "layout": "phantom",
        "folder": "phantom",
        "seed": 0,
        "sites": ("ageing",),
        "subjects": (6,),  # per site
    }
    config.data.spacing = (1.0, 1.0, 1.0)
    config.data.train_subjects = 3
    config.data.test_subjects = 2
    config.model.widths = (16, 32, 64)
    config.model.patch = (96, 96)
    config.pretrain.steps = 500
    config.finetune.steps = 400
    return finish(config, preset, TRANSFERS)
