#!/usr/bin/env bash
# photo-x4, the fast photo upscaler (separable, 64 channels, 12 blocks, 63 k parameters).
# Expected on one core with AVX512-BF16 (an EPYC 9004; leave precision out on others): 30 minutes, then 7 minutes of
# quantization-aware training.
# Expected score (int8, Set5 / Set14 / BSD100): 31.20 / 28.00 / 27.23; the manifest of the bundle holds what `pack` measured.
# The same command resumes. Pictures: photographs whose terms allow commercial use without share-alike.
set -euo pipefail
data=${1:-../shared/data/sr}
limner train photo-x4 --data "$data/train" --out out/runs/photo-x4 --set train.precision=bf16-mixed
limner pack out/runs/photo-x4 --out src/limner/zoo/photo-x4 --data "$data/train" \
  --eval "$data/test/Set5" --eval "$data/test/Set14" --eval "$data/test/BSD100"
