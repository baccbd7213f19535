#!/usr/bin/env bash
# photo-x4-hq, trained on once more from what runs/photo-x4-hq-on.sh made: wider data and a loss that asks for a mean of
# PSNRs. Five short runs, each from a mean of the weights of those before and on other crops; then
# quantization-aware training that learns from the float network alone.
#
#     bash runs/photo-x4-hq-wide.sh PACKAGES [DATA] [RUNS] [BEGIN]
#
# PACKAGES: where the packages of runs/photographs.py were unpacked (then without those of npm, twentytwentyone and
# twentytwentytwo: 40 photographs in 225 squares).
# What ships went on from there with runs/photo-x4-hq-views.sh.
# Expected on one core of a Zen 3 each (no AVX512-BF16), while the other core was busy: 35, 22, 28, 19 and 15
# minutes at 7 to 8 crops/s; 12 of quantization-aware training on both. The same command resumes.
# Expected scores: docs/log.md, 2026-11-30; the manifest of the bundle holds what `pack` measured.
# Pictures: photographs and icons whose terms allow commercial use without share-alike.
set -euo pipefail
packages=$1
data=${2:-../shared/data}
runs=${3:-out/runs}
begin=${4:-photo-x4-hq}
pictures="$runs/photos-wide"
mkdir -p "$runs"

learn() { # NAME BEGIN IMAGES SEED [SETTINGS...]
  limner train photo-x4-hq --data "$pictures" --out "$runs/$1" --set "train.init=$2" --set train.images="$3" \
    --set train.seed="$4" --set model.levels=1 --set "loss.alphas=[1.0]" --set train.batch=8 --set train.lr=5e-4 \
    --set train.warmup=320 --set train.ema=0.998 --set train.checkpoint_every=1600 "${@:5}"
}
mean() { # NAME FIRST SECOND SHARE
  [ -e "$runs/$1" ] || limner blend "$2" "$3" --share "$4" --out "$runs/$1"
}

python runs/graphics.py "$data" "$pictures" 120
python runs/photographs.py "$packages" "$pictures/packages"
psnr=(--set loss.pixel=log_l2 --set loss.l2_share=0)
learn photo-x4-hq-sizes "$begin" 16000 13 --set train.multiscale=true --set train.lr=6e-4
learn photo-x4-hq-psnr "$begin" 9600 14 "${psnr[@]}"
mean photo-x4-hq-sizes-half "$begin" "$runs/photo-x4-hq-sizes" 0.5
mean photo-x4-hq-psnr-half "$begin" "$runs/photo-x4-hq-psnr" 0.5
mean photo-x4-hq-first "$runs/photo-x4-hq-sizes-half" "$runs/photo-x4-hq-psnr-half" 0.5
learn photo-x4-hq-both "$runs/photo-x4-hq-first" 12800 15 "${psnr[@]}" --set train.multiscale=true
learn photo-x4-hq-again "$runs/photo-x4-hq-first" 8000 16 "${psnr[@]}" --set train.multiscale=true --set train.warmup=200
mean photo-x4-hq-both-half "$runs/photo-x4-hq-first" "$runs/photo-x4-hq-both" 0.5
learn photo-x4-hq-last "$runs/photo-x4-hq-both-half" 7200 17 "${psnr[@]}" --set train.multiscale=true --set train.lr=4e-4
mean photo-x4-hq-second "$runs/photo-x4-hq-both-half" "$runs/photo-x4-hq-again" 0.34
mean photo-x4-hq-wide "$runs/photo-x4-hq-second" "$runs/photo-x4-hq-last" 0.4
limner pack "$runs/photo-x4-hq-wide" --out src/limner/zoo/photo-x4-hq --data "$pictures" \
  --set quantize.distill=1 --set quantize.images=5600 --set train.ema=0.995 --set train.threads=2 \
  --eval "$data/sr/test/Set5" --eval "$data/sr/test/Set14" --eval "$data/sr/test/BSD100"
