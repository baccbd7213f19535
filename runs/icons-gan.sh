#!/usr/bin/env bash
# The baseline: a painter from the adversary and the text match alone. Needs the
# captions and text vectors of runs/icons.sh. Expected on one core of an EPYC 7003: as long as icons-direct is given.
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
common=(--set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite")
limner train icons-match --data "$data" --out "$runs/icons-match" "${common[@]}"
limner train icons-gan --data "$data" --out "$runs/icons-gan" \
  "${common[@]}" \
  --set "match.run=$runs/icons-match" --set match.weight=0.5
limner pack "$runs/icons-gan" --out "$runs/icons-gan-bundle"
