#!/usr/bin/env bash
# photo-x4-hq, trained on once more from what runs/photo-x4-hq-wide.sh made, on many views of every photograph instead of
# a few (runs/views.py): five rounds of two runs side by side on other crops, each round beginning as the mean of the
# weights of the one before; then quantization-aware training that learns from the float network alone.
#
#     bash runs/photo-x4-hq-views.sh PACKAGES [DATA] [RUNS] [BEGIN]
#
# PACKAGES: where the packages of runs/photographs.py were unpacked; it knew 115 photographs when this ran, and knows 541
# since runs/photo-x4-hq-many.sh, where what ships went on.
# Expected on two cores of a Zen 3 (no AVX512-BF16): 10 minutes for the pictures, 18 for a round of 8,000 crops at 7 to 8
# crops/s a core, 12 for quantization-aware training. The same command resumes.
# Expected scores: docs/log.md, 2026-11-30; the manifest of the bundle holds what `pack` measured.
# Pictures: photographs and icons whose terms allow commercial use without share-alike.
set -euo pipefail
packages=$1
data=${2:-../shared/data}
runs=${3:-out/runs}
begin=${4:-photo-x4-hq}
few="$runs/photos-views" more="$runs/photos-views-560" plain="$runs/photos-plain"
mkdir -p "$runs"
name=photo-x4-hq-turn
. "${BASH_SOURCE%/*}/rounds.sh"

drawn() { # FOLDER COUNT
  [ -e "$1/graphics/metadata.jsonl" ] || python runs/graphics.py "$data" "$1" "$2"
}

[ -e "$more/packages/metadata.jsonl" ] || python runs/photographs.py "$packages" "$more/packages"
[ -e "$more/views/metadata.jsonl" ] || python runs/views.py "$packages" "$data" "$more/views"
drawn "$plain" 120
drawn "$few" 240
drawn "$more" 560
cp -rn "$more/packages" "$plain/"
cp -rn "$more/packages" "$more/views" "$few/"
turn 1 "$begin" "$few" 8000 5e-4 5e-4 "1e-4 1e-3"
turn 2 "$runs/photo-x4-hq-turn-1" "$few" 8000 4.69e-4 4.69e-4 "1e-4 1e-3"
mean photo-x4-hq-turned "$begin" "$runs/photo-x4-hq-turn-2" 0.6
turn 3 "$runs/photo-x4-hq-turned" "$few" 8000 4e-4 2e-4 "1e-4 1e-3"
turn 4 "$runs/photo-x4-hq-turn-3" "$more" 7200 2.5e-4 1e-4 "1e-3 1e-3"
turn 5 "$runs/photo-x4-hq-turn-4" "$more" 4800 1e-4 1e-6 "1e-3 1e-3" --set train.ema=0.995
mean photo-x4-hq-views "$begin" "$runs/photo-x4-hq-turn-5" 0.6
limner pack "$runs/photo-x4-hq-views" --out src/limner/zoo/photo-x4-hq --data "$plain" \
  --set train.multiscale=true --set quantize.distill=1 --set quantize.images=5600 --set train.ema=0.995 \
  --set train.threads=2 \
  --eval "$data/sr/test/Set5" --eval "$data/sr/test/Set14" --eval "$data/sr/test/BSD100"
