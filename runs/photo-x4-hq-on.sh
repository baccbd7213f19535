#!/usr/bin/env bash
# photo-x4-hq, trained on from the bundle itself with drawings beside the photographs (runs/graphics.py). By itself that gains
# on edges what it loses on photographs; the mean of the weights before and after is better than both. Then the
# same again with half of the drawings, at a rate that does not fall, and the mean of all steps.
#
#     bash runs/photo-x4-hq-on.sh [DATA] [RUNS] [BEGIN]
#
# Expected on one core of a Zen 3 (no AVX512-BF16): 2 minutes of drawings, 55 of the first run at 5 crops/s, 40 of the
# second, 30 of quantization-aware training, while the other core was busy. What ships stopped the second run at 11,200 of
# 24,000 crops. The same command resumes.
# What ships went on from there with runs/photo-x4-hq-wide.sh.
# Expected scores: docs/log.md, 2026-11-30; the manifest of the bundle holds what `pack` measured.
# Pictures: photographs and icons whose terms allow commercial use without share-alike.
set -euo pipefail
data=${1:-../shared/data}
runs=${2:-out/runs}
begin=${3:-photo-x4-hq}
mkdir -p "$runs"
common=(--set model.levels=1 --set "loss.alphas=[1.0]" --set train.batch=8 --set train.warmup=320)
common+=(--set train.checkpoint_every=1600)
python runs/graphics.py "$data" "$runs/photos-graphics" 120
limner train photo-x4-hq --data "$runs/photos-graphics" --out "$runs/photo-x4-hq-drawings" "${common[@]}" \
  --set "train.init=$begin" --set train.images=16000 --set train.lr=6e-4 --set train.ema=0.998
[ -e "$runs/photo-x4-hq-half" ] || limner blend "$begin" "$runs/photo-x4-hq-drawings" --share 0.5 --out "$runs/photo-x4-hq-half"
python runs/graphics.py "$data" "$runs/photos-graphics-60" 60
limner train photo-x4-hq --data "$runs/photos-graphics-60" --out "$runs/photo-x4-hq-mean" "${common[@]}" \
  --set "train.init=$runs/photo-x4-hq-half" --set train.images=24000 --set train.lr=4e-4 --set train.lr_final=4e-4 \
  --set train.ema=1 --set train.seed=3
[ -e "$runs/photo-x4-hq" ] || limner blend "$runs/photo-x4-hq-half" "$runs/photo-x4-hq-mean" --share 0.5 --out "$runs/photo-x4-hq"
limner pack "$runs/photo-x4-hq" --out src/limner/zoo/photo-x4-hq --data "$runs/photos-graphics-60" --set train.ema=0.998 \
  --eval "$data/sr/test/Set5" --eval "$data/sr/test/Set14" --eval "$data/sr/test/BSD100"
