"""The site of these pages: `python -m sphinx -W -b html docs site`. Needs the extra `docs` and no network."""

import json
import re

project = "sg3"
author = "The sg3 contributors"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
html_theme = "furo"
html_title = "sg3"
html_show_copyright = False
html_show_sourcelink = False
myst_heading_anchors = 3
myst_enable_extensions = ["html_image"]


def keep_to_the_site(app, docname, source):
    """Links to files outside docs/, which only a checkout has, become their words (a test checks that they exist)."""
    if app.env.doc2path(docname).suffix == ".ipynb":
        source[0] = notebook_as_markdown(source[0])
    source[0] = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", source[0])


def notebook_as_markdown(text):
    """A notebook with its results as the page that it shows; nothing is run."""
    parts = []
    for cell in json.loads(text)["cells"]:
        content = "".join(cell["source"])
        parts.append(content if cell["cell_type"] == "markdown" else fenced("python", content))
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                png = "".join("".join(data["image/png"]).split())
                parts.append(f'<img src="data:image/png;base64,{png}" alt="what the cell above shows">')
            else:
                parts.append(fenced("text", "".join(output.get("text") or data["text/plain"]).rstrip()))
    return "\n\n".join(parts)


def fenced(language, text):
    return f"````{language}\n{text}\n````"


def setup(app):
    app.connect("source-read", keep_to_the_site)
    return {"parallel_read_safe": True}
