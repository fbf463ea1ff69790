"""The site of these pages: `python -m sphinx -W -b html docs site`. Needs the extra `docs` and no network."""

import re

project = "sg3"
author = "The sg3 contributors"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "sg3"
html_show_copyright = False
html_show_sourcelink = False
myst_heading_anchors = 3
myst_enable_extensions = ["html_image"]


def keep_to_the_site(app, docname, source):
    """Links to files outside docs/, which only a checkout has, become their words (a test checks that they exist)."""
    source[0] = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", source[0])


def setup(app):
    app.connect("source-read", keep_to_the_site)
    return {"parallel_read_safe": True}
