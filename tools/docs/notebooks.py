"""Tutorials: Python files whose cells begin with `# %%`, as pages of the site and as notebooks for Jupyter."""

import json
import re
from typing import Any

MARKDOWN = "markdown"


def cells(text: str) -> list[tuple[str, str]]:
    """Kind ('markdown' or 'code') and text of every cell.

    >>> cells("# %% [markdown]\\n# # A\\n# b\\n\\n# %%\\nx = 1\\n")
    [('markdown', '# A\\nb'), ('code', 'x = 1')]
    """
    found = []
    for head, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", text, re.MULTILINE):
        words = body.strip("\n")
        if "[markdown]" in head:
            found.append((MARKDOWN, "\n".join(re.sub(r"^# ?", "", line) for line in words.split("\n"))))
        else:
            found.append(("code", words))
    return found


def as_page(text: str, name: str) -> str:
    """A tutorial as Markdown, with a link to its notebook below the heading."""
    parts = [words if kind == MARKDOWN else f"```python\n{words}\n```" for kind, words in cells(text)]
    head, _, rest = parts[0].partition("\n")
    return "\n\n".join([head, f"[This page as a notebook]({name}.ipynb)", rest.strip("\n"), *parts[1:]]) + "\n"


def as_notebook(text: str) -> str:
    """A tutorial as Jupyter's JSON (nbformat 4.5), with no outputs."""
    listed: list[dict[str, Any]] = []
    for i, (kind, words) in enumerate(cells(text)):
        cell: dict[str, Any] = {
            "cell_type": kind,
            "id": f"cell-{i}",
            "metadata": {},
            "source": words.splitlines(keepends=True),
        }
        listed.append(cell if kind == MARKDOWN else cell | {"execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": listed, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
