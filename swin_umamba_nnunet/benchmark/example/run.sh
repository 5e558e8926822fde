#!/usr/bin/env bash
# Runs the example benchmark into the folder given: both datasets, plans, 36 trainings, report.
# Needs the package with its extras demo and evaluate, and on two CPU cores about two hours.  Dataset153 is drawn by a
# file that the package had up to commit 650d415; in a clone it is laid beside this one by
#
#     git show 650d415:swin_umamba_nnunet/datasets/long_range.py > long_range.py
#
#     bash run.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?name the folder to write to}" && cd "$1"
export nnUNet_raw=$PWD/raw nnUNet_preprocessed=$PWD/preprocessed nnUNet_results=$PWD/results
export nnUNet_extTrainer=$here/trainers OMP_NUM_THREADS=1

if [ ! -d raw ]; then
    PYTHONPATH=$here python -c '
from pathlib import Path
from swin_umamba_nnunet.datasets.brain import write_brain_dataset
from long_range import write_long_range_dataset
write_brain_dataset(Path("raw"))
write_long_range_dataset(Path("raw"))'
    # patches of 96x96 and batches of two, so that a CPU can do it
    nnUNetv2_plan_and_preprocess -d 152 153 -c 2d --verify_dataset_integrity \
        -gpu_memory_target 0.05 -overwrite_plans_name nnUNetPlansCPU
fi
export nnUNet_n_proc_DA=0  # augmentation in the training's own process, so that a seed fixes it
swin-umamba benchmark run --config "$here/example.toml" &  # two processes share the cells
swin-umamba benchmark run --config "$here/example.toml"
wait
swin-umamba benchmark report bench --pictures 1
