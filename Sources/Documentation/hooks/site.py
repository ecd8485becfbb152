"""What the site has beside the files of `pages`: documents that lie elsewhere in the project, the C
header's pages, and every file that any of these link to, so that all links lead somewhere.

Links are those of the files where they lie: they lead there on a forge, too.
"""

import os
import posixpath
import re
import sys

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, os.path.dirname(__file__))
from reference import Header  # noqa: E402

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
PAGES = "Sources/Documentation/pages"
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^][]*\])*)\]\(([^)\s]+)\)")
LANGUAGES = {".swift": "swift", ".h": "c", ".hpp": "cpp", ".c": "c", ".cpp": "cpp", ".cu": "cpp", ".cuh": "cpp",
             ".py": "python", ".sh": "sh", ".cc": "cpp"}
#: A C function in running text.
FUNCTION = re.compile(r"(?<!\[)`(mla_\w+)(\(\))?`")
FENCE = re.compile(r"^(```+).*?^\1$", re.M | re.S)


class Site:
    """Which page of the site a file of the project is, and the other way round."""

    def __init__(self, config, files, header):
        self.header = header
        self.origin = dict(config.extra["included"])
        for file in files.documentation_pages():
            self.origin[file.src_uri] = f"{PAGES}/{file.src_uri}"
        self.page = {path: uri for uri, path in self.origin.items()}


HEADER = "include/mla_prefill.h"
header = site = None


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def outside_code(markdown, change):
    """The Markdown with `change` made to whatever is no block of code."""
    parts, at = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[at:fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, change(markdown[at:])])


def target_of(link, origin):
    """(path in the project, anchor); None for what is no file's."""
    if "://" in link or link.startswith(("#", "mailto:")):
        return None
    path, _, anchor = link.partition("#")
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), path)), anchor


def linked_files(markdown, origin):
    found = []
    outside_code(markdown, lambda text: found.extend(LINK.findall(text)) or text)
    for _, _, link in found:
        target = target_of(link, origin)
        if target and os.path.isfile(os.path.join(ROOT, target[0])):
            yield target[0]


def as_page(path):
    """A file of the project as a page: a block of code, which nobody searches."""
    language = LANGUAGES.get(os.path.splitext(path)[1], "text")
    text = read(path)
    fence = "`" * max(4, *(len(run) + 1 for run in re.findall(r"`+", text)), 4)
    return f"---\nsearch:\n  exclude: true\nhide: [toc]\n---\n# {posixpath.basename(path)}\n\n`{path}`\n\n{fence}{language}\n{text}\n{fence}\n"


def with_index(nav, page):
    """The list of the navigation that has this page."""
    if page in nav:
        return nav
    lists = (entry for item in nav if isinstance(item, dict) for entry in item.values() if isinstance(entry, list))
    return next((found for found in (with_index(entry, page) for entry in lists) if found), None)


def on_config(config):
    global header
    config.mdx_configs["pymdownx.snippets"]["base_path"] = [ROOT]
    header = Header(os.path.join(ROOT, HEADER), os.path.join(ROOT, config.extra["doxygen"]))
    with_index(config.nav, "reference/c/index.md").extend(section.page for section in header.sections)


def on_files(files, config):
    global site
    site = Site(config, files, header)
    pages = header.pages()
    for uri, markdown in pages.items():
        site.origin[uri] = f"{PAGES}/{uri}"
        site.page[f"{PAGES}/{uri}"] = uri
    for uri, path in config.extra["included"].items():
        pages[uri] = read(path)
    texts = {**{uri: read(path) for uri, path in site.origin.items() if uri not in pages}, **pages}
    for uri, markdown in texts.items():
        for path in linked_files(markdown, site.origin[uri]):
            if path in site.page:
                continue
            is_image = path.endswith((".png", ".svg"))
            made = path if path.startswith(PAGES) else f"files/{path}" + ("" if is_image else ".md")
            site.page[path] = made.removeprefix(f"{PAGES}/")
            if is_image and not path.startswith(PAGES):
                with open(os.path.join(ROOT, path), "rb") as image:
                    files.append(File.generated(config, made, content=image.read()))
            elif not is_image:
                pages[made] = as_page(path)
    for uri, markdown in pages.items():
        files.append(File.generated(config, uri, content=markdown))
    return files


def on_page_markdown(markdown, page, config, files):
    uri = page.file.src_uri
    if uri.startswith("files/"):
        return markdown
    origin = site.origin[uri]

    def address(path, anchor):
        """In the site; None for what is no file of it."""
        if path == HEADER and origin.startswith(f"{PAGES}/reference/c/"):
            return site.page[HEADER]
        if path == HEADER:
            return site.header.address(anchor)
        return path in site.page and site.page[path] + (f"#{anchor}" if anchor else "")

    def resolved(match):
        image, text, link = match.groups()
        target = target_of(link, origin)
        if target is None:
            return match[0]
        found = address(*target)
        if found:
            to = posixpath.relpath(found, posixpath.dirname(uri) or ".")
            # A chart is wider than a page: who wants it whole follows it.
            return f"[![{text}]({to})]({to})" if to.endswith(".png") else f"{image}[{text}]({to})"
        if os.path.isdir(os.path.join(ROOT, target[0])):
            return text
        raise PluginError(f"{origin} links to {link}, which is not there")

    def explained(match):
        """A link to what the header says of it, where it is the header's."""
        to = site.header.address(match[1]) if match[1] in site.header.page_of else None
        return f"[{match[0]}]({posixpath.relpath(to, posixpath.dirname(uri) or '.')})" if to else match[0]

    markdown = outside_code(markdown, lambda text: LINK.sub(resolved, text))
    if uri.startswith("reference/c/"):
        return markdown
    return outside_code(markdown, lambda text: FUNCTION.sub(explained, text))
