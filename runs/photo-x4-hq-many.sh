#!/usr/bin/env bash
# photo-x4-hq, trained on once more from what runs/photo-x4-hq-views.sh made: four times as many photographs
# (runs/photographs.py knows 372 landscapes of a game and 54 photographs of people, animals and things more), drawings of
# 7,000 things (runs/clipart.py), and rounds of two runs as there.
#
#     bash runs/photo-x4-hq-many.sh PACKAGES [DATA] [RUNS] [BEGIN]
#
# PACKAGES: where the packages of runs/photographs.py and runs/clipart.py were unpacked.
# Expected on two cores of a Zen 3 (no AVX512-BF16): about half an hour for the pictures, 20 minutes for a round of 9,600 crops at 8
# crops/s a core, 20 for quantization-aware training. The same command resumes.
# Expected scores: docs/log.md, 2026-11-30; the manifest of the bundle holds what `pack` measured.
# Pictures: photographs and drawings whose terms allow commercial use without share-alike.
set -euo pipefail
packages=$1
data=${2:-../shared/data}
runs=${3:-out/runs}
begin=${4:-photo-x4-hq}
many="$runs/photos-many" plain="$runs/photos-many-plain"
mkdir -p "$runs"
name=photo-x4-hq-many
. "${BASH_SOURCE%/*}/rounds.sh"

[ -e "$plain/packages/metadata.jsonl" ] || python runs/photographs.py "$packages" "$plain/packages"
[ -e "$plain/graphics/metadata.jsonl" ] || python runs/graphics.py "$data" "$plain" 120
[ -e "$many/views/metadata.jsonl" ] || python runs/views.py "$packages" "$data" "$many/views" 12 12
[ -e "$many/clipart/metadata.jsonl" ] || python runs/clipart.py "$packages" "$many/clipart" 480
[ -e "$many/graphics/metadata.jsonl" ] || python runs/graphics.py "$data" "$many" 560
cp -rn "$plain/packages" "$many/"
# The last round sees more of the pictures as they are, and so more soft ones: fewer drawings, each square of sr/train
# three times.
last="$runs/photos-many-last"
[ -e "$last/graphics/metadata.jsonl" ] || python runs/graphics.py "$data" "$last" 240
[ -e "$last/clipart/metadata.jsonl" ] || python runs/clipart.py "$packages" "$last/clipart" 240
[ -e "$last/views/metadata.jsonl" ] || python runs/views.py "$packages" "$data" "$last/views" 6 14
cp -rn "$plain/packages" "$last/"
for again in again thrice; do cp -rnT "$last/photos" "$last/photos-$again"; done

turn 1 "$begin" "$many" 8000 4e-4 4e-4 "1e-3 1e-3"
turn 2 "$runs/$name-1" "$many" 6400 4.6e-4 4.6e-4 "1e-3 1e-3"
turn 3 "$runs/$name-2" "$many" 9600 4.2e-4 3e-4 "1e-3 1e-3"
turn 4 "$runs/$name-3" "$many" 9600 3e-4 1e-4 "1e-3 1e-3"
turn 5 "$runs/$name-4" "$last" 7200 1e-4 1e-6 "3e-4 3e-4" --set train.ema=0.995
mean "$name" "$begin" "$runs/$name-5" 0.6
[ -e "$plain/clipart/metadata.jsonl" ] || python runs/clipart.py "$packages" "$plain/clipart" 120
limner pack "$runs/$name" --out src/limner/zoo/photo-x4-hq --data "$plain" \
  --set train.multiscale=true --set quantize.distill=1 --set quantize.images=11200 --set train.ema=0.995 \
  --set train.threads=2 \
  --eval "$data/sr/test/Set5" --eval "$data/sr/test/Set14" --eval "$data/sr/test/BSD100"
