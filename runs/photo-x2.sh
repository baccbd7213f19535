#!/usr/bin/env bash
# photo-x2, twice the size (the trunk of photo-x4-hq, whose weights it starts from).
# Expected: about 20 minutes on one core of an EPYC 7003, then 15 minutes of quantization-aware training.
# Expected score (int8, Set5 / Set14 / BSD100): 37.16 / 32.84 / 31.76; int8 costs 0.116 dB, hence max_drop. The manifest of the bundle holds what `pack` measured.
# The same command resumes. Pictures: photographs whose terms allow commercial use without share-alike.
set -euo pipefail
data=${1:-../shared/data/sr}
limner train photo-x2 --data "$data/train" --out out/runs/photo-x2 --set train.init=out/runs/photo-x4-hq
limner pack out/runs/photo-x2 --out src/limner/zoo/photo-x2 --data "$data/train" \
  --eval "$data/test/Set5" --eval "$data/test/Set14" --eval "$data/test/BSD100" --set pack.max_drop=0.12
