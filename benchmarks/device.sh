#!/usr/bin/env bash
# Measure, on a machine with a GPU and no network, in at most nine minutes:
#
#   benchmarks/device.sh               # results, one JSON object a line, go into $OUT/results.jsonl
#   benchmarks/device.sh --rehearse    # the same at a tiny size on the CPU, into $OUT/rehearsal.jsonl
#
# OUT is _build/device-results if not set. benchmarks/device_prepare.sh comes first, on a machine with a network.
# Python is python3, or what PYTHON names: 3.11 or newer with torch, torchvision, numpy, pandas and Pillow. What else is missing
# is installed from _build/device into a folder beside it. Status 1 if a step was skipped, stopped or failed.
set -euo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-_build/device-results}
mkdir -p "$OUT"
"${PYTHON:-python3}" -m benchmarks.device run "$@" 2>&1 | tee "$OUT/log.txt"
