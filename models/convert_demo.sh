#!/bin/sh
# SPDX-License-Identifier: MIT
# Converts a trained checkpoint to 4 bit with mlx_lm.
set -eu

if [ $# -ne 3 ] || [ "$1" = "--help" ]; then
  echo "usage: $0 CHECKPOINT TOKENIZER OUT"
  echo "  CHECKPOINT  folder that train_demo.py wrote"
  echo "  TOKENIZER   folder that train_tokenizer.py wrote"
  echo "  OUT         folder for the 4-bit model; files in it are replaced"
  [ "${1:-}" = "--help" ] && exit 0
  exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/in"
cp "$1"/*.json "$1"/*.safetensors "$2"/*.json "$work/in"
rm -f "$work/in/training.json"
"${PYTHON:-python3}" -m mlx_lm convert --hf-path "$work/in" \
  --mlx-path "$work/out" -q --q-bits 4 --q-group-size 64
mkdir -p "$3"
# Not the README.md that mlx_lm writes: the model card is our own.
cp "$work"/out/*.json "$work"/out/*.safetensors "$3"
du -h "$3"/*
