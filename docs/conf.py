"""How Sphinx builds these pages; tools/docs.py calls it."""

from __future__ import annotations

from nbcontain import __version__

project = "nbcontain"
author = "The nbcontain developers"
release = version = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
# Listings are cells, terminals and error messages: a lexer that cannot read one leaves it as it is.
suppress_warnings = ["misc.highlighting_failure"]
html_theme = "furo"
html_title = "nbcontain"
html_static_path = ["static"]
html_css_files = ["shown.css"]
html_js_files = ["shown.js"]
html_copy_source = False
html_show_copyright = False
