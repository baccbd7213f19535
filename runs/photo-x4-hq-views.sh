#!/usr/bin/env bash
# photo-x4-hq, trained on once more from what runs/photo-x4-hq-wide.sh made, on many views of every photograph instead of
# a few (runs/views.py): five rounds of two runs side by side on other crops, each round beginning as the mean of the
# weights of the one before; then quantization-aware training that learns from the float network alone.
#
#     bash runs/photo-x4-hq-views.sh PACKAGES [DATA] [RUNS] [BEGIN]
#
# PACKAGES: where the packages of runs/photographs.py were unpacked.
# Expected on two cores of a Zen 3 (no AVX512-BF16): 3 minutes for the views, 18 for each round at 7 to 8 crops/s a core,
# 12 for quantization-aware training. The same command resumes.
# Expected scores: docs/log.md, 2026-11-30; the manifest of the bundle holds what `pack` measured.
# Pictures: photographs and icons whose terms allow commercial use without share-alike.
set -euo pipefail
packages=$1
data=${2:-../shared/data}
runs=${3:-out/runs}
begin=${4:-photo-x4-hq}
pictures="$runs/photos-views"
mkdir -p "$runs"
# Memory on huge pages, and kept: a step frees and asks for a gigabyte.
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=16000000000:glibc.malloc.mmap_max=0:glibc.malloc.top_pad=1000000000

learn() { # NAME BEGIN RATE LAST SEED LEAST
  limner train photo-x4-hq --data "$pictures" --out "$runs/$1" --set "train.init=$2" --set train.images=8000 \
    --set train.seed="$5" --set model.levels=1 --set "loss.alphas=[1.0]" --set train.batch=8 --set train.lr="$3" \
    --set train.lr_final="$4" --set train.warmup=160 --set train.ema=0.998 --set train.checkpoint_every=2000 \
    --set train.threads=1 --set loss.pixel=log_l2 --set loss.l2_share=0 --set loss.least="$6"
}
mean() { # NAME FIRST SECOND SHARE
  [ -e "$runs/$1" ] || limner blend "$2" "$3" --share "$4" --out "$runs/$1"
}
turn() { # NUMBER BEGIN RATE LAST
  learn "photo-x4-hq-$1a" "$2" "$3" "$4" "$1" 1e-4 &
  learn "photo-x4-hq-$1b" "$2" "$3" "$4" "100$1" 1e-3
  wait %1
  mean "photo-x4-hq-$1" "$runs/photo-x4-hq-$1a" "$runs/photo-x4-hq-$1b" 0.5
}

if [ ! -e "$pictures/views/metadata.jsonl" ]; then
  python runs/graphics.py "$data" "$pictures" 240
  python runs/photographs.py "$packages" "$pictures/packages"
  python runs/views.py "$packages" "$data" "$pictures/views"
fi
