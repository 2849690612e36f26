"""A small Sphinx extension: takes out of every page what the book does not use or what its readers cannot use.

Jupyter Book always adds Thebe's scripts, twice, so that every page begins with an error on the console; this book has
no Thebe. And docutils gives bibliographies roles that ARIA does not allow there, so that screen readers lose the list.
"""

ROLES = (' role="list" class="citation-list"', ' class="citation-list"'), (' role="doc-biblioentry"', "")


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
    app.connect("html-page-context", clean, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
