"""Looks at the built documentation site as a browser without a network would.

    site.py FOLDER

Whatever a page links to or loads is in the folder, its anchor too, and nothing is loaded from
elsewhere. Links to other sites are listed, not followed.
"""

import os
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urlsplit

#: Attributes by which a page loads what it links to.
LOADS = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = set(), []
        with open(path, encoding="utf-8") as file:
            self.feed(file.read())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (tag, name) == ("a", "name"):
                self.anchors.add(value)
            if (name in ("href", "src")) and value is not None:
                self.links.append((tag, name, value))


def wrong_link(pages, path, tag, name, link):
    """What is wrong with a link of the page `path`; "" where nothing is."""
    address, anchor = urldefrag(link)
    parts = urlsplit(address)
    if parts.scheme in ("data", "mailto"):
        return ""
    if parts.scheme or parts.netloc:
        return "is loaded from elsewhere" if (tag, name) in LOADS else ""
    # Of the page for what is not found, which a server has at any address.
    if address.startswith("/") and os.path.basename(path) == "404.html":
        return ""
    target = os.path.normpath(os.path.join(os.path.dirname(path), unquote(parts.path))) if parts.path else path
    if not os.path.isfile(target):
        return "is not there"
    if anchor and target in pages and unquote(anchor) not in pages[target].anchors:
        return "has no such anchor"
    return ""


def main(folder):
    paths = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name.endswith(".html")]
    pages = {os.path.normpath(path): Page(path) for path in paths}
    failed, count, elsewhere = not pages, 0, set()
    for path, page in sorted(pages.items()):
        for tag, name, link in page.links:
            count += 1
            if urlsplit(link).netloc:
                elsewhere.add(link)
            wrong = wrong_link(pages, path, tag, name, link)
            if wrong:
                failed = True
                print(f"not ok {os.path.relpath(path, folder)}: {link} {wrong}")
    print(f"{'not ok' if failed else 'ok'} {len(pages)} pages, {count} links")
    for link in sorted(elsewhere):
        print(f"elsewhere: {link}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
