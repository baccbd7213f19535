#!/usr/bin/env bash
# The painter that ships, trained on: from a bundle (its integers; no run folder is needed) to a better bundle.
# First its middle block goes, which was dead (docs/log.md), then a fresh one comes, that begins by passing what it gets.
# Expected, on one core with AVX512-BF16: 60 minutes, after the captions and text vectors of runs/icons.sh.
# What ships began with the bundle of 2026-11-27, the one that runs/icons.sh makes. The same command resumes.
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
begin=${3:-icons} # a bundle's name or folder
mkdir -p "$runs"
common=(--data "$data" --set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite")
common+=(--set train.precision=bf16-mixed)
[ -e "$runs/icons-captions.jsonl" ] || limner data caption "$data" --variants 4 --out "$runs/icons-captions.jsonl"
limner train icons-vivid --out "$runs/icons-bare" "${common[@]}" --set "train.init=$begin" --set painter.middle=0 \
  --set train.images=32 --set adversarial.weight=0
limner train icons-vivid --out "$runs/icons-further" "${common[@]}" --set "train.init=$runs/icons-bare" \
  --set train.images=160000 --set train.lr=3e-4 --set adversarial.weight=1 --set adversarial.lr=4e-4 \
  --set adversarial.start_share=0.06
limner pack "$runs/icons-further" --out src/limner/zoo/icons --data "$data"
