#!/usr/bin/env bash
# Runs the example benchmark: both datasets, plans, trainings, report.  Needs the package with its extra evaluate.
#
#     bash run.sh DATA FOLDER
#
# DATA is read: chase/ with CHASE_DB1 as published (Image_01L.jpg, Image_01L_1stHO.png, Image_01L_2ndHO.png, ...), and
# nuclei/ with images/NAME.png and instances/NAME.png (16 bit, one value per nucleus).  FOLDER is written to.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "${1:?name the folder with the data}" && pwd)
mkdir -p "${2:?name the folder to write to}" && cd "$2"
export nnUNet_raw=$PWD/raw nnUNet_preprocessed=$PWD/preprocessed nnUNet_results=$PWD/results
export nnUNet_extTrainer=$here/trainers

if [ ! -d preprocessed ]; then
    rm -rf raw chase && mkdir -p raw chase/{train,test}/{images,masks} chase/test/second
    for image in "$data"/chase/Image_*.jpg; do  # the usual split: the first 20 images to train on, the last 8 to test
        name=$(basename "$image" .jpg) part=train
        [[ $name == Image_1[1-4]* ]] && part=test && ln -s "${image%.jpg}_2ndHO.png" chase/test/second
        ln -s "$image" chase/$part/images && ln -s "${image%.jpg}_1stHO.png" chase/$part/masks
    done
    swin-umamba convert images chase -d 21 -n CHASE --image-key 'Image_\d+[LR]' --group-pattern 'Image_(\d+)'
    swin-umamba convert images chase -d 23 -n CHASE_second --image-key 'Image_\d+[LR]' \
        --test-images test/images --test-masks test/second
    swin-umamba convert images "$data/nuclei" -d 22 -n Nuclei --channels grey --instances --test-fraction 0.2 \
        --images images --masks instances
    nnUNetv2_plan_and_preprocess -d 21 22 -c 2d --verify_dataset_integrity
    swin-umamba plan -d 21 --patch-size 160 160 --batch-size 2 -o nnUNetPlansCPU
    swin-umamba plan -d 22 --patch-size 128 128 --batch-size 2 -o nnUNetPlansCPU
fi
export nnUNet_n_proc_DA=0                              # augmentation in the training's own process
swin-umamba benchmark run --config "$here/example.toml" &  # two processes share the runs, a core each
swin-umamba benchmark run --config "$here/example.toml"
wait
swin-umamba benchmark report bench --pictures 0
for run in bench/cells/Dataset022_Nuclei/*/fold_0/seed_0; do  # nnU-Net learns classes; what counts here are whole nuclei
    swin-umamba evaluate -gt raw/Dataset022_Nuclei/instancesTs -pred "$run/predictions" --protocol cells -o "$run/nuclei"
done
