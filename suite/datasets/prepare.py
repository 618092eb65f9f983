"""Fetch, verify and cache data sets ahead of a run: `python -m suite.datasets.prepare NAME... [--data-dir DIR]`.

Exit status: 0 all are ready, 1 one failed, 2 a name is none of a data set.
"""

import argparse
import sys
from collections.abc import Sequence

from suite import terminal

NAMES = ("cifar10", "cifar100", "digits", "fashion_mnist", "mnist", "svhn", "tiny_imagenet")
"""The data sets with published files. Spelled out, so that `memory-suite data --help` need not import torch."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(
        prog="python -m suite.datasets.prepare", description="Fetch, verify and cache data sets ahead of a run."
    )
    command.add_argument("names", nargs="+", metavar="NAME", help=f"{', '.join(NAMES)}, or all")
    command.add_argument("--data-dir", help="default: $SUITE_DATA_DIR or ~/.cache/addressable-memory-suite")
    command.add_argument("--offline", action="store_true", help="use the files that are there and download nothing")
    return command


@terminal.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the data sets named; returns the exit status."""
    options = parser().parse_args(arguments)
    names = list(NAMES) if "all" in options.names else options.names

    import suite.datasets  # noqa: F401 (registers the data sets; after parsing, so that --help need not wait for torch)
    from suite.datasets.sources import default_data_dir
    from suite.errors import SuiteError
    from suite.registry import datasets
    from suite.storage.files import user_path

    status = 0
    try:
        data_dir = default_data_dir() if options.data_dir is None else user_path(options.data_dir, "--data-dir")
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
