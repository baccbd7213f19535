#!/usr/bin/env bash
# The baseline: the painter of runs/icons.sh from the adversary and the text match alone. Needs what runs/icons.sh made
# before icons-direct. Expected on one core of an EPYC 7003: as long as icons-direct is given.
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
limner train icons-gan --data "$data" --out "$runs/icons-gan" \
  --set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite" \
  --set "match.run=$runs/icons-match" --set match.weight=0.5
limner pack "$runs/icons-gan" --out "$runs/icons-gan-bundle"
