#!/usr/bin/env bash
# Measures every bundle of the zoo and writes the tables of README.md and README.zh-CN.md. About 10 minutes, 2 idle cores.
#
#   runs/figures.sh TEST_SETS JUDGES PACKED
#
# PACKED holds what photo-x4 is compared with, bundles `grouped`, `dense32` and `dense`; without it that table is left out.
# They are not in the repository; their runs (20 to 35 minutes each) and bundles come from
#   limner train photo-x4 --data TRAIN --out out/runs/KIND --set train.precision=bf16-mixed SHAPE
#   limner pack out/runs/KIND --out PACKED/KIND --data TRAIN --eval TEST_SETS/Set5 --set name=KIND \
#     --set quantize.images=8000 --set pack.max_drop=0.5 --set pack.int8_tolerance=1.5
# with SHAPE = --set model.kind=grouped --set model.width=32 (grouped), --set model.kind=dense --set model.depth=8 and
# --set model.width=32 (dense32) or 48 (dense).
set -euo pipefail
data=${1:-../shared/data/sr/test}
engines="--engine openvino --engine onnxruntime --engine fused"
mkdir -p out
rm -f out/painter-engines.json out/painters.json out/painters-speed.json out/server.json # what is not measured again stays as it stands
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
  kinds=(photo-x4 "$packed/grouped" "$packed/dense32" "$packed/dense")
  limner evaluate "${kinds[@]}" --set "$data/Set5" --set "$data/Set14" --set "$data/BSD100" \
    --engine fused --json out/separable-scores.json
  limner bench "${kinds[@]}" $engines --threads 1 --threads 2 --json out/separable.json
fi
judges=${2:-out/runs/judges} # what runs/judges.sh made
limner evaluate icons --data "$data/../../icons" --judges "$judges" --json out/painters.json
limner bench icons --threads 1 --threads 2 --batch 1 --batch 32 --json out/painters-speed.json
limner bench icons --server local --soak 600 --threads 2 --json out/server.json
python runs/figures.py out README.md README.zh-CN.md
