#!/usr/bin/env bash
# The ladder of every upscaler of the zoo: float -> folded -> pruned -> int8 on every engine, as Markdown and as JSON.
# $1: test sets. $2: the run folders the bundles were packed from. $3, $4: captioned pictures and the judge, for icons.
# Expected: about 10 minutes on one quiet core of an EPYC 7003, most of it the PSNR of the torch networks.
set -euo pipefail
sets=${1:-../shared/data/sr/test}
runs=${2:-out/runs}
mkdir -p out
limner ladder photo-x4 photo-x4-hq photo-x2 --runs "$runs" --eval "$sets/Set5" --eval "$sets/Set14" \
  --markdown --json out/ladder.json
if [ $# -ge 4 ]; then
  limner ladder icons --data "$3" --judge "$4" --markdown --json out/ladder-icons.json
fi
