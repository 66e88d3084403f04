# SPDX-License-Identifier: MIT
"""``zmlx export``: a model with its adapters merged."""

import argparse


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="zmlx export", description="Merges adapters into their model."
    )
    parser.add_argument("--model", required=True, help="a folder or Hugging Face id")
    parser.add_argument("--adapter-path", required=True)
    parser.add_argument("--output-path", help="by default merged in adapter-path")
    parser.add_argument("--dequantize", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args(argv)
    from zmlx.train.exporting import export

    out = export(
        args.model,
        args.adapter_path,
        args.output_path,
        dequantize=args.dequantize,
        verbose=args.verbose,
    )
    print(f"[zmlx] Exported to {out}")
    return 0
