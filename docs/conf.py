"""How the documentation site is made: `make docs`, or `sphinx-build -c docs . docs/_build/html` in the checkout.

The root of the sources is the checkout and not docs/, so that the links from pages to measured results, recipes and the
change log are the same on the site as in the repository. Pages are plain Markdown; reference.py fills in those that
are made from the code. Nothing on the site asks anything of the network.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import reference  # noqa: E402  (docs/reference.py)

from electra import __version__  # noqa: E402

project = "electra"
author = "the authors of electra"
copyright = "the authors of electra, Apache-2.0"
version = release = __version__

root_doc = "docs/index"
include_patterns = ["docs/*.md", "benchmarks/README.md", "benchmarks/results/*.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [
    "docs/_build",
    # Environments and runs in a checkout hold tens of thousands of files, which need not be walked through.
    *(entry.name for entry in ROOT.iterdir() if entry.is_dir() and entry.name not in ("docs", "benchmarks")),
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
nitpicky = True

myst_heading_anchors = 4  # as on GitHub, so that page.md#a-heading works on both
smartquotes = False
default_role = "literal"  # docstrings write code as Markdown does
autodoc_typehints = "none"  # the signature is as in the source; types of other projects have no page here
autodoc_preserve_defaults = True
highlight_language = "sh"

html_theme = "furo"
html_title = f"electra {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_extra"]  # index.html, which leads from the top of the site to docs/
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}


def setup(app: Sphinx) -> None:
    """Pages that are made from the code are read anew in every build."""
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, reference.fill(source[0])))
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: reference.PAGES)
