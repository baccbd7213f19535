#!/usr/bin/env bash
# photo-x4, the fast photo upscaler (separable, 32 channels, 12 blocks, 19 k parameters).
# Expected: about 75 minutes on one core of an EPYC 7003, then 8 minutes of quantization-aware training.
# Expected score (int8, Set5 / Set14 / BSD100): 30.96 / 27.89 / 27.12; the manifest of the bundle holds what `pack` measured.
# The same command resumes. Pictures: photographs whose terms allow commercial use without share-alike.
set -euo pipefail
data=${1:-../shared/data/sr}
limner train photo-x4 --data "$data/train" --out out/runs/photo-x4
limner pack out/runs/photo-x4 --out src/limner/zoo/photo-x4 --data "$data/train" \
  --eval "$data/test/Set5" --eval "$data/test/Set14" --eval "$data/test/BSD100"
