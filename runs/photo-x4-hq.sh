#!/usr/bin/env bash
# photo-x4-hq, the better photo upscaler (separable, 64 channels, 16 blocks, 82 k parameters).
# Expected: about 60 minutes on one core of an EPYC 7003, then 6 minutes of quantization-aware training.
# Expected score (int8, Set5 / Set14 / BSD100): 31.17 / 27.96 / 27.20; the manifest of the bundle holds what `pack` measured.
# The same command resumes. Pictures: photographs whose terms allow commercial use without share-alike.
set -euo pipefail
data=${1:-../shared/data/sr}
limner train photo-x4-hq --data "$data/train" --out out/runs/photo-x4-hq
limner pack out/runs/photo-x4-hq --out src/limner/zoo/photo-x4-hq --data "$data/train" \
  --eval "$data/test/Set5" --eval "$data/test/Set14" --eval "$data/test/BSD100"
