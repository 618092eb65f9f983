"""What an issue report needs: `python -m suite.doctor`.

It says what is installed, on which devices, which data sets are ready, which optional parts are missing, where runs
and caches are and whether the tracker answers, and tests the hypergradient on this device. It changes nothing and takes
seconds.
Exit status: 0 all is well, 1 something is not, 2 usage error.
"""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite import __version__, terminal
from suite.doctor import installed, places
from suite.errors import SuiteError, report
from suite.runtime.environment import environment
from suite.runtime.signals import end
from suite.storage.files import user_path

if TYPE_CHECKING:
    import torch


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(
        prog="python -m suite.doctor",
        description="Say what is installed and ready here, and test the hypergradient on this device.",
        epilog="Exit status: 0 all is well, 1 something is not, 2 usage error.",
        allow_abbrev=False,
    )
    add = command.add_argument
    add("--device", metavar="D", help="cpu, cuda or cuda:1 (default: a GPU if there is one)")
    add("--data-dir", metavar="D", help="where data sets are kept (default: $SUITE_DATA_DIR, or the user's cache)")
    add("--out", default="runs", metavar="DIR", help="where runs are kept (default: %(default)s)")
    add("--tracking-uri", metavar="U", help="MLflow store or server, or 'none' (default: a database in --out)")
    add("--json", action="store_true", help="print it as JSON")
    return command


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """Look, print, and return the exit status."""
    options = parser().parse_args(arguments)
    try:
        found = _found(options)
    except SuiteError as error:
        report(f"suite.doctor: {error}")
        return error.status
    except KeyboardInterrupt:
        report("suite.doctor: stopped; nothing was changed")
        return 130
    print(json.dumps(found, indent=1) if options.json else text(found))
    return 1 if found["problems"] else 0


def _found(options: argparse.Namespace) -> dict[str, Any]:
    """All that is printed, as plain data. Raises UsageError for an option that names nothing."""
    needs, parts, out = installed.needs(), installed.optional(), user_path(options.out, "--out")
    wrong = [problem for need in needs if (problem := need.problem)]
    found: dict[str, Any] = {
        "suite": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {need.name: need.found for need in needs},
        "missing_parts": {part: command for part, command in parts.items() if command},
    }
    if missing := [need.name for need in needs if need.found is None]:
        return found | {"problems": wrong, "not_looked_at": f"the rest, which needs {', '.join(missing)}"}

    from suite.core.device import prepare_device
    from suite.datasets.sources import default_data_dir
    from suite.doctor.self_test import problems, self_test

    device = prepare_device(options.device)
    data_dir = default_data_dir() if options.data_dir is None else user_path(options.data_dir, "--data-dir")
    here = environment(device)
    tracker = places.tracker(options.tracking_uri, out)
    found |= {
        "code": here["code"],
        "processor": here["processor"],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": here["threads"],
        "devices": devices(device),
        "runs": places.runs(out),
        "data": places.folder(data_dir) | {"cache_mib": round(places.size(data_dir / "cache") / 2**20, 1)},
        "data_sets": data_sets(data_dir),
        "tracker": tracker,
        "self_test": self_test(device),
    }
    wrong += [*places.problems(found["runs"], "--out"), *places.problems(found["data"], "--data-dir")]
    wrong += [*([tracker["problem"]] if tracker["problem"] else []), *problems(found["self_test"])]
    return found | {"problems": list(dict.fromkeys(wrong))}


def devices(used: "torch.device") -> dict[str, Any]:
    """The device that a run takes, every GPU that torch sees, and the versions that they work with."""
    import torch

    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "used": str(used),
        "gpus": [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus],
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpus else None,
    }


def data_sets(data_dir: Path) -> dict[str, bool]:
    """Of every published data set, whether its images are verified and cached."""
    import suite.datasets  # noqa: F401  # registers them
    from suite.datasets.prepare import NAMES
    from suite.registry import datasets

    return {name: datasets[name].build().cached(data_dir) is not None for name in NAMES}


def text(found: dict[str, Any]) -> str:
    """The findings as lines that fit into an issue."""
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in found["packages"].items())
    lines = [("suite", _suite(found)), ("Python", f"{found['python']}, {found['system']}"), ("packages", packages)]
    lines += [("optional", f"{part} is missing: {command}") for part, command in found["missing_parts"].items()]
    lines += _of_the_machine(found) if "devices" in found else [("not looked at", found["not_looked_at"])]
    lines += [("PROBLEM", problem) for problem in found["problems"]] or [("result", "no problem found")]
    return "\n".join(f"{label:13} {words}" for label, words in lines)


def _of_the_machine(found: dict[str, Any]) -> list[tuple[str, str]]:
    runs, data, test, gpus = found["runs"], found["data"], found["self_test"], found["devices"]["gpus"]
    ready = [name for name, there in found["data_sets"].items() if there]
    others = [name for name, there in found["data_sets"].items() if not there]
    prepare = f"python -m suite.datasets.prepare {' '.join(others)} --data-dir {data['place']}"
    errors = ", ".join(f"{error:.0e} from {what}" for what, error in test["errors"].items())
    return [
        ("processor", f"{found['processor']}, {found['cores']} cores, {found['threads']} threads"),
        ("devices", f"{found['devices']['used']} is used; GPUs: {'; '.join(gpus) or 'none'}{_cuda(found['devices'])}"),
        ("data", f"{_folder(data)}, {data['cache_mib']:g} MiB of it cache"),
        ("data sets", f"ready: {', '.join(ready) or 'none'}{f'; for the others: {prepare}' if others else ''}"),
        ("runs", f"{_folder(runs)}; {', '.join(f'{n} {state}' for state, n in runs['states'].items()) or 'no runs'}"),
        ("tracker", f"{found['tracker']['uri']}: {found['tracker']['answer']}"),
        ("self-test", f"hypergradient on {test['device']}, float64: {errors}; {test['seconds']:g} s"),
    ]


def _suite(found: dict[str, Any]) -> str:
    code = found.get("code") or {"commit": None, "changed": None}
    commit = f", commit {code['commit'][:12]}" if code["commit"] else ""
    return f"{found['suite']}{commit}{', with changed files' if code['changed'] else ''}"


def _cuda(devices: dict[str, Any]) -> str:
    return f"; CUDA {devices['cuda']}, cuDNN {devices['cudnn']}" if devices["gpus"] else ""


def _folder(folder: dict[str, Any]) -> str:
    there = f"{folder['mib']:g} MiB" if folder["there"] else "not there yet"
    return f"{folder['place']}: {there}, {folder['free_gib']:g} GiB free"


if __name__ == "__main__":
    end(main())
