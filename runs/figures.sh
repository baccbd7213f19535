#!/usr/bin/env bash
# Measures every bundle of the zoo and writes the tables of README.md and README.zh-CN.md. About 10 minutes, 2 idle cores.
#
#   runs/figures.sh TEST_SETS JUDGES PACKED
#
# PACKED holds what photo-x4 is compared with, bundles `grouped` and `dense`; without it that table is left out. They are not
# in the repository; their runs (hours) and bundles come from
#   limner train photo-x4 --data TRAIN --out out/runs/grouped --set model.kind=grouped --set model.depth=6 \
#     --set train.optimizer=muon --set train.images=120000
#   limner train photo-x4 --data TRAIN --out out/runs/dense --set model.kind=dense --set model.width=48 --set model.depth=8 \
#     --set train.optimizer=muon --set train.lr=3e-3 --set train.images=62000
#   limner pack out/runs/KIND --out PACKED/KIND --data TRAIN --eval TEST_SETS/Set5 --set name=KIND \
#     --set quantize.images=0 --set pack.max_drop=0.2 --set pack.int8_tolerance=1.5
set -euo pipefail
data=${1:-../shared/data/sr/test}
engines="--engine openvino --engine onnxruntime --engine fused"
mkdir -p out
rm -f out/painter-engines.json out/painters-speed.json out/server.json # what is not measured again stays as it stands
limner evaluate photo-x4 photo-x4-hq photo-x2 --set "$data/Set5" --set "$data/Set14" --set "$data/BSD100" --engine fused \
  --json out/int8.json
limner evaluate photo-x4 photo-x4-hq photo-x2 --set "$data/Set5" --set "$data/Set14" --set "$data/BSD100" \
  --precision float --json out/float.json
for engine in openvino onnxruntime; do
  limner evaluate photo-x4 photo-x4-hq photo-x2 --set "$data/Set5" --engine $engine --json "out/set5-$engine.json"
done
limner bench photo-x4 photo-x4-hq photo-x2 icons-x4 icons-x2 $engines --precision int8 \
  --threads 1 --threads 2 --size 160x90 --json out/speed.json
limner bench icons $engines --threads 1 --threads 2 --batch 1 --json out/painter-engines.json
packed=${3:-out/packed}
rm -f out/separable.json
if [ -e "$packed/dense" ]; then
  limner evaluate photo-x4 "$packed/grouped" "$packed/dense" --set "$data/Set5" --set "$data/Set14" --set "$data/BSD100" \
    --engine fused --json out/separable-scores.json
  limner bench photo-x4 "$packed/grouped" "$packed/dense" $engines --threads 1 --threads 2 --json out/separable.json
fi
judges=${2:-out/runs/judges} # what runs/judges.sh made
limner evaluate icons --data "$data/../../icons" --judges "$judges" --json out/painters.json
limner bench icons --threads 1 --threads 2 --batch 1 --batch 32 --json out/painters-speed.json
limner bench icons --server local --soak 600 --threads 2 --json out/server.json
python runs/figures.py out README.md README.zh-CN.md
