#!/usr/bin/env bash
# photo-x2, twice the size (separable, 96 channels, 16 blocks). It begins with the trunk of photo-x4, and is widened then.
# Expected on one core with AVX512-BF16 (an EPYC 9004; leave precision out on others): 10 and 30 minutes, then 12 minutes
# of quantization-aware training.
# Expected score (int8, Set5 / Set14 / BSD100): 37.42 / 32.99 / 31.83; the manifest of the bundle holds what `pack` measured.
# The same command resumes. Pictures: photographs whose terms allow commercial use without share-alike.
set -euo pipefail
data=${1:-../shared/data/sr}
limner train photo-x2 --data "$data/train" --out out/runs/photo-x2-narrow --set train.precision=bf16-mixed \
  --set model.width=64 --set train.images=40000 --set train.lr=2e-3 --set train.init=photo-x4
limner train photo-x2 --data "$data/train" --out out/runs/photo-x2 --set train.precision=bf16-mixed \
  --set train.init=out/runs/photo-x2-narrow
limner pack out/runs/photo-x2 --out src/limner/zoo/photo-x2 --data "$data/train" \
  --eval "$data/test/Set5" --eval "$data/test/Set14" --eval "$data/test/BSD100"
