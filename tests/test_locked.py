"""tools/locked.txt, the versions of the tests for those who want the same, agrees with pyproject.toml."""

import re
import tomllib

from command_line import REPOSITORY
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
LINES = [line for line in (REPOSITORY / "tools/locked.txt").read_text().splitlines() if not line.startswith("#")]
ENTRIES = re.split(r"\n(?=\S)", "\n".join(LINES))


def locked() -> dict[str, list[Version]]:
    """Versions by name; a name may have one for each platform or Python."""
    versions: dict[str, list[Version]] = {}
    for entry in ENTRIES:
        requirement = Requirement(entry.split("\\")[0])
        (pin,) = requirement.specifier
        assert pin.operator == "==", entry
        versions.setdefault(requirement.name, []).append(Version(pin.version))
    return versions


def test_every_dependency_is_locked_at_a_version_that_is_allowed() -> None:
    versions = locked()
    assert len(versions) > 50
    for line in PROJECT["dependencies"]:
        wanted = Requirement(line)
        name = wanted.name.lower().replace("_", "-")
        assert name in versions, f"{name} is not in tools/locked.txt: make it anew, by the command in its head"
        assert all(version in wanted.specifier for version in versions[name]), name


def test_every_locked_file_has_its_sum() -> None:
    for entry in ENTRIES:
        first, *files = (line.strip().rstrip("\\").strip() for line in entry.splitlines())
        assert files, f"{first} has no sum"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", file) for file in files), first
