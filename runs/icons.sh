#!/usr/bin/env bash
# icons, the painter of 64 px icons (separable U, 3.0 M parameters), learned from the pictures themselves, with an
# adversary for the last two fifths and a text-picture encoder in the loss.
# Expected on one core of an EPYC 7003, nothing else running: 10 minutes of text vectors, 25 minutes of icons-match,
# about 3 hours of icons-direct. The same command resumes. Scores: the manifest of the bundle holds what `pack` measured.
# Pictures: all but the share-alike sets. Captions and text vectors lie with the runs, and other runs share them.
set -euo pipefail
data=${1:-../shared/data/icons}
runs=${2:-out/runs}
mkdir -p "$runs"
common=(--set "data.captions=$runs/icons-captions.jsonl" --set "text.cache=$runs/text-vectors.sqlite")
limner data caption "$data" --variants 4 --out "$runs/icons-captions.jsonl"
limner train icons-match --data "$data" --out "$runs/icons-match" "${common[@]}"
limner train icons-direct --data "$data" --out "$runs/icons-direct" "${common[@]}" \
  --set "match.run=$runs/icons-match" --set match.weight=0.02 --set match.features=0.2
limner pack "$runs/icons-direct" --out src/limner/zoo/icons
