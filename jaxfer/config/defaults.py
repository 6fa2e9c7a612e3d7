"""The defaults of every run, each with its meaning, and the presets of a configuration's file."""

from __future__ import annotations

from collections.abc import Mapping

from ml_collections import ConfigDict

from jaxfer.errors import UserError
from jaxfer.train.methods import METHODS as METHODS_BY_NAME

STAGES = ("prepare", "pretrain", "select", "finetune", "evaluate", "report")
STUDY = "study"
"""The stage that makes many runs of one configuration; it stands alone."""
ALONE = ("verify", STUDY)
"""Stages that are no part of the main job; they are done when they are named."""
METHODS = tuple(METHODS_BY_NAME)


def default_config() -> ConfigDict:
    """The configuration that every file of configs/ starts from."""
    c = ConfigDict()
    c.name = ""  # of the run; the workdir defaults to runs/<name>
    c.seed = 0  # of the splits, the initial parameters, the order of the batches
    c.stages = STAGES  # which stages this launch runs, in their own order; ('verify',): check files
    c.workers = 0  # cases that are verified and stored at once; 0 = one per processor core
    c.target = ""  # task to learn from few labelled scans: dataset/site/modality/RoI
    c.sources = ("",)  # tasks whose networks are on the shelf, or are to be trained for it
    c.shelf = ""  # folder of source models that runs share; '' = <workdir>/sources
    c.foreign = ()  # folders of outputs that other programs wrote: docs/foreign-sources.md
    c.datasets = ConfigDict()  # name → layout, folder and what else its layout needs

    c.data = ConfigDict()
    c.data.root = "data"  # folder that holds the data sets' folders
    c.data.cache = ""  # folder of the preprocessed store; '' = <workdir>/store
    c.data.spacing = (1.0, 1.0, 1.0)  # mm along R, A, S; working grid of all networks; 0: as it is
    c.data.interpolation = "linear"  # of images where the spacing changes: 'linear' or 'spline'
    c.data.precision = "float16"  # of the stored images, or 'float32', which takes twice the disk
    c.data.percentiles = (0.5, 99.5)  # intensities are clipped there, inside the brain
    c.data.train_subjects = 5  # of the target: the few labelled scans
    c.data.test_subjects = 0  # of the target, at most; 0 = all that are not for training
    c.data.validation_subjects = 0  # of the target: for finetune.validate_every, beside the others
    c.data.subset = 0  # which subjects are the few; each number another choice, larger ones nest
    c.data.folds = 0  # parts that the target's subjects are dealt into; 0 = no folds
    c.data.fold = 0  # the part that is tested on, from 0; the few are of the others
    c.data.validation_fraction = 0.2  # of a source's subjects: for the Dice in its card
    c.data.plane = "axial"  # of the slices that 2-D networks see; or 'coronal', 'sagittal'

    c.run = ConfigDict()  # how a launch goes about it; changes no number but by rounding
    c.run.log_every = 10  # steps between records in metrics.jsonl
    c.run.checkpoint_every = 50  # steps between checkpoints of an unfinished training
    c.run.keep_checkpoints = 2  # of each unfinished training; the last one may be damaged
    c.run.max_minutes = 0.0  # then saves and ends with exit status 75; 0 = no limit
    # Devices that a processor is taken for, which share every training step; 0 = as many as it has
    # cores and the batches divide over, or, where there is no such number, slabs of the patches.
    c.run.cpu_devices = 0
    c.run.compilation_cache = ""  # folder; '' = jaxfer in the user's cache folder, 'off' = none

    c.model = ConfigDict()
    c.model.widths = (16, 32, 64)  # channels per level, finest first
    c.model.patch = (96, 96)  # of training patches and tiles: 2 numbers a 2-D network, 3 a 3-D one
    c.model.strides = ("auto",)  # 3-D: by the spacing; or one per level but the last, as '2x2x1'
    c.model.conv_impl = "auto"  # convolutions: 'native', 'shifted' (fast on CPUs), or by platform
    c.model.precision = "auto"  # 'float32', 'bfloat16'; auto = bfloat16 on GPUs and TPUs
    c.model.remat = False  # recompute in the backward pass: slower, and a fraction of the memory
    # The loss also sees the coarser decoder levels, each with half the weight of the one above.
    c.model.deep_supervision = False

    c.augment = ConfigDict()
    # Each change has its strength, at most, and the share of the patches that it happens to.
    c.augment.flip = ("left-right",)  # axes: also 'front-back', 'up-down'; each on its own
    c.augment.flip_probability = 0.5
    c.augment.rotation = 10.0  # degrees
    c.augment.rotation_probability = 1.0
    c.augment.scale = 0.1  # relative
    c.augment.scale_probability = 1.0
    c.augment.elastic = 3.0  # pixels that a smooth random field moves a point
    c.augment.elastic_probability = 0.0
    c.augment.blur = 1.0  # pixels; standard deviation
    c.augment.blur_probability = 0.0
    c.augment.low_resolution = 1.0  # longer voxels, relative: 1 = twice as long
    c.augment.low_resolution_probability = 0.0
    c.augment.gamma = 0.5  # exponents from 1/(1 + this) to 1 + this
    c.augment.gamma_probability = 0.0
    c.augment.intensity = 0.2  # contrast and brightness: relative gain, offset in deviations
    c.augment.intensity_probability = 1.0
    c.augment.noise = 0.1  # standard deviation of the added noise
    c.augment.noise_probability = 1.0

    for stage, steps in (("pretrain", 400), ("finetune", 400)):
        c[stage] = ConfigDict()
        c[stage].steps = steps
        c[stage].batch_size = 8  # patches; over all devices
        c[stage].accumulate = 1  # parts of a step, one after the other, for less memory
        c[stage].learning_rate = 5e-3  # peak of AdamW: linear warm-up, decay to 0
        c[stage].decay = "cosine"  # of the learning rate, or 'poly': (1 − t)^0.9
        c[stage].warmup = 0.05  # share of the steps
        c[stage].weight_decay = 1e-4
        c[stage].clip_gradient = 1.0  # global norm
        c[stage].foreground_patches = 0.5  # share of patches near foreground, of any class as often
        c[stage].dice_weight = 1.0  # of the soft Dice loss beside the cross-entropy; 0 = none
        c[stage].skip_nonfinite = 0  # steps in a row that may be skipped for a NaN or infinity
        c[stage].ema = 0.0  # decay per step of the averaged parameters that are kept; 0 = the last
        # Steps after which the best on the validation subjects may be kept; 0 = the last.
        c[stage].validate_every = 0
    c.pretrain.seed = 0  # another number: other initial parameters and another order, same subjects

    c.select = ConfigDict()
    c.select.modality = "hard"  # 'hard': drop other modalities; 'soft': images' distance; 'none'
    c.select.roi_keep = 3  # sources that survive RoI analysis, best SSIM first; 0 = all
    c.select.roi_similarity = "ssim"  # or 'ssim_centred', 'ssim_shape', 'ssim_windowed', 'dice'
    c.select.ssim_k1 = 0.01
    c.select.ssim_k2 = 0.03
    c.select.metrics = ("leep", "nce", "h_score", "logme")  # or ('all',)
    c.select.layers = ("decoder_0",)  # whose features are scored; decoder_0 is before the head
    c.select.rank_by = "leep"  # what orders the shortlist: metric, metric@layer, or several: a+b
    c.select.aggregate = "borda"  # several become one by mean place: 'borda'; or by 'zscore'
    c.select.samples = 1000  # voxels in a repetition, for metrics that cannot see all of them
    c.select.repetitions = 10  # samples that are drawn, for the mean and its standard error
    c.select.noise = 0.1  # standard deviation of the second image of the consistency metrics
    c.select.paths = False  # also look for paths source → source → target: select/paths.json
    # A leg's length: α × images' distance (standard deviations) + β × (1 − SSIM). SeqTran's 0.0044
    # and 2.4756 belong to raw intensities and were fitted to measured performance: no defaults.
    c.select.path_alpha = 1.0
    c.select.path_beta = 1.0
    c.select.path_cost = "squares"  # of a path: sum of the squared legs; or the 'largest' leg

    c.risk = ConfigDict()
    c.risk.mode = "instance"  # map that weights the loss: 'instance' or 'positional'
    c.risk.metric = "leep"  # whose risk at a pixel; by features: 'lda', 'gbc', 'logme', 'otce'
    c.risk.samples = 1000  # voxels of each side in the transport plan of 'otce'
    c.risk.balanced = False  # P(y|z) as if every class had the same share of the voxels
    c.risk.stride = 4  # pixels; side of the positional map's cells in each axial slice
    c.risk.smoothing = 1.0  # pixels of prior that each source class gets in the positional table
    c.risk.border = 0  # pixels from a border of labels where the risk is limited to the median's
    c.risk.blur = 0.0  # pixels; standard deviation of the smoothing of the risk
    c.risk.normalise = "none"  # 'none', 'minmax', 'mean1' or 'rank', per image
    c.risk.amplify = "exp"  # 'identity', 'exp' or 'pow'
    c.risk.gain = 0.5  # exp(gain × risk); 0.5 turns an ignorant source into √(1/frequency)
    c.risk.base = 10.0  # of 'pow'
    c.risk.clip = 20.0  # largest weight

    c.finetune.methods = ("scratch", "plain", "plain_where")  # of the guide's table of methods
    c.finetune.source = "best"  # the first of the ranking, or a task's name
    # Tasks whose networks are trained one after the other, the first from the shelf and the last to
    # fine-tune; ('best',): the cheapest path of select.paths from finetune.source; (): no path.
    c.finetune.path = ()
    # Share of random parameters mixed into the source's, of the methods that train all of them.
    c.finetune.perturb = 0.5
    c.finetune.seeds = (0,)  # each: another order, augmentation and new leaves
    c.finetune.region = "all"  # weighted cross-entropy: 'all', 'foreground', 'foreground_rim'
    c.finetune.rim = 2  # pixels around the foreground that 'foreground_rim' takes in
    c.finetune.denominator = "pixels"  # weighted: 'pixels', or 'weight_sum' of the patch, or
    # 'foreground' of the volume, the paper's: volumes with little of it then decide the loss
    c.finetune.fade = 1.0  # share of the steps after which the maps of the faded methods are gone
    c.finetune.l2_sp = 1.0  # strength of the pull back to the source, of l2_sp
    c.finetune.level_rate = 0.7  # of the learning rate, per level from the output: discriminative
    c.finetune.focal = 2.0  # exponent of focal
    c.finetune.missed = 0.7  # weight, in tversky, of what is missed; the rest for what is spurious
    c.finetune.hardest = 0.25  # share of the pixels that count in ohem
    c.finetune.soften = 0.3  # share that plain_softened takes from labels the source does not give

    c.evaluate = ConfigDict()
    c.evaluate.overlap = 0.5  # of neighbouring tiles
    c.evaluate.batch_size = 16  # tiles
    c.evaluate.mirror = False  # test subjects: mean over the reflections of each tile, 4 or 8 times
    c.evaluate.collapse_dice = 0.1  # a class under this, where another is not, counts as lost

    c.study = ConfigDict()  # stages=('study',): each source × each of these, one fine-tuning each
    c.study.targets = ()  # tasks; () = config.target alone. A target is none of its own sources
    c.study.methods = ("scratch", "plain")  # scratch: once for all sources
    c.study.shots = (5,)  # of the target's subjects to train on: data.train_subjects
    c.study.subsets = (0, 1, 2, 3, 4)  # which subjects these are: data.subset
    c.study.pretrainings = (0, 1)  # networks of each source: pretrain.seed
    c.study.repeats = 1  # fine-tunings of each cell, each with a seed of its own
    c.study.overrides = ()  # what a target has of its own: 'TARGET FIELD=VALUE' each
    return c


def finish(
    config: ConfigDict,
    preset: str = "",
    transfers: Mapping[str, tuple[str, tuple[str, ...]]] | None = None,
) -> ConfigDict:
    """Applies what stands behind the colon of ``--config=FILE.py:PRESETS``, and locks.

    ``tiny`` shrinks networks and schedules to what runs in a minute or two: to see that everything
    is in its place, not how good it is. It goes with any other: ``FILE.py:sites,tiny``.

    Args:
        config: of a file of configs/.
        preset: names between commas; they become part of the run's name.
        transfers: the file's own presets, each with the target and the sources that it is about.
    """
    transfers = transfers or {}
    names = preset.split(",") if preset else []
    chosen = [name for name in names if name in transfers]
    if len(set(names)) < len(names) or {*names} - {*transfers, "tiny"} or len(chosen) > 1:
        listed = ", ".join(f"FILE.py:{name}" for name in (*transfers, "tiny"))
        combined = ", or FILE.py:ONE_OF_THEM,tiny" if transfers else ""
        raise UserError(
            "--config: no preset of this name", found=preset, allowed=f"FILE.py, {listed}{combined}"
        )
    for name in chosen:
        config.name += f"-{name}"
        config.target, config.sources = transfers[name]
    if "tiny" in names:
        config.name += "-tiny"
        config.model.widths = (4, 8)
        config.model.strides = ("auto",)
        config.model.patch = (32,) * len(config.model.patch)
        config.data.spacing = tuple(max(s, 4.0) for s in config.data.spacing)
        config.pretrain.steps = config.finetune.steps = 6
        config.run.log_every = 2
        config.pretrain.batch_size = config.finetune.batch_size = 4
        config.finetune.seeds = config.finetune.seeds[:1]
        config.sources = config.sources[:3]
        config.data.train_subjects = min(config.data.train_subjects, 2)
        config.data.test_subjects = 2
        config.study.shots = (2,)
        config.study.subsets = config.study.subsets[:1]
        config.study.overrides = ()
        if "phantom" in config.datasets:
            config.datasets.phantom.subjects = tuple(4 for _ in config.datasets.phantom.sites)
    return config.lock()
