#!/usr/bin/env bash
# The ladder of the zoo: float -> folded -> pruned -> int8 on every engine, as Markdown, as JSON, and in the READMEs.
# $1: test sets. $2: the run folders the bundles were packed from. $3: bundles of pruned runs (runs/pruned.sh).
# $4, $5: captioned pictures and the judge, for icons.
# Expected: about 10 minutes on one quiet core of an EPYC 7003, most of it the PSNR of the torch networks.
set -euo pipefail
sets=${1:-../shared/data/sr/test}
runs=${2:-out/runs}
pruned=${3:-out/pruned}
mkdir -p out
limner ladder photo-x4 photo-x4-hq photo-x2 --runs "$runs" --pruned "$pruned" --eval "$sets/Set5" --eval "$sets/Set14" \
  --markdown --json out/ladder.json
if [ $# -ge 5 ]; then
  limner ladder "$pruned/whole/icons" --pruned "$pruned" --data "$4" --judge "$5" --markdown --json out/ladder-icons.json
fi
python runs/figures.py --ladder out README.md README.zh-CN.md
