"""All commands under one name: `memory-suite COMMAND …`, or `python -m suite COMMAND …`.

    memory-suite run --gin gin/quickstart.gin
    eval "$(memory-suite completion bash)"

Each command is a module with its own `parser()` and `main()`, and `python -m MODULE` does the same as its name here. A
module is imported when its command is given, so that `--help`, `--version` and `completion` start without torch.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from suite import __version__, terminal
from suite.runtime.signals import end

COMMANDS = {
    "run": ("suite.run", "distil data sets into memories, as gin files describe"),
    "sweep": ("suite.sweep.__main__", "do a whole table, every run as a process of its own, here, on Slurm or Ray"),
    "evaluate": ("suite.evaluate", "judge somebody else's distilled set by the suite's protocol"),
    "runs": ("suite.runs", "list runs, go on with them, mark dead ones, delete leftovers"),
    "sync": ("suite.sync", "send to a tracker what it has not received"),
    "check": ("suite.check", "check that a new method keeps the contract of its kind"),
    "memory": ("suite.memory.__main__", "send a memory to others, or fetch one, verified"),
    "data": ("suite.datasets.prepare", "fetch, verify and cache data sets ahead of a run"),
    "doctor": ("suite.doctor.__main__", "say what is installed and ready here, and test this device"),
    "leaderboard build": ("leaderboard.build", "make the leaderboard's pages and tables from result records"),
    "leaderboard serve": ("leaderboard.serve", "show the pages of your runs, built anew as runs finish"),
    "leaderboard collect": ("leaderboard.collect", "copy what is published of finished runs"),
}
"""Of every command: the module that does it, and what it does in one line."""

SHELLS = ("bash", "zsh")


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """Give the arguments that follow a command's name to its module's main(); returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    for size in (1, 2):
        name = " ".join(words[:size])
        if name in COMMANDS:
            status: int = load(COMMANDS[name][0]).main(words[size:])
            return status
    if words[:1] == ["completion"] and words[1:] and words[1] in SHELLS:
        print(completion(words[1]))
    elif words == ["--version"]:
        print(f"memory-suite {__version__}")
    elif words and words[0] in ("-h", "--help"):
        print(usage())
    else:
        print(f"memory-suite: {complaint(words)}", file=sys.stderr)
        return 2
    return 0


def usage() -> str:
    """Every command with its one line."""
    lines = [f"  {name:21}{summary}" for name, (_, summary) in COMMANDS.items()]
    shells = f"  {'completion SHELL':21}print a completion script for {' or '.join(SHELLS)}"
    options = "  -h, --help           show this\n  --version            show the version"
    return "\n".join(
        ["usage: memory-suite COMMAND …", "", *lines, shells, "", options, "", "memory-suite COMMAND --help says more."]
    )


def complaint(words: list[str]) -> str:
    """What is wrong with a command line that names no command."""
    from suite.registry import suggestion

    if words[:1] == ["completion"]:
        return f"completion: name a shell; there are: {', '.join(SHELLS)}"
    known = [*COMMANDS, "completion"]
    if not words:
        return "name a command; there are: " + ", ".join(known)
    name = " ".join(words[:2] if words[0] == "leaderboard" else words[:1])
    return f"there is no command '{name}'; {suggestion(name, known)}"


def load(module: str) -> ModuleType:
    """A command's module, by its file: an import of `suite.datasets.prepare` would load its room, and torch with it."""
    if module in sys.modules:
        return sys.modules[module]
    file = Path(__file__).resolve().parents[1] / (module.replace(".", "/") + ".py")
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None and spec.loader is not None
    sys.modules[module] = loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    package, _, name = module.rpartition(".")
    if package in sys.modules:  # as an import does, so that a later one finds it there
        setattr(sys.modules[package], name, loaded)
    return loaded


# ---------------------------------------------------------------- completion in a shell


def completion(shell: str) -> str:
    """A script for bash or zsh that completes commands, options and known values; anything else, as a file's name."""
    branches = "\n".join(f'        {pattern}) words="{" ".join(words)}" ;;' for pattern, words in branches_of_case())
    zsh = (
        "autoload -U +X compinit && compinit && autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    )
    return f"""# Completion for memory-suite; load it with: eval "$(memory-suite completion {shell})"
{zsh}_memory_suite() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command="${{COMP_WORDS[1]}}" words=""
    if (( COMP_CWORD == 1 )); then command=""; fi
    if (( COMP_CWORD > 2 )) && [[ "$command" == leaderboard ]]; then command="leaderboard ${{COMP_WORDS[2]}}"; fi
    case "$command|$before|$word" in
{branches}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _memory_suite memory-suite"""


def branches_of_case() -> list[tuple[str, list[str]]]:
    """Patterns for 'command|word before|word' and what completes the word; the first that matches counts."""
    firsts = list(dict.fromkeys(name.split()[0] for name in COMMANDS))
    branches = [
        ('"|"*', [*firsts, "completion", "--help", "--version"]),
        ('"completion|"*', list(SHELLS)),
        ('"leaderboard|"*', [name.split()[1] for name in COMMANDS if " " in name]),
    ]
    for name, (module, _) in COMMANDS.items():
        actions = load(module).parser()._actions  # argparse has no public way to ask for them
        values = {option: words_for(name, a) for a in actions if a.nargs != 0 for option in a.option_strings}
        branches += [(f'"{name}|{option}|"*', words) for option, words in values.items()]
        branches.append((f'"{name}|"*"|-"*', [option for a in actions for option in a.option_strings]))
        positional = [word for a in actions if not a.option_strings for word in words_for(name, a)]
        branches.append((f'"{name}|"*', positional))
    return branches


def words_for(command: str, action: argparse.Action) -> list[str]:
    """The values that an argument of a command may take, where they are known."""
    from suite.registry import REGISTRIES
    from suite.storage.gin_files import gin_files

    known = {
        ("run", "gin"): gin_files(),
        ("run", "list"): list(REGISTRIES),
        ("check", "kind"): list(REGISTRIES),
        ("data", "names"): [*load("suite.datasets.prepare").NAMES, "all"],
    }
    return [str(choice) for choice in action.choices or known.get((command, action.dest), [])]


if __name__ == "__main__":
    end(main())
