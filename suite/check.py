"""Does a new method keep its promises? `python -m suite.check FILE …` checks everything that the files register.

python -m suite.check my_method.py                 what the file registers
python -m suite.check --kind KIND [--name NAME]    what is registered already
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from suite import terminal
from suite.errors import SuiteError, UsageError
from suite.storage.files import user_path

if TYPE_CHECKING:
    from suite.contracts.checks import Finding


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(prog="python -m suite.check", description=(__doc__ or "").split("\n")[0])
    command.add_argument("file", nargs="*", help="Python files that register methods, or modules by their names")
    command.add_argument("--kind", help="check what is registered of this kind instead")
    command.add_argument("--name", help="with --kind: only this one")
    command.add_argument("--data-dir", help="where data sets are kept; without it, their files are not read")
    return command


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 0 all promises kept, 1 some broken, 2 usage error."""
    options = parser().parse_args(arguments)
    try:
        return _check(_chosen(options), None if options.data_dir is None else user_path(options.data_dir, "--data-dir"))
    except SuiteError as error:
        print(f"suite.check: {error}", file=sys.stderr)
        return error.status


def _chosen(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Kind and name of every component to check."""
    from suite.registry import REGISTRIES, load_components, load_plugin, suggestion

    def registered() -> list[tuple[str, str]]:
        return [(kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()]

    load_components()
    before = set(registered())
    for file in dict.fromkeys(options.file):
        load_plugin(file, option="")
    if options.file and not options.kind and set(registered()) == before:
        raise UsageError(
            f"{options.file[0]} registers nothing; decorate the class with its kind and a name, as in "
            "@inner_optimizers.register('…')"
        )
    chosen = [component for component in registered() if component not in before]
    if options.kind:
        if options.kind not in REGISTRIES:
            raise UsageError(f"--kind: there is no kind '{options.kind}'; {suggestion(options.kind, list(REGISTRIES))}")
        names = [options.name] if options.name else REGISTRIES[options.kind].names()
        chosen = [(options.kind, name) for name in names]
    if not chosen:
        raise UsageError("nothing to check: name a file that registers a method, or a --kind")
    return chosen


def _check(components: list[tuple[str, str]], data_dir: Path | None) -> int:
    """Check and print; 1 if a promise is broken."""
    from suite.contracts.checks import check

    broken = 0
    for kind, name in components:
        print(f"{kind}.{name}")
        for finding in [*check(kind, name, data_dir), *_name_in_a_tracker(kind, name)]:
            broken += finding.verdict == "broken"
            print(f"  {finding.verdict:7}{finding.promise}{f' ({finding.detail})' if finding.detail else ''}")
    print(f"{broken} broken" if broken else "every promise is kept")
    return 1 if broken else 0


def _name_in_a_tracker(kind: str, name: str) -> "list[Finding]":
    """A note where MLflow does not take the label of a control as it is."""
    from suite.contracts.checks import Finding
    from suite.registry import REGISTRIES
    from suite.tracking.names import accepted

    label = getattr(REGISTRIES[kind][name].build, "label", None)
    if kind != "controls" or not isinstance(label, str) or accepted(label) == label:
        return []
    return [Finding("note", "a tracker is told another name, the record holds its own", accepted(label))]


if __name__ == "__main__":
    sys.exit(main())
