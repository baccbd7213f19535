#!/usr/bin/env bash
# Measures every bundle of the zoo and writes the tables of README.md and README.zh-CN.md. About 8 minutes, 2 idle cores.
set -euo pipefail
data=${1:-../shared/data/sr/test}
mkdir -p out
limner evaluate photo-x4 photo-x4-hq photo-x2 --set "$data/Set5" --set "$data/Set14" --set "$data/BSD100" --engine fused \
  --json out/int8.json
limner evaluate photo-x4 photo-x4-hq photo-x2 --set "$data/Set5" --set "$data/Set14" --set "$data/BSD100" \
  --precision float --json out/float.json
limner bench photo-x4 photo-x4-hq photo-x2 --engine openvino --engine onnxruntime --engine fused --precision int8 \
  --threads 1 --threads 2 --size 160x90 --json out/speed.json
judges=${2:-out/runs/judges} # what runs/judges.sh made
limner evaluate icons --data "$data/../../icons" --judges "$judges" --json out/painters.json
limner bench icons --threads 1 --threads 2 --batch 1 --batch 32 --json out/painters-speed.json
limner bench icons --server local --soak 60 --threads 2 --json out/server.json
python runs/figures.py out README.md README.zh-CN.md
