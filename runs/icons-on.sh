#!/usr/bin/env bash
# icons, trained on from the bundle itself, whose integers are enough. Twice the same: a critic, then a few minutes without one,
# which take away the lattice that it leaves, and half of both. The second time captions lie between two (text.mix), which is
# what new prompts are to the painter, and the critic of the first, slower and asked about every place, sees what comes of them.
#
#     bash runs/icons-on.sh [DATA] [RUNS] [BEGIN]
#
# BEGIN: a bundle's name or folder, or a run. PROCESSES=2: as in runs/icons.sh.
# Expected on two cores of a Zen 3 (no AVX512-BF16; on an EPYC 9004 add train.precision=bf16-mixed), with PROCESSES=2: 10
# minutes of captions and text vectors, 75 of icons-on at 34 pictures/s; on one core icons-settled 8, icons-between 25 at 19
# pictures/s and the last 3 at 45. The same command resumes.
# What ships stopped icons-on at 128,000 of 150,000 pictures, at lr 1.7e-5, and began it, to 12,800, at lr 4e-4 with a
# critic's of 8e-4.
# Expected scores: those of the README, `limner evaluate icons`.
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
begin=${3:-icons}
mkdir -p "$runs"
common=(--data "$data" --set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite")
common+=(--set pack.alpha_gain=2.1 --set pack.variety=0.1) # settled outlines are softer: they bear more contrast
train=(limner train)
if [ "${PROCESSES:-1}" -gt 1 ]; then train=(torchrun --nproc-per-node "$PROCESSES" -m limner.cli train); fi
limner data caption "$data" --variants 8 --out "$runs/icons-captions.jsonl"
"${train[@]}" icons-vivid --out "$runs/icons-on" "${common[@]}" --set "train.init=$begin" --set train.images=150000 \
  --set train.lr=3e-4 --set adversarial.width=64 --set adversarial.head_start=0.04
"${train[@]}" icons-vivid --out "$runs/icons-settled" "${common[@]}" --set "train.init=$runs/icons-on" \
  --set train.images=9600 --set train.lr=1e-4 --set train.ema=0.99 --set adversarial.weight=0
half() { [ -e "$3" ] || limner blend "$1" "$2" --share 0.5 --out "$3"; }
half "$runs/icons-settled" "$runs/icons-on" "$runs/icons-half"
between=("${common[@]}" --set text.mix=0.4)
"${train[@]}" icons-vivid --out "$runs/icons-between" "${between[@]}" --set "train.init=$runs/icons-half" \
  --set train.images=28800 --set train.lr=1e-4 --set train.ema=0.995 --set adversarial.weight=0.5 --set adversarial.width=64 \
  --set adversarial.places=true --set "adversarial.init=$runs/icons-on" --set adversarial.lr=3e-4 \
  --set adversarial.lr_final=1e-4 --set adversarial.head_start=0.1 --set adversarial.gamma=1 --set adversarial.penalty_every=4
"${train[@]}" icons-vivid --out "$runs/icons-between-settled" "${between[@]}" --set "train.init=$runs/icons-between" \
  --set train.images=6400 --set train.lr=1e-4 --set train.ema=0.99 --set adversarial.weight=0
half "$runs/icons-between-settled" "$runs/icons-between" "$runs/icons"
limner pack "$runs/icons" --out src/limner/zoo/icons --data "$data"
