"""A small Sphinx extension: what every page's head says of the book, and nothing that a page does not use.

Jupyter Book always adds Thebe's scripts, twice, so that every page begins with an error on the console; this book has
no Thebe. And docutils gives bibliographies roles that ARIA does not allow there, so that screen readers lose the list.
"""

import html
import re

ROLES = (' role="list" class="citation-list"', ' class="citation-list"'), (' role="doc-biblioentry"', "")

DESCRIPTION = (
    "How large a learning rate may be, how to find a good one and how to change it: derived, measured over seeds, and "
    "every piece of common advice given a verdict."
)


def describe(app, pagename, templatename, context, doctree) -> None:
    """The social preview; its picture has a full address where html_baseurl tells the book's."""
    picture = context["pathto"]("_static/front/social.jpg", 1)
    if app.config.html_baseurl:
        picture = app.config.html_baseurl.rstrip("/") + "/_static/front/social.jpg"
    title = re.sub("<[^>]*>", "", context.get("title") or "")
    tags = {
        "og:type": "article",
        "og:site_name": app.config.project,
        "og:title": title,
        "og:description": DESCRIPTION,
        "og:image": picture,
    }
    lines = [f'<meta property="{name}" content="{html.escape(value)}" />' for name, value in tags.items()]
    lines += [f'<meta name="description" content="{html.escape(DESCRIPTION)}" />']
    lines += ['<meta name="twitter:card" content="summary_large_image" />']
    context["metatags"] = context.get("metatags", "") + "\n".join(lines)


def clean(app, pagename, templatename, context, doctree) -> None:
    """Change the context of a page just before it is written."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in str(getattr(script, "filename", script)).lower()
        and "THEBE_JS_URL" not in getattr(script, "attributes", {}).get("body", "")
    ]
    for before, after in ROLES:
        context["body"] = context.get("body", "").replace(before, after)


def setup(app) -> dict:
    app.connect("html-page-context", describe)
    app.connect("html-page-context", clean, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
