"""The packages of a wheel; all else of the package is in pyproject.toml.

The gin files lie in `gin/` of the repository. gin-config owns the import name `gin`, so an installation has them inside
`suite`, as `suite/packaged/gin/…`, where `suite.storage.gin_files` finds them.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["suite", "suite.*", "leaderboard"]), "suite.packaged.gin"],
    package_dir={"suite.packaged.gin": "gin"},
)
