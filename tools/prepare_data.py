"""Fetch, verify and cache data sets ahead of a run: `python -m tools.prepare_data NAME... [--data-dir DIR]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

NAMES = ("cifar10", "cifar100", "digits", "fashion_mnist", "mnist", "svhn", "tiny_imagenet")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the data sets named; 0 where all are ready, 1 where one failed, 2 for a name that is none."""
    parser = argparse.ArgumentParser(prog="python -m tools.prepare_data", description=__doc__.split(":")[0] + ".")
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"{', '.join(NAMES)}, or all")
    parser.add_argument("--data-dir", type=Path, help="default: $SUITE_DATA_DIR or ~/.cache/addressable-memory-suite")
    parser.add_argument("--offline", action="store_true", help="use the files that are there and download nothing")
    options = parser.parse_args(arguments)
    names = list(NAMES) if "all" in options.names else options.names

    import suite.datasets  # noqa: F401 (registers the data sets; after parsing, so that --help need not wait for torch)
    from suite.datasets.sources import default_data_dir
    from suite.errors import SuiteError
    from suite.registry import datasets

    data_dir = options.data_dir or default_data_dir()
    status = 0
    try:
        entries = [datasets[name] for name in names]
    except SuiteError as error:
        print(error, file=sys.stderr)
        return error.status
    for entry in entries:
        dataset = entry.build()
        try:
            prepared = dataset.prepare(data_dir, download=not options.offline)
        except SuiteError as error:
            print(error, file=sys.stderr)
            status = error.status
            continue
        info = dataset.info
        print(f"{info.name}: {info.train_size} training and {info.test_size} test images of {info.shape}")
        print(f"  digest {prepared.digest}\n  file   {prepared.file}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
