#!/usr/bin/env bash
# icons, trained on from the bundle itself, whose integers are enough: a wider critic, then a few minutes without one, which take
# away the lattice that it leaves; half of both is cleaner and as sharp. From a bundle to a bundle.
#
#     bash runs/icons-on.sh [DATA] [RUNS] [BEGIN]
#
# BEGIN: a bundle's name or folder, or a run. PROCESSES=2: as in runs/icons.sh.
# Expected on two cores of a Zen 3 (no AVX512-BF16; on an EPYC 9004 add train.precision=bf16-mixed), with PROCESSES=2: 10
# minutes of captions and text vectors, 75 of icons-on at 34 pictures/s; icons-settled took 8 of one loaded core. The same
# command resumes.
# What ships stopped icons-on at 128,000 of 150,000 pictures, at lr 1.7e-5, and began it, to 12,800, at lr 4e-4 with a
# critic's of 8e-4.
# Expected scores: those of the README, `limner evaluate icons`.
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
begin=${3:-icons}
mkdir -p "$runs"
common=(--data "$data" --set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite")
common+=(--set pack.alpha_gain=2.5 --set pack.variety=0.1) # settled outlines are softer: they bear more contrast
train=(limner train)
if [ "${PROCESSES:-1}" -gt 1 ]; then train=(torchrun --nproc-per-node "$PROCESSES" -m limner.cli train); fi
limner data caption "$data" --variants 8 --out "$runs/icons-captions.jsonl"
"${train[@]}" icons-vivid --out "$runs/icons-on" "${common[@]}" --set "train.init=$begin" --set train.images=150000 \
  --set train.lr=3e-4 --set adversarial.width=64 --set adversarial.head_start=0.04
"${train[@]}" icons-vivid --out "$runs/icons-settled" "${common[@]}" --set "train.init=$runs/icons-on" \
  --set train.images=9600 --set train.lr=1e-4 --set train.ema=0.99 --set adversarial.weight=0
[ -e "$runs/icons" ] || limner blend "$runs/icons-settled" "$runs/icons-on" --share 0.5 --out "$runs/icons"
limner pack "$runs/icons" --out src/limner/zoo/icons --data "$data"
