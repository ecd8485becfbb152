"""The C header as pages, one for each of its sections, in its order.

Doxygen has read the comments of the declarations (as XML); titles and introductions of sections,
the conventions at the head and the declarations themselves are taken from the header.
"""

import glob
import os
import re
import textwrap
import xml.etree.ElementTree as ET

FOLDER = "reference/c"
TITLE = re.compile(r"^/\* \d+\. (.+?) +\*/$")
RULE = re.compile(r"^/\* -+ \*/$")


class Member:
    """What the header declares on a line: a function, a constant, a struct, and so on."""

    def __init__(self, element, line):
        self.element, self.line = element, line
        self.kind = element.get("kind")
        self.name = element.findtext("name") or element.findtext("compoundname")


def parsed(xml):
    """All members of the header, by their lines."""
    members = []
    for memberdef in ET.parse(os.path.join(xml, "mla__prefill_8h.xml")).getroot().iter("memberdef"):
        members.append(Member(memberdef, int(memberdef.find("location").get("line"))))
    for path in glob.glob(os.path.join(xml, "struct*.xml")):
        struct = ET.parse(path).getroot().find("compounddef")
        members.append(Member(struct, int(struct.find("location").get("line"))))
    structs = {member.name for member in members if member.kind == "struct"}
    # `typedef struct x {...} x;` is one declaration, the struct's.
    return sorted(
        (m for m in members if not (m.kind == "typedef" and m.name in structs)), key=lambda m: m.line)


def names_of(member):
    yield member.name
    if member.kind == "enum":
        yield from (value.findtext("name") for value in member.element.iter("enumvalue"))


class Section:
    def __init__(self, title, line):
        self.title, self.line = title, line
        words = re.findall(r"\w+", re.split(r"[,:]", title)[0].lower().removeprefix("the "))
        self.page = f"{FOLDER}/{'-'.join(words)}.md"


class Header:
    def __init__(self, path, xml):
        with open(path, encoding="utf-8") as file:
            self.lines = file.read().splitlines()
        self.members = parsed(xml)
        titles = ((number, TITLE.match(line)) for number, line in enumerate(self.lines, 1))
        self.sections = [Section(m[1], number) for number, m in titles if m]
        self.page_of = {
            name: self.section_of(member).page for member in self.members
            if member.line > self.sections[0].line for name in names_of(member) if name[0] != "@"}

    def section_of(self, member):
        return [s for s in self.sections if s.line <= member.line][-1]

    def pages(self):
        """{path: Markdown} of all."""
        made = {f"{FOLDER}/index.md": self.front_page()}
        for section in self.sections:
            parts = [f"# {section.title}\n", self.introduction(section)]
            members = [m for m in self.members
                       if m.line > section.line and self.section_of(m) is section]
            made[section.page] = "\n".join(parts + [self.entry(m) for m in members])
        return made

    def front_page(self):
        head = self.lines[:next(i for i, line in enumerate(self.lines) if line.strip() == "*/")]
        text = "\n".join(line[3:] for line in head)
        conventions = text.split("Conventions\n-----------\n")[1]
        terms = re.split(r"^([A-Z][A-Za-z]+)\. +", conventions, flags=re.M)[1:]
        listed = "\n".join(f"- [{s.title}]({os.path.basename(s.page)})" for s in self.sections)
        rules = "\n\n".join(
            f"{term}\n:   {self.linked(' '.join(rule.split()))}" for term, rule in zip(terms[::2], terms[1::2]))
        return (f"# The C API\n\n[`mla_prefill.h`](../../../../../include/mla_prefill.h) is the whole ABI. Its sections, "
                f"in the order in which an engine calls them:\n\n{listed}\n\n## Conventions\n\n{rules}\n")

    def introduction(self, section):
        """The comments below a section's title that are no declaration's."""
        text, at = [], section.line
        while at < len(self.lines) and (not self.lines[at].strip() or RULE.match(self.lines[at])):
            at += 1
        if at < len(self.lines) and self.lines[at] == "/*":
            while self.lines[at + 1].strip() != "*/":
                at += 1
                text.append(self.lines[at][3:])
        blocks = "\n".join(text).split("\n\n")
        return "\n\n".join(
            f"```\n{textwrap.dedent(block)}\n```" if block.startswith("    ") else self.linked(block) for block in blocks) + "\n"

    def declaration(self, member):
        """As it stands in the header."""
        line, at = self.lines[member.line - 1], member.line
        end = (lambda text: not text.endswith("\\")) if member.kind == "define" else (lambda text: ";" in text)
        text = [line]
        while not end(text[-1]):
            text.append(self.lines[at])
            at += 1
        return "```c\n" + "\n".join(text) + "\n```\n"

    def entry(self, member):
        said = self.text(member.element)
        if member.kind == "enum":
            rows = "\n".join(self.constant(value) for value in member.element.iter("enumvalue"))
            prefix = os.path.commonprefix([v.findtext("name") for v in member.element.iter("enumvalue")])
            heading = f"{prefix[:prefix.rindex('_')]}\\_\\*"
            # MLA_OK beside MLA_ERROR_*.
            heading = "Status codes" if heading == "MLA\\_\\*" else heading
            return f"## {heading}\n\n{said}\n\n| constant | value | |\n|---|---|---|\n{rows}\n"
        heading = f"## {member.name} {{ #{member.name} }}\n"
        if member.kind == "struct":
            fields = "\n".join(self.field(field) for field in member.element.iter("memberdef"))
            return f"{heading}\n{said}\n\n{fields}\n"
        return f"{heading}\n{self.declaration(member)}\n{said}\n"

    def constant(self, value):
        name = value.findtext("name")
        number = (value.findtext("initializer") or "").lstrip("= ").strip()
        said = " ".join(self.text(value).split())
        return f'| <span id="{name}">`{name}`</span> | {number} | {said} |'

    def field(self, field):
        code = f"{''.join(field.find('type').itertext())} {field.findtext('name')}{field.findtext('argsstring') or ''}"
        said = self.text(field).replace("\n", "\n    ")
        return f"- `{' '.join(code.split()).replace('* ', '*')}`" + (f"  \n    {said}" if said else "")

    def text(self, element):
        """The comment on something, as Markdown."""
        paragraphs = []
        for part in ("briefdescription", "detaileddescription"):
            for para in element.find(part) if element.find(part) is not None else ():
                paragraphs += self.blocks(para)
        return "\n\n".join(filter(None, paragraphs))

    def blocks(self, para):
        """A paragraph, cut where code or a list stands in it."""
        line = [self.linked(para.text or "")]
        for child in para:
            if child.tag in ("verbatim", "itemizedlist"):
                yield "".join(line).strip()
                line = []
                yield self.block(child)
            elif child.tag == "computeroutput":
                line.append(self.code("".join(child.itertext())))
            else:
                line.append(self.linked("".join(child.itertext())))
            line.append(self.linked(child.tail or ""))
        yield "".join(line).strip()

    def block(self, child):
        if child.tag == "verbatim":
            return "```\n" + textwrap.dedent(child.text or "").strip("\n") + "\n```"
        items = (" ".join(filter(None, (b for p in item for b in self.blocks(p)))) for item in child)
        return "\n".join(f"- {item}" for item in items)

    def code(self, text):
        name = text.removesuffix("()")
        return f"[`{text}`]({os.path.basename(self.address(name))})" if name in self.page_of else f"`{text}`"

    def address(self, anchor):
        """Where in the site the header says that: a name, "conventions", or "" for all."""
        if anchor in self.page_of:
            return f"{self.page_of[anchor]}#{anchor}"
        return f"{FOLDER}/index.md" + (f"#{anchor}" if anchor else "")

    def linked(self, text):
        """Plain text of a comment: names that are declared become links."""
        parts = re.split(r"(`[^`]*`|\b(?:mla|MLA)_\w+(?:\(\)|\*)?|\bMLA_\*)", text)
        return "".join(
            self.code(part.strip("`")) if re.match(r"`|(mla|MLA)_[\w*]", part) else re.sub(r"([*<\[\]|_])", r"\\\1", part)
            for part in parts)
